"""The table ``reviews``: what readers decided about the slices of each visit; its newest review holds.

A review is recorded when its decisions file is handed in, and honored by the next night. It outlasts the
result that the reader saw: each row names what was seen of its slice by digest, so that a decision about
images and masks holds as long as these do. A former review moves to history/, as former results do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from storage.digest import canonical_digest
from storage.errors import DecisionsError
from storage.place import Place, relative_name
from storage.rows import arrow_table
from storage.schema import REVIEWS
from storage.staging import (
    HISTORY_FOLDER,
    REVIEWED,
    present_tables,
    read_parquet,
    recover_staged,
    replace_files,
    table_file,
    writing_tables,
)
from storage.tables import read_table, write_empty_tables

VisitKey = tuple[str, str]
"""Subject and visit."""


@dataclass(frozen=True, slots=True)
class ReviewedSlice:
    """A reader's decision about one slice of one series that has an effect."""

    role: Literal["native", "post"]
    """Which series."""
    slice_index: int
    """Slice, 0 at the base."""
    reader_id: str
    """Who decided."""
    guide: Literal["accepted", "redraw"]
    """Whether another guide is asked for."""
    decision: Literal["accept", "repeat", "exclude"]
    """Whether the numbers are used."""
    comment: str | None
    """The reader's reason."""
    accepted_flags: tuple[str, ...]
    """Checks whose findings the reader has seen and accepts."""
    slice_digest: str
    """Digest of the images and masks that the reader saw, see `storage.arrays.slice_digests`."""
    guide_digest: str
    """Digest of the guide that the reader saw."""
    accepted_values: tuple[str, ...] = ()
    """What each accepted check had found, as text, empty for one without a value; none in reviews of former
    versions."""

    def accepted(self) -> dict[str, float | None]:
        """Give what each accepted check had found, by its code.

        NaN where it had found no value, None where that is not known, as in reviews of former versions.
        """
        if not self.accepted_values:
            return dict.fromkeys(self.accepted_flags)
        found = zip(self.accepted_flags, self.accepted_values, strict=True)
        return {code: float(value) if value else math.nan for code, value in found}

    @property
    def has_effect(self) -> bool:
        """Whether a result would be another one without it."""
        return self.guide != "accepted" or self.decision != "accept" or bool(self.accepted_flags)


def read_reviews(root: Place, subject_id: str | None = None) -> dict[VisitKey, tuple[ReviewedSlice, ...]]:
    """Read the decisions that have an effect, of the newest review of each visit (of one subject)."""
    found: dict[VisitKey, list[ReviewedSlice]] = {}
    for row in read_table(root, REVIEWS, subject_id).to_pylist():
        reviewed = ReviewedSlice(
            row["role"],
            row["slice_index"],
            row["reader_id"],
            row["guide"],
            row["decision"],
            row["comment"],
            tuple(row["accepted_flags"]),
            row["slice_digest"],
            row["guide_digest"],
            tuple(row["accepted_values"] or ()),
        )
        if reviewed.has_effect:
            found.setdefault((row["subject_id"], row["visit_id"]), []).append(reviewed)
    return {
        key: tuple(sorted(slices, key=lambda one: (one.role, one.slice_index)))
        for key, slices in found.items()
    }


def reviews_digest(reviewed: Sequence[ReviewedSlice]) -> str | None:
    """Digest of the decisions that a result honors; None without any."""
    if not reviewed:
        return None
    told = [asdict(one) for one in reviewed]
    for one in told:
        if not one["accepted_values"]:  # as in former versions, whose results stand
            del one["accepted_values"]
    return canonical_digest(told)


def pending_reviews(root: Place) -> list[str]:
    """Name the visits whose published result does not honor their newest review yet."""
    reviews = read_reviews(root)
    return [
        f"{row['subject_id']}/{row['visit_id']}"
        for row in read_table(root, "visits").to_pylist()
        if row["result_digest"] is not None
        and row["reviews_digest"] != reviews_digest(reviews.get((row["subject_id"], row["visit_id"]), ()))
    ]


def was_recorded(root: Place, key: VisitKey, file_digest: str) -> bool:
    """Whether a visit's decisions file was recorded before, superseded since or not."""
    former = (root / HISTORY_FOLDER / key[0] / key[1]).glob(f"*/{REVIEWS}.parquet")
    paths = (table_file(root, REVIEWS, *key), *former)
    return any(path.exists() and _first_row(path)["file_digest"] == file_digest for path in paths)


def check_newest(root: Place, key: VisitKey, decided_at: datetime) -> None:
    """Check that a review may take the place of the one that holds.

    Raises
    ------
    DecisionsError
        If it was decided earlier.
    """
    path = table_file(root, REVIEWS, *key)
    held = _first_row(path) if path.exists() else None
    if held is not None and decided_at <= held["decided_at"]:
        message = (
            f"decided at {decided_at:%Y-%m-%d %H:%M:%S} UTC, not after the review that holds, by "
            f"{held['reader_id']} at {held['decided_at']:%Y-%m-%d %H:%M:%S} UTC; "
            f"decide again on the visit's page if this one shall hold"
        )
        raise DecisionsError(message)


def former_result(root: Place, key: VisitKey, result_digest: str) -> str | None:
    """Name the folder of history/ in which a visit's former result lies; None where it never had it."""
    for path in (root / HISTORY_FOLDER / key[0] / key[1]).glob("*/visits.parquet"):
        if _first_row(path)["result_digest"] == result_digest:
            return relative_name(path.parent, root)
    return None


def record_review(root: Place, rows: Sequence[Mapping[str, Any]]) -> Literal["recorded", "unchanged"]:
    """Record a review in place of the visit's former one, which moves to history/, and in the audit log.

    Parameters
    ----------
    root
        Root of the trial.
    rows
        Rows of one decisions file.

    Raises
    ------
    DecisionsError
        If it was decided before the review that holds.
    StorageError
        If a row does not fit the schema.
    """
    table, first = arrow_table(REVIEWS, rows), rows[0]
    key = (first["subject_id"], first["visit_id"])
    with writing_tables(root):
        recover_staged(root)
        write_empty_tables(root)
        if was_recorded(root, key, first["file_digest"]):
            return "unchanged"
        check_newest(root, key, first["decided_at"])
        facts = {name: first[name] for name in ("reader_id", "result_digest", "file_digest")}
        facts["decided_at"] = first["decided_at"].isoformat()
        manifest = {
            "event": REVIEWED,
            "who": first["recorded_by"],
            "why": f"review by {first['reader_id']}",
            "when": first["recorded_at"].isoformat(),
            "subject_id": key[0],
            "visit_id": key[1],
            "review": facts,
        }
        replace_files(root, manifest, {REVIEWS: table}, present_tables(root, [REVIEWS], *key), facts)
    return "recorded"


def _first_row(path: Place) -> dict[str, Any]:
    row: dict[str, Any] = read_parquet(path).slice(0, 1).to_pylist()[0]
    return row
