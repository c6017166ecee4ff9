"""The way of one night: plan, intake, segment, quantify, summarise, publish."""

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from prefect_dask.task_runners import DaskTaskRunner

from cmrcore.quantify.repeatability import Coefficients
from flows.artifacts import NightArtifacts
from flows.lending import Lending
from flows.preflight import check_ready
from flows.reconcile import crash_dead_runs, keep_marked
from flows.site import site_settings
from flows.user import current_user
from storage.array_objects import remove_unfinished
from storage.arrays import ARRAYS, store_exists
from storage.errors import RefusedError
from storage.leftovers import remove_leftovers
from storage.lock import night_underway
from storage.plan import PlannedVisit
from storage.quarantine import is_quarantined, quarantine_upload
from storage.running import marked_running
from storage.tables import recover
from storage.trial import Trial, open_trial
from tasks.canonical import canonical_line
from tasks.digests import retests_digest, summary_digests
from tasks.failure import describe, may_pass
from tasks.fanout import Failure, Fanout
from tasks.intake import intake
from tasks.matching import VisitKey
from tasks.plan import NightPlan, Selection, VisitJob, plan_night
from tasks.publish import Publisher
from tasks.published import RetestPair, published_visits, retest_pairs, usable_results
from tasks.quantify import quantify
from tasks.report.task import report
from tasks.report.trial_page import RESULTS_PAGE, write_trial_page
from tasks.report.visit_failed import record_pages
from tasks.report.visit_page import outdated_pages
from tasks.segment import segment
from tasks.stage import StageName, StageResult, VisitRef
from tasks.summarise import repeatability, stated_repeatability, summarise
from tasks.weights import needed_weights

progress = logging.getLogger("cmrtrials.progress")
"""Tells a terminal how far the night is; its records carry ``n_ended`` and ``n_in_all``."""

PAGE_LIMIT_S = 120.0
"""Time that a visit's page may take, which takes a second [s]."""

NEWS = "failed or refused tonight: "
"""How the message of a night begins in which something new went wrong."""


def run_night(root: str, selection: Selection, why: str) -> State[Any]:
    """Process a trial once and say how it went; called inside of a flow run.

    Returns
    -------
        Failed when a visit failed or an upload was newly refused, with the reasons; else Completed.
    """
    run_id, runner = this_run()
    trial = open_trial(root)
    check_ready(trial.root, site_settings())
    with night_underway(trial.root), ExitStack() as held:
        if isinstance(trial.root, Path):
            keep_marked(trial.root, run_id)
        else:  # where a mark without the lease of a night is that of a dead one
            held.enter_context(marked_running(trial.root, run_id))
        crash_dead_runs(trial.root, get_run_logger())
        return _run_marked(trial, selection, why, run_id, runner)


def this_run() -> tuple[str, DaskTaskRunner]:
    """Give id and task runner of the flow run that this is called in."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        message = "a night works inside of a Prefect flow run; use `cmrtrials run ROOT`"
        raise RuntimeError(message)
    runner = context.task_runner
    if not isinstance(runner, DaskTaskRunner):
        message = f"a night needs a DaskTaskRunner, found {type(runner).__name__}"
        raise TypeError(message)
    return str(context.flow_run.id), runner


def _run_marked(
    trial: Trial, selection: Selection, why: str, run_id: str, runner: DaskTaskRunner
) -> State[Any]:
    """Repair what was left, plan, and process."""
    log = get_run_logger()
    needed_weights(trial.root, trial.config.segment)  # without them every segmentation would fail
    for repair in recover(trial.root):
        log.warning("repaired what a crash left: %s", repair)
    if not isinstance(trial.root, Path):
        n_leftovers = remove_unfinished(trial.root / ARRAYS)  # who has the lease is alone
    else:
        n_leftovers = remove_leftovers(trial.root)
    if n_leftovers:
        log.warning("removed temporary files and folders that killed writers left: %d", n_leftovers)
    plan = plan_night(trial, selection)
    log.info("plan: %d visits, %d to compute", len(plan.recorded), len(plan.jobs))
    publisher = Publisher(
        root=trial.root,
        config=trial.config,
        matching=plan.matching,
        run_id=run_id,
        who=current_user(),
        why=why,
    )
    site = site_settings()
    artifacts = NightArtifacts(trial, site.reports_url)
    return Night(trial, plan, publisher, Fanout(runner), site.visit_minutes * 60, artifacts).run()


class Night:
    """One night over one trial, while it runs."""

    def __init__(
        self,
        trial: Trial,
        plan: NightPlan,
        publisher: Publisher,
        fanout: Fanout,
        visit_limit_s: float,
        artifacts: NightArtifacts | None = None,
    ) -> None:
        self._trial = trial
        self._plan = plan
        self._publisher = publisher
        self._fanout = fanout
        self._visit_limit_s = visit_limit_s
        self._artifacts = artifacts
        self._log = get_run_logger()
        self._open = Counter(job.visit.subject_id for job in plan.jobs)
        self._n_ended = 0
        self._news: dict[str, str] = {}
        self._stale_summaries: dict[str, str] = {}
        self._missing_pages: dict[str, str] = {}
        self._retests: tuple[RetestPair, ...] = plan.retests
        self._retests_digest = retests_digest(plan.retests)
        self._coefficients = stated_repeatability(trial.config.summarise)
        self._planned = {(line.subject_id, line.visit_id): line for line in plan.recorded}
        self._visits_of: dict[str, list[PlannedVisit]] = {}
        for line in sorted(plan.recorded, key=lambda line: line.visit_date):
            self._visits_of.setdefault(line.subject_id, []).append(line)
        self._lending = Lending(plan.jobs, self._visits_of, plan.standing)
        self._jobs = self._lending.jobs
        self._stages: dict[str, dict[StageName, StageResult]] = {label: {} for label in self._jobs}

    def run(self) -> State[Any]:
        """Settle what needs no work, compute the rest, and judge the night."""
        for stray in self._plan.stray:
            self._log.warning("no planned visit takes %s", stray)
            if stray.is_old:
                continue
            if not is_quarantined(self._trial.root, stray.upload.upload_id):
                self._news[f"upload {stray.upload.upload_id}"] = f"refused: {stray.reason}"
                self._publisher.stray(stray)
            quarantine_upload(
                self._trial.root, stray.upload, stray.reason, judged_by=stray.judged_by, found=stray.found
            )
        for waiting in self._plan.waiting:
            self._publisher.waiting(waiting)
        for visit, recorded in self._plan.corrected:
            row = self._plan.published.get((visit.subject_id, visit.visit_id))
            if row is not None and visit.label not in self._jobs:
                self._publisher.correction(visit, recorded, row)
        if self._artifacts is not None:
            self._artifacts.begin(len(self._jobs))
        try:
            self._compute()
            published = published_visits(self._trial.root)
            self._make_pages(published)
        except BaseException:  # stopped in the UI, Ctrl-C, or a defect: nothing may go on without the night
            self._fanout.abandon()
            raise
        return self._verdict(published)

    def _compute(self) -> None:
        """Send what is to compute, and publish as it ends."""
        for job in self._plan.jobs:
            self._fanout.submit(
                (job.visit.label, "intake"),
                intake,
                "CPU",
                job.visit,
                job.planned,
                job.uploads,
                self._trial.config.intake,
                self._trial.config.privacy,
                self._plan.key_name,
                job.digests["intake"],
                job.force,
                limit_s=self._left_s(job),
            )
        if self._plan.outdated_subjects and not self._open:
            self._submit_repeatability()
        elif not self._trial.config.summarise.retest_visits:
            for subject_id in sorted(self._plan.outdated_subjects - self._open.keys()):
                self._submit_summary(subject_id)
        for (name, stage), outcome in self._fanout:
            if stage != "repeatability":
                self._say_ended(name, stage, outcome)
            if stage == "summarise":
                self._end_summary(name, outcome)
            elif stage == "repeatability":
                self._end_repeatability(outcome)
            elif isinstance(outcome, Failure):
                self._fail(self._jobs[name], stage, outcome)
                if stage != "quantify":
                    self._end_guides(self._jobs[name], is_segmented=False)
                self._end_visit(self._jobs[name])
            else:
                self._stages[name][stage] = outcome
                self._advance(self._jobs[name], stage)

    def _say_ended(self, name: str, stage: str, outcome: object) -> None:
        """Log the canonical line of a stage, failed ones too, which no worker may have lived to tell."""
        subject_id, _, visit_id = name.partition("/")
        result = outcome if isinstance(outcome, StageResult) else None
        state = "stored" if result is not None and result.seconds is None else "executed"
        if isinstance(outcome, Failure):
            refused = isinstance(outcome.error, RefusedError)
            state = "refused" if refused else {"error": "failed"}.get(outcome.kind, outcome.kind)
        line = canonical_line(
            trial=self._trial.config.trial_id,
            subject=subject_id,
            visit=visit_id or None,
            stage=stage,
            state=state,
            run=self._publisher.run_id,
            seconds=None if result is None else result.seconds,
            peak_memory_mib=None if result is None else result.peak_memory_mib,
            device=None if result is None else result.device,
        )
        self._log.info("%s", line)

    def _advance(self, job: VisitJob, stage: StageName) -> None:
        config = self._trial.config
        digests = job.digests
        label = job.visit.label
        if stage == "intake":
            ready = self._lending.ask(label)
            if ready is not None:
                self._submit_segment(ready)
        elif stage == "segment":
            self._end_guides(job, is_segmented=True)
            self._fanout.submit(
                (label, "quantify"),
                quantify,
                "CPU",
                job.visit,
                job.recorded,
                digests["segment"],
                config.quantify,
                config.align,
                digests["quantify"],
                job.force,
                job.reviewed,
                limit_s=self._left_s(job),
            )
        else:
            self._end_visit(job)

    def _submit_segment(self, job: VisitJob) -> None:
        self._fanout.submit(
            (job.visit.label, "segment"),
            segment,
            "GPU",
            job.visit,
            job.digests["intake"],
            self._trial.config.segment,
            job.digests["segment"],
            job.force,
            job.guide_source,
            limit_s=self._left_s(job),
        )

    def _end_guides(self, job: VisitJob, *, is_segmented: bool) -> None:
        """Let those go on that wait for a visit's guides; a rerun that failed leaves those that stand."""
        visit, digest = job.visit, job.digests["segment"]
        has_guides = is_segmented or store_exists(visit.path, visit.subject_id, visit.visit_id, digest)
        for ready in self._lending.settle(visit.label, has_guides=has_guides):
            self._submit_segment(ready)

    def _left_s(self, job: VisitJob) -> float:
        """Time that a visit's next stage may take [s]."""
        spent = sum(result.seconds or 0.0 for result in self._stages[job.visit.label].values())
        return max(self._visit_limit_s - spent, 1.0)

    def _end_visit(self, job: VisitJob) -> None:
        subject_id = job.visit.subject_id
        self._open[subject_id] -= 1
        self._n_ended += 1
        progress.info(job.visit.label, extra={"n_ended": self._n_ended, "n_in_all": len(self._jobs)})
        if self._artifacts is not None:
            self._artifacts.advance(self._n_ended, len(self._jobs))
        if not self._trial.config.summarise.retest_visits:
            if self._open[subject_id] == 0:
                self._submit_summary(subject_id)
        elif self._n_ended == len(self._jobs):
            self._submit_repeatability()

    def _fail(self, job: VisitJob, stage: str, failure: Failure) -> None:
        label, reason = job.visit.label, describe(failure)
        row = self._plan.published.get((job.visit.subject_id, job.visit.visit_id))
        if row is not None and row["result_digest"] == job.digests["quantify"]:
            # A rerun that fails where the same inputs once gave a result says nothing against that result.
            self._news[label] = f"keeps its result, {stage} failed: {reason}"
            return
        state = "refused" if isinstance(failure.error, RefusedError) else "failed"
        self._news[label] = f"{state}: {reason}"
        kind = "passing" if may_pass(failure) else "error"
        self._publisher.failure(job, state, stage, kind, reason)

    def _results(self, subject_id: str) -> dict[str, str]:
        """Give result digests of a subject's visits, computed tonight or published, in order of dates."""
        planned = self._visits_of[subject_id]
        published = usable_results(planned, self._plan.published).get(subject_id, {})
        results = {}
        for line in planned:
            label = f"{subject_id}/{line.visit_id}"
            job, stands = self._jobs.get(label), published.get(line.visit_id)
            if job is not None and self._is_computed(label):
                results[line.visit_id] = job.digests["quantify"]
            elif stands is not None and (job is None or stands == job.digests["quantify"]):
                # Not run tonight, or run again in vain: what is published stands.
                results[line.visit_id] = stands
        return results

    def _is_computed(self, label: str) -> bool:
        return "quantify" in self._stages.get(label, {})

    def _submit_repeatability(self) -> None:
        """Compute what all summaries rest on; where it comes from retests, they wait for every visit."""
        results = {subject_id: self._results(subject_id) for subject_id in self._visits_of}
        self._retests = retest_pairs(self._trial.config, results)
        self._retests_digest = retests_digest(self._retests)
        if not self._retests:
            self._end_repeatability(self._coefficients)
            return
        pairs = tuple(
            tuple((self._visit(subject_id, visit_id), digest) for subject_id, visit_id, digest in pair)
            for pair in self._retests
        )
        key = (self._trial.config.trial_id, "repeatability")
        self._fanout.submit(
            key, repeatability, "CPU", self._trial.config.summarise, pairs, limit_s=self._visit_limit_s
        )

    def _end_repeatability(self, outcome: Coefficients | Failure) -> None:
        """Summarise whom tonight's results or another repeatability have made outdated."""
        renewed = self._plan.outdated_subjects | self._open.keys()
        for subject_id in sorted(renewed if self._retests == self._plan.retests else self._visits_of):
            if isinstance(outcome, Failure):
                self._end_summary(subject_id, outcome)
            else:
                self._coefficients = outcome
                self._submit_summary(subject_id)

    def _submit_summary(self, subject_id: str) -> None:
        visits = tuple(
            (self._visit(subject_id, visit_id), digest)
            for visit_id, digest in self._results(subject_id).items()
        )
        if visits:
            config = self._trial.config.summarise
            self._fanout.submit(
                (subject_id, "summarise"),
                summarise,
                "CPU",
                subject_id,
                visits,
                config,
                self._coefficients,
                limit_s=self._visit_limit_s,
            )

    def _end_summary(self, subject_id: str, outcome: dict[str, list[dict[str, Any]]] | Failure) -> None:
        digests = summary_digests(self._trial.config, self._results(subject_id), self._retests_digest)
        for visit_id, digest in digests.items():
            label = f"{subject_id}/{visit_id}"
            try:
                if self._is_computed(label):
                    self._publish_result(self._jobs[label], outcome, digest)
                elif isinstance(outcome, Failure):
                    self._stale_summaries[label] = describe(outcome)
                else:
                    key = (subject_id, visit_id)
                    visit, planned, row = self._visit(*key), self._planned[key], self._plan.published[key]
                    self._publisher.summary(visit, planned, row, outcome[visit_id], digest)
            except Exception as error:  # noqa: BLE001 (here an outcome is recorded, so that others go on)
                failure = Failure("error", error)
                if self._is_computed(label):
                    self._fail(self._jobs[label], "publish", failure)
                else:
                    self._stale_summaries[label] = describe(failure)

    def _publish_result(
        self, job: VisitJob, summary: dict[str, list[dict[str, Any]]] | Failure, digest: str
    ) -> None:
        stages = self._stages[job.visit.label]
        if isinstance(summary, Failure):
            reason = describe(summary)
            self._news[job.visit.label] = f"summary failed: {reason}"
            # Without a digest the next night summarises again; what would fail again waits for a change.
            kept = None if may_pass(summary) else digest
            self._publisher.result(job, stages, [], kept, summary_failure=reason)
        else:
            self._publisher.result(job, stages, summary[job.visit.visit_id], digest)

    def _visit(self, subject_id: str, visit_id: str) -> VisitRef:
        site_id = self._planned[subject_id, visit_id].site_id
        return VisitRef(str(self._trial.root), subject_id, visit_id, site_id)

    def _make_pages(self, published: Mapping[VisitKey, Mapping[str, Any]]) -> None:
        """Make the pages that no longer show what is published; one that fails is told and fails no visit."""
        made: set[VisitKey] = set()
        failed: dict[VisitKey, str] = {}
        try:
            for subject_id, visit_id in outdated_pages(self._trial.root, published):
                key, root = (subject_id, visit_id), str(self._trial.root)
                self._fanout.submit(key, report, "CPU", root, subject_id, visit_id, limit_s=PAGE_LIMIT_S)
            for key, outcome in self._fanout:
                if isinstance(outcome, Failure):
                    failed[key] = describe(outcome)
                else:
                    made.add(key)
            record_pages(self._trial, made, failed)
            # A night without news changes no file.
            if made or failed or not (self._trial.root / RESULTS_PAGE).exists():
                write_trial_page(self._trial)
        except Exception as error:  # noqa: BLE001 (results are published: no page may undo a night)
            self._missing_pages["pages"] = describe(Failure("error", error))
        self._missing_pages |= {"/".join(key): why for key, why in failed.items()}

    def _verdict(self, rows: Mapping[VisitKey, Mapping[str, Any]]) -> State[Any]:
        counts = Counter(row["state"] for key, row in rows.items() if key in self._planned)
        tally = f"{len(self._planned)} visits: "
        tally += ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
        unplanned = [f"{subject}/{visit}" for subject, visit in rows if (subject, visit) not in self._planned]
        for what, which in {
            "uploads that no planned visit takes": [str(stray) for stray in self._plan.stray],
            "uploads still arriving": [str(len(self._plan.arriving))] if self._plan.arriving else [],
            "asked for, but without an upload": self._plan.idle,
            "results of an older plan, trial.toml or review, as their uploads are gone": self._plan.outdated,
            "published, but no longer planned": unplanned,
            "summary not renewed": [f"{label}: {why}" for label, why in self._stale_summaries.items()],
            "page not made": [f"{label}: {why}" for label, why in self._missing_pages.items()],
        }.items():
            if which:
                tally += f"; {what}: {', '.join(which)}"
        for (subject_id, visit_id), row in rows.items():
            label = f"{subject_id}/{visit_id}"
            if row["state"] in {"failed", "refused"} and label not in self._news:
                self._log.info("still %s: %s: %s", row["state"], label, row["reason"])
        if self._artifacts is not None:
            self._artifacts.end(self._plan.recorded, rows, self._news, tally)
        if self._news:
            listed = "; ".join(f"{label} {reason}" for label, reason in sorted(self._news.items()))
            return Failed(message=f"{NEWS}{listed} ({tally})")
        return Completed(message=tally)
