"""Where slices lie in the patient: DICOM LPS coordinates [mm], axes ``slice, row, col``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

Level = Literal["basal", "mid", "apical"]
Vector = tuple[float, float, float]
Orientation = Sequence[float] | Float64[np.ndarray, " 6"]

_SQRT2 = np.sqrt(2.0)
_SQRT3 = np.sqrt(3.0)

BASE_DIRECTION = np.array([-1.0, 1.0, 1.0]) / _SQRT3
"""From apex to base: right, posterior, superior."""

ANTERIOR_SUPERIOR = np.array([0.0, -1.0, 1.0]) / _SQRT2
"""Where the anterior wall of a short-axis slice lies as seen from the cavity."""

UNIT_TOLERANCE = 1e-3
"""Largest deviation of a direction cosine, or relative deviation of a pixel spacing, that counts as equal."""


@dataclass(frozen=True, slots=True)
class StackGeometry:
    """Planes of a stack of parallel slices on one pixel grid."""

    positions_mm: tuple[Vector, ...]
    """Centre of the first pixel of each slice, LPS [mm] (ImagePositionPatient)."""
    orientation: tuple[float, ...]
    """Directions of growing col, then of growing row (ImageOrientationPatient)."""
    pixel_spacing_mm: tuple[float, float]
    """Distance between rows, between columns [mm]."""
    shape: tuple[int, int]
    """Rows, columns."""


def col_direction(orientation: Orientation) -> Float64[np.ndarray, " 3"]:
    """Give the unit vector along which the column index grows."""
    return np.asarray(orientation[:3], dtype=np.float64)


def row_direction(orientation: Orientation) -> Float64[np.ndarray, " 3"]:
    """Give the unit vector along which the row index grows."""
    return np.asarray(orientation[3:6], dtype=np.float64)


def slice_normal(orientation: Orientation) -> Float64[np.ndarray, " 3"]:
    """Give the unit normal of the slices, right-handed with the col and row directions."""
    return np.cross(col_direction(orientation), row_direction(orientation))


def is_orthonormal(orientation: Orientation) -> bool:
    """Whether the six direction cosines are two perpendicular unit vectors."""
    col, row = col_direction(orientation), row_direction(orientation)
    deviation = np.abs([col @ col - 1.0, row @ row - 1.0, col @ row])
    return bool(np.all(deviation < UNIT_TOLERANCE))


def positions_along_normal(
    positions_mm: Sequence[Vector], orientation: Orientation
) -> Float64[np.ndarray, " n"]:
    """Distances of points along the slice normal [mm]."""
    positions: Float64[np.ndarray, "n 3"] = np.asarray(positions_mm, dtype=np.float64)
    return np.asarray(positions @ slice_normal(orientation))


def base_to_apex(along_normal_mm: Sequence[float], orientation: Orientation) -> list[int]:
    """Order of slices from base to apex, from their distances along the normal [mm].

    The base is the end of the stack that lies further towards `BASE_DIRECTION`.
    """
    order = np.argsort(along_normal_mm, kind="stable")
    base_is_last = slice_normal(orientation) @ BASE_DIRECTION > 0
    return [int(index) for index in (order[::-1] if base_is_last else order)]


def split_slices(
    positions_mm: Sequence[Vector], orientation: Orientation, tolerance_mm: float
) -> list[list[int]]:
    """Group parallel images by position along their normal: numbers of each slice's images, base to apex.

    Parameters
    ----------
    positions_mm
        Centre of the first pixel of each image, LPS [mm].
    orientation
        Directions that all have.
    tolerance_mm
        Distance from a slice's first image within which another is of that slice [mm].
    """
    along_normal = positions_along_normal(positions_mm, orientation)
    slices: list[list[int]] = []
    starts: list[float] = []
    for index in np.argsort(along_normal, kind="stable").tolist():
        if not starts or along_normal[index] - starts[-1] > tolerance_mm:
            starts.append(float(along_normal[index]))
            slices.append([])
        slices[-1].append(index)
    return [slices[index] for index in base_to_apex(starts, orientation)]


def split_orientations(orientations: Sequence[tuple[float, ...]]) -> list[list[int]]:
    """Group images by orientation: numbers of the images of each, in the order of their first image."""
    groups: dict[tuple[float, ...], list[int]] = {}
    for number, orientation in enumerate(orientations):
        known = orientation if orientation in groups else _alike(orientation, groups)
        groups.setdefault(known, []).append(number)
    return list(groups.values())


def _alike(orientation: tuple[float, ...], known: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    alike = (one for one in known if np.allclose(orientation, one, rtol=0, atol=UNIT_TOLERANCE))
    return next(alike, orientation)


def levels(n_slices: int) -> tuple[Level, ...]:
    """Level of each slice, base to apex: thirds of the stack."""
    thirds: tuple[Level, Level, Level] = ("basal", "mid", "apical")
    return tuple(thirds[int((index + 0.5) / n_slices * 3)] for index in range(n_slices))


def anterior_direction(orientation: Orientation) -> tuple[float, float]:
    """Give the unit direction (row, col) in the image that points to the patient's anterior and superior."""
    row = float(ANTERIOR_SUPERIOR @ row_direction(orientation))
    col = float(ANTERIOR_SUPERIOR @ col_direction(orientation))
    length = float(np.hypot(row, col))
    return (row / length, col / length)
