"""From a network's probabilities to the masks that a reader would draw: smooth contours of one heart."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from cmrcore.segmentation.curves import convex, coverage, outline, smooth

Step = Literal["region", "hull", "spline"]
_Mask = Bool[np.ndarray, "row col"]
_Values = Float[np.ndarray, "row col"]

_MARGIN = 2
"""Pixels around the regions that contours are found in."""
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)


@dataclass(frozen=True, slots=True)
class ContourSettings:
    """How contours are drawn."""

    steps: frozenset[Step] = frozenset(("region", "hull", "spline"))
    """What is done: ``region`` keeps one plausible region, ``hull`` closes C shapes, ``spline`` smooths.
    Without any, pixels above the threshold are the masks."""
    threshold: float = 0.5
    """Probability from which a pixel belongs to a label."""
    elongation_max: float = 3.0
    """Largest ratio of the axes of a left ventricle; S2 uses 3."""
    spur_mm: float = 4.0
    """Half the thickness under which an outgrowth is cut off [mm]."""
    solidity_min: float = 0.9
    """Least share of its convex hull that a contour fills; else the hull takes its place."""
    ripple_mm: float = 25.0
    """Wavelength along a contour that smoothing damps to half [mm]."""
    rv_reach_mm: float = 8.0
    """How far from the left ventricle the RV may begin [mm]."""


def masks_from(
    probability: Float[Tensor, "label row col"],
    spacing_mm: tuple[float, float],
    settings: ContourSettings = ContourSettings(),
) -> Bool[Tensor, "label row col"]:
    """Masks of one heart from the probabilities of the labels.

    Epicardium and endocardium are found where labels are equally probable, between the pixels. Of all regions
    of the left ventricle the one with most confident pixels is kept, elongated ones left out; outgrowths are
    cut off; a contour much smaller than its convex hull (an endocardium that papillary muscles make C-shaped,
    a ring that is open towards the outflow tract) is replaced by the hull; periodic splines smooth both. A
    pixel belongs to a contour that covers more than half of it; what lies between the two is myocardium, a
    pixel wide at least. The RV is the largest piece that begins beside the left ventricle.

    Probabilities in which there is no ring, not even an open one, give empty masks of wall and blood pool.

    Parameters
    ----------
    probability
        Probability of each of `LABELS`, 0-1; independent of each other; NaN counts as 0.
    spacing_mm
        Distance of rows and columns [mm].
    settings
        How contours are drawn.

    References
    ----------
    Kalapos et al. 2023, Front Cardiovasc Med 10:1147581, doi:10.3389/fcvm.2023.1147581
    """
    wall, pool, rv = np.nan_to_num(probability.detach().cpu().numpy().astype(np.float32))
    if settings.steps:
        masks = _drawn(wall, pool, rv, spacing_mm, settings)
    else:
        masks = np.stack([wall, pool, rv])
        masks = (masks >= settings.threshold) & (masks.argmax(0) == np.arange(3)[:, None, None])
    return torch.from_numpy(masks).to(probability.device)


def _drawn(
    wall: _Values, pool: _Values, rv: _Values, spacing_mm: tuple[float, float], settings: ContourSettings
) -> Bool[np.ndarray, "label row col"]:
    """Masks by way of regions and contours."""
    masks = np.zeros((3, *wall.shape), dtype=bool)
    box = _box(wall + pool >= settings.threshold)
    if box is not None:
        epicardium, endocardium = _contours(wall[box], pool[box], rv[box], spacing_mm, settings)
        epicardium = _solid(epicardium)
        # A pixel of wall on every side, or the ring would be open.
        endocardium = _solid(endocardium & _eroded(epicardium))
        if endocardium.any():
            masks[(0, *box)] = epicardium & ~endocardium
            masks[(1, *box)] = endocardium
    masks[2] = rv >= settings.threshold
    box = _box(masks[0] | masks[1] | masks[2])
    if box is not None:
        masks[(2, *box)] = _rv_region(rv[box], masks[(0, *box)] | masks[(1, *box)], spacing_mm, settings)
    return masks


def _contours(
    wall: _Values,
    pool: _Values,
    rv: _Values,
    spacing_mm: tuple[float, float],
    settings: ContourSettings,
) -> tuple[_Mask, _Mask]:
    """Pixels within epicardium and endocardium; both empty where there is no plausible region."""
    nothing = np.zeros(wall.shape, dtype=bool)
    # The sum, not the larger of the two: between wall and blood each has half.
    ventricle = np.minimum(wall + pool, 1)
    field = np.minimum(ventricle, 0.5 + (ventricle - rv) / 2)
    enclosed = holes(field >= settings.threshold)
    field = np.where(enclosed, 1.0, field)
    confident = wall**2 + pool**2 + rv**2
    region = _region(field >= settings.threshold, confident, spacing_mm, settings, settings.elongation_max)
    epicardium = _within(field, region, spacing_mm, settings)

    # What the wall encloses is blood, even where the network saw none; what a hull adds, only if there is
    # no other.
    for unseen in (enclosed, epicardium & ~region):
        blood = np.where(unseen, np.maximum(pool, 0.5), pool)
        inner = np.where(unseen, 0.5 + (blood - wall) / 2, np.minimum(field, 0.5 + (blood - wall) / 2))
        inside = _region(
            (inner > 0.5) & epicardium & (blood > wall), blood**2, spacing_mm, settings, math.inf
        )
        if inside.any():
            return epicardium, _within(inner, inside, spacing_mm, settings)
    return nothing, nothing


def _region(
    mask: _Mask,
    weight: _Values,
    spacing_mm: tuple[float, float],
    settings: ContourSettings,
    elongation_max: float,
) -> _Mask:
    """One piece of a mask without its outgrowths: the heaviest, with what lies around it, that is compact."""
    if "region" not in settings.steps:
        return mask
    opened = ndimage.binary_opening(mask, _disc(settings.spur_mm, spacing_mm))
    # A piece that is thin all over is no outgrowth.
    pieces, n_pieces = ndimage.label(mask)
    thick = np.bincount(pieces.ravel(), opened.ravel(), n_pieces + 1) > 0
    thick[0] = True
    pieces, n_pieces = ndimage.label(opened | ~thick[pieces])
    compact = [
        piece
        for index, box in enumerate(ndimage.find_objects(pieces), start=1)
        if _elongation(piece := (pieces == index), box, spacing_mm) <= elongation_max
    ]
    if not compact:
        return np.zeros_like(mask)
    best = compact[0]
    if len(compact) > 1:
        best = max(
            compact, key=lambda piece: float(weight[_near(piece, settings.rv_reach_mm, spacing_mm)].sum())
        )
    kept: _Mask = ndimage.binary_dilation(best, _CROSS) & mask
    return kept


def _within(
    field: _Values, region: _Mask, spacing_mm: tuple[float, float], settings: ContourSettings
) -> _Mask:
    """Pixels within the contour of a region, closed and smoothed."""
    if not settings.steps & {"hull", "spline"} or not region.any():
        return region
    around = np.where(ndimage.binary_dilation(region, _CROSS), field, 0.0)
    curve = outline(around, settings.threshold)
    if curve is None:
        return region
    if "hull" in settings.steps:
        curve = convex(curve, settings.solidity_min)
    if "spline" in settings.steps:
        curve = smooth(curve, spacing_mm, settings.ripple_mm)
    inside: _Mask = coverage(curve, (field.shape[0], field.shape[1])) > 0.5
    return inside if inside.any() else region


def _rv_region(
    rv: _Values, ventricle: _Mask, spacing_mm: tuple[float, float], settings: ContourSettings
) -> _Mask:
    """Pixels of the RV outside the left ventricle."""
    mask: _Mask = (rv >= settings.threshold) & ~ventricle
    if "region" not in settings.steps or not mask.any():
        return mask
    pieces, n_pieces = ndimage.label(mask)
    near = _near(ventricle, settings.rv_reach_mm, spacing_mm)
    weight = np.bincount(pieces.ravel(), (rv**2).ravel(), n_pieces + 1)
    weight[np.bincount(pieces.ravel(), near.ravel(), n_pieces + 1) == 0] = 0
    weight[0] = 0
    largest: _Mask = (pieces == weight.argmax()) & mask & (weight.max() > 0)
    return largest


def _box(mask: _Mask) -> tuple[slice, slice] | None:
    """Rows and columns around a mask; None if it is empty."""
    rows, cols = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return None
    first_row, first_col = (max(int(at[0]) - _MARGIN, 0) for at in (rows, cols))
    return slice(first_row, rows[-1] + _MARGIN + 1), slice(first_col, cols[-1] + _MARGIN + 1)


def holes(mask: _Mask) -> _Mask:
    """Pixels outside a mask that it encloses."""
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    enclosed: _Mask = (outside[1:-1, 1:-1] != outside[0, 0]) & ~mask
    return enclosed


def _solid(mask: _Mask) -> _Mask:
    """Largest piece of a mask, without holes."""
    pieces, n_pieces = ndimage.label(mask)
    if n_pieces > 1:
        mask = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    solid: _Mask = mask | holes(mask)
    return solid


def _eroded(mask: _Mask) -> _Mask:
    """Pixels whose four neighbors lie within a mask, too."""
    padded = np.pad(mask, 1)
    inner: _Mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def _near(mask: _Mask, reach_mm: float, spacing_mm: tuple[float, float]) -> _Mask:
    """Mask and what lies within a distance along rows and columns."""
    size = [2 * round(reach_mm / spacing) + 1 for spacing in spacing_mm]
    near: _Mask = ndimage.maximum_filter(mask, size)
    return near


def _disc(radius_mm: float, spacing_mm: tuple[float, float]) -> _Mask:
    """Pixels within a radius, those next to the center among them."""
    reach = [max(1, int(radius_mm / spacing)) for spacing in spacing_mm]
    down, right = (np.arange(-n, n + 1) * spacing for n, spacing in zip(reach, spacing_mm, strict=True))
    disc: _Mask = np.hypot(down[:, None], right) <= max(radius_mm, *spacing_mm)
    return disc


def _elongation(mask: _Mask, box: tuple[slice, slice], spacing_mm: tuple[float, float]) -> float:
    """Ratio of the principal axes of a mask, which lies within a box."""
    down_mm, right_mm = (at * length for at, length in zip(np.nonzero(mask[box]), spacing_mm, strict=True))
    # A pixel is a square with a spread of its own.
    down, right = (
        at.var() + length**2 / 12 for at, length in zip((down_mm, right_mm), spacing_mm, strict=True)
    )
    across = (down_mm * right_mm).mean() - down_mm.mean() * right_mm.mean()
    mean, half = (down + right) / 2, math.hypot((down - right) / 2, across)
    return math.sqrt((mean + half) / (mean - half))
