"""Warping by displacement fields."""

import numpy as np
import pytest
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from cmrcore.registration.warp import (
    Kernel,
    blur,
    chain,
    inverse,
    jacobian_determinant,
    pixel_positions,
    span,
    warp,
)

SHAPE = (24, 31)


def smooth_field(seed: int, size_px: float) -> Float[Tensor, "1 2 row col"]:
    """Displacement without folds that dies out towards the border [pixel]."""
    noise = np.random.default_rng(seed).normal(size=(2, *SHAPE))
    field = ndimage.gaussian_filter(noise, (0, 5, 5))
    window = np.outer(np.hanning(SHAPE[0]), np.hanning(SHAPE[1]))
    field = field * window
    return torch.from_numpy(size_px * field / np.abs(field).max())[None]


def noise_image(seed: int) -> Float[Tensor, "1 1 row col"]:
    """Pixels without any smoothness."""
    return torch.from_numpy(np.random.default_rng(seed).random(SHAPE))[None, None]


@pytest.mark.parametrize(("kernel", "order"), [("linear", 1), ("cubic", 3)])
def test_values_are_those_of_scipy(kernel: Kernel, order: int) -> None:
    """Pixel centers at integers, (row, col), pulled from where the displacement points."""
    image, displacement = noise_image(1), smooth_field(2, 3.0)
    at = (pixel_positions(SHAPE, dtype=torch.float64) + displacement[0]).numpy()
    at = np.clip(at, 0, np.array(SHAPE)[:, None, None] - 1)
    expected = ndimage.map_coordinates(image[0, 0].numpy(), at, order=order, mode="mirror")
    np.testing.assert_allclose(warp(image, displacement, kernel)[0, 0].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_a_still_image_stays_as_it_is(kernel: Kernel) -> None:
    """Resampling at pixel centers gives the pixels back."""
    image = noise_image(3)
    torch.testing.assert_close(warp(image, torch.zeros(1, 2, *SHAPE, dtype=torch.float64), kernel), image)


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_a_shift_by_whole_pixels_moves_pixels(kernel: Kernel) -> None:
    """Channels are rows, then columns, and the border goes on."""
    image = noise_image(4)
    shift = torch.zeros(1, 2, *SHAPE, dtype=torch.float64)
    shift[:, 0], shift[:, 1] = 2.0, -1.0
    moved = warp(image, shift, kernel)
    torch.testing.assert_close(moved[0, 0, :-2, 1:], image[0, 0, 2:, :-1])
    torch.testing.assert_close(moved[0, 0, -1, 1:], image[0, 0, -1, :-1])


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_gradients_reach_images_and_displacements(kernel: Kernel) -> None:
    """Training through a warp needs both."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 2, 6, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    # Away from pixel centers, where linear interpolation has a kink.
    shift = 0.3 + 0.3 * torch.rand(1, 2, 6, 7, dtype=torch.float64, generator=generator)
    shift[..., -2:, :], shift[..., -2:] = -0.4, -0.4
    shift.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda i, u: warp(i, u, kernel), (image, shift))


def test_chained_displacements_resample_once() -> None:
    """Warping by the chain is warping twice, up to the blur of a second interpolation."""
    image = blur(noise_image(5)[:, 0], 3.0)[:, None]
    first, then = smooth_field(6, 2.0), smooth_field(7, 1.5)
    twice = warp(warp(image, first, "cubic"), then, "cubic")
    torch.testing.assert_close(warp(image, chain(first, then), "cubic"), twice, atol=2e-3, rtol=0.0)


def test_inverse_undoes_a_displacement() -> None:
    """There and back is nowhere, to a hundredth of a pixel."""
    displacement = smooth_field(8, 2.0)
    back = chain(displacement, inverse(displacement))
    assert float(back.abs().max()) < 0.02


def test_jacobian_tells_growth_and_folds() -> None:
    """A doubling covers four times the area, a mirror turns it over."""
    at = pixel_positions(SHAPE, dtype=torch.float64)[None]
    torch.testing.assert_close(jacobian_determinant(at), torch.full((1, *SHAPE), 4.0, dtype=torch.float64))
    mirror = torch.cat([-2 * at[:, :1], 0 * at[:, 1:]], dim=1)
    assert bool((jacobian_determinant(mirror) < 0).all())


def test_blur_keeps_the_mean_inside() -> None:
    """The filter's weights sum to one."""
    image = torch.zeros(1, 41, 41, dtype=torch.float64)
    image[0, 20, 20] = 1.0
    blurred = blur(image, 2.0)
    assert float(blurred.sum()) == pytest.approx(1.0)
    expected = ndimage.gaussian_filter(image[0].numpy(), 2.0, truncate=3.0)
    np.testing.assert_allclose(blurred[0].numpy(), expected, atol=1e-12)


def test_a_span_holds_its_region_and_ends_with_the_image() -> None:
    """Rows and columns each with their own margin's end."""
    region = torch.zeros(SHAPE, dtype=torch.bool)
    region[2, 7:9] = True
    region[5, 28] = True
    assert span(region, 3) == (slice(0, 9), slice(4, 31))
