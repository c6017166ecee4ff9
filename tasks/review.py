"""Readers' decisions: held against the visit that they are about, and handed to its quantification."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import zarr

from cmrcore.quantify import CHECKS, ReaderDecision
from cmrcore.quantify.decisions import READER_CODES
from storage.arrays import open_store, read_notes, slice_digests
from storage.decisions import Decisions, SliceDecision
from storage.errors import DecisionsError
from storage.reviews import ReviewedSlice, former_result
from storage.series_rules import Role
from storage.tables import read_tables
from storage.trial import Trial

CLOCK_AHEAD_MAX = timedelta(days=1)
"""How far the clock of a reader's computer may be ahead; a wrong zone is no more than this."""


def review_rows(
    trial: Trial, decisions: Decisions, file_digest: str, who: str, now: datetime
) -> list[dict[str, Any]]:
    """Check a decisions file against the published visit, and give its rows of the table ``reviews``.

    Parameters
    ----------
    trial
        The trial.
    decisions, file_digest
        What `storage.decisions.read_decisions` gives.
    who
        Who records it.
    now
        When, in UTC.

    Raises
    ------
    DecisionsError
        If it is of another trial, about a visit or a result that is not published, or not about each of the
        visit's slices; or was decided in the future.
    """
    if decisions.trial_id != trial.config.trial_id:
        message = f"is of trial {decisions.trial_id!r}, this one is {trial.config.trial_id!r}"
        raise DecisionsError(message)
    if decisions.decided_at_utc > now + CLOCK_AHEAD_MAX:
        message = (
            f"decided at {decisions.decided_at_utc:%Y-%m-%d %H:%M} UTC, which is to come: "
            f"set the clock of the reader's computer, and decide again"
        )
        raise DecisionsError(message)
    tables = read_tables(trial.root, ("visits", "echoes", "flags"), decisions.subject_id)
    of_visit = {
        name: table.filter(pc.equal(table["visit_id"], decisions.visit_id)) for name, table in tables.items()
    }
    visit = _published(trial, decisions, of_visit["visits"])
    _check_complete(decisions, of_visit["echoes"])
    columns = ["code", "role", "slice_index", "value", "threshold"]
    flags = of_visit["flags"].select(columns).to_pylist()
    store = open_store(trial.root, decisions.subject_id, decisions.visit_id, decisions.result_digest)
    return [
        _row(decisions, one, visit, flags, store)
        | {
            "recorded_at": now,
            "recorded_by": who,
            "file_digest": file_digest,
        }
        for one in decisions.slices
    ]


def decisions_of(
    store: zarr.Group, role: Role, n_slices: int, reviewed: Sequence[ReviewedSlice]
) -> tuple[ReaderDecision | None, ...]:
    """Give the decisions about the slices of a series, each with whether it still holds; empty without any.

    Parameters
    ----------
    store
        Store with the echoes and masks of today.
    role, n_slices
        The series.
    reviewed
        Decisions about the visit.
    """
    of_role = [one for one in reviewed if one.role == role]
    if not of_role:
        return ()
    by_slice = _places(of_role, [slice_digests(store, role, index)[0] for index in range(n_slices)])
    notes = read_notes(store, f"{role}/guide").get("guides", [None] * n_slices)
    return tuple(
        None if index not in by_slice else _of_today(by_slice[index], store, index, notes[index])
        for index in range(n_slices)
    )


def _places(of_role: Sequence[ReviewedSlice], digests: Sequence[str]) -> dict[int, ReviewedSlice]:
    """Place each decision on the slice that the reader saw, whose index another upload may have changed.

    Where no slice is as the reader saw it, it lies in its former place, or the last one: it lapses there.
    """
    placed: dict[int, ReviewedSlice] = {}
    apart: list[ReviewedSlice] = []
    for one in of_role:
        seen = [index for index, digest in enumerate(digests) if digest == one.slice_digest]
        if seen:
            placed[min(seen, key=lambda index: abs(index - one.slice_index))] = one
        else:
            apart.append(one)
    for one in sorted(apart, key=lambda one: one.decision == "accept"):  # a lapsed one of these says nothing
        placed.setdefault(min(one.slice_index, len(digests) - 1), one)
    return placed


def _of_today(
    one: ReviewedSlice, store: zarr.Group, index: int, note: dict[str, Any] | None
) -> ReaderDecision:
    slice_digest, guide_digest = slice_digests(store, one.role, index)
    is_redrawn = note is not None and note["origin"] == "reader" and guide_digest != one.guide_digest
    return ReaderDecision(
        reader_id=one.reader_id,
        decision=one.decision,
        comment=one.comment or "",
        holds=slice_digest == one.slice_digest,
        redraw=one.guide == "redraw" and not is_redrawn,
        accepted=one.accepted(),
    )


def _published(trial: Trial, decisions: Decisions, visits: pa.Table) -> dict[str, Any]:
    """Give the visit's row, if it is about the result that the reader saw."""
    label = f"{decisions.subject_id}/{decisions.visit_id}"
    if not visits.num_rows:
        message = f"{label}: nothing is published of such a visit; see `cmrtrials status ROOT`"
        raise DecisionsError(message)
    row: dict[str, Any] = visits.to_pylist()[0]
    if row["result_digest"] is None:
        message = (
            f"{label} is {row['state']} now, so there is no result to decide on; see `cmrtrials status ROOT`"
        )
        raise DecisionsError(message)
    if row["result_digest"] == decisions.result_digest:
        return row
    key = (decisions.subject_id, decisions.visit_id)
    place = former_result(trial.root, key, decisions.result_digest)
    if place is None:
        message = f"{label} never had the result {decisions.result_digest:.12}; take the page of this trial"
    else:
        message = (
            f"{label}: decided on result {decisions.result_digest:.12}, which another one replaced "
            f"(see {place}/superseded.json); look at the visit's new page and decide again"
        )
    raise DecisionsError(message)


def _check_complete(decisions: Decisions, echoes: pa.Table) -> None:
    """Check that each slice of each series is decided about, and no other."""
    expected = set(zip(echoes["role"].to_pylist(), echoes["slice_index"].to_pylist(), strict=True))
    found = {(one.role, one.slice_index) for one in decisions.slices}
    problems = [
        f"{what} {', '.join(f'{role} slice {index}' for role, index in sorted(places))}"
        for what, places in {
            "nothing is decided about": expected - found,
            "the visit has no": found - expected,
        }.items()
        if places
    ]
    if problems:
        raise DecisionsError(f"{decisions.subject_id}/{decisions.visit_id}: " + "; ".join(problems))


def _row(
    decisions: Decisions,
    one: SliceDecision,
    visit: dict[str, Any],
    flags: Sequence[dict[str, Any]],
    store: zarr.Group,
) -> dict[str, Any]:
    """Row of a decision, with what the reader saw of its slice."""
    accepts = one.decision == "accept" and one.guide == "accepted"
    accepted = _acceptable(one, flags) if accepts else {}
    slice_digest, guide_digest = slice_digests(store, one.role, one.slice_index)
    return {
        **{name: visit[name] for name in ("subject_id", "visit_id", "site_id", "result_digest")},
        "role": one.role,
        "slice_index": one.slice_index,
        "reader_id": decisions.reader_id,
        "guide": one.guide,
        "decision": one.decision,
        "comment": one.comment.strip() or None,
        "accepted_flags": sorted(accepted),
        "accepted_values": [accepted[code] for code in sorted(accepted)],
        "slice_digest": slice_digest,
        "guide_digest": guide_digest,
        "decided_at": decisions.decided_at_utc,
    }


def _acceptable(one: SliceDecision, flags: Sequence[dict[str, Any]]) -> dict[str, str]:
    """List the checks that ask for a review of a slice, maybe made notes by a former review.

    Returns
    -------
        What each has found, as text; the furthest from the limit where one was raised more than once.
    """
    raised = [
        flag
        for flag in flags
        if flag["slice_index"] == one.slice_index
        and flag["role"] in (None, one.role)
        and flag["code"] not in READER_CODES
        and flag["code"] in CHECKS
        and CHECKS[flag["code"]].severity == "review"
    ]
    raised.sort(key=lambda flag: abs((flag["value"] or 0.0) - (flag["threshold"] or 0.0)))
    return {flag["code"]: "" if flag["value"] is None else repr(flag["value"]) for flag in raised}
