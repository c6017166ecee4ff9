"""AHA segments 1-16 of short-axis slices, from where the right ventricle joins the left.

Basal and mid slices have six segments of 60 degrees that start at the anterior RV insertion and run through
the septum; apical slices have four of 90 degrees, the septal one centered on the border of the septal
segments above. Where a reader drew myocardium and RV, the insertion is read there; where a reader marked it,
that point is taken. Only the insertion and the side of the RV enter, so a mirrored or turned image gives the
same.

References
----------
Cerqueira et al. 2002, Circulation 105:539, doi:10.1161/hc0402.102975
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from torch import Tensor

AHA_NAMES = {
    1: "basal anterior",
    2: "basal anteroseptal",
    3: "basal inferoseptal",
    4: "basal inferior",
    5: "basal inferolateral",
    6: "basal anterolateral",
    7: "mid anterior",
    8: "mid anteroseptal",
    9: "mid inferoseptal",
    10: "mid inferior",
    11: "mid inferolateral",
    12: "mid anterolateral",
    13: "apical anterior",
    14: "apical septal",
    15: "apical inferior",
    16: "apical lateral",
}
SEPTAL_SEGMENTS = (2, 3, 8, 9, 14)

_FROM_INSERTION = {
    "basal": (2, 3, 4, 5, 6, 1),
    "mid": (8, 9, 10, 11, 12, 7),
    "apical": (14, 15, 16, 13),
}
"""Segments in the order met from the anterior insertion through the septum."""
_APICAL_START_DEG = 15.0
"""The apical septal segment spans 90 degrees about the septal border, 60 degrees past the insertion."""
_CONTACT_MM = 3.0
"""RV pixels this much farther from the myocardium than the nearest one still touch the septum."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """Where segment numbers begin in a slice, and which way they run."""

    insertion_deg: float
    """Direction of the anterior RV insertion from the LV center: atan2(down, right) [degrees]."""
    turn: int
    """+1 if the septum follows towards larger angles (clockwise on screen), else -1."""


def rv_insertions(
    myocardium: Bool[Tensor, "row col"],
    rv: Bool[Tensor, "row col"],
    anterior: tuple[float, float],
    pixel_spacing_mm: tuple[float, float] = (1.0, 1.0),
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Anterior and inferior insertion of the right ventricle as (row, col).

    They are the two ends of the stretch along which RV pixels touch the LV, as seen from the LV's center; the
    anterior one lies farther towards the patient's front.

    Parameters
    ----------
    myocardium, rv
        Masks of one slice.
    anterior
        Image-plane direction (row, col) that points to the patient's anterior-superior.
    pixel_spacing_mm
        Distance of rows and columns [mm].

    Returns
    -------
        None if either mask is empty.
    """
    if not (bool(myocardium.any()) and bool(rv.any())):
        return None
    spacing = np.asarray(pixel_spacing_mm)
    gap_mm = ndimage.distance_transform_edt(~myocardium.cpu().numpy(), sampling=spacing)
    in_rv = rv.cpu().numpy()
    contact = np.argwhere(in_rv & (gap_mm <= gap_mm[in_rv].min() + _CONTACT_MM))
    offsets_mm = (contact - _lv_center(myocardium)) * spacing
    angles = np.arctan2(offsets_mm[:, 0], offsets_mm[:, 1])
    order = np.argsort(angles)
    gaps = np.diff(angles[order], append=angles[order[0]] + 2 * np.pi)
    before_gap = int(np.argmax(gaps))
    ends = contact[[order[before_gap], order[(before_gap + 1) % len(order)]]]
    towards_front = ((ends - _lv_center(myocardium)) * spacing) @ np.asarray(anterior)
    front, back = ends[np.argsort(-towards_front)]
    return (float(front[0]), float(front[1])), (float(back[0]), float(back[1]))


def slice_orientation(
    myocardium: Bool[Tensor, "row col"],
    rv: Bool[Tensor, "row col"],
    anterior: tuple[float, float],
    pixel_spacing_mm: tuple[float, float],
    insertion: Float[Tensor, "2"] | None = None,
) -> Orientation | None:
    """Start and sense of the segment numbers in one slice; None without myocardium or RV.

    A reader's ``insertion`` (row, col) takes the place of the anterior one that the masks show.
    """
    found = rv_insertions(myocardium, rv, anterior, pixel_spacing_mm)
    if found is None:
        return None
    point = torch.tensor(found[0]) if insertion is None else insertion
    front = _insertion_deg(myocardium, point, pixel_spacing_mm)
    center, spacing = _lv_center(myocardium), np.asarray(pixel_spacing_mm)
    septum = _direction_deg((np.argwhere(rv.cpu().numpy()).mean(0) - center) * spacing)
    return Orientation(insertion_deg=front, turn=1 if (septum - front) % 360 < 180 else -1)


def stack_orientations(
    myocardium: Bool[Tensor, "slice row col"],
    rv: Bool[Tensor, "slice row col"],
    anterior: tuple[float, float],
    pixel_spacing_mm: tuple[float, float],
    insertions: Float[Tensor, "slice 2"] | None = None,
) -> list[Orientation | None]:
    """Orientation of every slice; a slice without RV borrows that of the nearest slice that has one.

    Parameters
    ----------
    myocardium, rv
        Masks of the stack.
    anterior
        Image-plane direction (row, col) that points to the patient's anterior-superior.
    pixel_spacing_mm
        Distance of rows and columns [mm].
    insertions
        A reader's points (row, col) for the anterior insertion, which count more than the masks; NaN on a
        slice without one. The side of the septum still follows from the RV.
    """
    marked: list[Tensor | None] = [None] * len(myocardium)
    if insertions is not None:
        marked = [None if bool(point.isnan().any()) else point for point in insertions]
    own = [
        slice_orientation(muscle, pool, anterior, pixel_spacing_mm, point)
        for muscle, pool, point in zip(myocardium, rv, marked, strict=True)
    ]
    known = [index for index, orientation in enumerate(own) if orientation is not None]
    if not known:
        return own
    borrowed = [own[min(known, key=lambda other: abs(other - index))] for index in range(len(own))]
    return [
        orientation
        if orientation is None or point is None or index in known or not bool(muscle.any())
        else replace(orientation, insertion_deg=_insertion_deg(muscle, point, pixel_spacing_mm))
        for index, (orientation, point, muscle) in enumerate(zip(borrowed, marked, myocardium, strict=True))
    ]


def aha_segments(
    myocardium: Bool[Tensor, "row col"],
    orientation: Orientation,
    level: str,
    pixel_spacing_mm: tuple[float, float],
) -> UInt8[Tensor, "row col"]:
    """AHA segment of every myocardial pixel, 0 elsewhere."""
    pixels = torch.nonzero(myocardium).cpu().numpy()
    offsets_mm = (pixels - _lv_center(myocardium)) * np.asarray(pixel_spacing_mm)
    angle_deg = np.degrees(np.arctan2(offsets_mm[:, 0], offsets_mm[:, 1]))
    past_insertion_deg = orientation.turn * (angle_deg - orientation.insertion_deg)
    if level == "apical":
        past_insertion_deg = past_insertion_deg - _APICAL_START_DEG
    numbers = np.asarray(_FROM_INSERTION[level], dtype=np.uint8)
    index = (past_insertion_deg % 360 // (360 / len(numbers))).astype(int) % len(numbers)
    segments = torch.zeros(myocardium.shape, dtype=torch.uint8, device=myocardium.device)
    segments[myocardium] = torch.from_numpy(numbers[index]).to(myocardium.device)
    return segments


def septal(segments: UInt8[Tensor, "*space"]) -> Bool[Tensor, "*space"]:
    """Pixels of the septal segments."""
    return torch.isin(segments, torch.tensor(SEPTAL_SEGMENTS, dtype=torch.uint8, device=segments.device))


def present_segments(segments: UInt8[Tensor, "*space"]) -> Sequence[int]:
    """Numbers of the segments that have pixels, ascending."""
    return [number for number in sorted(set(segments.flatten().tolist())) if number != 0]


def _lv_center(myocardium: Bool[Tensor, "row col"]) -> np.ndarray:
    """Center (row, col) of the left ventricle, cavity included."""
    filled = ndimage.binary_fill_holes(myocardium.cpu().numpy())
    return np.asarray(np.argwhere(filled).mean(0))


def _insertion_deg(
    myocardium: Bool[Tensor, "row col"], point: Float[Tensor, "2"], pixel_spacing_mm: tuple[float, float]
) -> float:
    """Direction of a point (row, col) from the LV's center [degrees]."""
    offset_mm = (point.cpu().numpy() - _lv_center(myocardium)) * np.asarray(pixel_spacing_mm)
    return _direction_deg(offset_mm)


def _direction_deg(offset: np.ndarray) -> float:
    """Direction of a (down, right) offset, atan2(down, right) [degrees]."""
    return math.degrees(math.atan2(offset[0], offset[1]))
