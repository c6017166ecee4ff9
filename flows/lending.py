"""Who lends guides to whom in a night, and who waits for them.

`tasks.lenders` says how a night begins; here the night's own course changes it.
"""

from collections.abc import Iterable, Mapping, Sequence

from storage.plan import PlannedVisit
from tasks.matching import VisitKey
from tasks.plan import VisitJob
from tasks.stage import GuideSource, VisitRef


class Lending:
    """The visits that a night computes, each with the guides that it takes as the night stands.

    A visit that takes another's guides waits until they are made. Where they come to nothing, the next visit
    by date lends in its place, if it has guides or will have; a visit before which none has finds its own.

    Parameters
    ----------
    jobs
        Visits to compute, guided as planned.
    visits_of
        Planned visits by subject, each subject's in order of their dates.
    standing
        Guides of visits that are not computed.
    """

    def __init__(
        self,
        jobs: Iterable[VisitJob],
        visits_of: Mapping[str, Sequence[PlannedVisit]],
        standing: Mapping[VisitKey, GuideSource],
    ) -> None:
        self._jobs = {job.visit.label: job for job in jobs}
        self._visits_of = visits_of
        self._standing = standing
        self._able: set[str] = set()
        self._unable: set[str] = set()
        self._waiting: dict[str, list[str]] = {}

    @property
    def jobs(self) -> Mapping[str, VisitJob]:
        """The visits by label; follows the night."""
        return self._jobs

    def ask(self, label: str) -> VisitJob | None:
        """Give a visit that can be segmented now; None where it waits, until `settle` gives it."""
        job = self._jobs[label]
        if job.guide_source is not None:
            lender = f"{job.visit.subject_id}/{job.guide_source.visit_id}"
            if lender in self._jobs and lender not in self._able:
                self._waiting.setdefault(lender, []).append(label)
                return None
        return job

    def settle(self, label: str, *, has_guides: bool) -> list[VisitJob]:
        """Note whether a visit has guides to lend; give those that waited for it and can be segmented now.

        Without any the next night plans as it is done here: a visit that failed lends nothing until it is
        computed again.
        """
        if has_guides:
            self._able.add(label)
        else:
            self._unable.add(label)
            self._replace(self._jobs[label].visit)
        asked = [self.ask(waiting) for waiting in self._waiting.pop(label, ())]
        return [job for job in asked if job is not None]

    def _replace(self, unable: VisitRef) -> None:
        """Let the next visit that has guides, or will have, lend them in the place of one that has none."""
        source: GuideSource | None = None
        for line in self._visits_of[unable.subject_id]:
            label = f"{line.subject_id}/{line.visit_id}"
            job = self._jobs.get(label)
            if job is not None and job.guide_source and job.guide_source.visit_id == unable.visit_id:
                job = self._jobs[label] = job.guided_by(source)
            if source is None and job is None:
                source = self._standing.get((line.subject_id, line.visit_id))
            elif source is None and job is not None and label not in self._unable:
                source = GuideSource(line.visit_id, job.digests["segment"])
