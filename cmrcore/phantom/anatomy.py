"""Short-axis anatomy as smooth shapes with partial volume."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Level = Literal["basal", "mid", "apical"]

STRUCTURES = ("fat", "muscle", "lung", "liver", "rv_wall", "rv", "myocardium", "blood_pool")
"""What a pixel may hold, each painted over those before it."""

_RV_CENTER, _RV_RADIUS = 0.87, 0.93
"""Center and radius of the RV's disc in LV outer radii; it meets the LV 60 degrees off mid-septum."""
_RV_WALL_MM = 3.0
_FAT_MM, _CHEST_WALL_MM = 10.0, 16.0


@dataclass(frozen=True, slots=True)
class Heart:
    """Size, shape and pose of one subject's left ventricle; sizes stay between visits."""

    cavity_radius_mm: float
    """Radius of the LV cavity at the mid level [mm]."""
    wall_mm: float
    """Mean thickness of the LV wall at the mid level [mm]."""
    septal_excess_fraction: float
    """How much thicker than the mean the mid-septum is, and thinner the lateral wall, 0-1."""
    ovality_fraction: float
    """Relative difference of the cavity's long and short radius from their mean, 0-1."""
    septum_deg: float
    """Direction from the LV's center to mid-septum, clockwise from image right [degrees]; about 180."""
    center_mm: tuple[float, float]
    """LV center relative to the image's center (down, right) [mm]."""


@dataclass(frozen=True, slots=True)
class Grid:
    """In-plane pixel grid."""

    n_rows: int
    """Image height."""
    n_cols: int
    """Image width."""
    pixel_mm: float
    """Side of the square pixels [mm]."""


_CAVITY_BY_LEVEL: dict[Level, float] = {"basal": 1.1, "mid": 1.0, "apical": 0.7}
_WALL_BY_LEVEL: dict[Level, float] = {"basal": 1.05, "mid": 1.0, "apical": 0.85}


def structure_fractions(heart: Heart, level: Level, grid: Grid) -> Float[Tensor, "structure row col"]:
    """Share of each pixel that each of `STRUCTURES` fills; what is left of 1 is air."""
    down = _axis_mm(grid.n_rows, grid.pixel_mm)[:, None] - heart.center_mm[0]
    right = _axis_mm(grid.n_cols, grid.pixel_mm)[None, :] - heart.center_mm[1]
    radius, angle = torch.hypot(down, right), torch.atan2(down, right)

    septum = math.radians(heart.septum_deg)
    cavity_mm = heart.cavity_radius_mm * _CAVITY_BY_LEVEL[level]
    wall_mm = heart.wall_mm * _WALL_BY_LEVEL[level]
    inner = cavity_mm * (1 + heart.ovality_fraction * torch.cos(2 * (angle - septum) + math.pi))
    outer = inner + wall_mm * (1 + heart.septal_excess_fraction * torch.cos(angle - septum))
    outer_mm = cavity_mm + wall_mm
    from_rv = torch.hypot(
        down - _RV_CENTER * outer_mm * math.sin(septum), right - _RV_CENTER * outer_mm * math.cos(septum)
    )

    body = _ellipse_distance(down - 15, right + 5, grid.pixel_mm * grid.n_rows * 0.46)
    distance = {
        "fat": body,
        "muscle": body + _FAT_MM,
        "lung": body + _FAT_MM + _CHEST_WALL_MM,
        "liver": torch.maximum(outer_mm + 8 - down + 0.25 * right, body + _FAT_MM + _CHEST_WALL_MM),
        "rv_wall": from_rv - _RV_RADIUS * outer_mm - _RV_WALL_MM,
        "rv": from_rv - _RV_RADIUS * outer_mm,
        "myocardium": radius - outer,
        "blood_pool": radius - inner,
    }
    fractions: list[Tensor] = []
    for name in STRUCTURES:
        cover = (0.5 - distance[name] / grid.pixel_mm).clamp(0, 1)
        fractions = [below * (1 - cover) for below in fractions]
        fractions.append(cover)
    return torch.stack(fractions)


def _axis_mm(n_pixels: int, pixel_mm: float) -> Float[Tensor, " pixel"]:
    """Pixel centers along one axis relative to the image's center [mm]."""
    return (torch.arange(n_pixels, dtype=torch.float64) - (n_pixels - 1) / 2) * pixel_mm


def _ellipse_distance(
    down: Float[Tensor, "row 1"], right: Float[Tensor, "1 col"], half_height_mm: float
) -> Float[Tensor, "row col"]:
    """Distance from the chest's outline [mm], negative inside; exact enough at the scale of a pixel."""
    half_width_mm = 1.15 * half_height_mm
    return (torch.hypot(down / half_height_mm, right / half_width_mm) - 1) * half_height_mm
