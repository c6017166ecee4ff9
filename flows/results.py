"""Results of a trial's visits while a night runs: those that it has computed, and those that stand."""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.place import Place
from storage.plan import PlannedVisit
from tasks.matching import VisitKey
from tasks.plan import VisitJob
from tasks.published import usable_results
from tasks.stage import StageName, StageResult, VisitRef


class Results:
    """What the stages of tonight's visits gave, and which result each planned visit has for now.

    Parameters
    ----------
    root
        The trial.
    jobs
        Visits that the night computes, by label.
    visits_of
        Planned visits by subject, each subject's in order of their dates.
    published
        Rows of the table ``visits`` as the night found them.
    """

    def __init__(
        self,
        root: Place,
        jobs: Mapping[str, VisitJob],
        visits_of: Mapping[str, Sequence[PlannedVisit]],
        published: Mapping[VisitKey, Mapping[str, Any]],
    ) -> None:
        self._jobs = jobs
        self._visits_of = visits_of
        lines = [line for of_subject in visits_of.values() for line in of_subject]
        self._standing = usable_results(lines, published)
        self._sites = {(line.subject_id, line.visit_id): line.site_id for line in lines}
        self._root = str(root)
        self._stages: dict[str, dict[StageName, StageResult]] = {label: {} for label in jobs}

    def add(self, label: str, stage: StageName, result: StageResult) -> None:
        """Note what a stage of a visit gave."""
        self._stages[label][stage] = result

    def stages(self, label: str) -> Mapping[StageName, StageResult]:
        """Give what the stages of one of tonight's visits gave so far."""
        return self._stages[label]

    def seconds(self, label: str) -> float:
        """Time that the stages of one of tonight's visits took so far [s]."""
        return sum(result.seconds or 0.0 for result in self._stages[label].values())

    def is_computed(self, label: str) -> bool:
        """Whether a visit got its result tonight."""
        return "quantify" in self._stages.get(label, {})

    def visit(self, subject_id: str, visit_id: str) -> VisitRef:
        """Give a planned visit."""
        return VisitRef(self._root, subject_id, visit_id, self._sites[subject_id, visit_id])

    def of_all(self) -> dict[str, dict[str, str]]:
        """Give result digests by planned subject, see `of_subject`."""
        return {subject_id: self.of_subject(subject_id) for subject_id in self._visits_of}

    def of_subject(self, subject_id: str) -> dict[str, str]:
        """Give result digests of a subject's visits, computed tonight or published, in order of dates."""
        standing = self._standing.get(subject_id, {})
        results = {}
        for line in self._visits_of[subject_id]:
            label = f"{subject_id}/{line.visit_id}"
            job, stands = self._jobs.get(label), standing.get(line.visit_id)
            if job is not None and self.is_computed(label):
                results[line.visit_id] = job.digests["quantify"]
            elif stands is not None and (job is None or stands == job.digests["quantify"]):
                # Not run tonight, or run again in vain: what is published stands.
                results[line.visit_id] = stands
        return results
