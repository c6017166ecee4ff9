"""What the checks of one role look at, slice by slice: shape, agreement, fit, blood, plausibility."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from cmrcore.quantify.blood import BloodT1, erode_mask
from cmrcore.quantify.overlap import dice
from cmrcore.quantify.records import QuantifySettings, Series
from cmrcore.quantify.regional import RoleMaps, low_fraction, mean
from cmrcore.registration.align import SliceAlignment
from cmrcore.registration.warp import warp
from cmrcore.relaxation import T1Fit
from cmrcore.segmentation.check import check_guide, separation
from cmrcore.segmentation.contours import holes

_N_TELLING = 3
"""Echoes that show wall and blood apart; at other inversion times both may look alike."""


@dataclass(frozen=True, slots=True)
class SliceQuality:
    """Readings of one slice of one role; None where there is nothing to read."""

    ring_defects: float
    """Reasons why the mask on the reference echo is no closed ring, see `check_guide`; 0 for a sound one."""
    wall_mm: float | None
    """Mean thickness of the wall, between circles of the areas within its borders [mm]."""
    area_ratio: float | None
    """Area within the epicardium over that of the neighboring slices, or one over it, whichever is over 1."""
    center_off_mm: float | None
    """Distance of the LV's center from that of the neighboring slices [mm]."""
    guide_dice: float | None
    """Median over echoes of the overlap of the aligned mask with the guide."""
    masks_apart_px: float
    """How far most masks lie from that of the reference echo, the one that everything is read in [pixel]."""
    aligned_dice: float | None
    """Lower quartile over echoes of the overlap of the aligned mask with that of the reference echo."""
    separation: float
    """Third best over echoes of the separation of wall and blood, |2 AUC - 1|."""
    r_squared_mean: float | None
    """Mean R2 of the magnitudes in the myocardium."""
    low_fraction: float | None
    """Share of the myocardium with R2 under ``r_squared_pixel_min`` or no fit."""
    t1_ms: float | None
    """Mean T1 of the myocardium [ms]."""
    t1_spread_fraction: float | None
    """Half the distance of the 16th and 84th percentile of T1 in the myocardium, over its median."""
    t1_apart_fraction: float | None
    """Median T1 of the myocardium against that of the other slices, relative."""
    amplitude_ratio: float | None
    """Median B / A of the fits in the myocardium; 2 after a perfect inversion without readout."""
    blood_t1_ms: float | None
    """T1 of blood [ms]."""
    blood_r_squared: float | None
    """R2 of the blood's fit."""
    blood_spread_fraction: float | None
    """As ``t1_spread_fraction``, in the eroded blood pool."""
    blood_n_pixels: float | None
    """Pixels of the eroded blood pool."""
    blood_apart_fraction: float | None
    """T1 of blood against that of the other slices, relative."""
    t1_over_blood: float | None
    """Median T1 of the myocardium over that of blood."""


def measure_quality(
    series: Series,
    maps: RoleMaps,
    fit: T1Fit,
    masks: Bool[Tensor, "label slice row col"],
    every_mask: Bool[Tensor, "label slice ti row col"],
    alignment: Sequence[SliceAlignment],
    blood: Sequence[BloodT1 | None],
    settings: QuantifySettings,
) -> tuple[SliceQuality | None, ...]:
    """Take the readings of every slice; None for one without a myocardium.

    Parameters
    ----------
    series
        Echoes, guide and geometry.
    maps, fit
        Maps on the pixels of the reference echoes.
    masks
        Masks on the reference echo of each slice.
    every_mask
        Masks on every echo, as acquired.
    alignment
        How the echoes of each slice were aligned.
    blood
        Blood T1 of each slice.
    settings
        Limits, and the erosion of the blood pool.
    """
    present = [index for index in range(len(alignment)) if bool(masks[0, index].any())]
    shapes = {index: _Shape.of(masks[0, index], series.pixel_spacing_mm) for index in present}
    medians = {index: _quantiles(maps.t1_ms[index], maps.myocardium[index])[1] for index in present}
    bloods = {index: one.t1_ms for index in present if (one := blood[index]) is not None}
    found: list[SliceQuality | None] = [None] * len(alignment)
    for index in present:
        wall, pool = masks[0, index], masks[1, index]
        aligned, one = alignment[index], blood[index]
        core = erode_mask(pool, settings.blood_erosion_mm, series.pixel_spacing_mm)
        t1_ms, r_squared, inner = maps.t1_ms[index], maps.r_squared[index], maps.myocardium[index]
        found[index] = SliceQuality(
            ring_defects=float(len(check_guide(masks[:, index]))),
            wall_mm=shapes[index].wall_mm,
            area_ratio=_area_ratio(shapes, index),
            center_off_mm=_center_off(shapes, index),
            guide_dice=_guide_dice(series, every_mask[0, index], aligned, index),
            masks_apart_px=aligned.reference_apart_px,
            aligned_dice=_aligned_dice(every_mask[0, index], aligned, wall),
            separation=_separation(aligned.echoes, wall, pool),
            r_squared_mean=mean(r_squared, inner),
            low_fraction=low_fraction(r_squared, inner, settings.qc.r_squared_pixel_min),
            t1_ms=mean(t1_ms, inner),
            t1_spread_fraction=_spread(t1_ms, inner),
            t1_apart_fraction=_apart(medians, index),
            amplitude_ratio=_quantiles(fit.b[index] / fit.a[index], inner)[1],
            blood_t1_ms=None if one is None else one.t1_ms,
            blood_r_squared=None if one is None else one.r_squared,
            blood_spread_fraction=_spread(t1_ms, core),
            blood_n_pixels=None if one is None else float(one.n_pixels),
            blood_apart_fraction=_apart(bloods, index),
            t1_over_blood=_ratio(medians.get(index), bloods.get(index)),
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Size and place of a wall."""

    wall_mm: float | None
    area_mm2: float
    center_mm: tuple[float, float]

    @classmethod
    def of(cls, wall: Bool[Tensor, "row col"], spacing_mm: tuple[float, float]) -> "_Shape":
        muscle = wall.cpu().numpy()
        cavity = holes(muscle)
        pixel_mm2 = spacing_mm[0] * spacing_mm[1]
        outer_mm2, cavity_mm2 = (cavity | muscle).sum() * pixel_mm2, cavity.sum() * pixel_mm2
        row, col = ndimage.center_of_mass(cavity | muscle)
        return cls(
            wall_mm=math.sqrt(outer_mm2 / math.pi) - math.sqrt(cavity_mm2 / math.pi)
            if cavity.any()
            else None,
            area_mm2=float(outer_mm2),
            center_mm=(row * spacing_mm[0], col * spacing_mm[1]),
        )


def _neighbors(index: int, present: dict[int, _Shape]) -> list[_Shape]:
    """Slices next to one that have a wall."""
    return [present[other] for other in (index - 1, index + 1) if other in present]


def _area_ratio(shapes: dict[int, _Shape], index: int) -> float | None:
    beside = _neighbors(index, shapes)
    if not beside:
        return None
    ratio = shapes[index].area_mm2 / (sum(one.area_mm2 for one in beside) / len(beside))
    return max(ratio, 1 / ratio)


def _center_off(shapes: dict[int, _Shape], index: int) -> float | None:
    beside = _neighbors(index, shapes)
    if not beside:
        return None
    row, col = (sum(one.center_mm[axis] for one in beside) / len(beside) for axis in (0, 1))
    here = shapes[index].center_mm
    return math.hypot(here[0] - row, here[1] - col)


def _guide_dice(
    series: Series, walls: Bool[Tensor, "ti row col"], alignment: SliceAlignment, index: int
) -> float | None:
    """Median overlap that the alignment leaves with the guide; None without a guide."""
    if series.guide is None or not bool(series.guide[0, index].any()):
        return None
    return _overlap_quantile(walls, alignment, series.guide[0, index], 0.5)


def _aligned_dice(
    walls: Bool[Tensor, "ti row col"], alignment: SliceAlignment, wall: Bool[Tensor, "row col"]
) -> float:
    """Lower quartile of the overlap that the alignment leaves with the reference echo's wall."""
    return _overlap_quantile(walls, alignment, wall, 0.25)


def _overlap_quantile(
    walls: Bool[Tensor, "ti row col"], alignment: SliceAlignment, with_: Bool[Tensor, "row col"], q: float
) -> float:
    """Quantile over echoes of the overlap of their aligned walls with one."""
    moved = warp(walls[:, None].float(), alignment.displacement_px.float())[:, 0] > 0.5
    return float(np.quantile([dice(one, with_) or 0.0 for one in moved], q))


def _separation(
    echoes: Float[Tensor, "ti row col"], wall: Bool[Tensor, "row col"], pool: Bool[Tensor, "row col"]
) -> float:
    """How well the better echoes tell wall from blood."""
    found = sorted((separation(echo[wall], echo[pool]) for echo in echoes), reverse=True)
    return found[min(_N_TELLING, len(found)) - 1]


def _quantiles(
    values: Float[Tensor, "row col"], mask: Bool[Tensor, "row col"]
) -> tuple[float | None, float | None, float | None]:
    """16th, 50th and 84th percentile of the valid values in a mask; None without any."""
    inside = values[mask].double()
    inside = inside[inside.isfinite()]
    if not len(inside):
        return None, None, None
    low, middle, high = torch.quantile(inside, inside.new_tensor([0.16, 0.5, 0.84])).tolist()
    return low, middle, high


def _spread(values: Float[Tensor, "row col"], mask: Bool[Tensor, "row col"]) -> float | None:
    low, middle, high = _quantiles(values, mask)
    return None if low is None or middle is None or high is None else (high - low) / 2 / middle


def _apart(values: dict[int, float] | dict[int, float | None], index: int) -> float | None:
    """Relative distance of a slice's value from the median of the others; None without others."""
    here = values.get(index)
    others = [value for other, value in values.items() if other != index and value is not None]
    return None if here is None or not others else abs(here / float(np.median(others)) - 1)


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below
