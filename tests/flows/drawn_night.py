"""Plans of nights that need no trial: each digest says what it was made from."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, cast

from prefect import Task

from storage.place import to_place
from storage.plan import PlannedVisit, by_subject
from storage.upload import Upload
from tasks.matching import StrayUpload
from tasks.plan import NightPlan, VisitJob
from tasks.stage import GuideSource, StageName, StageResult, VisitRef
from tests.storage.drawn_uploads import demo_config

ROOT = to_place("/a/trial")
RESULT = StageResult("digest", 2.0, "cpu")


def line_of(visit_id: str, month: int, subject_id: str = "S01") -> PlannedVisit:
    """Give a line of the plan."""
    return PlannedVisit(subject_id, visit_id, "01", date(2026, month, 1), 7, None, None, None)


def of_subjects(*lines: PlannedVisit) -> dict[str, list[PlannedVisit]]:
    """Give lines by subject, each subject's in order of their dates."""
    return by_subject(sorted(lines, key=lambda line: line.visit_date))


def job_of(line: PlannedVisit, source: GuideSource | None = None) -> VisitJob:
    """Give a visit to compute."""
    visit = VisitRef(str(ROOT), line.subject_id, line.visit_id, line.site_id)

    def digests_by(source: GuideSource | None) -> Mapping[StageName, str]:
        made_from = visit.visit_id if source is None else f"{visit.visit_id} with {source.segment_digest}"
        return {stage: f"{stage} {made_from}" for stage in ("intake", "segment", "quantify")}

    return VisitJob(visit, line, line, (), digests_by(source), False, source, digests_by)


def plan_of(lines: Sequence[PlannedVisit], jobs: Iterable[VisitJob] = (), **others: Any) -> NightPlan:
    """Give a plan with nothing but its lines, jobs, and what is named."""
    empty = NightPlan(
        tuple(lines), None, {}, {}, tuple(jobs), (), frozenset(), (), (), {}, (), (), (), (), {}
    )
    return replace(empty, **others)


def stray_of(upload_id: str, *, is_old: bool = False) -> StrayUpload:
    """Give an upload that no planned visit takes."""
    rules = demo_config().uploads
    upload = Upload(upload_id, "digest", "fingerprint", Path(), files=(), changed_ns=0, rules=rules)
    return StrayUpload(upload, "fits no planned visit", is_old=is_old)


@dataclass
class SubmittedOnly:
    """Cluster on which nothing ends."""

    arguments: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)
    """What was submitted for whom, in this order."""

    def submit(
        self, key: Hashable, _task: Task[..., Any], _resource: str, *arguments: Any, limit_s: float
    ) -> None:
        """Note a task run."""
        assert limit_s > 0
        name = cast("tuple[str, str]", key)
        assert name not in self.arguments
        self.arguments[name] = arguments
