"""What a reader decided about a slice, as flags: what is left out of the means, and what is settled."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cmrcore.quantify.qc import Flag, Place, raise_flag, told
from cmrcore.quantify.records import ReaderDecision, Role, Series

READER_CODES = frozenset(
    {"reader_excluded", "reader_asks_repeat", "reader_asks_redraw", "reader_decision_lapsed"}
)
"""Codes of `check_decisions`."""

ROUNDING_FRACTION = 0.01
"""Change of an accepted value that is none, as other machines and versions round otherwise, relative."""

_WORDS = {"exclude": "excluded", "repeat": "asked to repeat"}
_CODES = {"exclude": "reader_excluded", "repeat": "reader_asks_repeat"}


def check_decisions(role: Role, series: Series) -> list[Flag]:
    """Flag slices that a reader left out, of which a scan or a guide is asked for, or was decided before."""
    flags = []
    for index, one in enumerate(series.decisions):
        if one is None:
            continue
        place = Place(role, index, series.levels[index])
        # A comment may have lines; a message has one.
        why = f": {' '.join(one.comment.split())}" if one.comment.split() else ""
        if one.redraw:
            message = f"reader {one.reader_id} asks for another guide{why}"
            flags.append(raise_flag("reader_asks_redraw", message, place))
        if one.decision == "accept":
            continue
        word = _WORDS[one.decision]
        if one.holds:
            flags.append(raise_flag(_CODES[one.decision], f"reader {one.reader_id} {word} it{why}", place))
        else:
            message = (
                f"reader {one.reader_id} {word} it with other images or masks{why}; "
                f"its numbers are used again: look at it and decide anew"
            )
            flags.append(raise_flag("reader_decision_lapsed", message, place))
    return flags


def accept_findings(flags: Sequence[Flag], series: Mapping[Role, Series | None]) -> list[Flag]:
    """Make notes of what asks for a review and a reader has accepted; what failed stays failed.

    A finding about both roles must be accepted in each that has the slice. One that is further beyond its
    limit by now than when it was accepted asks for a review again: other slices or another fit may have
    changed it though images and masks stand.
    """
    return [_accepted(flag, series) for flag in flags]


def _accepted(flag: Flag, series: Mapping[Role, Series | None]) -> Flag:
    """Give the flag, as a note where a reader has accepted it."""
    if flag.severity != "review" or flag.slice_index is None:
        return flag
    readers = []
    for role, one in series.items():
        if one is None or flag.slice_index >= len(one.levels) or flag.role not in (None, role):
            continue
        decision = _decision(one, flag.slice_index)
        if decision is None or not decision.holds or flag.code not in decision.accepted:
            return flag
        seen = decision.accepted[flag.code]
        if seen is not None and _is_worse(flag, seen):
            at = "without a value" if math.isnan(seen) else f"at {told(flag.code, seen)}"
            lapsed = f"(accepted by reader {decision.reader_id} {at}, before it grew worse)"
            return replace(flag, message=f"{flag.message} {lapsed}")
        readers.append(decision.reader_id)
    if not readers:
        return flag
    by = " and ".join(dict.fromkeys(readers))
    return replace(flag, severity="note", message=f"{flag.message} (accepted by reader {by})")


def _is_worse(flag: Flag, seen: float) -> bool:
    """Whether a value lies further beyond its limit than one that was seen, rounding aside.

    Where none was seen (NaN), any value is news; a check without a limit cannot grow worse.
    """
    if flag.value is None:
        return False
    if math.isnan(seen):
        return True
    if flag.threshold is None:
        return False
    beyond = 1 if flag.value > flag.threshold else -1
    return beyond * (flag.value - seen) > ROUNDING_FRACTION * abs(seen)


def _decision(series: Series, index: int) -> ReaderDecision | None:
    return series.decisions[index] if series.decisions else None
