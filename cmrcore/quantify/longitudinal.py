"""Change of a subject's heart, and of the scanner it was seen with, from visit to visit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from cmrcore.quantify.protocol import pixels_apart_mm
from cmrcore.quantify.qc import WHOLE_SCAN, Flag, Place, raise_flag
from cmrcore.quantify.records import Row, Value
from cmrcore.quantify.regions import (
    GLOBAL,
    LEVELS,
    SEPTAL,
    Region,
    RegionalValues,
    is_used,
    regional_values,
    segments_of,
)
from cmrcore.quantify.repeatability import Coefficient, Coefficients
from cmrcore.quantify.shape import HeartMasks, SliceShape, dice_aligned, slice_shapes

FIELD_TOLERANCE_T = 0.2
"""Field strengths that differ by less are one: scanners round theirs [T]."""

FLAGGED_REGIONS = (GLOBAL, SEPTAL)
"""Regions whose change of ECV flags a visit; any of 16 segments would flag most unchanged hearts."""

_CHANGES = (("t1_native_ms", "t1_native", "ms"), ("ecv_fraction", "ecv", "fraction"))
"""Quantity, and the stem and unit of its columns."""


@dataclass(frozen=True, slots=True)
class VisitFindings:
    """What a visit's published result says, as far as visits are compared."""

    visit_id: str
    """The visit."""
    scan: Mapping[str, Value]
    """Row of ``scans``."""
    slices: Sequence[Mapping[str, Value]]
    """Rows of ``slices``."""
    segments: Sequence[Mapping[str, Value]]
    """Rows of ``segments``."""
    pixel_spacing_mm: tuple[float, float]
    """Distance of rows and columns of the native series [mm]."""
    heart: HeartMasks | None
    """Masks; None without segmentation."""

    def values(self) -> dict[Region, dict[str, float | None]]:
        """Native T1 and ECV of each region."""
        return regional_values(self.scan, self.slices, self.segments)

    def levels(self, name: str) -> frozenset[Value]:
        """Levels that the visit's global and septal mean of a quantity rests on."""
        return frozenset(row["level"] for row in self.slices if is_used(row, name))


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """What counts as a change between visits."""

    pixel_tolerance_mm: float
    """How far pixel spacings of one protocol may differ [mm]."""
    ecv_change_relative: float
    """Relative change of ECV, up or down, that is marked, 0-1; S1 uses 0.1."""
    false_discovery_rate: float
    """Share of segments said to have changed that may be false, 0-1."""
    coefficients: Coefficients
    """Repeatability of each quantity in each region."""


def visit_pairs(n_visits: int) -> list[tuple[int, int]]:
    """Visits that are compared, as indices: the first with each later one, then each with the last."""
    from_first = [(0, later) for later in range(1, n_visits)]
    return from_first + [(earlier, n_visits - 1) for earlier in range(1, n_visits - 1)]


def retest_values(first: VisitFindings, second: VisitFindings) -> tuple[RegionalValues, RegionalValues]:
    """Values of two visits that repeatability is computed from: None where they rest on other levels."""
    before, after = (
        {
            region: {
                name: value if region in judged_regions(first, second, name, one) else None
                for name, value in quantities.items()
            }
            for region, quantities in one.items()
        }
        for one in (first.values(), second.values())
    )
    return before, after


def judged_regions(
    before: VisitFindings, after: VisitFindings, name: str, regions: Iterable[Region]
) -> set[Region]:
    """Regions in which a quantity of two visits is of the same part of the heart.

    A scan whose apex failed has a global mean of base and mid-ventricle, which differs from one of the whole
    heart where nothing changed.
    """
    alike = before.levels(name) == after.levels(name)
    return {region for region in regions if alike or region not in (GLOBAL, SEPTAL)}


def change_rows(visits: Sequence[VisitFindings], settings: ChangeSettings) -> list[Row]:
    """Change of native T1, ECV, area and thickness between visits, whole, septal, by level and by segment.

    A change counts as beyond measurement error where it exceeds the repeatability coefficient of the very
    quantity in the very region. That coefficient says nothing where scanner or protocol differ, or where the
    means of a scan rest on other levels, so there the verdict is None. Verdicts on segments are controlled
    for the false discovery rate (Benjamini & Hochberg) over the segments of one pair of visits and one
    quantity.

    Parameters
    ----------
    visits
        Results of one subject in the order of the visits.
    settings
        Limits and repeatability coefficients.

    Returns
    -------
        Rows of the table ``longitudinal``, for `visit_pairs` and the regions that both visits show; None
        where either visit lacks the value.

    References
    ----------
    Benjamini & Hochberg 1995, J R Stat Soc B 57:289, doi:10.1111/j.2517-6161.1995.tb02031.x
    """
    values = [visit.values() for visit in visits]
    shapes = [None if visit.heart is None else _by_level(visit.heart) for visit in visits]
    rows: list[Row] = []
    for first, second in visit_pairs(len(visits)):
        pair = (visits[first], visits[second])
        shared = [region for region in values[first] if region in values[second]]
        about_pair = _pair_columns(*pair, settings.pixel_tolerance_mm)
        comparable = same_conditions(*pair, settings.pixel_tolerance_mm)
        judged = {
            name: judged_regions(*pair, name, shared) if comparable else set[Region]()
            for name, *_ in _CHANGES
        }
        columns = _value_columns((values[first], values[second]), shared, settings, judged)
        rows += [
            {
                "visit_id": pair[1].visit_id,
                "baseline_visit_id": pair[0].visit_id,
                "level": region[0],
                "aha_segment": region[1],
                **columns[region],
                **_shape_columns(shapes[first], shapes[second], region),
                **about_pair,
            }
            for region in shared
        ]
    return rows


def visit_flags(rows: Sequence[Mapping[str, Value]]) -> list[Flag]:
    """Flag another scanner, or another ECV, than at the first visit, from a visit's rows of ``longitudinal``.

    Parameters
    ----------
    rows
        Rows of one visit, those of its pair with the first visit foremost.
    """
    if not rows:
        return []
    baseline = rows[0]["baseline_visit_id"]
    by_region = {
        (row["level"], row["aha_segment"]): row for row in rows if row["baseline_visit_id"] == baseline
    }
    whole = by_region[GLOBAL]
    flags = check_scanner(
        (_number(whole, "field_strength_t"), _number(whole, "baseline_field_strength_t")),
        (str(whole["scanner"]), str(whole["baseline_scanner"])),
        ("this visit", f"baseline {baseline}"),
    )
    changed = [by_region[region] for region in FLAGGED_REGIONS if by_region[region]["ecv_changed"]]
    if changed:
        found = "; ".join(
            f"{row['level']} {row['ecv_change_fraction']:+.3f}, repeatability "
            f"{row['ecv_repeatability_fraction']:.3f}"
            for row in changed
        )
        flags.append(
            raise_flag(
                "ecv_changed",
                f"ECV changed since {baseline} beyond measurement error: {found}",
                value=_number(changed[0], "ecv_change_fraction"),
                threshold=_number(changed[0], "ecv_repeatability_fraction"),
            )
        )
    return flags


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


def _value_columns(
    values: tuple[RegionalValues, RegionalValues],
    regions: Sequence[Region],
    settings: ChangeSettings,
    judged: Mapping[str, set[Region]],
) -> dict[Region, Row]:
    """Columns about T1 and ECV of one pair of visits, by region; ``judged`` by quantity."""
    before, after = values
    columns: dict[Region, Row] = {region: {} for region in regions}
    for name, stem, unit in _CHANGES:
        for region in regions:
            change = _difference(before[region][name], after[region][name])
            coefficient = settings.coefficients.get((name, region))
            beyond, p_value = _judge(change, coefficient if region in judged[name] else None)
            columns[region] |= {
                f"{stem}_change_{unit}": change,
                f"{stem}_repeatability_{unit}": None if coefficient is None else coefficient.value,
                f"{stem}_retest_pairs": None if coefficient is None else coefficient.n_pairs,
                f"{stem}_beyond_repeatability": beyond,
                f"{stem}_p_value": p_value,
            }
        _control_segments(columns, stem, settings.false_discovery_rate)
    for region in regions:
        ecv_before, change = before[region]["ecv_fraction"], _number(columns[region], "ecv_change_fraction")
        relative = change / ecv_before if change is not None and ecv_before else None
        columns[region] |= {
            "ecv_change_relative": relative,
            "ecv_change_beyond_limit": None
            if relative is None
            else abs(relative) >= settings.ecv_change_relative,
        }
    return columns


def _judge(change: float | None, coefficient: Coefficient | None) -> tuple[bool | None, float | None]:
    """Whether a change exceeds what repeated measurements differ by, and its p-value."""
    if change is None or coefficient is None:
        return None, None
    return abs(change) > coefficient.value, coefficient.p_value(change)


def _control_segments(columns: dict[Region, Row], stem: str, false_discovery_rate: float) -> None:
    """Add q-value and verdict: of a segment after control, else what the repeatability says."""
    segments = [
        region
        for region, row in columns.items()
        if region[1] is not None and row[f"{stem}_p_value"] is not None
    ]
    q_values: dict[Region, float] = {}
    if segments:
        p_values = [float(columns[region][f"{stem}_p_value"] or 0.0) for region in segments]
        q_values = dict(
            zip(segments, stats.false_discovery_control(p_values, method="bh").tolist(), strict=True)
        )
    for region, row in columns.items():
        q_value, beyond = q_values.get(region), row[f"{stem}_beyond_repeatability"]
        row[f"{stem}_q_value"] = q_value
        row[f"{stem}_changed"] = (
            beyond if q_value is None else bool(beyond) and q_value <= false_discovery_rate
        )


def _by_level(heart: HeartMasks) -> dict[str, list[SliceShape]]:
    """Shapes of the slices of each level, from base to apex."""
    shapes = slice_shapes(heart)
    return {
        level: [
            shape for shape, at in zip(shapes, heart.levels, strict=True) if at == level and shape is not None
        ]
        for level in LEVELS
    }


def _shape_columns(
    before: dict[str, list[SliceShape]] | None, after: dict[str, list[SliceShape]] | None, region: Region
) -> Row:
    """Change of area and thickness, and overlap, of one region; of levels that both visits show."""
    row: Row = dict.fromkeys(("area_change_mm2", "thickness_change_mm", "overlap_dice"))
    if before is None or after is None:
        return row
    levels = LEVELS if region in (GLOBAL, SEPTAL) else (region[0],)
    segments = segments_of(region)
    shared = [level for level in levels if before[level] and after[level]]
    areas, walls = [], []
    for visit in (before, after):
        by_level = [visit[level] for level in shared]
        areas.append(_mean(_mean(shape.area_mm2(segments) for shape in shapes) for shapes in by_level))
        walls.append(_mean(_mean(shape.thickness_mm(segments) for shape in shapes) for shapes in by_level))
    # Slices of a level are paired from the base on; one that is there more often stays alone.
    pairs = [pair for level in shared for pair in zip(before[level], after[level], strict=False)]
    return {
        "area_change_mm2": _difference(*areas),
        "thickness_change_mm": _difference(*walls),
        "overlap_dice": dice_aligned(pairs, segments) if pairs else None,
    }


def _pair_columns(before: VisitFindings, after: VisitFindings, pixel_tolerance_mm: float) -> Row:
    """Columns about the scanner and protocol of two visits."""
    fields_t = [_number(visit.scan, "field_strength_t") for visit in (before, after)]
    scanners = [_scanner(visit.scan) for visit in (before, after)]
    return {
        "same_scanner": _same_scanner(fields_t, scanners),
        "same_protocol": _same_protocol(before, after, pixel_tolerance_mm),
        "field_strength_t": fields_t[1],
        "baseline_field_strength_t": fields_t[0],
        "scanner": scanners[1],
        "baseline_scanner": scanners[0],
    }


def same_conditions(before: VisitFindings, after: VisitFindings, pixel_tolerance_mm: float) -> bool:
    """Whether nothing known says that scanner or protocol differ, so that repeatability can be judged."""
    about = _pair_columns(before, after, pixel_tolerance_mm)
    return about["same_scanner"] is not False and about["same_protocol"] is not False


def _same_scanner(fields_t: Sequence[float | None], scanners: Sequence[str]) -> bool | None:
    """Whether field strength, manufacturer and model agree; None where they are not known."""
    if fields_t[0] is None or fields_t[1] is None or not all(scanners):
        return None
    return abs(fields_t[0] - fields_t[1]) <= FIELD_TOLERANCE_T and scanners[0] == scanners[1]


def _same_protocol(before: VisitFindings, after: VisitFindings, pixel_tolerance_mm: float) -> bool | None:
    """Whether schemes and pixel size agree; None where a native scheme is not known."""
    schemes = [(visit.scan["scheme_native"], visit.scan["scheme_post"]) for visit in (before, after)]
    if schemes[0][0] is None or schemes[1][0] is None:
        return None
    alike = all(None in both or both[0] == both[1] for both in zip(*schemes, strict=True))
    apart_mm = pixels_apart_mm(before.pixel_spacing_mm, after.pixel_spacing_mm)
    return alike and (apart_mm is None or apart_mm <= pixel_tolerance_mm)


def _scanner(row: Mapping[str, Value]) -> str:
    """Manufacturer and model."""
    return f"{row['manufacturer']} {row['scanner_model']}".strip()


def _difference(before: float | None, after: float | None) -> float | None:
    """Later value minus earlier value."""
    return None if before is None or after is None else after - before


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(row: Mapping[str, Value], column: str) -> float | None:
    """Value of a numeric column."""
    value = row[column]
    return None if value is None else float(value)
