"""Native and post-contrast series together: which slices match, how they lie, and their ECV."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.quantify.ecv import ecv_map, partition_coefficient
from cmrcore.quantify.qc import Flag, Place, raise_flag
from cmrcore.quantify.records import QuantifySettings, Role, Series
from cmrcore.quantify.regional import EcvMaps
from cmrcore.quantify.role import RoleMeasurement
from cmrcore.registration.align import SliceAlignment
from cmrcore.registration.post import PostAlignment, align_post, post_t1_ms

_SPACING_TOLERANCE_MM = 1e-3
_COSINE_TOLERANCE = 1e-3


def match_slices(
    native: Series | None, post: Series | None, tolerance_mm: float
) -> tuple[list[int], list[Flag]]:
    """Slices that lie on the same pixels before and after contrast, and flags for the others."""
    if native is None or post is None:
        return [], []
    matched, flags = [], []
    same_pixels = (
        native.echoes.shape[2:] == post.echoes.shape[2:]
        and _all_close(native.pixel_spacing_mm, post.pixel_spacing_mm, _SPACING_TOLERANCE_MM)
        and _all_close(native.orientation, post.orientation, _COSINE_TOLERANCE)
    )
    n_native, n_post = len(native.levels), len(post.levels)
    for index in range(max(n_native, n_post)):
        level = (native if index < n_native else post).levels[index]
        place = Place(slice_index=index, level=level)
        if index >= min(n_native, n_post):
            message = f"native has {n_native} slices, post-contrast {n_post}: no ECV here"
            flags.append(raise_flag("native_post_mismatch", message, place))
            continue
        if not same_pixels:
            message = "native and post-contrast differ in matrix, pixel spacing or orientation: no ECV here"
            flags.append(raise_flag("native_post_mismatch", message, place))
            continue
        apart_mm = torch.dist(native.positions_mm[index], post.positions_mm[index]).item()
        if apart_mm > tolerance_mm:
            message = f"post-contrast slice lies {apart_mm:.1f} mm off, expected at most {tolerance_mm:g}"
            flags.append(
                raise_flag("native_post_mismatch", message, place, value=apart_mm, threshold=tolerance_mm)
            )
            continue
        matched.append(index)
    return matched, flags


def _all_close(before: Sequence[float], after: Sequence[float], tolerance: float) -> bool:
    return all(abs(one - other) <= tolerance for one, other in zip(before, after, strict=True))


def bring_onto_native(
    native: RoleMeasurement | None,
    post: RoleMeasurement | None,
    matched: list[int],
    settings: QuantifySettings,
) -> dict[int, PostAlignment]:
    """Where each matched post-contrast slice lies on the native one."""
    if native is None or post is None:
        return {}
    return {
        index: align_post(
            native.reference_masks[:, index],
            post.reference_masks[:, index],
            (_recovered(native.alignment[index]), _recovered(post.alignment[index])),
            native.series.pixel_spacing_mm,
            settings.align,
        )
        for index in matched
    }


def _recovered(alignment: SliceAlignment) -> Float[Tensor, "row col"]:
    """Echo of the longest inversion time among those that lie where the reference does."""
    return alignment.echoes[alignment.recovered]


def ecv_maps(
    native: RoleMeasurement | None,
    post: RoleMeasurement | None,
    onto: dict[int, PostAlignment],
    hematocrit_fraction: float | None,
    settings: QuantifySettings,
) -> EcvMaps | None:
    """Partition coefficient and ECV of the matched slices that have blood in both roles; None without any.

    A post-contrast slice that lies elsewhere is fitted again on the native pixels, from its original echoes.
    """
    if native is None or post is None:
        return None
    blood = {
        index: (before, after)
        for index in onto
        if (before := native.blood[index]) is not None and (after := post.blood[index]) is not None
    }
    if not blood:
        return None
    coefficient = torch.full_like(native.maps.t1_ms, torch.nan)
    ecv = None if hematocrit_fraction is None else torch.full_like(coefficient, torch.nan)
    shared = torch.zeros_like(native.maps.myocardium)
    for index, (before, after) in blood.items():
        t1_post_ms = post.maps.t1_ms[index]
        if onto[index].moves:
            t1_post_ms = post_t1_ms(
                post.series.echoes[index],
                post.series.ti_ms[index],
                post.alignment[index],
                onto[index],
                settings.t1_model,
            )
        t1_ms = native.maps.t1_ms[index], t1_post_ms
        coefficient[index] = partition_coefficient(*t1_ms, before.t1_ms, after.t1_ms)
        if ecv is not None and hematocrit_fraction is not None:
            ecv[index] = ecv_map(*t1_ms, before.t1_ms, after.t1_ms, hematocrit_fraction)
        shared[index] = native.maps.myocardium[index] & onto[index].myocardium
    return EcvMaps(
        partition_coefficient=coefficient, ecv_fraction=ecv, myocardium=shared, segments=native.maps.segments
    )


def level_of(roles: dict[Role, RoleMeasurement | None], index: int) -> str:
    """Level of a slice, from the native series where it reaches."""
    return next(
        one.series.levels[index]
        for one in roles.values()
        if one is not None and index < len(one.series.levels)
    )
