"""Change of a subject's results from one visit to the next."""

from collections.abc import Mapping, Sequence

from cmrcore.quantify.records import Row, Value


def change_from_baseline(rows: Sequence[Mapping[str, Value]], ecv_change_relative_limit: float) -> list[Row]:
    """Change of native T1 and ECV of the whole myocardium from the first visit to each later one.

    Parameters
    ----------
    rows
        Scan rows of one subject in the order of the visits, with ``visit_id``, ``t1_native_ms`` and
        ``ecv_fraction``.
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
    }


def _difference(baseline: Mapping[str, Value], later: Mapping[str, Value], column: str) -> float | None:
    """Later value minus baseline value."""
    before, after = _number(baseline, column), _number(later, column)
    return None if before is None or after is None else after - before


def _number(row: Mapping[str, Value], column: str) -> float | None:
    """Value of a numeric column."""
    value = row[column]
    return None if value is None else float(value)
