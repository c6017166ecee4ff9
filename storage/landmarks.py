"""A reader's points: where the right ventricle joins the left in front, slice by slice.

A JSON file beside the images whose name ends in ``landmarks.json``::

    {"format": "cmrtrials-landmarks", "version": 1,
     "rv_insertion_anterior": [{"position_mm": [-12.5, 30.1, 44.0]}, {"position_mm": [...], "role": "post"}]}

Positions are DICOM's patient coordinates, LPS [mm], one for each slice that a reader marked; a point without
``role`` is for native and post-contrast images alike.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.dicom_read import FileSource
from storage.errors import RefusedError
from storage.geometry import StackGeometry, col_direction, row_direction, slice_normal
from storage.series_rules import Role

LANDMARKS_SUFFIX = "landmarks.json"
MAX_BYTES = 2**20
"""Largest size of such a file; one of a visit has less than a thousandth of it."""

_MAX_MM = 1e4
_MAX_NAMED = 3
_Millimeters = Annotated[float, Field(ge=-_MAX_MM, le=_MAX_MM, allow_inf_nan=False)]


class _Point(BaseModel):
    """One point as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    position_mm: tuple[_Millimeters, _Millimeters, _Millimeters]
    role: Role | None = None


class _File(BaseModel):
    """A whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["cmrtrials-landmarks"]
    version: Literal[1]
    rv_insertion_anterior: Annotated[tuple[_Point, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Landmark:
    """Anterior insertion of the right ventricle on one slice."""

    position_mm: tuple[float, float, float]
    """Where it lies, LPS [mm]."""
    role: Role | None
    """Images that it is for; None: all."""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """All points of one file."""

    source: FileSource
    """File they came in."""
    path: Path = field(repr=False)
    """Where it lies in incoming/."""
    points: tuple[Landmark, ...]
    """The points."""


def is_landmarks(name: str) -> bool:
    """Whether a file's name says that it holds a reader's points."""
    return name.lower().endswith(LANDMARKS_SUFFIX)


def read_landmarks(path: Path, source: FileSource) -> Landmarks:
    """Read and check a reader's points.

    Raises
    ------
    RefusedError
        Naming every wrong key with what was expected, never with what the file says.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        message = f"{source}: landmarks of {size} bytes, expected at most {MAX_BYTES}"
        raise RefusedError(message)
    try:
        found = _File.model_validate_json(path.read_bytes())
    except ValidationError as error:
        found_wrong = error.errors(include_url=False, include_input=False, include_context=False)
        wrong = "; ".join(
            # A key that is not ours may be a name.
            "unknown key" if one["type"] == "extra_forbidden" else f"{_place(one['loc'])}: {one['msg']}"
            for one in found_wrong[:_MAX_NAMED]
        )
        message = f"{source}: no landmarks file of version 1, see storage/landmarks.py: {wrong}"
        raise RefusedError(message) from None  # its text quotes the file
    points = tuple(Landmark(one.position_mm, one.role) for one in found.rv_insertion_anterior)
    return Landmarks(source, path, points)


def place_landmarks(
    landmarks: Landmarks, role: Role, geometry: StackGeometry, tolerance_mm: float
) -> Float64[np.ndarray, "slice 2"]:
    """Place (row, col) of the point on each slice of a role's stack [pixel]; NaN where there is none.

    Raises
    ------
    RefusedError
        If a point lies on no slice or outside of the images, or two lie on one slice.
    """
    placed = np.full((len(geometry.positions_mm), 2), np.nan)
    normal = slice_normal(geometry.orientation)
    for number, point in enumerate(landmarks.points, 1):
        if point.role not in (None, role):
            continue
        offsets_mm = np.asarray(point.position_mm) - np.asarray(geometry.positions_mm)
        distances_mm = np.abs(offsets_mm @ normal)
        index = int(distances_mm.argmin())
        if distances_mm[index] > tolerance_mm:
            message = (
                f"point {number} is {distances_mm[index]:.1f} mm from the nearest slice, expected at most "
                f"{tolerance_mm:g} mm; a point for one series only needs its role"
            )
            raise RefusedError(message)
        place = np.array(
            [
                offsets_mm[index] @ row_direction(geometry.orientation) / geometry.pixel_spacing_mm[0],
                offsets_mm[index] @ col_direction(geometry.orientation) / geometry.pixel_spacing_mm[1],
            ]
        )
        if not np.all((place > -0.5) & (place < np.asarray(geometry.shape) - 0.5)):
            message = f"point {number} lies outside of the images; expected DICOM patient coordinates (LPS)"
            raise RefusedError(message)
        if not np.isnan(placed[index]).any():
            message = f"point {number} is the second one on slice {index}, expected one a slice"
            raise RefusedError(message)
        placed[index] = place
    return placed


def _place(location: tuple[int | str, ...]) -> str:
    """Name a place in a file."""
    return ".".join(map(str, location)) or "the file"
