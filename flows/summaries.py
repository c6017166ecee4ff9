"""The summaries of a night: of which subjects, when, and against which repeatability."""

from collections import Counter

from cmrcore.quantify.repeatability import Coefficients
from flows.results import Results
from storage.trial import Trial
from tasks.digests import retests_digest, summary_digests
from tasks.fanout import Failure, Fanout
from tasks.plan import NightPlan
from tasks.published import retest_pairs
from tasks.summarise import repeatability, stated_repeatability, summarise


class Summaries:
    """Submits the summaries of a night, each as soon as all that it rests on is there.

    That is a subject's last visit. Where a trial has retests its repeatability comes from those of all
    subjects, and every summary waits for every visit.

    Parameters
    ----------
    trial, plan
        The trial, and what the night has to do.
    results
        Results of the visits as the night goes on.
    fanout
        The cluster.
    limit_s
        Time that a summary may take [s].
    """

    def __init__(
        self,
        trial: Trial,
        plan: NightPlan,
        results: Results,
        fanout: Fanout,
        limit_s: float,
    ) -> None:
        self._trial = trial
        self._plan = plan
        self._results = results
        self._fanout = fanout
        self._limit_s = limit_s
        self._open = Counter(job.visit.subject_id for job in plan.jobs)
        self._renewed = plan.outdated_subjects | self._open.keys()
        self._retests = plan.retests
        self._retests_digest = retests_digest(plan.retests)
        self._coefficients = stated_repeatability(trial.config.summarise)

    def begin(self) -> None:
        """Submit what waits for no visit of tonight."""
        if self._plan.outdated_subjects and not self._open:
            self._submit_repeatability()
        elif not self._trial.config.summarise.retest_visits:
            for subject_id in sorted(self._plan.outdated_subjects - self._open.keys()):
                self._submit(subject_id)

    def end_visit(self, subject_id: str) -> None:
        """Submit what waited for a visit that has ended, well or not."""
        self._open[subject_id] -= 1
        if self._open[subject_id]:
            return
        del self._open[subject_id]
        if not self._trial.config.summarise.retest_visits:
            self._submit(subject_id)
        elif not self._open:
            self._submit_repeatability()

    def end_repeatability(self, outcome: Coefficients | Failure) -> list[str]:
        """Summarise whom tonight's results or another repeatability have made outdated.

        Returns
        -------
            Subjects that have no summary because the repeatability failed.
        """
        every = {line.subject_id for line in self._plan.recorded}
        subject_ids = sorted(self._renewed if self._retests == self._plan.retests else every)
        if isinstance(outcome, Failure):
            return subject_ids
        self._coefficients = outcome
        for subject_id in subject_ids:
            self._submit(subject_id)
        return []

    def digests(self, subject_id: str) -> dict[str, str]:
        """Digest of what a subject's summary says of each visit that has a result."""
        results = self._results.of_subject(subject_id)
        return summary_digests(self._trial.config, results, self._retests_digest)

    def _submit_repeatability(self) -> None:
        """Compute what all summaries rest on; without retests they rest on what the trial states."""
        self._retests = retest_pairs(self._trial.config, self._results.of_all())
        self._retests_digest = retests_digest(self._retests)
        if not self._retests:
            self.end_repeatability(self._coefficients)
            return
        visit = self._results.visit
        pairs = tuple(
            tuple((visit(subject_id, visit_id), digest) for subject_id, visit_id, digest in pair)
            for pair in self._retests
        )
        key = (self._trial.config.trial_id, "repeatability")
        self._fanout.submit(
            key, repeatability, "CPU", self._trial.config.summarise, pairs, limit_s=self._limit_s
        )

    def _submit(self, subject_id: str) -> None:
        results = tuple(
            (self._results.visit(subject_id, visit_id), digest)
            for visit_id, digest in self._results.of_subject(subject_id).items()
        )
        if results:
            self._fanout.submit(
                (subject_id, "summarise"),
                summarise,
                "CPU",
                subject_id,
                results,
                self._trial.config.summarise,
                self._coefficients,
                limit_s=self._limit_s,
            )
