"""Plans of nights that need no trial: each digest says what it was made from."""

from collections.abc import Mapping
from datetime import date

from storage.place import to_place
from storage.plan import PlannedVisit
from tasks.plan import VisitJob
from tasks.stage import GuideSource, StageName, VisitRef

ROOT = to_place("/a/trial")


def line_of(visit_id: str, month: int, subject_id: str = "S01") -> PlannedVisit:
    """Give a line of the plan."""
    return PlannedVisit(subject_id, visit_id, "01", date(2026, month, 1), 7, None, None, None)


def by_subject(*lines: PlannedVisit) -> dict[str, list[PlannedVisit]]:
    """Give lines by subject, each subject's in order of their dates."""
    found: dict[str, list[PlannedVisit]] = {}
    for line in sorted(lines, key=lambda line: line.visit_date):
        found.setdefault(line.subject_id, []).append(line)
    return found


def job_of(line: PlannedVisit, source: GuideSource | None = None) -> VisitJob:
    """Give a visit to compute."""
    visit = VisitRef(str(ROOT), line.subject_id, line.visit_id, line.site_id)

    def digests_by(source: GuideSource | None) -> Mapping[StageName, str]:
        made_from = visit.visit_id if source is None else f"{visit.visit_id} with {source.segment_digest}"
        return {stage: f"{stage} {made_from}" for stage in ("intake", "segment", "quantify")}

    return VisitJob(visit, line, line, (), digests_by(source), False, source, digests_by)
