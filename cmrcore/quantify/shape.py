"""Size of the myocardium in short-axis slices, and its overlap between two visits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from torch import Tensor

from cmrcore.quantify.aha import Orientation, aha_segments, stack_orientations

_RAYS = 360
"""Directions in which the wall is measured."""
_STEP_MM = 0.1
"""Distance of two samples of the wall [mm]."""


@dataclass(frozen=True, slots=True)
class HeartMasks:
    """What a visit's segmentation says about the heart, on the native reference echo of each slice."""

    myocardium: Bool[Tensor, "slice row col"]
    """Myocardium."""
    rv: Bool[Tensor, "slice row col"]
    """Right ventricle."""
    levels: tuple[str, ...]
    """``basal``, ``mid`` or ``apical`` of each slice, from base to apex."""
    pixel_spacing_mm: tuple[float, float]
    """Distance of rows and columns [mm]."""
    anterior: tuple[float, float]
    """Image-plane direction (row, col) that points to the patient's anterior-superior."""
    insertions_px: Float[Tensor, "slice 2"] | None = None
    """A reader's points (row, col) for the anterior RV insertion that are used, NaN on a slice without."""


@dataclass(frozen=True, slots=True)
class SliceShape:
    """One slice of the heart in a frame of its own: millimeters from the LV's center."""

    myocardium: Bool[np.ndarray, "row col"]
    """Myocardium."""
    aha_segment: UInt8[np.ndarray, "row col"]
    """AHA segment of each myocardial pixel, 0 where none."""
    pixel_spacing_mm: tuple[float, float]
    """Distance of rows and columns [mm]."""
    center: tuple[float, float]
    """LV center (row, col) [pixel]."""
    orientation: Orientation | None
    """Where segment numbers begin; None without an RV in the whole stack."""
    ray_mm: Float[np.ndarray, " ray"]
    """Radial thickness of the wall in each direction, NaN where there is none [mm]."""
    ray_segment: UInt8[np.ndarray, " ray"]
    """AHA segment that each direction meets, 0 where none."""

    def inside(self, segments: Sequence[int] | None) -> Bool[np.ndarray, "row col"]:
        """Pixels of some segments; of the whole myocardium for None."""
        return self.myocardium if segments is None else np.isin(self.aha_segment, segments)

    def area_mm2(self, segments: Sequence[int] | None) -> float | None:
        """Area of some segments or of the whole ring [mm2]; None without pixels."""
        n_pixels = int(self.inside(segments).sum())
        return n_pixels * math.prod(self.pixel_spacing_mm) if n_pixels else None

    def thickness_mm(self, segments: Sequence[int] | None) -> float | None:
        """Mean radial thickness of some segments or of the whole ring [mm]; None where there is no wall."""
        chosen = self.ray_mm if segments is None else self.ray_mm[np.isin(self.ray_segment, segments)]
        walls = chosen[~np.isnan(chosen)]
        return float(walls.mean()) if len(walls) else None


def slice_shapes(heart: HeartMasks) -> list[SliceShape | None]:
    """Shape of each slice; None without myocardium."""
    orientations = stack_orientations(
        heart.myocardium, heart.rv, heart.anterior, heart.pixel_spacing_mm, heart.insertions_px
    )
    return [
        _slice_shape(muscle, orientation, level, heart.pixel_spacing_mm) if bool(muscle.any()) else None
        for muscle, orientation, level in zip(heart.myocardium, orientations, heart.levels, strict=True)
    ]


def dice_aligned(
    pairs: Sequence[tuple[SliceShape, SliceShape]], segments: Sequence[int] | None = None
) -> float | None:
    """Overlap of the myocardium of paired slices, LV centers and RV insertions laid upon each other, 0-1.

    The later slice is sampled on the pixels of the earlier one, turned (and mirrored where one image is) by
    the direction of the anterior RV insertion; without an RV in either, only the centers are aligned.

    Parameters
    ----------
    pairs
        Earlier and later slices.
    segments
        AHA segments whose overlap is asked for; None for the whole myocardium.

    Returns
    -------
        Dice coefficient over all pairs; None where there is nothing in either.
    """
    shared = total = 0
    for earlier, later in pairs:
        here, there = earlier.inside(segments), _sampled(later.inside(segments), earlier, later)
        shared += int((here & there).sum())
        total += int(here.sum()) + int(there.sum())
    return 2 * shared / total if total else None


def _slice_shape(
    mask: Bool[Tensor, "row col"],
    orientation: Orientation | None,
    level: str,
    pixel_spacing_mm: tuple[float, float],
) -> SliceShape:
    """Shape of one slice that has myocardium."""
    myocardium = mask.cpu().numpy()
    numbers = np.zeros(myocardium.shape, dtype=np.uint8)
    if orientation is not None:
        numbers = aha_segments(mask, orientation, level, pixel_spacing_mm).cpu().numpy()
    row, col = np.argwhere(ndimage.binary_fill_holes(myocardium)).mean(0).tolist()
    angles = np.arange(_RAYS) * 2 * np.pi / _RAYS
    offsets_mm = (np.argwhere(myocardium) - (row, col)) * np.asarray(pixel_spacing_mm)
    radii_mm = np.arange(0, np.hypot(*offsets_mm.T).max() + max(pixel_spacing_mm), _STEP_MM)
    rows = row + np.sin(angles)[:, None] * radii_mm / pixel_spacing_mm[0]
    cols = col + np.cos(angles)[:, None] * radii_mm / pixel_spacing_mm[1]
    # Linear interpolation puts the edge between two pixels, where it is, not on a pixel.
    wall = ndimage.map_coordinates(myocardium.astype(np.float32), [rows, cols], order=1) >= 0.5
    met = ndimage.map_coordinates(numbers, [rows, cols], order=0) * wall
    ray_mm = wall.sum(1) * _STEP_MM
    return SliceShape(
        myocardium=myocardium,
        aha_segment=numbers,
        pixel_spacing_mm=pixel_spacing_mm,
        center=(row, col),
        orientation=orientation,
        ray_mm=np.where(ray_mm > 0, ray_mm, np.nan),
        ray_segment=met.max(1),
    )


def _sampled(
    mask: Bool[np.ndarray, "row col"], earlier: SliceShape, later: SliceShape
) -> Bool[np.ndarray, "row col"]:
    """Mask of the later slice on the pixels of the earlier one."""
    rows, cols = np.indices(earlier.myocardium.shape)
    down_mm = (rows - earlier.center[0]) * earlier.pixel_spacing_mm[0]
    right_mm = (cols - earlier.center[1]) * earlier.pixel_spacing_mm[1]
    if earlier.orientation is not None and later.orientation is not None:
        turn = earlier.orientation.turn * later.orientation.turn
        radius_mm = np.hypot(down_mm, right_mm)
        past_insertion = np.arctan2(down_mm, right_mm) - math.radians(earlier.orientation.insertion_deg)
        angle = math.radians(later.orientation.insertion_deg) + turn * past_insertion
        down_mm, right_mm = radius_mm * np.sin(angle), radius_mm * np.cos(angle)
    at = [
        down_mm / later.pixel_spacing_mm[0] + later.center[0],
        right_mm / later.pixel_spacing_mm[1] + later.center[1],
    ]
    return np.asarray(ndimage.map_coordinates(mask.astype(np.float32), at, order=1) >= 0.5)
