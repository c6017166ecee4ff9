"""Change of a subject's results, and of the scanner they come from, from one visit to the next."""

from collections.abc import Mapping, Sequence

from cmrcore.quantify.qc import WHOLE_SCAN, Flag, Place, raise_flag
from cmrcore.quantify.records import Row, Value

FIELD_TOLERANCE_T = 0.2
"""Field strengths that differ by less are one: scanners round theirs [T]."""


def change_from_baseline(rows: Sequence[Mapping[str, Value]], ecv_change_relative_limit: float) -> list[Row]:
    """Change of native T1 and ECV of the whole myocardium from the first visit to each later one.

    Parameters
    ----------
    rows
        Scan rows of one subject in the order of the visits, with ``visit_id``, ``t1_native_ms``,
        ``ecv_fraction``, ``field_strength_t``, ``manufacturer`` and ``scanner_model``.
    ecv_change_relative_limit
        Relative change of ECV, up or down, from which it counts as beyond the limit, 0-1.

    Returns
    -------
        One row per later visit; None where either visit lacks the value.
    """
    return [_change(rows[0], later, ecv_change_relative_limit) for later in rows[1:]]


def _change(baseline: Mapping[str, Value], later: Mapping[str, Value], limit: float) -> Row:
    """Row of one pair of visits."""
    ecv_before, ecv_change = _number(baseline, "ecv_fraction"), _difference(baseline, later, "ecv_fraction")
    relative = ecv_change / ecv_before if ecv_change is not None and ecv_before else None
    return {
        "visit_id": later["visit_id"],
        "baseline_visit_id": baseline["visit_id"],
        "level": "global",
        "t1_native_change_ms": _difference(baseline, later, "t1_native_ms"),
        "ecv_change_fraction": ecv_change,
        "ecv_change_relative": relative,
        "ecv_change_beyond_limit": None if relative is None else abs(relative) >= limit,
        "field_strength_t": later["field_strength_t"],
        "baseline_field_strength_t": baseline["field_strength_t"],
        "scanner": _scanner(later),
        "baseline_scanner": _scanner(baseline),
    }


def check_scanner(
    field_strength_t: tuple[float | None, float | None],
    scanner: tuple[str, str],
    names: tuple[str, str],
    place: Place = WHOLE_SCAN,
) -> list[Flag]:
    """Flag of another field strength or scanner than that of what it is compared with; unknown is no other.

    Parameters
    ----------
    field_strength_t
        Field strength of the scan, and of what it is compared with [T].
    scanner
        Manufacturer and model of the same two; blank where unknown.
    names
        What the two are, for the message.
    place
        Where in the scan the flag belongs.
    """
    flags: list[Flag] = []
    now_t, before_t = field_strength_t
    if now_t is not None and before_t is not None and abs(now_t - before_t) > FIELD_TOLERANCE_T:
        message = f"{names[0]} at {now_t:g} T, {names[1]} at {before_t:g} T: T1 is not comparable"
        flags.append(raise_flag("field_strength_differs", message, place, value=now_t, threshold=before_t))
    now, before = (name.strip() for name in scanner)
    if now and before and now != before:
        message = f"{names[0]} on {now}, {names[1]} on {before}"
        flags.append(raise_flag("scanner_differs", message, place))
    return flags


def _difference(baseline: Mapping[str, Value], later: Mapping[str, Value], column: str) -> float | None:
    """Later value minus baseline value."""
    before, after = _number(baseline, column), _number(later, column)
    return None if before is None or after is None else after - before


def _scanner(row: Mapping[str, Value]) -> str:
    """Manufacturer and model."""
    return f"{row['manufacturer']} {row['scanner_model']}".strip()


def _number(row: Mapping[str, Value], column: str) -> float | None:
    """Value of a numeric column."""
    value = row[column]
    return None if value is None else float(value)
