"""What becomes of the visits of a night: published, told to the log, and kept for the night's verdict."""

from collections.abc import Mapping
from typing import Any

from prefect.logging import get_run_logger

from flows.results import Results
from storage.errors import BrokenOffError, RefusedError
from storage.quarantine import is_quarantined, quarantine_upload
from storage.trial import Trial
from tasks.canonical import canonical_line
from tasks.failure import describe, may_pass
from tasks.fanout import Failure
from tasks.matching import VisitKey
from tasks.plan import NightPlan, VisitJob
from tasks.publish import Publisher
from tasks.published import FAILED_STATES
from tasks.stage import StageResult

Summary = dict[str, list[dict[str, Any]]]
"""What `tasks.summarise.summarise` gives: rows of the table ``longitudinal`` by visit."""


class Outcomes:
    """Publishes what becomes of each visit, and keeps what the night has to tell at its end.

    Parameters
    ----------
    trial, plan
        The trial, and what the night has to do.
    jobs
        Visits that the night computes, by label.
    results
        Results of the visits as the night goes on.
    publisher
        Writes the tables.
    """

    def __init__(
        self,
        trial: Trial,
        plan: NightPlan,
        jobs: Mapping[str, VisitJob],
        results: Results,
        publisher: Publisher,
    ) -> None:
        self._trial = trial
        self._plan = plan
        self._jobs = jobs
        self._results = results
        self._publisher = publisher
        self._log = get_run_logger()
        self._planned = {(line.subject_id, line.visit_id): line for line in plan.recorded}
        self._news: dict[str, str] = {}
        self._stale_summaries: dict[str, str] = {}

    @property
    def news(self) -> Mapping[str, str]:
        """What went wrong tonight, by visit or upload."""
        return self._news

    @property
    def stale_summaries(self) -> Mapping[str, str]:
        """Visits whose published summary could not be renewed, and why."""
        return self._stale_summaries

    def publish_settled(self) -> None:
        """Publish what needs no computing: uploads that nobody takes, visits without any, corrections."""
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

    def log_stage(self, name: str, stage: str, outcome: object) -> None:
        """Log the canonical line of a stage, failed ones too, which no worker may have lived to tell.

        Parameters
        ----------
        name
            Label of a visit, or a subject where the stage is one of subjects.
        stage
            The stage.
        outcome
            What it gave, or its `Failure`.
        """
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

    def fail(self, job: VisitJob, stage: str, failure: Failure) -> None:
        """Publish that a visit failed in a stage or was refused, unless its published result still holds."""
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

    def publish_subject(
        self, subject_id: str, summary: Summary | Failure, digests: Mapping[str, str]
    ) -> None:
        """Publish the visits of a subject that have a result, with its summary or with why there is none.

        Parameters
        ----------
        subject_id
            The subject.
        summary
            What the subject's summary came to.
        digests
            Digest of what it says of each visit that has a result.
        """
        for visit_id, digest in digests.items():
            label = f"{subject_id}/{visit_id}"
            try:
                if self._results.is_computed(label):
                    self._publish_result(self._jobs[label], summary, digest)
                elif isinstance(summary, Failure):
                    self._stale_summaries[label] = describe(summary)
                else:
                    key, visit = (subject_id, visit_id), self._results.visit(subject_id, visit_id)
                    planned, row = self._planned[key], self._plan.published[key]
                    self._publisher.summary(visit, planned, row, summary[visit_id], digest)
            except BrokenOffError as error:  # a row that says failed could take the place of the result
                self._news[label] = str(error)
            except Exception as error:  # noqa: BLE001 (here an outcome is recorded, so that others go on)
                failure = Failure("error", error)
                if self._results.is_computed(label):
                    self.fail(self._jobs[label], "publish", failure)
                else:
                    self._stale_summaries[label] = describe(failure)

    def log_old_news(self, rows: Mapping[VisitKey, Mapping[str, Any]]) -> None:
        """Log what is still failed or refused, of which a night's message tells nothing."""
        for (subject_id, visit_id), row in rows.items():
            label = f"{subject_id}/{visit_id}"
            if row["state"] in FAILED_STATES and label not in self._news:
                self._log.info("still %s: %s: %s", row["state"], label, row["reason"])

    def _publish_result(self, job: VisitJob, summary: Summary | Failure, digest: str) -> None:
        stages = self._results.stages(job.visit.label)
        if isinstance(summary, Failure):
            reason = describe(summary)
            self._news[job.visit.label] = f"summary failed: {reason}"
            # Without a digest the next night summarises again; what would fail again waits for a change.
            kept = None if may_pass(summary) else digest
            self._publisher.result(job, stages, [], kept, summary_failure=reason)
        else:
            self._publisher.result(job, stages, summary[job.visit.visit_id], digest)
