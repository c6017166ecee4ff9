"""The plan of a night: which visits have what to do, which are settled, which uploads belong to nobody."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from storage.config import TrialConfig
from storage.digest import canonical_digest
from storage.errors import RefusedError
from storage.plan import PlannedVisit, read_plan
from storage.tables import read_table
from storage.trial import Trial
from storage.upload import Upload
from tasks.matching import StrayUpload, match_uploads
from tasks.stage import RESULT_VERSIONS, StageName, VisitRef

USABLE_STATES = frozenset({"done", "flagged"})
"""States of a visit that has a result."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which visits run although nothing about them is new."""

    mode: Literal["new", "unsettled", "chosen"] = "new"
    """``new``: none; ``unsettled``: those failed or refused; ``chosen``: those named below, done or not."""
    subject_ids: frozenset[str] = frozenset()
    """Chosen subjects; empty for all."""
    visit_ids: frozenset[str] = frozenset()
    """Chosen visits; empty for all."""

    def asks_for(self, visit: PlannedVisit, state: str | None) -> bool:
        """Whether a visit in a state (None: never run) shall run again."""
        if self.mode == "new":
            return False
        if self.mode == "unsettled":
            return state in {"failed", "refused"}
        return (not self.subject_ids or visit.subject_id in self.subject_ids) and (
            not self.visit_ids or visit.visit_id in self.visit_ids
        )


@dataclass(frozen=True, slots=True)
class VisitJob:
    """A visit that has something to do, and the digest of each of its stages."""

    visit: VisitRef
    """The visit."""
    planned: PlannedVisit
    """Its line in subjects.csv."""
    uploads: tuple[Upload, ...] = field(repr=False)
    """What it is computed from."""
    digests: Mapping[StageName, str]
    """Digest of the stages ``intake``, ``segment`` and ``quantify``; the last is the result's."""
    force: bool
    """Whether stages run although their stores stand."""


@dataclass(frozen=True, slots=True)
class NightPlan:
    """What a night has to do."""

    planned: tuple[PlannedVisit, ...]
    """Lines of subjects.csv."""
    published: Mapping[tuple[str, str], Mapping[str, Any]] = field(repr=False)
    """Rows of the table ``visits`` before the night, by subject and visit."""
    jobs: tuple[VisitJob, ...]
    """Visits to compute."""
    waiting: tuple[tuple[VisitRef, PlannedVisit], ...]
    """Visits without an upload whose row does not say so yet."""
    outdated_subjects: frozenset[str]
    """Subjects whose published rows no longer follow from their results, the plan and the configuration."""
    stray: tuple[StrayUpload, ...]
    """Uploads that no planned visit takes."""
    n_arriving: int
    """Uploads that were still changing."""


def plan_night(trial: Trial, selection: Selection) -> NightPlan:
    """Compare subjects.csv, incoming and the published visits.

    Uploads whose names, sizes and times are those of a published visit are not read again.

    Raises
    ------
    PlanError
        When subjects.csv cannot be trusted; every faulty row is named.
    """
    planned = read_plan(trial.root)
    published = published_visits(trial.root)
    uploads = match_uploads(trial.root, trial.config.matching, planned, published)
    jobs: list[VisitJob] = []
    waiting: list[tuple[VisitRef, PlannedVisit]] = []
    n_arriving = uploads.n_arriving
    for line in planned:
        key = (line.subject_id, line.visit_id)
        visit = VisitRef(str(trial.root), line.subject_id, line.visit_id, line.site_id)
        row = published.get(key)
        asked = selection.asks_for(line, row["state"] if row else None)
        if key in uploads.taken:
            found = uploads.taken[key]
            digests = stage_digests(trial.config, line, [upload.content_digest for upload in found])
            if asked or row is None or row["result_digest"] != digests["quantify"] or _may_pass_now(row):
                try:
                    files = tuple(upload.load() for upload in found)
                except RefusedError:
                    n_arriving += 1
                    continue
                jobs.append(VisitJob(visit, line, files, digests, asked))
        elif row is None or (row["state"] == "waiting" and not _follows_plan(row, line)):
            waiting.append((visit, line))
    return NightPlan(
        planned,
        published,
        tuple(jobs),
        tuple(waiting),
        _outdated_subjects(trial.config, planned, published),
        uploads.stray,
        n_arriving,
    )


def stage_digests(config: TrialConfig, planned: PlannedVisit, contents: list[str]) -> dict[StageName, str]:
    """Digest of each stage of a visit: its inputs, its slice of the configuration, its result version."""

    def digest(stage: StageName, **inputs: Any) -> str:
        return canonical_digest({"stage": stage, "version": RESULT_VERSIONS[stage], **inputs})

    intake = digest("intake", uploads=sorted(contents), config=config.intake.model_dump(mode="json"))
    segment = digest("segment", echoes=intake, config=config.segment.model_dump(mode="json"))
    hematocrit = [
        planned.hematocrit_fraction,
        str(planned.hematocrit_date or ""),
        str(planned.hematocrit_time or ""),
    ]
    quantify = digest(
        "quantify", masks=segment, hematocrit=hematocrit, config=config.quantify.model_dump(mode="json")
    )
    return {"intake": intake, "segment": segment, "quantify": quantify}


def summary_digests(config: TrialConfig, result_digests: Mapping[str, str]) -> dict[str, str]:
    """Digest of what a subject's summary says of each visit, from the results in order of the plan."""
    baseline = next(iter(result_digests.values()), None)
    return {
        visit_id: canonical_digest(
            {
                "stage": "summarise",
                "version": RESULT_VERSIONS["summarise"],
                "baseline": baseline,
                "visit": digest,
                "config": config.summarise.model_dump(mode="json"),
            }
        )
        for visit_id, digest in result_digests.items()
    }


def published_visits(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of the table ``visits`` by subject and visit."""
    return {(row["subject_id"], row["visit_id"]): row for row in read_table(root, "visits").to_pylist()}


def usable_results(
    planned: Iterable[PlannedVisit], published: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """Give the published result digests by subject, then visit in order of the plan."""
    results: dict[str, dict[str, str]] = {}
    for line in planned:
        row = published.get((line.subject_id, line.visit_id))
        if row is not None and row["state"] in USABLE_STATES:
            results.setdefault(line.subject_id, {})[line.visit_id] = row["result_digest"]
    return results


def _may_pass_now(row: Mapping[str, Any]) -> bool:
    """Whether a failure was a crash: what raised would raise again, a crash may pass."""
    return bool(row["failure_kind"] == "crashed")


def _follows_plan(row: Mapping[str, Any], line: PlannedVisit) -> bool:
    """Whether a row repeats what subjects.csv says now."""
    return (row["site_id"], row["visit_date"]) == (line.site_id, line.visit_date)


def _outdated_subjects(
    config: TrialConfig,
    planned: Iterable[PlannedVisit],
    published: Mapping[tuple[str, str], Mapping[str, Any]],
) -> frozenset[str]:
    lines = {(line.subject_id, line.visit_id): line for line in planned}
    return frozenset(
        subject_id
        for subject_id, results in usable_results(lines.values(), published).items()
        for visit_id, digest in summary_digests(config, results).items()
        if published[subject_id, visit_id]["summary_digest"] != digest
        or not _follows_plan(published[subject_id, visit_id], lines[subject_id, visit_id])
    )
