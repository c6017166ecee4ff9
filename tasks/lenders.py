"""Who lends guides to a subject's later visits: the first by date whose guides stand or are made tonight.

That is the first visit that has a result, or one whose measurement alone failed. A visit that waits, was
refused or cannot be segmented lends nothing; where it comes later, those after it are computed again.
"""

from collections.abc import Mapping

from storage.arrays import store_exists
from storage.plan import PlannedVisit
from storage.trial import Trial
from tasks.matching import VisitKey
from tasks.stage import GuideSource


class Lenders:
    """Who lends guides, while the visits of a trial are planned in order of their dates."""

    def __init__(self, trial: Trial) -> None:
        self._root = trial.root
        self._is_asked = trial.config.segment.guide_from == "baseline"
        self._first: dict[str, GuideSource] = {}
        self._standing: dict[VisitKey, GuideSource] = {}

    @property
    def standing(self) -> Mapping[VisitKey, GuideSource]:
        """Visits that are not computed, but whose guides stand."""
        return self._standing

    def of(self, subject_id: str) -> GuideSource | None:
        """Give the visit that lends its guides to the next one of a subject; None where none does."""
        return self._first.get(subject_id)

    def add_computed(self, line: PlannedVisit, segment_digest: str) -> None:
        """Note that a visit is computed."""
        if self._is_asked:
            self._first.setdefault(line.subject_id, GuideSource(line.visit_id, segment_digest))

    def add_settled(self, line: PlannedVisit, segment_digest: str | None) -> None:
        """Note that a visit is not computed; it lends its guides if the store stands that holds them."""
        if (
            self._is_asked
            and segment_digest is not None
            and store_exists(self._root, line.subject_id, line.visit_id, segment_digest)
        ):
            source = GuideSource(line.visit_id, segment_digest)
            self._standing[line.subject_id, line.visit_id] = source
            self._first.setdefault(line.subject_id, source)
