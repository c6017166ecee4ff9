"""The way of one night: plan, intake, segment, quantify, summarise, publish."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect_dask.task_runners import DaskTaskRunner

from flows.artifacts import NightArtifacts
from flows.lending import Lending
from flows.night_pages import make_outdated_pages
from flows.outcomes import Outcomes, Summary
from flows.preflight import check_ready
from flows.reconcile import crash_dead_runs, keep_marked
from flows.results import Results
from flows.site import site_settings
from flows.summaries import Summaries
from flows.user import current_user
from flows.verdict import tally, verdict
from storage.array_objects import remove_unfinished
from storage.arrays import ARRAYS, store_exists
from storage.leftovers import remove_leftovers
from storage.lock import night_underway
from storage.plan import by_subject
from storage.running import marked_running
from storage.tables import recover
from storage.trial import Trial, open_trial
from tasks.fanout import Failure, Fanout
from tasks.intake import intake
from tasks.matching import VisitKey
from tasks.plan import NightPlan, Selection, VisitJob, plan_night
from tasks.publish import Publisher
from tasks.published import published_visits
from tasks.quantify import quantify
from tasks.segment import segment
from tasks.stage import StageName
from tasks.weights import needed_weights

progress = logging.getLogger("cmrtrials.progress")
"""Tells a terminal how far the night is; its records carry ``n_ended`` and ``n_in_all``."""


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
    """One night over one trial, while it runs: which task runs are submitted, and what follows their ends."""

    def __init__(
        self,
        trial: Trial,
        plan: NightPlan,
        publisher: Publisher,
        fanout: Fanout,
        visit_limit_s: float,
        artifacts: NightArtifacts | None = None,
    ) -> None:
        visits_of = by_subject(sorted(plan.recorded, key=lambda line: line.visit_date))
        self._trial = trial
        self._plan = plan
        self._fanout = fanout
        self._visit_limit_s = visit_limit_s
        self._artifacts = artifacts
        self._lending = Lending(plan.jobs, visits_of, plan.standing)
        self._jobs = self._lending.jobs
        self._results = Results(trial.root, self._jobs, visits_of, plan.published)
        self._summaries = Summaries(trial, plan, self._results, fanout, visit_limit_s)
        self._outcomes = Outcomes(trial, plan, self._jobs, self._results, publisher)
        self._n_ended = 0

    def run(self) -> State[Any]:
        """Settle what needs no work, compute the rest, and judge the night."""
        self._outcomes.publish_settled()
        if self._artifacts is not None:
            self._artifacts.begin(len(self._jobs))
        try:
            self._compute()
            published = published_visits(self._trial.root)
            missing_pages = make_outdated_pages(self._trial, self._fanout, published)
        except BaseException:  # stopped in the UI, Ctrl-C, or a defect: nothing may go on without the night
            self._fanout.abandon()
            raise
        return self._verdict(published, missing_pages)

    def _compute(self) -> None:
        """Send what is to compute, and publish as it ends."""
        for job in self._plan.jobs:
            self._submit_intake(job)
        self._summaries.begin()
        for (name, stage), outcome in self._fanout:
            if stage == "repeatability":
                for subject_id in self._summaries.end_repeatability(outcome):
                    self._end_summary(subject_id, outcome)
                continue
            self._outcomes.log_stage(name, stage, outcome)
            if stage == "summarise":
                self._end_summary(name, outcome)
            elif isinstance(outcome, Failure):
                self._outcomes.fail(self._jobs[name], stage, outcome)
                if stage != "quantify":
                    self._end_guides(self._jobs[name], is_segmented=False)
                self._end_visit(self._jobs[name])
            else:
                self._results.add(name, stage, outcome)
                self._advance(self._jobs[name], stage)

    def _advance(self, job: VisitJob, stage: StageName) -> None:
        if stage == "intake":
            ready = self._lending.ask(job.visit.label)
            if ready is not None:
                self._submit_segment(ready)
        elif stage == "segment":
            self._end_guides(job, is_segmented=True)
            self._submit_quantify(job)
        else:
            self._end_visit(job)

    def _submit_intake(self, job: VisitJob) -> None:
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

    def _submit_quantify(self, job: VisitJob) -> None:
        self._fanout.submit(
            (job.visit.label, "quantify"),
            quantify,
            "CPU",
            job.visit,
            job.recorded,
            job.digests["segment"],
            self._trial.config.quantify,
            self._trial.config.align,
            job.digests["quantify"],
            job.force,
            job.reviewed,
            limit_s=self._left_s(job),
        )

    def _left_s(self, job: VisitJob) -> float:
        """Time that a visit's next stage may take [s]."""
        return max(self._visit_limit_s - self._results.seconds(job.visit.label), 1.0)

    def _end_guides(self, job: VisitJob, *, is_segmented: bool) -> None:
        """Let those go on that wait for a visit's guides; a rerun that failed leaves those that stand."""
        visit, digest = job.visit, job.digests["segment"]
        has_guides = is_segmented or store_exists(visit.path, visit.subject_id, visit.visit_id, digest)
        for ready in self._lending.settle(visit.label, has_guides=has_guides):
            self._submit_segment(ready)

    def _end_visit(self, job: VisitJob) -> None:
        self._n_ended += 1
        progress.info(job.visit.label, extra={"n_ended": self._n_ended, "n_in_all": len(self._jobs)})
        if self._artifacts is not None:
            self._artifacts.advance(self._n_ended, len(self._jobs))
        self._summaries.end_visit(job.visit.subject_id)

    def _end_summary(self, subject_id: str, outcome: Summary | Failure) -> None:
        self._outcomes.publish_subject(subject_id, outcome, self._summaries.digests(subject_id))

    def _verdict(
        self, published: Mapping[VisitKey, Mapping[str, Any]], missing_pages: Mapping[str, str]
    ) -> State[Any]:
        self._outcomes.log_old_news(published)
        tallied = tally(self._plan, published, self._outcomes.stale_summaries, missing_pages)
        if self._artifacts is not None:
            self._artifacts.end(self._plan.recorded, published, self._outcomes.news, tallied)
        return verdict(self._outcomes.news, tallied)
