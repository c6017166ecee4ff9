"""Ways to align a slice that the alignment benchmark compares."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal
from unittest.mock import patch

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.registration import decide
from cmrcore.registration.affine import affine_displacement, register_masks
from cmrcore.registration.align import AlignSettings, SliceAlignment, align_slice, resample
from cmrcore.registration.post import align_post
from cmrcore.registration.warp import inverse
from tests.benchmarks.moving import MovingSeries, MovingSlice
from tests.benchmarks.peer_simpleitk import pairwise

SETTINGS = AlignSettings(
    method="affine",
    shift_max_mm=30.0,
    turn_max_deg=20.0,
    scale_max_fraction=0.25,
    still_px=0.5,
    r_squared_fall_max=0.0,
    post_dice_min=0.6,
)
"""Those of the demo trial."""

Masks = Bool[Tensor, "ti label row col"]
Field = Float[Tensor, "ti 2 row col"]
Source = Literal["true", "predicted", "held", "alpha 0"]
"""``predicted``: as the night reads masks; ``held``: the guide stays where it was drawn."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """Echoes of one series as a method has them."""

    displacement_px: Field
    """Displacement that pulls each echo onto the reference [pixel]."""
    recovered: int
    """Echo of a long inversion time that lies where the reference does."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to align a slice."""

    align: Callable[[MovingSeries, Masks], Aligned]
    """Echoes onto the reference echo of their series, by their masks where it uses any."""
    onto: Callable[[MovingSlice, tuple[Masks, Masks], tuple[Aligned, Aligned]], Tensor | None]
    """Displacement that pulls the post-contrast reference echo onto the native one; None: no ECV."""
    masks: Source = "true"
    """Whose masks it is given."""
    share: Literal["all", "few", "fewest"] = "all"
    """Of how many scans it aligns the echoes."""


def nothing(series: MovingSeries, masks: Masks) -> Aligned:
    """Leave every echo where it is."""
    del masks
    return Aligned(torch.zeros_like(series.moved_px), len(series.echoes) - 1)


def true_displacement(series: MovingSeries, masks: Masks) -> Aligned:
    """Take back the displacement that was put in."""
    del masks
    return Aligned(inverse(series.moved_px), len(series.echoes) - 1)


def by_masks(series: MovingSeries, masks: Masks) -> Aligned:
    """Align as the night does."""
    found = _align_once(series, masks)
    return Aligned(found.displacement_px, found.recovered)


def refined(series: MovingSeries, masks: Masks) -> Aligned:
    """Refine the affine alignment where the rule says so."""
    found = _always_refined(series, masks)
    chosen = found.candidates[decide.choose(found.candidates, SETTINGS.r_squared_fall_max)].method
    if chosen != "refined":
        return by_masks(series, masks)
    return Aligned(found.displacement_px, found.recovered)


def always_refined(series: MovingSeries, masks: Masks) -> Aligned:
    """Refine the affine alignment, but for folds."""
    found = _always_refined(series, masks)
    return Aligned(found.displacement_px, found.recovered)


@lru_cache(maxsize=2)
def _always_refined(series: MovingSeries, masks: Masks) -> SliceAlignment:
    with patch.object(decide, "REFINED_GAIN", -1.0):
        return align(series, masks, "refined")


@lru_cache(maxsize=2)
def _align_once(series: MovingSeries, masks: Masks) -> SliceAlignment:
    return align(series, masks, "affine")


def align(series: MovingSeries, masks: Masks, method: Literal["affine", "refined"]) -> SliceAlignment:
    """Align a series with the settings of the demo trial."""
    return align_slice(
        series.echoes,
        series.ti_ms,
        masks.transpose(0, 1).float(),
        series.reference,
        series.pixel_spacing_mm,
        "molli",
        replace(SETTINGS, method=method),
        0.95,
    )


def unconfirmed(series: MovingSeries, masks: Masks) -> Aligned:
    """Affine alignment that believes every mask."""
    shown = masks.float()
    fit = register_masks(shown, shown[series.reference], series.pixel_spacing_mm)
    shape = (series.echoes.shape[1], series.echoes.shape[2])
    return Aligned(affine_displacement(fit, shape, series.pixel_spacing_mm), len(series.echoes) - 1)


def by_simpleitk(series: MovingSeries, masks: Masks) -> Aligned:
    """Pairwise registration by mutual information near the true heart."""
    del masks
    return Aligned(pairwise(series), len(series.echoes) - 1)


def stay(one: MovingSlice, masks: tuple[Masks, Masks], aligned: tuple[Aligned, Aligned]) -> Tensor:
    """Leave the post-contrast slice where it is."""
    del masks, aligned
    return torch.zeros_like(one.post_to_native_px)


def true_way(one: MovingSlice, masks: tuple[Masks, Masks], aligned: tuple[Aligned, Aligned]) -> Tensor:
    """Take back the true displacement of the post-contrast slice."""
    del masks, aligned
    return inverse(one.post_to_native_px[None])[0]


def onto_by_masks(
    one: MovingSlice, masks: tuple[Masks, Masks], aligned: tuple[Aligned, Aligned]
) -> Tensor | None:
    """Bring the post-contrast slice onto the native one as the night does."""
    of_reference, recovered = [], []
    for series, drawn, echoes in zip((one.native, one.post), masks, aligned, strict=True):
        of_reference.append(drawn[series.reference])
        recovered.append(resample(series.echoes, echoes.displacement_px)[echoes.recovered])
    found = align_post(
        of_reference[0],
        of_reference[1],
        (recovered[0], recovered[1]),
        one.native.pixel_spacing_mm,
        SETTINGS,
    )
    is_misfit = found.dice is None or found.dice < SETTINGS.post_dice_min
    return None if is_misfit else found.displacement_px


def onto_by_simpleitk(
    one: MovingSlice, masks: tuple[Masks, Masks], aligned: tuple[Aligned, Aligned]
) -> Tensor:
    """Register the aligned echo of the longest inversion time of one role onto that of the other."""
    del masks
    shown = [
        resample(series.echoes, found.displacement_px)[found.recovered]
        for series, found in zip((one.native, one.post), aligned, strict=True)
    ]
    last = len(one.native.echoes) - 1
    pair = replace(
        one.native,
        echoes=torch.stack(shown),
        labels=one.native.labels[[one.native.reference, last]],
        moved_px=one.native.moved_px[:2],
        reference=0,
    )
    return pairwise(pair)[1]


METHODS: dict[str, Method] = {
    "none": Method(nothing, stay),
    "truth": Method(true_displacement, true_way),
    "affine, true masks": Method(by_masks, onto_by_masks),
    "affine": Method(by_masks, onto_by_masks, "predicted"),
    "affine, guide held": Method(by_masks, onto_by_masks, "held", "few"),
    "affine, alpha 0": Method(by_masks, onto_by_masks, "alpha 0", "few"),
    "affine, images not asked": Method(unconfirmed, onto_by_masks, "predicted", "few"),
    "refined, always": Method(always_refined, onto_by_masks, "predicted", "few"),
    "refined": Method(refined, onto_by_masks, "predicted", "few"),
    "SimpleITK": Method(by_simpleitk, onto_by_simpleitk, share="fewest"),
}
"""By the name of their row; masks are the networks' unless it says otherwise."""
