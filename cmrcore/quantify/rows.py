"""Columns of the tables ``scans``, ``slices`` and ``segments`` from what was measured."""

import datetime

from cmrcore.quantify.aha import AHA_NAMES, present_segments
from cmrcore.quantify.blood import BloodT1
from cmrcore.quantify.both_roles import level_of, serving_blood
from cmrcore.quantify.qc import hematocrit_hours
from cmrcore.quantify.records import Hematocrit, QuantifySettings, Role, Row
from cmrcore.quantify.regional import (
    EcvMaps,
    ecv_columns,
    role_columns,
    segment_columns,
    select_ecv_slice,
    select_slice,
)
from cmrcore.quantify.role import RoleMeasurement


def measured_columns(
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
        blood = [] if one is None else _blood(one, index, settings)
        row[f"blood_t1_{role}_ms"] = _average([fit.t1_ms for fit in blood])
        row[f"blood_r_squared_{role}"] = _average([fit.r_squared for fit in blood])
    row |= ecv_columns(ecv if ecv is None or index is None else select_ecv_slice(ecv, index))
    row["n_pixels_myocardium"] = _n_myocardium(roles, index)
    return row


def _blood(one: RoleMeasurement, index: int | None, settings: QuantifySettings) -> list[BloodT1]:
    """Blood T1 of one slice or, for None, of all slices whose blood serves an ECV."""
    if index is None:
        return serving_blood(one, settings.blood_slice)
    return [fit for fit in one.blood[index : index + 1] if fit is not None]


def _average(values: list[float]) -> float | None:
    """Mean of values, None if there are none."""
    return sum(values) / len(values) if values else None


def _n_myocardium(roles: dict[Role, RoleMeasurement | None], index: int | None) -> int | None:
    """Myocardial pixels of the native mask, else of the other; None without any."""
    for one in roles.values():
        if one is None:
            continue
        whole = one.reference_masks[0]
        mask = whole if index is None else whole[index : index + 1]
        if bool(mask.any()):
            return int(mask.sum())
    return None


def hematocrit_columns(hematocrit: Hematocrit | None, scan_time: datetime.datetime | None) -> Row:
    """Hematocrit and where it comes from."""
    if hematocrit is None:
        return dict.fromkeys(("hematocrit_fraction", "hematocrit_source", "hematocrit_hours"))
    return {
        "hematocrit_fraction": hematocrit.fraction,
        "hematocrit_source": hematocrit.source,
        "hematocrit_hours": hematocrit_hours(hematocrit.measured_on, hematocrit.measured_at, scan_time),
    }


def slice_blood_columns(roles: dict[Role, RoleMeasurement | None], index: int) -> Row:
    """Columns about blood that only ``slices`` has."""
    row: Row = {}
    for role, one in roles.items():
        blood = None if one is None or index >= len(one.blood) else one.blood[index]
        row[f"blood_t1_{role}_sd_ms"] = None if blood is None else blood.t1_sd_ms
        row[f"n_pixels_blood_{role}"] = None if blood is None else blood.n_pixels
        row[f"n_echoes_left_out_blood_{role}"] = None if blood is None else blood.n_left_out
    return row


def slice_alignment_columns(roles: dict[Role, RoleMeasurement | None], index: int) -> Row:
    """Columns about the alignment of one slice's echoes, with R2 as it was before."""
    row: Row = {}
    for role, one in roles.items():
        alignment = None if one is None or index >= len(one.alignment) else one.alignment[index]
        before = None if alignment is None else alignment.candidates[0]
        row[f"alignment_{role}"] = None if alignment is None else alignment.method
        row[f"r_squared_{role}_unaligned_mean"] = None if before is None else before.r_squared_mean
        row[f"r_squared_{role}_unaligned_low_fraction"] = None if before is None else before.low_fraction
    return row


def segment_rows(roles: dict[Role, RoleMeasurement | None], ecv: EcvMaps | None, index: int) -> list[Row]:
    """Rows of one slice's AHA segments."""
    native, post = (None if one is None else select_slice(one.maps, index) for one in roles.values())
    shared = None if ecv is None else select_ecv_slice(ecv, index)
    whole = [one.segments[index : index + 1] for one in roles.values() if one is not None]
    before = roles["native"]
    drawn = None if before is None else before.segments[index : index + 1]
    drawn = drawn if drawn is not None and bool(drawn.any()) else None
    numbers = sorted({number for segments in whole for number in present_segments(segments)})
    return [
        {
            "slice_index": index,
            "level": level_of(roles, index),
            "aha_segment": number,
            "aha_name": AHA_NAMES[number],
            "n_pixels": None if drawn is None else int((drawn == number).sum()),
            **segment_columns(native, post, shared, number),
        }
        for number in numbers
    ]
