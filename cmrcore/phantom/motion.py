"""Where the heart lies on each image: breath-hold drift, breathing, beats, mistriggers, and between series.

A displacement field tells for each pixel of a moved image which point of the still one it shows: ``moved(x) =
still(x + displacement(x))``, down and right in mm. Fields are uniform cubic B-splines, so they are smooth,
known at every pixel, and invertible: their coefficients stay under the bound of Choi and Lee. The first image
of a series is the still one, by definition: drift, breathing and beats are told against it.

Sources
-------
At end expiration the held diaphragm drifts by 0.15 mm/s, within 20 s by a quarter of its way in normal
breathing, and the heart does not return to the same place from beat to beat (Holland et al. 1998, Radiology
209:395). The heart follows the diaphragm by 0.3 head to foot and 0.1 to the side, with large differences
between people (Keegan et al. 2002, doi:10.1002/mrm.10066).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.phantom.anatomy import Grid

KNOT_MM = 40.0
"""Distance of the control points of a displacement field [mm]."""

INVERTIBLE_MM = KNOT_MM / 2.0464
"""Largest coefficient of an invertible field [mm] (Choi and Lee 2000, doi:10.1006/gmod.2000.0531)."""

_CARRIED_MM, _FIXED_SHARE = 75.0, 0.2
"""How far from the heart tissue still follows it (standard deviation [mm]), and the share that all does."""
_BREATH_S = (3.0, 5.5)
_WRONG_PHASE = (0.15, 0.7)


@dataclass(frozen=True, slots=True)
class MotionStrength:
    """How much moves, in the image and through it; all zero is a heart that lies still."""

    drift_mm_per_s: float = 0.0
    """Standard deviation of the heart's speed during a held breath [mm/s]."""
    breathing_share: float = 0.0
    """Share of series in which the breath is not held to the end, 0-1."""
    breathing_mm: float = 0.0
    """Mean way of the heart in such a breath [mm]."""
    beat_mm: float = 0.0
    """Standard deviation of the heart's place, and of its bending, from beat to beat [mm]."""
    bend_fraction: float = 0.0
    """Standard deviation of the bending that drift and breathing bring, relative to their way."""
    through_plane_fraction: float = 0.0
    """Standard deviation of the way through the plane, relative to that of drift and breathing in it."""
    mistrigger_share: float = 0.0
    """Share of images, but for the first, at a wrong moment of the heart beat, 0-1."""
    between_series_mm: float = 0.0
    """Standard deviation of the heart's place from one breath-hold to another, along each axis [mm]."""
    between_series_deg: float = 0.0
    """Standard deviation of the body's turn from one series to another [degrees]."""


STILL = MotionStrength()


@dataclass(frozen=True, slots=True)
class SeriesMotion:
    """Motion of the images of one slice against the first of them."""

    displacement_mm: Float[Tensor, "ti 2 row col"]
    """Point of the first image that each pixel shows, minus the pixel's (down, right) [mm]."""
    through_plane_mm: tuple[float, ...]
    """How far each image lies from the plane of the first, towards the apex [mm]."""
    phase_fraction: tuple[float, ...]
    """Moment of the heart beat of each image, 0 end-diastole to 1 end-systole."""
    excursion_mm: tuple[float, ...]
    """How far the heart as a whole lies in the plane from its place on the first image [mm]."""
    breathes: bool
    """Whether the breath was not held to the end."""

    @property
    def moves(self) -> bool:
        """Whether any image differs from the first."""
        changes = any(self.through_plane_mm) or any(self.phase_fraction)
        return changes or bool(self.displacement_mm.any())


@dataclass(frozen=True, slots=True)
class Reposition:
    """Where the heart lies in one series against another."""

    displacement_mm: Float[Tensor, "2 row col"]
    """Point of the earlier series that each pixel of the later shows, minus the pixel's [mm]."""
    through_plane_mm: float
    """How far the later plane lies from the earlier, towards the apex [mm]."""


def draw_motion(
    rng: np.random.Generator,
    strength: MotionStrength,
    time_s: Sequence[float],
    grid: Grid,
    heart_mm: tuple[float, float],
) -> SeriesMotion:
    """Motion of one slice in one breath-hold.

    Parameters
    ----------
    rng
        Source of all draws; the same number is drawn whatever the strength.
    strength
        How much moves.
    time_s
        When each image was taken [s], in acquisition order.
    grid
        Pixels of the images.
    heart_mm
        LV center relative to the image's center (down, right) [mm].
    """
    since_s = np.asarray(time_s, dtype=np.float64) - time_s[0]
    n = len(since_s)
    # Head to foot is mostly down in a short-axis image.
    direction_rad = rng.normal(0, math.radians(30))
    direction = np.array([math.cos(direction_rad), math.sin(direction_rad)])
    speed = strength.drift_mm_per_s * rng.normal()
    fails, holds_for, period_s = rng.random(), rng.uniform(0.0, 0.8), rng.uniform(*_BREATH_S)
    depth_mm = strength.breathing_mm * rng.gamma(4.0, 0.25)
    breathes = bool(fails < strength.breathing_share)
    way_mm = speed * since_s
    if breathes:
        breath = np.clip(since_s - holds_for * since_s[-1], 0, None) / period_s
        way_mm = way_mm + depth_mm * (1 - np.cos(2 * np.pi * breath)) / 2
    through = strength.through_plane_fraction * rng.normal()
    wrong, phase = rng.random(n), rng.uniform(*_WRONG_PHASE, size=n)
    wrong[0] = 1.0

    shape = (2, *knots_shape(grid))
    carried = _carried(grid, heart_mm)
    bending = strength.bend_fraction * rng.normal(size=shape)
    beats_mm = strength.beat_mm * rng.normal(size=(n, 2))
    beats_mm[0] = 0
    bends_mm = strength.beat_mm * rng.normal(size=(n, *shape))
    bends_mm[0] = 0
    moved_mm = way_mm[:, None] * direction + beats_mm
    # A heart that went down shows at each pixel what lay above it.
    coefficients = carried * (way_mm[:, None, None, None] * bending - moved_mm[:, :, None, None] + bends_mm)
    return SeriesMotion(
        displacement_mm=spline_field(torch.from_numpy(coefficients), grid),
        through_plane_mm=tuple((through * way_mm).tolist()),
        phase_fraction=tuple(np.where(wrong < strength.mistrigger_share, phase, 0.0).tolist()),
        excursion_mm=tuple(np.hypot(moved_mm[:, 0], moved_mm[:, 1]).tolist()),
        breathes=breathes,
    )


def draw_reposition(
    rng: np.random.Generator, strength: MotionStrength, grid: Grid, heart_mm: tuple[float, float]
) -> Reposition:
    """Place of the heart in a later series: shifted, turned and bent, and not quite in the same plane."""
    shape = (2, *knots_shape(grid))
    shift_mm = strength.between_series_mm * rng.normal(size=2)
    through_mm = strength.between_series_mm * rng.normal()
    turn = math.radians(strength.between_series_deg * rng.normal())
    bends_mm = 0.5 * strength.between_series_mm * strength.bend_fraction * rng.normal(size=shape)
    bent = spline_field(torch.from_numpy(_carried(grid, heart_mm) * bends_mm)[None], grid)[0]
    down, right = position_mm(grid)
    down, right = down - heart_mm[0], right - heart_mm[1]
    turned = torch.stack(
        [
            (math.cos(turn) - 1) * down + math.sin(turn) * right,
            (math.cos(turn) - 1) * right - math.sin(turn) * down,
        ]
    )
    shift = torch.tensor(shift_mm, dtype=torch.float32)[:, None, None]
    return Reposition(displacement_mm=bent + turned - shift, through_plane_mm=float(through_mm))


def spline_field(coefficients_mm: Float[Tensor, "n 2 i j"], grid: Grid) -> Float[Tensor, "n 2 row col"]:
    """Smooth, invertible displacement [mm] from coefficients at knots; too large ones are scaled down.

    Parameters
    ----------
    coefficients_mm
        Coefficients of uniform cubic B-splines, `KNOT_MM` apart, that cover the grid (`knots_shape`).
    grid
        Pixels.
    """
    largest = coefficients_mm.abs().amax(dim=(1, 2, 3), keepdim=True)
    # One percent under the bound keeps rounding to float32 away from it.
    allowed = (0.99 * INVERTIBLE_MM / largest.clamp_min(1e-9)).clamp_max(1.0)
    return smooth_maps(allowed * coefficients_mm, grid)


def smooth_maps(coefficients: Float[Tensor, "*n i j"], grid: Grid) -> Float[Tensor, "*n row col"]:
    """Cubic B-spline surfaces over the grid from their coefficients at the knots (`knots_shape`)."""
    along_rows = _basis(grid.n_rows, grid.pixel_mm, coefficients.device)
    along_cols = _basis(grid.n_cols, grid.pixel_mm, coefficients.device)
    return along_rows @ coefficients.to(torch.float32) @ along_cols.T


def knots_shape(grid: Grid) -> tuple[int, int]:
    """Control points down and right that a field over the grid has."""
    return _n_knots(grid.n_rows, grid.pixel_mm), _n_knots(grid.n_cols, grid.pixel_mm)


def compose(
    inner_mm: Float[Tensor, "n 2 row col"], outer_mm: Float[Tensor, "n 2 row col"], grid: Grid
) -> Float[Tensor, "n 2 row col"]:
    """Displacement of an image that moved within a series that moved: ``x -> x + inner -> + outer there``.

    The outer field is read between pixels linearly, to a hundredth of a millimeter for fields of
    `spline_field`.
    """
    down, right = position_mm(grid, inner_mm.device)
    half_mm = (
        torch.tensor([(grid.n_cols - 1) / 2, (grid.n_rows - 1) / 2], device=inner_mm.device) * grid.pixel_mm
    )
    at = torch.stack([right + inner_mm[:, 1], down + inner_mm[:, 0]], dim=-1) / half_mm
    there = torch.nn.functional.grid_sample(outer_mm, at, padding_mode="border", align_corners=True)
    return inner_mm + there


def position_mm(
    grid: Grid, device: torch.device | None = None
) -> tuple[Float[Tensor, "row 1"], Float[Tensor, "1 col"]]:
    """Pixel centers relative to the image's center, down and right [mm]."""
    down = (torch.arange(grid.n_rows, device=device) - (grid.n_rows - 1) / 2) * grid.pixel_mm
    right = (torch.arange(grid.n_cols, device=device) - (grid.n_cols - 1) / 2) * grid.pixel_mm
    return down[:, None], right[None, :]


def _carried(grid: Grid, heart_mm: tuple[float, float]) -> Float[np.ndarray, "i j"]:
    """Share of the heart's way that the tissue at each knot goes along: spine and back hardly move."""
    down, right = (
        (np.arange(_n_knots(n, grid.pixel_mm)) - 1) * KNOT_MM - (n - 1) / 2 * grid.pixel_mm - center
        for n, center in ((grid.n_rows, heart_mm[0]), (grid.n_cols, heart_mm[1]))
    )
    near = np.exp(-(down[:, None] ** 2 + right[None, :] ** 2) / (2 * _CARRIED_MM**2))
    share: Float[np.ndarray, "i j"] = _FIXED_SHARE + (1 - _FIXED_SHARE) * near
    return share


def _n_knots(n_pixels: int, pixel_mm: float) -> int:
    return math.floor((n_pixels - 1) * pixel_mm / KNOT_MM) + 4


def _basis(n_pixels: int, pixel_mm: float, device: torch.device) -> Float[Tensor, "pixel knot"]:
    """Weight of each knot's cubic B-spline at each pixel; knots start one before the first pixel."""
    at = torch.arange(n_pixels, dtype=torch.float64, device=device)[:, None] * (pixel_mm / KNOT_MM)
    from_knot = (at - (torch.arange(_n_knots(n_pixels, pixel_mm), device=device)[None, :] - 1)).abs()
    near = 2 / 3 - from_knot**2 + from_knot**3 / 2
    far = (2 - from_knot).clamp_min(0) ** 3 / 6
    return torch.where(from_knot < 1, near, far).to(torch.float32)
