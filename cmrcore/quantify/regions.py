"""Regions of the heart that statistics are given for, and a visit's values in each."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from cmrcore.quantify.aha import SEPTAL_SEGMENTS
from cmrcore.quantify.records import Value

Region = tuple[str, int | None]
"""Level (``global``, ``septal``, ``basal``, ``mid``, ``apical``) and AHA segment; None: the whole level."""

GLOBAL: Region = ("global", None)
SEPTAL: Region = ("septal", None)
LEVELS = ("basal", "mid", "apical")

QUANTITIES = ("t1_native_ms", "t1_post_ms", "ecv_fraction")
"""What is averaged over regions, by the names of the columns."""

_COUNTED = dict(
    zip(
        QUANTITIES,
        (("native", "n_pixels_read_native"), ("post", "n_pixels_read_post"), ("ecv", "n_pixels_ecv")),
        strict=True,
    )
)
"""Which mean of `used_slices` a quantity belongs to, and the column of the pixels it is the mean of."""

RegionalValues = Mapping[Region, Mapping[str, float | None]]
"""Each of `QUANTITIES` in each region that a visit shows; None where there is no value."""


def segment_region(number: int) -> Region:
    """Region of an AHA segment, 1 to 16."""
    level = "basal" if number <= 6 else "mid" if number <= 12 else "apical"
    return level, number


def segments_of(region: Region) -> Sequence[int] | None:
    """AHA segments that make up a region; None where it is the whole ring of its slices."""
    if region == SEPTAL:
        return SEPTAL_SEGMENTS
    return None if region[1] is None else (region[1],)


def regional_values(
    scan: Mapping[str, Value], slices: Sequence[Mapping[str, Value]], segments: Sequence[Mapping[str, Value]]
) -> dict[Region, dict[str, float | None]]:
    """Native T1, post-contrast T1 and ECV of each region from a visit's rows of the result tables.

    A level or segment in several slices has their mean, weighted by the pixels that were read. Slices that
    the scan's mean of a quantity leaves out are left out here as well: None where no other is there.
    """
    septal = {name: _septal_column(name) for name in QUANTITIES}
    values: dict[Region, dict[str, float | None]] = {
        GLOBAL: {name: _number(scan[name]) for name in QUANTITIES},
        SEPTAL: {name: _number(scan[column]) for name, column in septal.items()},
    }
    unused = {name: {row["slice_index"] for row in slices if not is_used(row, name)} for name in QUANTITIES}
    for level in LEVELS:
        here = [row for row in slices if row["level"] == level]
        if here:
            values[level, None] = {name: _mean(here, name, unused[name]) for name in QUANTITIES}
    for number in sorted({int(row["aha_segment"]) for row in segments if row["aha_segment"] is not None}):
        here = [row for row in segments if row["aha_segment"] == number]
        values[segment_region(number)] = {name: _mean(here, name, unused[name]) for name in QUANTITIES}
    return values


def is_used(row: Mapping[str, Value], name: str) -> bool:
    """Whether the scan's mean of a quantity rests on the slice of a row; so does any of a former version."""
    mean, _ = _COUNTED[name]
    return row.get(f"used_{mean}") is not False and row[name] is not None


def _septal_column(name: str) -> str:
    """Column of ``scans`` with a quantity's septal mean."""
    stem, _, unit = name.rpartition("_")
    return f"{stem}_septal_{unit}"


def _mean(rows: Iterable[Mapping[str, Value]], name: str, unused: AbstractSet[Value]) -> float | None:
    """Mean over rows of used slices weighted by their pixels; None where no row has a value."""
    _, n_pixels = _COUNTED[name]
    weighted = [
        (value, _number(row[n_pixels]) or 1.0)
        for row in rows
        if row["slice_index"] not in unused and (value := _number(row[name])) is not None
    ]
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if weighted else None


def _number(value: Value) -> float | None:
    """Value of a numeric column."""
    return None if value is None else float(value)
