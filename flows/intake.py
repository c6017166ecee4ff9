"""What intake would make of incoming/, found out without writing anything."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from storage.config_uploads import UploadsConfig
from storage.errors import RefusedError, RefusedFile, Remedy, UnreadableError, UploadChangedError
from storage.quarantine import upload_records
from storage.tables import read_table
from storage.trial import Trial
from storage.upload import Upload, UploadListing, list_uploads
from tasks.matching import StrayUpload

if TYPE_CHECKING:
    from storage.intake import VisitIntake
    from tasks.plan import VisitJob

Verdict = Literal["accepted", "accepted in part", "taken before", "arriving", "refused", "no planned visit"]

BAD_VERDICTS = frozenset({"refused", "no planned visit"})
"""Verdicts after which somebody must do something."""

_NS_PER_MINUTE = 60 * 10**9
_REMEDIES: dict[Remedy, str] = {
    "send": "send again",
    "mend": "mend as its reason says",
    "choose": "find out which of the two is right, and take the other out of incoming/",
}


@dataclass(frozen=True, slots=True)
class CheckedUpload:
    """What would become of one upload."""

    entry: int
    """Which entry of incoming/ it is, from 1, sorted by name; its name is the site's and is not shown."""
    upload_id: str
    """The upload; ``-`` while it is arriving."""
    visit: str
    """Planned subject and visit; ``no planned visit``, or ``-`` where that is not known yet."""
    found: str
    """Series, images and guides."""
    n_files: int | None
    """Files of the upload; None where it was not read."""
    verdict: Verdict
    """Whether it would be taken."""
    reason: str
    """Why not, or what is left out."""
    advice: str
    """What to do; empty for nothing."""
    site_words: str = field(default="", repr=False)
    """What the site wrote: the entry's name, and PatientID and study date where they did not agree; it is
    for the operator's eyes and goes into no file."""


def check_intake(trial: Trial) -> tuple[CheckedUpload, ...]:
    """Plan a night and read what it would read, and say what it would take and refuse; nothing is written.

    Raises
    ------
    PlanError, ConfigError, NotStoredError
        When the night could not be planned either, see `tasks.plan.plan_night`, or its weights are missing.
    """
    from tasks.plan import Selection, plan_night  # Prefect takes a second
    from tasks.weights import needed_weights  # and torch another

    needed_weights(trial.root, trial.config.segment)

    rules = trial.config.uploads
    places = {listing.path: number for number, listing in enumerate(list_uploads(trial.root, rules), 1)}
    plan = plan_night(trial, Selection("new"))
    jobs = {(job.visit.subject_id, job.visit.visit_id): job for job in plan.jobs}
    checked = [_arriving(listing, places[listing.path], rules) for listing in plan.arriving]
    checked += [_stray(stray, places[stray.upload.path]) for stray in plan.stray]
    for key, uploads in plan.taken.items():
        job, row = jobs.get(key), plan.published.get(key)
        verdicts = _settled(row, len(uploads)) if job is None else _computed(trial, job, row)
        checked += [
            CheckedUpload(places[found.listing.path], found.upload_id, "/".join(key), *verdict)
            for found, verdict in zip(uploads, verdicts, strict=True)
        ]
    again = set(places.values()) - {one.entry for one in checked}
    checked += [
        CheckedUpload(place, "-", "-", "", None, "taken before", "it has the content of another entry", "")
        for place in again
    ]
    words = {number: {"folder": path.name} for path, number in places.items()}
    words |= {places[stray.upload.path]: dict(stray.found) for stray in plan.stray if stray.found}
    named = (replace(one, site_words=_site_words(words[one.entry])) for one in checked)
    return tuple(sorted(named, key=lambda one: one.entry))


def waiting_uploads(trial: Trial) -> tuple[CheckedUpload, ...]:
    """Give the uploads that are arriving or that no visit took, by a listing alone; no file is opened."""
    rules = trial.config.uploads
    taken = {
        fingerprint
        for row in read_table(trial.root, "visits").to_pylist()
        for fingerprint in row["upload_fingerprints"]
    }
    records = upload_records(trial.root)
    waiting = []
    for number, listing in enumerate(list_uploads(trial.root, rules), 1):
        record = records.get((listing.site_name, listing.fingerprint))
        if listing.fingerprint in taken:
            continue
        if listing.is_arriving:
            waiting.append(_arriving(listing, number, rules))
        elif record is not None or listing.unusable_reason is not None:
            upload_id = record.upload_id if record else f"u-{listing.fingerprint[:10]}"
            reason = record.reason if record else str(listing.unusable_reason)
            was_read = record is not None and record.judged_by is not None
            waiting.append(_no_visit(number, upload_id, None, reason, was_read=was_read))
    return tuple(waiting)


_Verdict = tuple[str, int | None, Verdict, str, str]


def _settled(row: Mapping[str, Any] | None, n_uploads: int) -> list[_Verdict]:
    """Give the verdict on each upload of a visit that a night leaves as it is."""
    state, reason = (row["state"], row["reason"]) if row is not None else ("new", "")
    if state == "refused":
        return [("", None, "refused", reason, "mend it as the reason says and send it again")] * n_uploads
    return [("", None, "taken before", f"the visit is {state}", "")] * n_uploads


def _computed(trial: Trial, job: "VisitJob", row: Mapping[str, Any] | None) -> list[_Verdict]:
    """Give the verdict on each upload of a visit that a night computes, in the order of arrival."""
    from storage.arrays import store_exists  # Zarr takes a third of a second
    from tasks.intake import take_visit

    visit, uploads = job.visit, job.uploads
    if store_exists(visit.path, visit.subject_id, visit.visit_id, job.digests["intake"]):
        state = "new" if row is None else row["state"]
        reason = f"the visit is {state}, and is computed again from the images as they were taken"
        return [("", None, "taken before", reason, "")] * len(uploads)
    try:
        taken = take_visit(
            visit.subject_id,
            job.planned,
            uploads,
            trial.config.intake,
            trial.config.privacy,
            leave_out=lambda _: None,
        )
    except RefusedError as error:
        advice = (
            _advice(error.files, with_upload=True)
            if error.files
            else "send what is missing; a wrong upload, take out of incoming/; or mend trial.toml or the plan"
        )
        return [("", None, "refused", error.reason, advice)] * len(uploads)
    except (UploadChangedError, UnreadableError) as error:
        return [("", None, "arriving", str(error), "look again later")] * len(uploads)
    return [_accepted(upload, taken.images) for upload in uploads]


def _accepted(upload: Upload, taken: "VisitIntake") -> _Verdict:
    stacks = [stack for stack in (taken.native, taken.post) if stack is not None]
    parts = [
        f"{stack.role} {stack.ti_ms.shape[0]} slices x {stack.ti_ms.shape[1]} images"
        + _delay(taken.trigger_ms.get(stack.role))
        for stack in stacks
    ]
    if taken.post is None:
        parts.append("no post-contrast series, so no ECV")
    parts += [f"guide for {' and '.join(taken.guides)}" if taken.guides else "no guide"]
    parts += map(str, taken.prepared)
    n_other = taken.n_other_series - sum(series.n_series for series in taken.prepared)
    if n_other:
        parts.append(f"{n_other} other series")
    others = sum(upload_id == upload.upload_id for upload_id, _ in taken.other_files)
    if others:
        parts.append(f"{others} files that are no images")
    out = [file for file in taken.refused_files if file.upload_id == upload.upload_id]
    if not out:
        return "; ".join(parts), len(upload.files), "accepted", "", ""
    reasons = "; ".join(f"file {file.file_number}: {file.reason}" for file in out)
    return "; ".join(parts), len(upload.files), "accepted in part", reasons, _advice(out)


def _delay(trigger_ms: tuple[float, float] | None) -> str:
    """Say when in the heart beat a role was acquired: native and post should be of one phase."""
    if trigger_ms is None:
        return ""
    shortest, longest = (f"{ms:.0f}" for ms in trigger_ms)
    return f", {shortest if shortest == longest else f'{shortest} to {longest}'} ms after the R wave"


def _advice(files: Sequence[RefusedFile], *, with_upload: bool = False) -> str:
    """Say what to do about files that are left out, one remedy once."""
    named: dict[Remedy, list[str]] = {}
    for file in files:
        upload = f"upload {file.upload_id}, " if with_upload else ""
        named.setdefault(file.remedy, []).append(f"{upload}file {file.file_number}")
    return "; ".join(f"{_REMEDIES[remedy]}: {', '.join(which)}" for remedy, which in named.items())


def _site_words(found: Mapping[str, str]) -> str:
    """Join what a site wrote; what a terminal would take for a command is no part of it."""
    text = ", ".join(f"{what} '{value}'" for what, value in found.items())
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _arriving(listing: UploadListing, place: int, rules: UploadsConfig) -> CheckedUpload:
    age = (time.time_ns() - listing.changed_ns) / _NS_PER_MINUTE
    reason = f"it changed {age:.0f} minutes ago" if listing.changed_ns else "it changed while it was listed"
    waits = [f"unchanged for {rules.stable_minutes:g} minutes"] if rules.stable_minutes < float("inf") else []
    waits += ["its marker file stands"] if rules.marker_file else []
    advice = f"nothing: it is taken when {' or '.join(waits)}"
    return CheckedUpload(place, "-", "-", "", None, "arriving", reason, advice)


def _stray(stray: StrayUpload, place: int) -> CheckedUpload:
    upload, was_read = stray.upload, stray.judged_by is not None
    return _no_visit(place, upload.upload_id, len(upload.files) or None, stray.reason, was_read=was_read)


def _no_visit(
    place: int, upload_id: str, n_files: int | None, reason: str, *, was_read: bool
) -> CheckedUpload:
    if not was_read:
        advice = "send it again as the reason says, and remove this one from incoming/"
        return CheckedUpload(place, upload_id, "-", "", n_files, "refused", reason, advice)
    advice = (
        "mend the upload, or its subject or date in subjects.csv; the next night looks again "
        "(`intake --check --names` shows what the site wrote)"
    )
    return CheckedUpload(place, upload_id, "-", "", n_files, "no planned visit", reason, advice)
