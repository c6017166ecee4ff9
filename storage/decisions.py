"""The decisions file: what a reader decided about every slice of a visit, as the visit's page writes it.

JSON in UTF-8, one file a visit::

    {"format": "cmrtrials-decisions", "version": 1, "trial_id": "...", "subject_id": "...",
     "visit_id": "...", "result_digest": "<64 hexadecimal digits>", "reader_id": "...",
     "decided_at": "2026-11-21T20:30:00Z",
     "slices": [{"role": "native", "slice_index": 0, "guide": "accepted", "decision": "accept",
                 "comment": ""}]}

The role is ``native`` or ``post``, the guide ``accepted`` or ``redraw``, the decision ``accept``, ``repeat``
or ``exclude``; the latter two need a comment. Nothing that the file says is passed over: an unknown key is an
error, and so is one that is there twice.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from storage.errors import DecisionsError, NotStoredError
from storage.plan import parse_id

FORMAT = "cmrtrials-decisions"
MAX_BYTES = 2**20
"""A decisions file of a visit has a few thousand bytes."""


def _check_comment(text: str) -> str:
    if _has_controls(text.translate(str.maketrans("", "", "\n\r\t"))):
        message = "holds control characters"
        raise ValueError(message)
    return text


def _check_reader_id(text: str) -> str:
    if _has_controls(text) or text != text.strip():
        message = "begins or ends with a space, or holds control characters"
        raise ValueError(message)
    return text


def _check_moment(moment: datetime) -> datetime:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        message = "lies before year 1 or after year 9999 in UTC"
        raise ValueError(message) from None
    return moment


def _has_controls(text: str) -> bool:
    return any(unicodedata.category(char) == "Cc" for char in text)


_Id = Annotated[str, AfterValidator(parse_id)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SliceDecision(_Strict):
    """What a reader decided about one slice of one series."""

    role: Literal["native", "post"]
    """Which series."""
    slice_index: Annotated[int, Field(ge=0, lt=1000)]
    """Slice, 0 at the base."""
    guide: Literal["accepted", "redraw"]
    """Whether the guide may stand, or a reader shall draw another."""
    decision: Literal["accept", "repeat", "exclude"]
    """Whether the slice's numbers are used; ``repeat`` asks for the scan again besides."""
    comment: Annotated[str, Field(max_length=2000), AfterValidator(_check_comment)]
    """The reader's reason."""

    @model_validator(mode="after")
    def _gives_a_reason(self) -> Self:
        if self.decision != "accept" and not self.comment.strip():
            message = f"decision is {self.decision}, so comment must say why, and it is empty"
            raise ValueError(message)
        return self


class Decisions(_Strict):
    """A decisions file."""

    format: Literal["cmrtrials-decisions"]
    """Says what file this is."""
    version: Literal[1]
    """Version of the format."""
    trial_id: str
    """Trial the page was made for."""
    subject_id: _Id
    """Pseudonym of the subject."""
    visit_id: _Id
    """Visit of the subject."""
    result_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Result that the reader saw."""
    reader_id: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_check_reader_id)]
    """Who decided."""
    decided_at: Annotated[AwareDatetime, AfterValidator(_check_moment)]
    """When the reader saved the decisions, with the offset from UTC."""
    slices: tuple[SliceDecision, ...]
    """Every slice of every series once."""

    @model_validator(mode="after")
    def _decides_once(self) -> Self:
        counts = Counter((one.role, one.slice_index) for one in self.slices)
        twice = [f"{role} slice {index}" for (role, index), count in sorted(counts.items()) if count > 1]
        if twice:
            message = f"decided more than once: {', '.join(twice)}"
            raise ValueError(message)
        return self

    @property
    def decided_at_utc(self) -> datetime:
        """When the reader saved the decisions, in UTC."""
        return self.decided_at.astimezone(UTC)


def read_decisions(path: Path) -> tuple[Decisions, str]:
    """Read and check a decisions file; give it with the SHA-256 of its bytes.

    Raises
    ------
    NotStoredError
        If there is no such file.
    DecisionsError
        Listing all that is wrong with it, each with what was expected; without its comments.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        message = "there is no such file; name the file that the visit's page gave to download"
        raise NotStoredError(message) from None
    if len(data) > MAX_BYTES:
        message = f"has over {MAX_BYTES} bytes, which no decisions file of one visit has"
        raise DecisionsError(message)
    try:
        decisions = Decisions.model_validate_json(_text_of(data))
    except ValidationError as error:
        problems = [_describe(one["loc"], one["type"], one["input"], one["msg"]) for one in error.errors()]
        raise DecisionsError("; ".join(problems)) from None
    return decisions, hashlib.sha256(data).hexdigest()


def _text_of(data: bytes) -> str:
    """Decode what may be a decisions file; that it is JSON, and of that format, is told before all else."""
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text, object_pairs_hook=_unrepeated)
    except DecisionsError:
        raise
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits is a plain ValueError
        kind = "is no UTF-8" if isinstance(error, UnicodeDecodeError) else f"is no JSON: {error}"
        message = f"{kind}; download it again from the visit's page"
        raise DecisionsError(message) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        message = f'is no decisions file: expected an object with "format": "{FORMAT}"'
        raise DecisionsError(message)
    return text


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; JSON's own rule would keep the last of several and drop the others."""
    counts = Counter(key for key, _ in pairs)
    twice = sorted(key for key, count in counts.items() if count > 1)
    if twice:
        message = f"has keys more than once in one object: {', '.join(map(repr, twice))}"
        raise DecisionsError(message)
    return dict(pairs)


def _describe(location: tuple[int | str, ...], kind: str, found: object, expected: str) -> str:
    """Say what is wrong where; of what was found only what is short, and no comment, which may be private."""
    place = ".".join(str(part) for part in location)
    if kind == "missing":
        return f"{place} is missing"
    if kind == "extra_forbidden":
        return f"{place}: unknown key, remove it or check its spelling"
    if kind == "value_error":
        said = expected.removeprefix("Value error, ")
        return f"{place}: {said}" if place else said
    shown = repr(found)
    if location[-1:] == ("comment",) or isinstance(found, dict | list) or len(shown) > 80:
        return f"{place}: {expected}"
    return f"{place}: found {shown}, expected: {expected}"
