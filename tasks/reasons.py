"""The state of a computed visit and the reason that it is told with."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

SEVERITIES = ("fail", "review", "note")
"""Severities of flags, the worst first."""


def state_of(flags: Sequence[Row]) -> tuple[str, str]:
    """State of a computed visit, and its reason: the flags it raised, each code once; notes do not count."""
    counting = [flag for flag in told_once(flags) if flag["severity"] != "note"]
    first = {flag["code"]: flag["message"] for flag in reversed(counting)}
    if not first:
        return "done", ""
    return "flagged", "; ".join(f"{code}: {first[code]}" for code in sorted(first))


def told_once(flags: Sequence[Row]) -> list[Row]:
    """Leave out flags of a slice that a worse one finds the same of: one reading can break several limits.

    Parameters
    ----------
    flags
        Rows of the table ``flags`` of a visit.
    """
    worst: dict[tuple[Any, ...], str] = {}
    for flag in sorted(flags, key=lambda flag: SEVERITIES.index(flag["severity"])):
        worst.setdefault(_reading(flag), flag["severity"])
    return [flag for flag in flags if flag["value"] is None or flag["severity"] == worst[_reading(flag)]]


def _reading(flag: Row) -> tuple[Any, ...]:
    """Where a flag was raised and what was found, whatever was expected."""
    return flag["role"], flag["slice_index"], flag["value"], flag["message"].partition(", expected ")[0]
