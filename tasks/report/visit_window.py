"""Cut a visit's arrays to what lies around its hearts: a page shows and reads nothing else."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tasks.report.visit_arrays import MYOCARDIUM, Array, SliceArrays, VisitArrays
from tasks.report.visit_images import heart_crop

SPLINE_REACH_PX = 12
"""Pixels that a resampled one rests on; what is further weighs less than one in a million."""


def around_hearts(visit: VisitArrays) -> VisitArrays:
    """Cut all arrays of pixels to the same rows and columns, which hold every crop and mask of the page.

    Resampling echoes is most of a page's work, and grows with the image. Visits whose roles have other
    pixels, and those without a heart, stay as they are.
    """
    slices = [one for of_role in visit.slices.values() for one in of_role]
    shapes = {one.t1_ms.shape for one in slices}
    hearts = [(one, heart) for one in slices if (heart := heart_of(one)).any()]
    if len(shapes) > 1 or not hearts:
        return visit
    (shape,) = shapes
    pad = SPLINE_REACH_PX + _longest_px([one.displacement_px for one in slices])
    if visit.onto_native_px is not None:
        pad += _longest_px([visit.onto_native_px])
    shown = np.zeros(shape, dtype=bool)
    for one, heart in hearts:
        crop = heart_crop((shape[0], shape[1]), one.spacing_mm, heart)
        shown[crop.rows, crop.cols] = True
        shown |= one.masks.any((0, 1)) | one.guide.any(0)
    spans = []
    for axis in (0, 1):
        inside = np.flatnonzero(shown.any(1 - axis))
        spans.append(slice(max(int(inside[0]) - pad, 0), int(inside[-1]) + pad + 1))
    rows, cols = spans
    return replace(
        visit,
        slices={
            role: tuple(_cut(one, rows, cols) for one in of_role) for role, of_role in visit.slices.items()
        },
        segments=visit.segments[..., rows, cols],
        ecv_fraction=None if visit.ecv_fraction is None else visit.ecv_fraction[..., rows, cols],
        onto_native_px=None if visit.onto_native_px is None else visit.onto_native_px[..., rows, cols],
    )


def heart_of(one: SliceArrays) -> Array:
    """Myocardium of a slice on the reference echo, else as drawn; all False without any."""
    masks = one.reference_masks if one.has_masks else one.guide
    return np.asarray(masks[MYOCARDIUM])


def _longest_px(displacements: Iterable[Array]) -> int:
    """Longest step of displacements along an axis [pixel]; NaN is none."""
    return max(int(np.ceil(np.abs(np.nan_to_num(one)).max(initial=0))) for one in displacements)


def _cut(one: SliceArrays, rows: slice, cols: slice) -> SliceArrays:
    names = ("echoes", "displacement_px", "guide", "masks", "t1_ms", "r_squared")
    return replace(one, **{name: getattr(one, name)[..., rows, cols] for name in names})
