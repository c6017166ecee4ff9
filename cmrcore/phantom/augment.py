"""Random geometry and intensity of training images, the augmentations of system S3.

Geometry (flips, quarter turns, rotation, zoom, perspective, grid distortion) is a displacement at which the
anatomy is drawn, so nothing is resampled and masks fit to the pixel. Trabeculae fill the cavity's edge.
Intensity (illumination, brightness,
masked out rectangles) changes the images only; blur and noise are those of `cmrcore.phantom.imperfections`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from cmrcore.phantom.anatomy import STRUCTURES, Grid
from cmrcore.phantom.motion import knots_shape, position_mm, smooth_maps, spline_field


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Strengths of the augmentations; all zero leaves images as they are."""

    flip_share: float = 0.5
    """Share of samples mirrored left to right; as many, independently, top to bottom, 0-1."""
    turn_share: float = 0.75
    """Share of samples turned by one, two or three quarters, 0-1."""
    rotation_deg: float = 45.0
    """Largest rotation on top [degrees]; with quarter turns 45 is every angle."""
    zoom_factor: float = 1.35
    """Largest factor between the size of a pixel and that of the grid, either way; 1 is none."""
    perspective_fraction: float = 0.12
    """Largest relative difference of scale between the image's center and its edge."""
    distortion_mm: float = 4.0
    """Standard deviation of the grid distortion [mm]."""
    trabeculae_share: float = 0.7
    """Share of samples whose cavity has a trabeculated edge, 0-1."""
    illumination: float = 0.35
    """Standard deviation of the logarithm of a smooth shading."""
    gamma: float = 0.25
    """Standard deviation of the logarithm of the exponent that bends brightness."""
    mask_share: float = 0.15
    """Share of images with a rectangle masked out, 0-1."""
    crop_share: float = 0.2
    """Share of images that are black outside a circle, as after distortion correction, 0-1."""


AUGMENTATION = Augmentation()
"""All of S3's."""
NO_AUGMENTATION = Augmentation(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def draw_geometry(
    rng: np.random.Generator, n: int, augmentation: Augmentation, grid: Grid
) -> Float[Tensor, "n 2 row col"]:
    """Displacements (down, right) [mm] that flip, turn, zoom, tilt and distort about the image's center."""
    one = augmentation
    flips = np.where(rng.random((2, n)) < one.flip_share, -1.0, 1.0)
    quarters = rng.integers(1, 4, size=n) * (rng.random(n) < one.turn_share)
    angle = quarters * (math.pi / 2) + np.radians(one.rotation_deg) * rng.uniform(-1, 1, size=n)
    scale = np.exp(math.log(one.zoom_factor) * rng.uniform(-1, 1, size=n))
    tilt = one.perspective_fraction * rng.uniform(-1, 1, size=(2, n))
    distortion = spline_field(
        torch.from_numpy(one.distortion_mm * rng.normal(size=(n, 2, *knots_shape(grid)))), grid
    )
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.stack([flips[0] * cos, flips[0] * sin, -flips[1] * sin, flips[1] * cos])
    (dd, dr, rd, rr), (tilt_down, tilt_right) = (
        torch.from_numpy(values).to(torch.float32)[..., None, None] for values in (matrix, tilt)
    )
    down, right = position_mm(grid)
    reach_mm = grid.pixel_mm * max(grid.n_rows, grid.n_cols) / 2
    depth = 1 + (tilt_down * down + tilt_right * right) / reach_mm
    at_down, at_right = (dd * down + dr * right) / depth, (rd * down + rr * right) / depth
    return torch.stack([at_down - down, at_right - right], dim=1) + distortion


def trabeculate(
    fractions: Float[Tensor, "image structure row col"],
    rng: np.random.Generator,
    augmentation: Augmentation,
    n_echoes: int,
    generator: torch.Generator,
) -> Float[Tensor, "image structure row col"]:
    """Mix muscle into the cavity's edge; masks stay, as readers draw the endocardium around trabeculae.

    On images of people the step from blood to wall is a slope up to ten millimeters wide, at the outer end of
    which readers draw; a network that has only seen sharp walls draws the cavity too small.
    """
    n_images, _, rows, cols = fractions.shape
    n = n_images // n_echoes
    blood, muscle = STRUCTURES.index("blood_pool"), STRUCTURES.index("papillary")
    density = rng.uniform(0.15, 0.95, size=n) * (rng.random(n) < augmentation.trabeculae_share)
    reach = 2 * int(rng.integers(1, 8)) + 1
    cavity = fractions[:, blood] + fractions[:, muscle]
    inside = torch.nn.functional.avg_pool2d(cavity, reach, stride=1, padding=reach // 2)
    knots = torch.rand(n, 1, rows // 2, cols // 2, generator=generator)
    grain = torch.nn.functional.interpolate(knots, size=(rows, cols), mode="bilinear")[:, 0]
    share = torch.from_numpy(density).to(grain)[:, None, None] * (0.4 + 1.2 * grain)
    mixed = (
        fractions[:, blood]
        * (2 - 2 * inside).clamp(0, 1)
        * share.repeat_interleave(n_echoes, dim=0).clamp(0, 1)
    )
    fractions[:, blood] -= mixed
    fractions[:, muscle] += mixed
    return fractions


def shade(
    image: Inexact[Tensor, "n row col"], rng: np.random.Generator, augmentation: Augmentation, grid: Grid
) -> Inexact[Tensor, "n row col"]:
    """Illuminate unevenly, before the noise."""
    shading = augmentation.illumination * rng.normal(size=(len(image), *knots_shape(grid)))
    return image * smooth_maps(torch.from_numpy(shading), grid).exp()


def spoil(
    image: Float[Tensor, "n row col"], rng: np.random.Generator, augmentation: Augmentation
) -> Float[Tensor, "n row col"]:
    """Bend the brightness of finished magnitudes; mask rectangles and corners out."""
    n, rows, cols = image.shape
    gamma = torch.from_numpy(np.exp(augmentation.gamma * rng.normal(size=n))).to(image)[:, None, None]
    brightest = image.amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)
    image = image if augmentation.gamma == 0 else brightest * (image / brightest) ** gamma
    masked = rng.random(n) < augmentation.mask_share
    size = rng.uniform(0.05, 0.2, size=(2, n)) * masked * [[rows], [cols]]
    corner = rng.random((2, n)) * [[rows], [cols]]
    for index in np.flatnonzero(masked).tolist():
        (top, left), (height, width) = (values[:, index].astype(int).tolist() for values in (corner, size))
        image[index, top : top + height, left : left + width] = 0
    cropped = rng.random(n) < augmentation.crop_share
    reach = np.where(cropped, rng.uniform(0.85, 1.2, size=n), np.inf) * min(rows, cols) / 2
    center = rng.normal(0, 0.05, size=(2, n)) * [[rows], [cols]]
    limit, down, right = (torch.from_numpy(values).to(image)[:, None, None] for values in (reach, *center))
    row = torch.arange(rows).to(image)[:, None] - (rows - 1) / 2
    col = torch.arange(cols).to(image) - (cols - 1) / 2
    return image * (torch.hypot(row - down, col - right) < limit)
