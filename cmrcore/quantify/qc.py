"""Quality checks of a scan: limits, flags and verdicts. The table of what can be flagged is in `checks`."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, fields

from cmrcore.quantify.checks import CHECKS, Severity, Verdict

_FIELDS_T = (1.5, 3.0)
_FIELD_REACH_T = 0.3
_BARE = (1.0, "")
_TOLD: dict[str | None, tuple[float, str]] = {
    "ms": (1.0, " ms"),
    "mm": (1.0, " mm"),
    "min": (1.0, " min"),
    "pixel": (1.0, " pixels"),
    "fraction": (100.0, " %"),
}
"""How messages tell values, by the unit of their check: what they are multiplied by, and what follows."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One raised check; scan-wide where slice and role are None."""

    code: str
    """Key of `CHECKS`."""
    severity: Severity
    """Severity of the check."""
    message: str
    """What was found and what was expected."""
    role: str | None = None
    """``native`` or ``post``."""
    slice_index: int | None = None
    """Slice, 0 at the base."""
    level: str | None = None
    """Level of the slice."""
    value: float | None = None
    """What was found."""
    threshold: float | None = None
    """The limit that it broke."""


@dataclass(frozen=True, slots=True)
class TissueLimits:
    """T1 that myocardium and blood can have at a field strength."""

    t1_native_min_ms: float
    """Least plausible native T1 of myocardium [ms]."""
    t1_native_max_ms: float
    """Largest plausible native T1 of myocardium [ms]."""
    t1_post_min_ms: float
    """Least plausible post-contrast T1 of myocardium [ms]."""
    t1_post_max_ms: float
    """Largest plausible post-contrast T1 of myocardium [ms]."""
    blood_t1_native_min_ms: float
    """Least plausible native T1 of blood [ms]."""
    blood_t1_native_max_ms: float
    """Largest plausible native T1 of blood [ms]."""
    blood_t1_post_min_ms: float
    """Least plausible post-contrast T1 of blood [ms]."""
    blood_t1_post_max_ms: float
    """Largest plausible post-contrast T1 of blood [ms]."""


@dataclass(frozen=True, slots=True)
class QcLimits:
    """When a result is flagged."""

    r_squared_mean_min: float
    """Least mean R2 in the myocardium of a slice; S1 uses 0.9."""
    r_squared_pixel_min: float
    """R2 under which a pixel counts as badly fitted; S1 uses 0.95."""
    r_squared_low_fraction_max: float
    """Largest share of badly fitted pixels in a slice by the rule of S1, 0-1; S1 uses 0.10."""
    fit_poor_fraction_max: float
    """Largest share of badly fitted pixels in a slice that needs no review, 0-1."""
    fit_failed_fraction_max: float
    """Largest share of badly fitted pixels in a slice whose numbers can be used, 0-1."""
    amplitude_ratio_min: float
    """Least median B / A of a slice's fits."""
    amplitude_ratio_max: float
    """Largest median B / A of a slice's fits."""
    wall_min_mm: float
    """Least mean thickness of the wall [mm]."""
    wall_max_mm: float
    """Largest mean thickness of the wall [mm]."""
    area_ratio_max: float
    """Largest area within the epicardium over that of the slices beside it, or one over it."""
    center_off_max_mm: float
    """Largest distance of the LV's center from that of the slices beside it [mm]."""
    guide_overlap_min: float
    """Least Dice coefficient of a reader's ventricle with what the network finds; below, the guide is used
    all the same and the slice's numbers are left out. `GuideLimits.overlap_min` is higher, a finding only."""
    landmark_off_max_mm: float
    """Largest distance of a reader's anterior insertion from the myocardium [mm]."""
    guide_dice_min: float
    """Least median Dice coefficient of the echoes' masks with the guide."""
    aligned_dice_min: float
    """Least lower quartile of the Dice coefficients of aligned masks with that of the reference echo."""
    masks_apart_max_px: float
    """How far a mask may lie from most others, and a contradicted post-contrast one [pixel]."""
    separation_min: float
    """Least separation of wall and blood on the third best echo, |2 AUC - 1|."""
    masks_apart_fail_px: float
    """How far it may lie before its numbers are left out [pixel]."""
    separation_fail_min: float
    """Separation of wall and blood under which a slice's numbers are left out."""
    t1_spread_max_fraction: float
    """Largest scatter of T1 in the myocardium of a slice, relative."""
    t1_apart_max_fraction: float
    """Largest difference of a slice's myocardial T1 from that of the other slices, relative."""
    blood_r_squared_min: float
    """Least R2 of the blood's fit."""
    blood_spread_max_fraction: float
    """Largest scatter of T1 in the eroded blood pool, relative."""
    blood_pixels_min: float
    """Fewest pixels that blood T1 rests on."""
    blood_apart_max_fraction: float
    """Largest difference of a slice's blood T1 from that of the other slices, relative."""
    t1_over_blood_min: float
    """Least native T1 of myocardium over that of blood."""
    t1_over_blood_max: float
    """Largest native T1 of myocardium over that of blood."""
    post_over_native_max: float
    """Largest post-contrast T1 over the native one, of myocardium and of blood."""
    post_minutes_min: float
    """Least time from the contrast bolus to the post-contrast series [min]."""
    post_minutes_max: float
    """Longest time from the contrast bolus to the post-contrast series [min]."""
    beats_apart_max_fraction: float
    """Largest difference of the beat after contrast from that before, relative."""
    ecv_min_fraction: float
    """Least plausible ECV, 0-1."""
    ecv_max_fraction: float
    """Largest plausible ECV, 0-1."""
    position_tolerance_mm: float
    """How far apart native and post-contrast slices may lie [mm]."""
    tissue_1_5t: TissueLimits
    """What T1 can be at 1.5 T, give or take 0.3 T."""
    tissue_3t: TissueLimits
    """What T1 can be at 3 T, give or take 0.3 T."""

    def tissue(self, field_strength_t: float | None) -> TissueLimits | None:
        """Limits at a field strength [T]; what either allows where it is unknown, None far from both."""
        if field_strength_t is not None:
            for at_t, limits in zip(_FIELDS_T, (self.tissue_1_5t, self.tissue_3t), strict=True):
                if abs(field_strength_t - at_t) <= _FIELD_REACH_T:
                    return limits
            return None
        bounds = {}
        for one in fields(TissueLimits):
            pair = (getattr(self.tissue_1_5t, one.name), getattr(self.tissue_3t, one.name))
            bounds[one.name] = min(pair) if "_min_" in one.name else max(pair)
        return TissueLimits(**bounds)


@dataclass(frozen=True, slots=True)
class HematocritLimits:
    """When a hematocrit is believed."""

    min_fraction: float
    """Least plausible hematocrit, 0-1."""
    max_fraction: float
    """Largest plausible hematocrit, 0-1."""
    max_hours: float
    """Longest time between sample and scan [h], where the sample's time is known."""
    max_days: int
    """Most calendar days between sample and scan, where only its date is known."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a scan a flag belongs; the whole scan where all are None."""

    role: str | None = None
    """``native`` or ``post``."""
    slice_index: int | None = None
    """Slice, 0 at the base."""
    level: str | None = None
    """Level of the slice."""


WHOLE_SCAN = Place()


def raise_flag(
    code: str,
    message: str,
    place: Place = WHOLE_SCAN,
    *,
    value: float | None = None,
    threshold: float | None = None,
) -> Flag:
    """Flag of a known check, with its severity."""
    return Flag(
        code=code,
        severity=CHECKS[code].severity,
        message=message,
        role=place.role,
        slice_index=place.slice_index,
        level=place.level,
        value=value,
        threshold=threshold,
    )


def verdict(flags: Iterable[Flag]) -> Verdict:
    """Worst severity among flags; notes do not count, ``pass`` if there is nothing else."""
    severities = {flag.severity for flag in flags}
    if "fail" in severities:
        return "fail"
    return "review" if "review" in severities else "pass"


def slice_verdict(flags: Iterable[Flag], slice_index: int) -> Verdict:
    """Verdict of one slice, from the flags about it."""
    return verdict(flag for flag in flags if flag.slice_index == slice_index)


def scan_verdict(flags: Iterable[Flag]) -> Verdict:
    """Verdict of a scan, whose means leave out what failed: a failed slice alone asks for a review.

    It fails where the whole scan did; `nothing_left` says so of one without a slice to rest on.
    """
    of_scan = [flag for flag in flags if flag.severity != "note"]
    worst = verdict(flag for flag in of_scan if flag.slice_index is None)
    return "review" if worst == "pass" and of_scan else worst


def reasons(flags: Iterable[Flag]) -> list[str]:
    """Codes that a verdict rests on, each once, in alphabetical order."""
    return sorted({flag.code for flag in flags if flag.severity != "note"})


def hematocrit_hours(
    measured_on: datetime.date, measured_at: datetime.time | None, scan_time: datetime.datetime | None
) -> float | None:
    """Time between blood sample and scan [h]; None if either time is unknown."""
    if measured_at is None or scan_time is None:
        return None
    sample = datetime.datetime.combine(measured_on, measured_at)
    return abs(scan_time - sample).total_seconds() / 3600


def check_hematocrit(
    fraction: float,
    measured_on: datetime.date,
    measured_at: datetime.time | None,
    scan_time: datetime.datetime | None,
    scan_date: datetime.date | None,
    limits: HematocritLimits,
) -> list[Flag]:
    """Check value and age of a hematocrit; the consensus asks for one within 24 h of the scan.

    Its age is told in hours where both times are known, else in calendar days; ``scan_date`` is read only
    where ``scan_time`` is None.

    References
    ----------
    Messroghli et al. 2017, J Cardiovasc Magn Reson 19:75, doi:10.1186/s12968-017-0389-8
    """
    bounds = (limits.min_fraction, limits.max_fraction)
    flags = check_range("hematocrit_implausible", "hematocrit", fraction, bounds)
    scanned_on = scan_date if scan_time is None else scan_time.date()
    if scanned_on is None:
        message = "age of the hematocrit is unknown: the scan has no date"
        return [*flags, raise_flag("hematocrit_old", message)]
    hours = hematocrit_hours(measured_on, measured_at, scan_time)
    if hours is not None:
        age, limit, unit = hours, limits.max_hours, "h"
    else:
        days = abs((scanned_on - measured_on).days)
        age, limit, unit = float(days), float(limits.max_days), "calendar days"
    if age > limit:
        message = f"hematocrit {age:.4g} {unit} from the scan, expected at most {limit:g}"
        flags.append(raise_flag("hematocrit_old", message, value=age, threshold=limit))
    return flags


def told(code: str, value: float) -> str:
    """Write what a check found, with its unit."""
    factor, unit = _TOLD.get(CHECKS[code].unit, _BARE)
    return f"{factor * value:.4g}{unit}"


def check_range(
    code: str,
    name: str,
    value: float | None,
    limits: tuple[float | None, float | None],
    place: Place = WHOLE_SCAN,
) -> list[Flag]:
    """Flag of a value outside its limits, of which one may be open; no value is another check's matter."""
    low, high = limits
    if value is None or ((low is None or value >= low) and (high is None or value <= high)):
        return []
    factor, unit = _TOLD.get(CHECKS[code].unit, _BARE)
    least, most = (None if limit is None else f"{factor * limit:g}" for limit in limits)
    if least is None:
        expected = f"at most {most}"
    else:
        expected = f"at least {least}" if most is None else f"{least} to {most}"
    broken = low if low is not None and value < low else high
    message = f"{name} {told(code, value)}, expected {expected}{unit}"
    return [raise_flag(code, message, place, value=value, threshold=broken)]
