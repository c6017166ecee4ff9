"""Quality checks of a scan: limits, flags and the table of what can be flagged."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "review", "fail"]
Verdict = Literal["pass", "review", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """Something that can be wrong with a scan."""

    meaning: str
    """What a raised flag says."""
    unit: str | None
    """Unit of the flag's value and threshold; None where it has none."""
    severity: Severity
    """``note``: nothing against the numbers; ``review``: look at it; ``fail``: do not use the numbers."""


CHECKS = {
    "r_squared_mean": Check("mean R2 in the myocardium of a slice is too low", "1", "review"),
    "r_squared_pixels": Check("too many myocardial pixels fit badly or not at all", "fraction", "review"),
    "t1_native_implausible": Check("mean native T1 of a slice is outside its limits", "ms", "review"),
    "t1_post_implausible": Check("mean post-contrast T1 of a slice is outside its limits", "ms", "review"),
    "blood_t1_implausible": Check("blood T1 of a slice is outside its limits", "ms", "review"),
    "blood_missing": Check(
        "a slice has no blood T1: no pool after erosion, or its fit failed", None, "review"
    ),
    "ecv_implausible": Check("mean ECV of a slice is outside its limits", "fraction", "review"),
    "hematocrit_missing": Check("no hematocrit, so no ECV", None, "review"),
    "hematocrit_implausible": Check("hematocrit is outside its limits", "fraction", "fail"),
    "hematocrit_old": Check("hematocrit was not measured close enough to the scan", "h or days", "review"),
    "guide_missing": Check("a slice has no guiding mask", None, "review"),
    "guide_implausible": Check("a slice's guiding mask is not used: it is no closed ring", None, "review"),
    "guide_doubtful": Check("a slice's guiding mask failed a check, and is used", "1", "review"),
    "guide_fell_back": Check(
        "the guide found on a slice's best echo failed a check; another's is used", None, "review"
    ),
    "mask_missing": Check("a slice with a guide has no myocardium on its reference echo", None, "review"),
    "echoes_unaligned": Check("echoes of a slice could not be aligned by their masks", "1", "review"),
    "masks_disagree": Check(
        "the mask of a slice's reference echo lies apart from most others",
        "pixel",
        "review",
    ),
    "no_orientation": Check("no slice shows the RV, so there are no AHA segments", None, "review"),
    "post_missing": Check("no post-contrast series, so no ECV", None, "review"),
    "native_post_mismatch": Check(
        "native and post-contrast slice are not on the same pixels", "mm", "review"
    ),
    "post_misaligned": Check(
        "post-contrast myocardium does not come to lie on the native one", "fraction", "review"
    ),
    "post_unaligned": Check(
        "post-contrast masks lie elsewhere than the native ones, and nothing was moved", "pixel", "review"
    ),
    "file_refused": Check("a file of the upload was left out; what remained was complete", None, "review"),
    "burned_in_annotation": Check("an image says that text is burned into its pixels", None, "review"),
    "acquisition_repeated": Check(
        "a slice was acquired more than once; one acquisition was taken", None, "review"
    ),
    "inversion_time_doubtful": Check(
        "inversion times come from an attribute that often holds something else", None, "review"
    ),
    "field_strength_differs": Check(
        "another field strength than at baseline, or after contrast", "T", "review"
    ),
    "scanner_differs": Check("another scanner than at baseline, or after contrast", None, "review"),
    "nothing_measured": Check("no native T1 in the myocardium of any slice", None, "fail"),
    # A change is what a trial looks for: a verdict that rested on it would sort out those who changed.
    "ecv_changed": Check("global or septal ECV changed beyond its repeatability", "fraction", "note"),
}
"""Every code that a flag can have."""

MASKS_APART_PX = 1.0
"""How far the reference's mask may lie from most others, and a contradicted post-contrast one [pixel]."""


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
class QcLimits:
    """When a result is flagged."""

    r_squared_mean_min: float
    """Least mean R2 in the myocardium of a slice; S1 uses 0.9."""
    r_squared_pixel_min: float
    """R2 under which a pixel counts as badly fitted; S1 uses 0.95."""
    r_squared_low_fraction_max: float
    """Largest share of badly fitted pixels in a slice, 0-1; S1 uses 0.10."""
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
    ecv_min_fraction: float
    """Least plausible ECV, 0-1."""
    ecv_max_fraction: float
    """Largest plausible ECV, 0-1."""
    position_tolerance_mm: float
    """How far apart native and post-contrast slices may lie [mm]."""


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
    """Worst severity among flags, ``pass`` if there are none but notes."""
    severities = {flag.severity for flag in flags}
    if "fail" in severities:
        return "fail"
    return "review" if "review" in severities else "pass"


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


def check_range(
    code: str, name: str, value: float | None, limits: tuple[float, float], place: Place = WHOLE_SCAN
) -> list[Flag]:
    """Flag of a value outside its limits; a value that is not there is another check's matter."""
    low, high = limits
    if value is None or low <= value <= high:
        return []
    message = f"{name} {value:.4g}, expected {low:g} to {high:g}"
    return [raise_flag(code, message, place, value=value, threshold=low if value < low else high)]
