"""The plan of a night: which visits have what to do, which are settled, which uploads belong to nobody."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Self

from storage.config import TrialConfig
from storage.deidentify import key_id, needed_key
from storage.errors import NotStoredError, PlanError, UploadChangedError
from storage.plan import PlannedVisit, read_plan
from storage.recorded_dates import recorded_plan, recorded_shift
from storage.reviews import ReviewedSlice, read_reviews
from storage.trial import Trial
from storage.upload import INCOMING, Upload, UploadListing, incoming_folder
from tasks.digests import retests_digest, stage_digests, summary_digests
from tasks.lenders import Lenders
from tasks.matching import FoundUpload, MatchedUploads, StrayUpload, VisitKey, match_uploads, matching_digests
from tasks.published import (
    FAILED_STATES,
    USABLE_STATES,
    RetestPair,
    published_visits,
    retest_pairs,
    usable_results,
)
from tasks.stage import GuideSource, StageName, VisitRef


@dataclass(frozen=True, slots=True)
class Selection:
    """Which visits run although nothing about them is new."""

    mode: Literal["new", "unsettled", "chosen"] = "new"
    """``new``: none; ``unsettled``: those failed or refused; ``chosen``: those named below, done or not."""
    subject_ids: frozenset[str] = frozenset()
    """Chosen subjects; empty for all."""
    visit_ids: frozenset[str] = frozenset()
    """Chosen visits; empty for all."""

    def check(self, planned: Iterable[PlannedVisit]) -> None:
        """Refuse names that are not in the plan, which a typing error would otherwise pass over in silence.

        Raises
        ------
        PlanError
            Naming them.
        """
        lines = tuple(planned)
        unknown = sorted(self.subject_ids - {line.subject_id for line in lines})
        unknown += sorted(self.visit_ids - {line.visit_id for line in lines})
        if unknown:
            message = f"not planned in subjects.csv: {', '.join(unknown)}"
            raise PlanError(message)

    def asks_for(self, visit: PlannedVisit, state: str | None) -> bool:
        """Whether a visit in a state (None: never run) shall run again."""
        if self.mode == "new":
            return False
        if self.mode == "unsettled":
            return state in FAILED_STATES
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
    recorded: PlannedVisit
    """The same with the dates of the record (`storage.recorded_dates`)."""
    uploads: tuple[Upload, ...] = field(repr=False)
    """What it is computed from."""
    digests: Mapping[StageName, str]
    """Digest of the stages ``intake``, ``segment`` and ``quantify``; the last is the result's."""
    force: bool
    """Whether stages run although their stores stand."""
    guide_source: GuideSource | None
    """Visit that lends its guides to this one; None where none does."""
    digests_by: Callable[[GuideSource | None], Mapping[StageName, str]] = field(repr=False)
    """Digests as they are with another visit's guides, or with none."""

    reviewed: tuple[ReviewedSlice, ...] = ()
    """A reader's decisions about the visit."""

    def guided_by(self, source: GuideSource | None) -> Self:
        """Give the job with guides from another visit, or from none."""
        return replace(self, digests=self.digests_by(source), guide_source=source)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A visit that has no upload."""

    visit: VisitRef
    """The visit."""
    recorded: PlannedVisit
    """Its line in subjects.csv, with the dates of the record."""
    reason: str
    """Why there is none."""


@dataclass(frozen=True, slots=True)
class NightPlan:
    """What a night has to do."""

    recorded: tuple[PlannedVisit, ...]
    """Lines of subjects.csv, with the dates of the record."""
    key_name: str | None
    """Name of the key that workers must have; None where they need none."""
    matching: Mapping[str, str]
    """Digest of what matched each subject's uploads, see `tasks.matching.matching_digests`."""
    published: Mapping[VisitKey, Mapping[str, Any]] = field(repr=False)
    """Rows of the table ``visits`` that stand, by subject and visit."""
    jobs: tuple[VisitJob, ...]
    """Visits to compute."""
    waiting: tuple[Waiting, ...]
    """Visits without an upload whose row does not say so yet."""
    outdated_subjects: frozenset[str]
    """Subjects whose published rows no longer follow from their results, the plan and the configuration."""
    retests: tuple[RetestPair, ...]
    """Published results that the trial's repeatability is computed from."""
    stray: tuple[StrayUpload, ...]
    """Uploads that no planned visit takes."""
    taken: Mapping[VisitKey, tuple[FoundUpload, ...]]
    """Uploads by the visit that takes them, in order of arrival, but for those that are still changing."""
    arriving: tuple[UploadListing, ...]
    """Uploads that were still changing, and what else came for their visits."""
    idle: tuple[str, ...]
    """Chosen visits that have no upload to run on."""
    outdated: tuple[str, ...]
    """Visits whose result stands although plan, configuration, a reader's decisions or the guides lent to
    them have changed, and whose upload is gone."""
    corrected: tuple[tuple[VisitRef, PlannedVisit], ...]
    """Visits tried in vain whose line in the plan has changed in what needs no new try; as recorded."""
    standing: Mapping[VisitKey, GuideSource]
    """Visits that are not computed, but whose guides stand and can be lent to other visits."""


def plan_night(trial: Trial, selection: Selection) -> NightPlan:
    """Compare subjects.csv, incoming and the published visits.

    Uploads whose names, sizes and times are those of a published visit are not read again. Nothing is
    written.

    Raises
    ------
    PlanError
        When subjects.csv cannot be trusted, or the selection or trial.toml names what is not in it.
    ConfigError
        When the rules need a key and the environment has none.
    NotStoredError
        When there is no incoming/: a lost mount must not pass for sites that send nothing.
    """
    planned = read_plan(trial.root)
    selection.check(planned)
    if not incoming_folder(trial.root).is_dir():
        message = f"{INCOMING}/ is missing: make it, or mount what the sites upload to"
        raise NotStoredError(message)
    rules = trial.config
    _check_retests(rules, planned)
    key = needed_key(rules.privacy)
    key_name = None if key is None else key_id(key)
    recorded = {
        (line.subject_id, line.visit_id): recorded_plan(
            line, recorded_shift(rules.privacy, key, line.subject_id)
        )
        for line in planned
    }
    rows = published_visits(trial.root)
    reviews = read_reviews(trial.root)
    matching = matching_digests(rules.matching, recorded.values())
    uploads = match_uploads(trial.root, rules.matching, rules.uploads, planned, rows, matching)
    elsewhere = _places(uploads)
    jobs: list[VisitJob] = []
    waiting: list[Waiting] = []
    idle: list[str] = []
    outdated: list[str] = []
    corrected: list[tuple[VisitRef, PlannedVisit]] = []
    taken: dict[VisitKey, tuple[FoundUpload, ...]] = {}
    arriving = list(uploads.arriving)
    lenders = Lenders(trial)
    # A visit's digests may follow from those of an earlier one of its subject.
    for planned_line, (place, line) in _by_date(zip(planned, recorded.items(), strict=True)):
        visit = VisitRef(str(trial.root), line.subject_id, line.visit_id, line.site_id)
        row, reviewed = rows.get(place), reviews.get(place, ())
        lender = lenders.of(line.subject_id)
        asked = selection.asks_for(line, row["state"] if row else None)
        if row is not None and row["state"] in FAILED_STATES and not _follows_plan(row, line):
            corrected.append((visit, line))
        found = in_order_of_arrival(uploads.taken.get(place, ()), (row or {}).get("upload_digests", ()))
        if found:
            contents = [upload.content_digest for upload in found]
            digests_by = partial(stage_digests, rules, line, contents, key_name, reviewed=reviewed)
            digests = digests_by(lender)
            if asked or row is None or _is_outdated(row, digests, matching[line.subject_id]):
                try:
                    files = tuple(upload.load() for upload in found)
                except UploadChangedError:
                    arriving += [upload.listing for upload in found]
                    lenders.add_settled(line, _published_guides(row))
                    if row is None:
                        waiting.append(Waiting(visit, line, "its upload is still arriving"))
                    continue
                jobs.append(
                    VisitJob(visit, planned_line, line, files, digests, asked, lender, digests_by, reviewed)
                )
                lenders.add_computed(line, digests["segment"])
            else:
                lenders.add_settled(line, digests["segment"])
            taken[place] = found
            continue
        if selection.mode == "chosen" and asked:
            idle.append(visit.label)
        taken_by = next(
            (elsewhere[one] for one in (row or {}).get("upload_digests", ()) if one in elsewhere), None
        )
        if taken_by is not None:
            waiting.append(Waiting(visit, line, f"nothing uploaded; its former upload {taken_by}"))
        elif row is None or (row["state"] == "waiting" and not _follows_plan(row, line)):
            waiting.append(Waiting(visit, line, "nothing uploaded yet"))
        elif row["state"] in USABLE_STATES:
            lenders.add_settled(line, _published_guides(row))
            digests = stage_digests(rules, line, row["upload_digests"], key_name, lender, reviewed=reviewed)
            if row["result_digest"] != digests["quantify"]:
                outdated.append(visit.label)
    withdrawn = {(one.visit.subject_id, one.visit.visit_id) for one in waiting}
    published = {place: row for place, row in rows.items() if place not in withdrawn}
    retests = retest_pairs(rules, usable_results(recorded.values(), published))
    return NightPlan(
        tuple(recorded.values()),
        key_name,
        matching,
        published,
        tuple(jobs),
        tuple(waiting),
        _outdated_subjects(rules, recorded, published, matching, retests),
        retests,
        uploads.stray,
        taken,
        tuple(arriving),
        tuple(idle),
        tuple(outdated),
        tuple(corrected),
        lenders.standing,
    )


def _by_date(
    lines: Iterable[tuple[PlannedVisit, tuple[VisitKey, PlannedVisit]]],
) -> Iterator[tuple[PlannedVisit, tuple[VisitKey, PlannedVisit]]]:
    """Give subjects in the order of the plan, the visits of each in that of their dates."""
    of_subject: dict[str, list[tuple[PlannedVisit, tuple[VisitKey, PlannedVisit]]]] = {}
    for line in lines:
        of_subject.setdefault(line[0].subject_id, []).append(line)
    for visits in of_subject.values():
        yield from sorted(visits, key=lambda line: line[0].visit_date)


def _published_guides(row: Mapping[str, Any] | None) -> str | None:
    """Digest of the segment stage that a visit's published result rests on; None without a result."""
    return row["segment_digest"] if row is not None and row["state"] in USABLE_STATES else None


def _check_retests(config: TrialConfig, planned: Iterable[PlannedVisit]) -> None:
    """Refuse retests of visits that nobody has: a typing error would leave the trial without any."""
    named = {visit_id for pair in config.summarise.retest_visits for visit_id in pair}
    unknown = sorted(named - {line.visit_id for line in planned})
    if unknown:
        message = f"summarise.retest_visits in trial.toml: not planned in subjects.csv: {', '.join(unknown)}"
        raise PlanError(message)


def in_order_of_arrival(found: Iterable[FoundUpload], published: Sequence[str]) -> tuple[FoundUpload, ...]:
    """Sort a visit's uploads: published ones as they stand, then the others by the time they came.

    Where two uploads contradict each other, the first one stands; a later one must not replace it.
    """

    def arrival(upload: FoundUpload) -> tuple[int, int, str]:
        is_new = upload.content_digest not in published
        place = upload.listing.changed_ns if is_new else published.index(upload.content_digest)
        return (is_new, place, upload.content_digest)

    return tuple(sorted(found, key=arrival))


def _is_outdated(row: Mapping[str, Any], digests: Mapping[StageName, str], matching: str) -> bool:
    """Whether a visit must be computed although nobody asks.

    What raised would raise again, unless its inputs or the plan have changed or it was the machine's fault.
    """
    if row["state"] not in FAILED_STATES:
        return bool(row["result_digest"] != digests["quantify"])
    stage: StageName = row["failed_stage"] if row["failed_stage"] in digests else "quantify"
    return bool(
        row[f"{stage}_digest"] != digests[stage]
        or row["failure_kind"] == "passing"
        or row["matching_digest"] != matching
    )


def _places(uploads: MatchedUploads) -> dict[str, str]:
    """Say of each upload in incoming, by content digest, where it belongs now."""
    places = {stray.upload.content_digest: "fits no planned visit" for stray in uploads.stray}
    for (subject_id, visit_id), found in uploads.taken.items():
        places |= {upload.content_digest: f"belongs to {subject_id}/{visit_id}" for upload in found}
    return places


def _follows_plan(row: Mapping[str, Any], line: PlannedVisit) -> bool:
    """Whether a row repeats what subjects.csv says now."""
    return (row["site_id"], row["visit_date"]) == (line.site_id, line.visit_date)


def _outdated_subjects(
    config: TrialConfig,
    lines: Mapping[VisitKey, PlannedVisit],
    published: Mapping[VisitKey, Mapping[str, Any]],
    matching: Mapping[str, str],
    retests: Sequence[RetestPair],
) -> frozenset[str]:
    of_retests = retests_digest(retests)
    return frozenset(
        subject_id
        for subject_id, results in usable_results(lines.values(), published).items()
        for visit_id, digest in summary_digests(config, results, of_retests).items()
        if published[subject_id, visit_id]["summary_digest"] != digest
        or not _follows_plan(published[subject_id, visit_id], lines[subject_id, visit_id])
        or published[subject_id, visit_id]["matching_digest"] != matching[subject_id]
    )
