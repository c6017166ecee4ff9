"""A scan's maps, table rows and flags from its echoes and masks."""

import datetime
from dataclasses import asdict, replace

import torch
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.quantify.both_roles import (
    bring_onto_native,
    ecv_maps,
    level_of,
    match_slices,
    synthetic_hematocrit,
)
from cmrcore.quantify.decisions import accept_findings, check_decisions
from cmrcore.quantify.echo_rows import echo_rows
from cmrcore.quantify.qc import Place, check_range, raise_flag, scan_verdict, slice_verdict
from cmrcore.quantify.records import Hematocrit, QuantifySettings, Role, Row, ScanResult, Series
from cmrcore.quantify.regional import EcvMaps, mean
from cmrcore.quantify.role import RoleMeasurement, measure_role
from cmrcore.quantify.rows import (
    hematocrit_columns,
    measured_columns,
    segment_rows,
    slice_alignment_columns,
    slice_blood_columns,
)
from cmrcore.quantify.scan_checks import check_contrast, check_post, check_scan
from cmrcore.quantify.used import leave_out, used_slices
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

    Maps cover the whole image, guide or not. Statistics are read in the mask on the reference echo, away from
    its borders: of the native series for native, of the post-contrast series for post, in their intersection
    for ECV. They are None where there is nothing to average. A scan's mean is that of all its valid pixels;
    slices of which a role failed its checks, or a reader left it out, keep their rows and leave the means.

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

    flags = [*check_scan(roles, hematocrit, scan_time, scan_date, settings), *mismatches, *misaligned]
    for role, one in roles.items():
        flags += () if one is None else (*one.flags, *check_decisions(role, one.series))
    for index in matched:
        slice_ecv = None
        if ecv is not None and ecv.ecv_fraction is not None:
            slice_ecv = mean(ecv.ecv_fraction[index], ecv.myocardium[index])
        limits = (settings.qc.ecv_min_fraction, settings.qc.ecv_max_fraction)
        place = Place(slice_index=index, level=level_of(roles, index))
        flags += check_range("ecv_implausible", "mean ECV", slice_ecv, limits, place)
    flags += check_contrast(roles, matched, settings)
    flags = accept_findings(flags, {"native": native, "post": post})
    used = used_slices(roles, ecv, flags)
    if not used["native"] and all(flag.code != "nothing_measured" for flag in flags):
        flags.append(raise_flag("nothing_left", "every slice with a native T1 failed its checks"))
    flags.sort(key=lambda flag: -1 if flag.slice_index is None else flag.slice_index)

    kept, kept_ecv = leave_out(roles, ecv, used)
    synthetic = None if kept["native"] is None else synthetic_hematocrit(kept["native"], settings)
    ecv, kept_ecv = (
        None if one is None else replace(one, synthetic_fraction=synthetic) for one in (ecv, kept_ecv)
    )
    scan_row: Row = {
        "n_slices": n_slices,
        "scheme_native": None if native is None else native.scheme,
        "scheme_post": None if post is None else post.scheme,
        "minutes_since_contrast": None if post is None else post.minutes_since_contrast,
        **{f"n_slices_used_{name}": len(indices) for name, indices in used.items()},
        **measured_columns(kept, kept_ecv, settings, None),
        **hematocrit_columns(hematocrit, scan_time),
        "hematocrit_synthetic_fraction": synthetic,
        "hematocrit_synthetic_source": None if synthetic is None else settings.synthetic.source,
        "qc_verdict": scan_verdict(flags),
    }
    slice_rows: list[Row] = [
        {
            "slice_index": index,
            "level": level_of(roles, index),
            **measured_columns(roles, ecv, settings, index),
            **slice_blood_columns(roles, index),
            **slice_alignment_columns(roles, index),
            "post_aligned_mm": onto[index].way_mm if index in onto else None,
            "post_alignment": onto[index].state if index in onto else None,
            "post_dice": onto[index].dice if index in onto else None,
            **{f"used_{name}": index in indices for name, indices in used.items()},
            "qc_verdict": slice_verdict(flags, index),
        }
        for index in range(n_slices)
    ]
    return ScanResult(
        maps=_stored_maps(roles, ecv),
        displacements=_stored_displacements(roles, onto),
        scan=scan_row,
        slices=slice_rows,
        segments=[row for index in range(n_slices) for row in segment_rows(roles, ecv, index)],
        echoes=[row for role, one in roles.items() if one for row in echo_rows(role, one)],
        flags=flags,
        verdict=scan_verdict(flags),
        readings=[row for role, one in roles.items() if one for row in _readings(role, one)],
    )


def _readings(role: Role, one: RoleMeasurement) -> list[Row]:
    """List what the checks read of a role."""
    return [
        {"role": role, "slice_index": index, **asdict(quality)}
        for index, quality in enumerate(one.quality)
        if quality is not None
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
    maps["aha_segment"] = next(one.segments for one in roles.values() if one is not None)
    if ecv is not None and ecv.ecv_fraction is not None:
        maps["ecv_fraction"] = ecv.ecv_fraction.float()
    return maps
