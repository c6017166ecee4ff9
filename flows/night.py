"""The way of one night: plan, intake, segment, quantify, summarise, publish."""

import getpass
import logging
from collections import Counter
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from prefect_dask.task_runners import DaskTaskRunner

from cmrcore.errors import CmrcoreError
from storage.arrays import remove_stale_temporaries
from storage.errors import RefusedError, StorageError
from storage.quarantine import is_quarantined, quarantine_upload
from storage.tables import recover
from storage.trial import Trial, open_trial
from tasks.fanout import Failure, Fanout
from tasks.intake import intake
from tasks.plan import (
    NightPlan,
    Selection,
    VisitJob,
    plan_night,
    published_visits,
    summary_digests,
    usable_results,
)
from tasks.publish import Publisher
from tasks.quantify import quantify
from tasks.segment import segment
from tasks.stage import StageName, StageResult, VisitRef
from tasks.summarise import summarise

progress = logging.getLogger("cmrtrials.progress")
"""Tells a terminal how far the night is; its records carry ``n_ended`` and ``n_visits``."""

STALE_TEMPORARY_S = 24 * 3600.0
"""Age at which a temporary store cannot belong to a running night any more [s]."""


def run_night(root: str, selection: Selection, why: str) -> State[Any]:
    """Process a trial once and say how it went; called inside of a flow run.

    Returns
    -------
        Failed when a visit failed or was newly refused, with their reasons; else Completed.
    """
    log = get_run_logger()
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        message = "run_night works inside of a Prefect flow run; use `cmrtrials run ROOT`"
        raise RuntimeError(message)
    trial = open_trial(root)
    for repair in recover(trial.root):
        log.warning("repaired what a crash left: %s", repair)
    remove_stale_temporaries(trial.root, STALE_TEMPORARY_S)
    plan = plan_night(trial, selection)
    log.info("plan: %d visits, %d to compute", len(plan.planned), len(plan.jobs))
    publisher = Publisher(
        trial.root, trial.config, plan.planned, str(context.flow_run.id), who=getpass.getuser(), why=why
    )
    runner = context.task_runner
    if not isinstance(runner, DaskTaskRunner):
        message = f"the night needs a DaskTaskRunner, found {type(runner).__name__}"
        raise TypeError(message)
    return Night(trial, plan, publisher, Fanout(runner)).run()


class Night:
    """One night over one trial, while it runs."""

    def __init__(self, trial: Trial, plan: NightPlan, publisher: Publisher, fanout: Fanout) -> None:
        self._trial = trial
        self._plan = plan
        self._publisher = publisher
        self._fanout = fanout
        self._log = get_run_logger()
        self._jobs = {job.visit.label: job for job in plan.jobs}
        self._stages: dict[str, dict[StageName, StageResult]] = {label: {} for label in self._jobs}
        self._open = Counter(job.visit.subject_id for job in plan.jobs)
        self._news: dict[str, str] = {}
        self._planned = {(line.subject_id, line.visit_id): line for line in plan.planned}

    def run(self) -> State[Any]:
        """Settle what needs no work, compute the rest, and judge the night."""
        for stray in self._plan.stray:
            if not is_quarantined(self._trial.root, stray.upload.upload_id):
                self._news[f"upload {stray.upload.upload_id}"] = f"refused: {stray.reason}"
            quarantine_upload(self._trial.root, stray.upload, stray.reason)
            self._log.warning("no planned visit takes %s", stray)
        for visit, planned in self._plan.waiting:
            self._publisher.waiting(visit, planned)
        for job in self._plan.jobs:
            self._fanout.submit(
                (job.visit.label, "intake"),
                intake,
                "CPU",
                job.visit,
                job.uploads,
                self._trial.config.intake,
                job.digests["intake"],
                job.force,
            )
        for subject_id in sorted(self._plan.outdated_subjects - self._open.keys()):
            self._submit_summary(subject_id)
        for (name, stage), outcome in self._fanout:
            if stage == "summarise":
                self._end_summary(name, outcome)
            elif isinstance(outcome, Failure):
                self._fail(self._jobs[name], stage, outcome)
                self._end_visit(self._jobs[name])
            else:
                self._stages[name][stage] = outcome
                self._advance(self._jobs[name], stage)
        return self._verdict()

    def _advance(self, job: VisitJob, stage: StageName) -> None:
        config = self._trial.config
        digests = job.digests
        label = job.visit.label
        if stage == "intake":
            self._fanout.submit(
                (label, "segment"),
                segment,
                "GPU",
                job.visit,
                digests["intake"],
                config.segment,
                digests["segment"],
                job.force,
            )
        elif stage == "segment":
            self._fanout.submit(
                (label, "quantify"),
                quantify,
                "CPU",
                job.visit,
                job.planned,
                digests["segment"],
                config.quantify,
                digests["quantify"],
                job.force,
            )
        else:
            self._end_visit(job)

    def _end_visit(self, job: VisitJob) -> None:
        subject_id = job.visit.subject_id
        self._open[subject_id] -= 1
        n_ended = len(self._jobs) - self._open.total()
        progress.info(job.visit.label, extra={"n_ended": n_ended, "n_visits": len(self._jobs)})
        if self._open[subject_id] == 0:
            self._submit_summary(subject_id)

    def _fail(self, job: VisitJob, stage: str, failure: Failure) -> None:
        state = "refused" if isinstance(failure.error, RefusedError) else "failed"
        reason = describe(failure)
        self._news[job.visit.label] = f"{state}: {reason}"
        self._publisher.failure(job, state, stage, failure.kind, reason)

    def _results(self, subject_id: str) -> dict[str, str]:
        """Give result digests of a subject's visits, computed tonight or published, in order of the plan."""
        planned = [line for line in self._plan.planned if line.subject_id == subject_id]
        published = usable_results(planned, self._plan.published).get(subject_id, {})
        results = {}
        for line in planned:
            label = f"{subject_id}/{line.visit_id}"
            if label in self._jobs and "quantify" in self._stages[label]:
                results[line.visit_id] = self._jobs[label].digests["quantify"]
            elif label not in self._jobs and line.visit_id in published:
                results[line.visit_id] = published[line.visit_id]
        return results

    def _submit_summary(self, subject_id: str) -> None:
        visits = tuple(
            (self._visit(subject_id, visit_id), digest)
            for visit_id, digest in self._results(subject_id).items()
        )
        if visits:
            config = self._trial.config.summarise
            self._fanout.submit((subject_id, "summarise"), summarise, "CPU", subject_id, visits, config)

    def _end_summary(self, subject_id: str, outcome: dict[str, list[dict[str, Any]]] | Failure) -> None:
        digests = summary_digests(self._trial.config, self._results(subject_id))
        for visit_id, digest in digests.items():
            if isinstance(outcome, Failure):
                self._fail_published(subject_id, visit_id, "summarise", outcome)
                continue
            try:
                self._publish(subject_id, visit_id, outcome[visit_id], digest)
            except StorageError as error:
                self._fail_published(subject_id, visit_id, "publish", Failure("error", error))

    def _publish(
        self, subject_id: str, visit_id: str, longitudinal: list[dict[str, Any]], digest: str
    ) -> None:
        job = self._jobs.get(f"{subject_id}/{visit_id}")
        if job is not None:
            self._publisher.result(job, self._stages[job.visit.label], longitudinal, digest)
            return
        key = (subject_id, visit_id)
        visit, planned, row = self._visit(*key), self._planned[key], self._plan.published[key]
        self._publisher.summary(visit, planned, row, longitudinal, digest)

    def _fail_published(self, subject_id: str, visit_id: str, stage: str, failure: Failure) -> None:
        """Record a failure after quantification; a result that was published before tonight stands."""
        label = f"{subject_id}/{visit_id}"
        if label in self._jobs:
            self._fail(self._jobs[label], stage, failure)
        else:
            self._news[label] = f"keeps its result, {stage} failed: {describe(failure)}"

    def _visit(self, subject_id: str, visit_id: str) -> VisitRef:
        site_id = self._planned[subject_id, visit_id].site_id
        return VisitRef(str(self._trial.root), subject_id, visit_id, site_id)

    def _verdict(self) -> State[Any]:
        rows = published_visits(self._trial.root)
        counts = Counter(row["state"] for row in rows.values())
        tally = f"{len(rows)} visits: " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
        if self._plan.stray:
            tally += f"; uploads that no planned visit takes: {'; '.join(map(str, self._plan.stray))}"
        if self._plan.n_arriving:
            tally += f"; uploads still arriving: {self._plan.n_arriving}"
        for (subject_id, visit_id), row in rows.items():
            label = f"{subject_id}/{visit_id}"
            if row["state"] in {"failed", "refused"} and label not in self._news:
                self._log.info("still %s: %s: %s", row["state"], label, row["reason"])
        if self._news:
            listed = "; ".join(f"{label} {reason}" for label, reason in sorted(self._news.items()))
            return Failed(message=f"failed or refused tonight: {listed} ({tally})")
        return Completed(message=tally)


def describe(failure: Failure) -> str:
    """Say why a task run failed, without paths: their names may be a patient's."""
    error = failure.error
    if failure.kind == "crashed":
        return f"the worker died ({type(error).__name__}); the next night tries again"
    if isinstance(error, StorageError | CmrcoreError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: {error}"
