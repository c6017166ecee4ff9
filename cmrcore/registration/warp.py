"""Warping images by displacement fields in pixels.

A field tells for each pixel of the result where in the image its value lies: ``result(x) = image(x + u(x))``,
channels (row, col), pixel centers at integers. That is the convention of MONAI's ``Warp``. Beyond the image
its border goes on.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

Kernel = Literal["linear", "cubic"]


def pixel_positions(
    shape: tuple[int, int], device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "2 row col"]:
    """Pixel centers (row, col) [pixel]."""
    rows = torch.arange(shape[0], device=device, dtype=dtype)
    cols = torch.arange(shape[1], device=device, dtype=dtype)
    return torch.stack(torch.meshgrid(rows, cols, indexing="ij"))


def warp(
    images: Float[Tensor, "n channel row col"],
    displacement_px: Float[Tensor, "n 2 row col"],
    kernel: Kernel = "linear",
) -> Float[Tensor, "n channel row col"]:
    """Pull images along a displacement; differentiable along both.

    Parameters
    ----------
    images
        Values at pixel centers.
    displacement_px
        Where each pixel's value lies, minus the pixel (row, col) [pixel].
    kernel
        ``linear``, which blurs by up to half a pixel, or ``cubic``: interpolating cubic B-splines, which
        hardly blur but overshoot at edges.

    References
    ----------
    Thevenaz, Blu and Unser 2000, IEEE Trans Med Imaging 19:739, doi:10.1109/42.875199
    """
    shape = (images.shape[-2], images.shape[-1])
    at = pixel_positions(shape, images.device, images.dtype) + displacement_px.to(images.dtype)
    return sample(images, at, kernel)


def sample(
    images: Float[Tensor, "n channel row col"],
    at_px: Float[Tensor, "n 2 *place"],
    kernel: Kernel = "linear",
) -> Float[Tensor, "n channel *place"]:
    """Values of images at places (row, col) [pixel], which lie on two axes."""
    if kernel == "cubic":
        return _sample_spline(_spline_coefficients(images), at_px)
    half = at_px.new_tensor([(size - 1) / 2 for size in images.shape[-2:]])[:, None, None]
    unit = (at_px - half) / half.clamp_min(0.5)
    grid = unit.flip(1).permute(0, 2, 3, 1)  # grid_sample wants (col, row) from -1 to 1
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=True)


def chain(
    first_px: Float[Tensor, "n 2 row col"], then_px: Float[Tensor, "n 2 row col"]
) -> Float[Tensor, "n 2 row col"]:
    """Give the one displacement of an image that is warped by ``first_px``, the result by ``then_px``.

    With it the image is resampled once.
    """
    return then_px + warp(first_px, then_px)


def inverse(displacement_px: Float[Tensor, "n 2 row col"], n_steps: int = 12) -> Float[Tensor, "n 2 row col"]:
    """Displacement that undoes another one, by fixed-point iteration; that one must be free of folds.

    References
    ----------
    Chen et al. 2008, Med Phys 35:81, doi:10.1118/1.2816107
    """
    found = -displacement_px
    for _ in range(n_steps):
        found = -warp(displacement_px, found)
    return found


def jacobian_determinant(displacement_px: Float[Tensor, "n 2 row col"]) -> Float[Tensor, "n row col"]:
    """Local change of area of ``x -> x + u(x)``: 1 for shifts, under 0 where the field folds."""
    down = torch.gradient(displacement_px, dim=2)[0]
    right = torch.gradient(displacement_px, dim=3)[0]
    return (1 + down[:, 0]) * (1 + right[:, 1]) - right[:, 0] * down[:, 1]


def blur(images: Float[Tensor, "n row col"], sigma_px: float) -> Float[Tensor, "n row col"]:
    """Gaussian filter; the border goes on beyond the image."""
    reach = max(1, round(3 * sigma_px))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-(offsets**2) / (2 * sigma_px**2))
    weights = weights / weights.sum()
    padded = functional.pad(images[:, None], (reach,) * 4, mode="replicate")
    along_rows = functional.conv2d(padded, weights[None, None, :, None])
    return functional.conv2d(along_rows, weights[None, None, None, :])[:, 0]


def span(region: Bool[Tensor, "row col"], margin_px: int) -> tuple[slice, slice]:
    """Rows and columns of a region that is not empty, with a margin as far as the image reaches."""
    spans = []
    for axis in (0, 1):
        inside = torch.nonzero(region.any(1 - axis))[:, 0]
        low, high = int(inside[0]) - margin_px, int(inside[-1]) + margin_px + 1
        spans.append(slice(max(0, low), min(region.shape[axis], high)))
    return spans[0], spans[1]


def _spline_coefficients(
    images: Float[Tensor, "n channel row col"],
) -> Float[Tensor, "n channel row col"]:
    """Coefficients of the cubic B-splines through the pixels, mirrored at the outermost centers."""
    along_rows = torch.linalg.solve(_spline_values(images.shape[-2], images), images)
    across: Tensor = torch.linalg.solve(
        _spline_values(images.shape[-1], images), along_rows.transpose(-1, -2)
    )
    return across.transpose(-1, -2)


def _spline_values(n: int, like: Tensor) -> Float[Tensor, "n n"]:
    """Values at pixel centers from coefficients."""
    values = torch.diag(like.new_full((n,), 2 / 3))
    beside = like.new_full((n - 1,), 1 / 6)
    values = values + torch.diag(beside, 1) + torch.diag(beside, -1)
    if n > 1:
        values[0, 1] += 1 / 6
        values[-1, -2] += 1 / 6
    return values


def _sample_spline(
    coefficients: Float[Tensor, "n channel row col"], at: Float[Tensor, "n 2 *place"]
) -> Float[Tensor, "n channel *place"]:
    """Value of the splines at places (row, col) [pixel]."""
    n, n_channels, n_rows, n_cols = coefficients.shape
    flat = coefficients.flatten(2)
    row_weights, row_index = _spline_weights(at[:, 0], n_rows)
    col_weights, col_index = _spline_weights(at[:, 1], n_cols)
    values = coefficients.new_zeros(n, n_channels, *at.shape[2:])
    for row_weight, row in zip(row_weights, row_index, strict=True):
        for col_weight, col in zip(col_weights, col_index, strict=True):
            index = (row * n_cols + col).view(n, 1, -1).expand(-1, n_channels, -1)
            found = flat.gather(2, index).view(values.shape)
            values = values + (row_weight * col_weight)[:, None] * found
    return values


def _spline_weights(at: Float[Tensor, "n row col"], size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and mirrored indices of the four splines that reach a place along one axis."""
    inside = at.clamp(0, size - 1)
    before = inside.detach().floor()
    t = inside - before
    weights = [
        (1 - t) ** 3 / 6,
        2 / 3 - t**2 + t**3 / 2,
        2 / 3 - (1 - t) ** 2 + (1 - t) ** 3 / 2,
        t**3 / 6,
    ]
    indices = []
    for offset in (-1, 0, 1, 2):
        index = (before.long() + offset).abs()
        indices.append(torch.where(index > size - 1, 2 * (size - 1) - index, index).clamp(0, size - 1))
    return weights, indices
