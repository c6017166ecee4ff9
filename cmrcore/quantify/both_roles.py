"""Native and post-contrast series together: which slices match, how they lie, and their ECV."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.quantify.blood import BloodT1
from cmrcore.quantify.ecv import ecv_map, partition_coefficient
from cmrcore.quantify.longitudinal import FIELD_TOLERANCE_T
from cmrcore.quantify.qc import Flag, Place, raise_flag
from cmrcore.quantify.records import BloodSlice, QuantifySettings, Role, Series
from cmrcore.quantify.regional import EcvMaps, plausible_t1
from cmrcore.quantify.role import RoleMeasurement
from cmrcore.quantify.uncertainty import blood_error, ecv_noise
from cmrcore.quantify.wall import erode_walls
from cmrcore.registration.align import SliceAlignment
from cmrcore.registration.post import PostAlignment, align_post, fit_post

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
    sources = blood_slices(native.series.levels, settings.blood_slice)
    blood = {
        index: (before, after)
        for index in onto
        if (before := _blood_of(native, sources[index])) is not None
        and (after := _blood_of(post, sources[index])) is not None
    }
    if not blood:
        return None
    noise = torch.full_like(native.maps.t1_ms, torch.nan)
    blood_errors = torch.full((len(noise),), torch.nan, dtype=torch.float64)
    coefficient = torch.full_like(native.maps.t1_ms, torch.nan)
    ecv = None if hematocrit_fraction is None else torch.full_like(coefficient, torch.nan)
    shared = torch.zeros_like(native.maps.myocardium)
    for index, (before, after) in blood.items():
        t1_post_ms, post_sd_ms = post.maps.t1_ms[index], post.maps.t1_sd_ms[index]
        if onto[index].moves:
            fit = fit_post(
                post.series.echoes[index],
                post.series.ti_ms[index],
                post.alignment[index],
                onto[index],
                settings.t1_model,
            )
            t1_post_ms, post_sd_ms = plausible_t1(fit.t1_ms), fit.t1_sd_ms
        t1_ms = native.maps.t1_ms[index], t1_post_ms
        blood_ms = before.t1_ms, after.t1_ms
        noise[index] = ecv_noise(t1_ms, (native.maps.t1_sd_ms[index], post_sd_ms), blood_ms)
        blood_errors[index] = blood_error(blood_ms, (before.t1_sd_ms, after.t1_sd_ms))
        coefficient[index] = partition_coefficient(*t1_ms, *blood_ms)
        if ecv is not None and hematocrit_fraction is not None:
            ecv[index] = ecv_map(*t1_ms, *blood_ms, hematocrit_fraction)
        shared[index] = native.reference_masks[0, index] & onto[index].myocardium
    spacing_mm = native.series.pixel_spacing_mm
    return EcvMaps(
        partition_coefficient=coefficient,
        ecv_fraction=ecv,
        myocardium=erode_walls(shared, native.reference_masks[1], settings.myocardium_erosion_mm, spacing_mm),
        segments=native.segments,
        noise=noise,
        blood_error=blood_errors,
        blood_slice=sources,
        hematocrit_fraction=hematocrit_fraction,
        hematocrit_sd_fraction=settings.hematocrit_sd_fraction,
        # Known only when it is known which slices are used.
        synthetic_fraction=None,
    )


def blood_slices(levels: Sequence[str], rule: BloodSlice) -> tuple[int, ...]:
    """Slice whose blood serves the ECV of each slice.

    ``same``: its own; ``mid``: that of the mid-ventricular slice nearest to the middle of the stack, or of
    the slice nearest to it where none is.
    """
    if rule == "same":
        return tuple(range(len(levels)))
    middle = (len(levels) - 1) / 2
    mid = [index for index, level in enumerate(levels) if level == "mid"] or list(range(len(levels)))
    return (min(mid, key=lambda index: abs(index - middle)),) * len(levels)


def serving_blood(one: RoleMeasurement, rule: BloodSlice) -> list[BloodT1]:
    """Blood T1 of the slices whose blood serves an ECV."""
    sources = sorted(set(blood_slices(one.series.levels, rule)))
    return [blood for index in sources if (blood := one.blood[index]) is not None]


def synthetic_hematocrit(native: RoleMeasurement, settings: QuantifySettings) -> float | None:
    """Hematocrit from the mean native blood T1 of the scan, 0-1.

    None without blood T1, where field strength or scheme are not those that the regression was found with,
    and where it gives no fraction.
    """
    rule, series = settings.synthetic, native.series
    blood = serving_blood(native, settings.blood_slice)
    if (
        not blood
        or series.scheme not in rule.schemes
        or series.field_strength_t is None
        or abs(series.field_strength_t - rule.field_strength_t) > FIELD_TOLERANCE_T
    ):
        return None
    t1_ms = sum(one.t1_ms for one in blood) / len(blood)
    fraction = rule.slope_ms / t1_ms + rule.intercept_fraction
    return fraction if 0 < fraction < 1 else None


def _blood_of(one: RoleMeasurement, index: int) -> BloodT1 | None:
    """Blood T1 of a slice; None where the role has no such slice."""
    return one.blood[index] if index < len(one.blood) else None


def level_of(roles: dict[Role, RoleMeasurement | None], index: int) -> str:
    """Level of a slice, from the native series where it reaches."""
    return next(
        one.series.levels[index]
        for one in roles.values()
        if one is not None and index < len(one.series.levels)
    )
