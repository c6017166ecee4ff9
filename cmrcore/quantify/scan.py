"""A scan's maps, table rows and flags from its echoes and masks."""

import datetime

import torch
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.quantify.aha import AHA_NAMES, present_segments
from cmrcore.quantify.both_roles import bring_onto_native, check_post, ecv_maps, level_of, match_slices
from cmrcore.quantify.qc import (
    Flag,
    Place,
    check_hematocrit,
    check_range,
    hematocrit_hours,
    raise_flag,
    verdict,
)
from cmrcore.quantify.records import (
    Hematocrit,
    QuantifySettings,
    Role,
    Row,
    ScanResult,
    Series,
)
from cmrcore.quantify.regional import (
    EcvMaps,
    ecv_columns,
    mean,
    role_columns,
    segment_columns,
    select_ecv_slice,
    select_slice,
)
from cmrcore.quantify.role import BloodT1, RoleMeasurement, echo_rows, measure_role
from cmrcore.registration.post import PostAlignment

_STORED_MAPS = ("t1_ms", "t1_star_ms", "t1_sd_ms", "r_squared")


def quantify_scan(
    native: Series | None,
    post: Series | None,
    hematocrit: Hematocrit | None,
    scan_time: datetime.datetime | None,
    scan_date: datetime.date | None,
    settings: QuantifySettings,
) -> ScanResult:
    """Compute maps, rows and flags of one scan.

    Maps cover the whole image, guide or not. Statistics are read in the mask on the reference echo: of the
    native series for native, of the post-contrast series for post, in their intersection for ECV. They
    are None where there is nothing to average. ECV uses the blood of its own slice. A scan's mean is that of
    all its valid pixels.

    Parameters
    ----------
    native, post
        Series before and after contrast; None if not acquired.
    hematocrit
        The blood sample; None if there is none.
    scan_time
        When the native series was acquired, local; None if unknown.
    scan_date
        Day of the scan, which the age of the hematocrit is told by where ``scan_time`` is None.
    settings
        Model, erosion and limits.

    Raises
    ------
    InvalidInputError
        If there is neither series.
    """
    if native is None and post is None:
        raise InvalidInputError("a scan needs a native or a post-contrast series, found neither")
    roles: dict[Role, RoleMeasurement | None] = {
        "native": None if native is None else measure_role("native", native, settings),
        "post": None if post is None else measure_role("post", post, settings),
    }
    n_slices = max(len(one.series.levels) for one in roles.values() if one is not None)
    matched, mismatches = match_slices(native, post, settings.qc.position_tolerance_mm)
    fraction = None if hematocrit is None else hematocrit.fraction
    onto = bring_onto_native(roles["native"], roles["post"], matched, settings)
    misaligned = check_post(roles, onto, settings)
    apart = {flag.slice_index for flag in misaligned if flag.code == "post_misaligned"}
    fitting = [index for index in matched if index not in apart]
    ecv = ecv_maps(
        roles["native"], roles["post"], {index: onto[index] for index in fitting}, fraction, settings
    )

    flags = [*_scan_flags(roles, hematocrit, scan_time, scan_date, settings), *mismatches, *misaligned]
    for one in roles.values():
        flags += () if one is None else one.flags
    for index in matched:
        slice_ecv = None
        if ecv is not None and ecv.ecv_fraction is not None:
            slice_ecv = mean(ecv.ecv_fraction[index], ecv.myocardium[index])
        limits = (settings.qc.ecv_min_fraction, settings.qc.ecv_max_fraction)
        place = Place(slice_index=index, level=level_of(roles, index))
        flags += check_range("ecv_implausible", "mean ECV", slice_ecv, limits, place)
    flags.sort(key=lambda flag: -1 if flag.slice_index is None else flag.slice_index)

    scan_row: Row = {
        "n_slices": n_slices,
        "scheme_native": None if native is None else native.scheme,
        "scheme_post": None if post is None else post.scheme,
        **_measured_columns(roles, ecv, settings, None),
        **_hematocrit_columns(hematocrit, scan_time),
        "qc_verdict": verdict(flags),
    }
    slice_rows: list[Row] = [
        {
            "slice_index": index,
            "level": level_of(roles, index),
            **_measured_columns(roles, ecv, settings, index),
            **_slice_blood_columns(roles, index),
            **_slice_alignment_columns(roles, index),
            "post_aligned_mm": onto[index].way_mm if index in onto else None,
            "post_alignment": onto[index].state if index in onto else None,
            "post_dice": onto[index].dice if index in onto else None,
            "qc_verdict": verdict(flag for flag in flags if flag.slice_index == index),
        }
        for index in range(n_slices)
    ]
    return ScanResult(
        maps=_stored_maps(roles, ecv),
        displacements=_stored_displacements(roles, onto),
        scan=scan_row,
        slices=slice_rows,
        segments=[row for index in range(n_slices) for row in _segment_rows(roles, ecv, index)],
        echoes=[row for role, one in roles.items() if one for row in echo_rows(role, one)],
        flags=flags,
        verdict=verdict(flags),
    )


def _scan_flags(
    roles: dict[Role, RoleMeasurement | None],
    hematocrit: Hematocrit | None,
    scan_time: datetime.datetime | None,
    scan_date: datetime.date | None,
    settings: QuantifySettings,
) -> list[Flag]:
    """Check what concerns the whole scan."""
    flags = []
    native = roles["native"]
    if native is None or mean(native.maps.t1_ms, native.maps.myocardium) is None:
        flags.append(raise_flag("nothing_measured", "no native T1 in the myocardium of any slice"))
    if roles["post"] is None:
        flags.append(raise_flag("post_missing", "no post-contrast series, so no ECV"))
    if hematocrit is None:
        flags.append(raise_flag("hematocrit_missing", "no hematocrit, so no ECV"))
    else:
        flags += check_hematocrit(
            hematocrit.fraction,
            hematocrit.measured_on,
            hematocrit.measured_at,
            scan_time,
            scan_date,
            settings.hematocrit,
        )
    return flags


def _measured_columns(
    roles: dict[Role, RoleMeasurement | None],
    ecv: EcvMaps | None,
    settings: QuantifySettings,
    index: int | None,
) -> Row:
    """Measured columns that ``scans`` and ``slices`` share, of one slice or, for None, of all."""
    row: Row = {}
    for role, one in roles.items():
        maps = None if one is None else one.maps
        if maps is not None and index is not None:
            maps = select_slice(maps, index)
        row |= role_columns(role, maps, settings.qc.r_squared_pixel_min)
        blood = [] if one is None else _blood(one, index)
        row[f"blood_t1_{role}_ms"] = _average([fit.t1_ms for fit in blood])
        row[f"blood_r_squared_{role}"] = _average([fit.r_squared for fit in blood])
    row |= ecv_columns(ecv if ecv is None or index is None else select_ecv_slice(ecv, index))
    row["n_pixels_myocardium"] = _n_myocardium(roles, index)
    return row


def _blood(one: RoleMeasurement, index: int | None) -> list[BloodT1]:
    """Blood T1 of one slice or, for None, of all slices that have one."""
    chosen = one.blood if index is None else one.blood[index : index + 1]
    return [fit for fit in chosen if fit is not None]


def _average(values: list[float]) -> float | None:
    """Mean of values, None if there are none."""
    return sum(values) / len(values) if values else None


def _n_myocardium(roles: dict[Role, RoleMeasurement | None], index: int | None) -> int | None:
    """Myocardial pixels of the native mask, else of the other; None without any."""
    for one in roles.values():
        if one is None:
            continue
        mask = one.maps.myocardium if index is None else one.maps.myocardium[index : index + 1]
        if bool(mask.any()):
            return int(mask.sum())
    return None


def _hematocrit_columns(hematocrit: Hematocrit | None, scan_time: datetime.datetime | None) -> Row:
    """Hematocrit and where it comes from."""
    if hematocrit is None:
        return dict.fromkeys(("hematocrit_fraction", "hematocrit_source", "hematocrit_hours"))
    return {
        "hematocrit_fraction": hematocrit.fraction,
        "hematocrit_source": hematocrit.source,
        "hematocrit_hours": hematocrit_hours(hematocrit.measured_on, hematocrit.measured_at, scan_time),
    }


def _slice_blood_columns(roles: dict[Role, RoleMeasurement | None], index: int) -> Row:
    """Columns about blood that only ``slices`` has."""
    row: Row = {}
    for role, one in roles.items():
        blood = [] if one is None else _blood(one, index)
        row[f"blood_t1_{role}_sd_ms"] = blood[0].t1_sd_ms if blood else None
        row[f"n_pixels_blood_{role}"] = blood[0].n_pixels if blood else None
    return row


def _slice_alignment_columns(roles: dict[Role, RoleMeasurement | None], index: int) -> Row:
    """Columns about the alignment of one slice's echoes, with R2 as it was before."""
    row: Row = {}
    for role, one in roles.items():
        alignment = None if one is None or index >= len(one.alignment) else one.alignment[index]
        before = None if alignment is None else alignment.candidates[0]
        row[f"alignment_{role}"] = None if alignment is None else alignment.method
        row[f"r_squared_{role}_unaligned_mean"] = None if before is None else before.r_squared_mean
        row[f"r_squared_{role}_unaligned_low_fraction"] = None if before is None else before.low_fraction
    return row


def _segment_rows(roles: dict[Role, RoleMeasurement | None], ecv: EcvMaps | None, index: int) -> list[Row]:
    """Rows of one slice's AHA segments."""
    native, post = (None if one is None else select_slice(one.maps, index) for one in roles.values())
    shared = None if ecv is None else select_ecv_slice(ecv, index)
    numbers = sorted(
        {n for maps in (native, post) if maps is not None for n in present_segments(maps.segments)}
    )
    return [
        {
            "slice_index": index,
            "level": level_of(roles, index),
            "aha_segment": number,
            "aha_name": AHA_NAMES[number],
            **segment_columns(native, post, shared, number),
        }
        for number in numbers
    ]


def _stored_displacements(
    roles: dict[Role, RoleMeasurement | None], onto: dict[int, PostAlignment]
) -> dict[str, Tensor]:
    """Collect the displacements to keep, in half precision."""
    kept = {
        f"{role}/displacement_px": torch.stack([slice_.displacement_px for slice_ in one.alignment]).half()
        for role, one in roles.items()
        if one is not None
    }
    if onto and roles["native"] is not None:
        n_slices, n_rows, n_cols = roles["native"].maps.t1_ms.shape
        onto_native = torch.full((n_slices, 2, n_rows, n_cols), torch.nan, dtype=torch.float16)
        for index, one in onto.items():
            onto_native[index] = one.displacement_px.half()
        kept["post/onto_native_px"] = onto_native
    return kept


def _stored_maps(roles: dict[Role, RoleMeasurement | None], ecv: EcvMaps | None) -> dict[str, Tensor]:
    """Collect the maps to keep: single precision, AHA segments of the native series if there is one."""
    maps: dict[str, Tensor] = {}
    for role, one in roles.items():
        if one is not None:
            maps |= {f"{role}/{name}": getattr(one.fit, name).float() for name in _STORED_MAPS}
            maps[f"{role}/status"] = one.fit.status
    maps["aha_segment"] = next(one.maps.segments for one in roles.values() if one is not None)
    if ecv is not None and ecv.ecv_fraction is not None:
        maps["ecv_fraction"] = ecv.ecv_fraction.float()
    return maps
