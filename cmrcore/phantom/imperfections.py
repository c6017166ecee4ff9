"""What lies between the magnetization and the image: coils, field, folding, ghosts, resolution, noise.

Every function leaves the image as it is at strength zero, works on batches, and takes its strength with a
unit. Images are signed or complex until `magnitude_image`.

Sources
-------
After local shimming the resonance frequency varies across the heart by 62 +- 16 Hz at 1.5 T and 125 +- 41 Hz
at 3 T, both 1 ppm (Kellman et al. 2013, doi:10.1186/1532-429X-15-63), most beside the posterior vein of the
LV, where heart and lung meet (Reeder et al. 1998, doi:10.1002/mrm.1910390616). The shape of the map is ours
after them.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.motion import position_mm

Share = float | Float[Tensor, "*#batch 1 1"]
"""A strength, the same for all images or one for each."""

_BUMP_MM = 28.0
_HEART_MM = 50.0
"""Radius of what counts as the heart where the field is measured."""
_PROTON_HZ_PER_T_PPM = 42.577


def draw_sensitivity(
    rng: np.random.Generator, ratio: float, grid: Grid, heart_mm: tuple[float, float]
) -> Float[Tensor, "row col"]:
    """Receive sensitivity of the coils on chest and back, 1 at the heart.

    Parameters
    ----------
    rng
        Source of the draws.
    ratio
        Strongest over weakest sensitivity within the image; 1 is uniform.
    grid
        Pixels.
    heart_mm
        LV center relative to the image's center (down, right) [mm].
    """
    direction = -math.pi / 2 + rng.normal(0, 0.4)
    back = rng.uniform(0.2, 0.6)
    down, right = position_mm(grid)
    reach = grid.pixel_mm * max(grid.n_rows, grid.n_cols) / 2
    toward = (down * math.sin(direction) + right * math.cos(direction)) / reach
    across = (down * math.cos(direction) - right * math.sin(direction)) / reach
    log = torch.where(toward > 0, toward**2, back * toward**2) + 0.5 * toward - 0.15 * across**2
    log = log * (math.log(ratio) / float(log.max() - log.min()))
    row, col = _pixel(heart_mm, grid)
    return torch.exp(log - log[row, col])


def draw_off_resonance(
    rng: np.random.Generator, range_hz: float, grid: Grid, heart_mm: tuple[float, float]
) -> Float[Tensor, "row col"]:
    """Field map: a slope that shimming left, and a bump where the inferolateral wall meets the lung.

    Parameters
    ----------
    rng
        Source of the draws.
    range_hz
        Difference of the highest and lowest frequency across the heart [Hz]; their mean lies within a quarter
        of it from the center frequency.
    grid
        Pixels.
    heart_mm
        LV center relative to the image's center (down, right) [mm].
    """
    slope_down, slope_right, curve = (rng.normal(size=3) * (0.5, 0.5, 0.3)).tolist()
    angle, distance_mm = math.radians(rng.normal(45, 15)), rng.normal(42, 5)
    sign, offset = (-1.0 if rng.random() < 0.5 else 1.0), rng.uniform(-0.25, 0.25)
    down, right = position_mm(grid)
    down, right = down - heart_mm[0], right - heart_mm[1]
    squared = (down - distance_mm * math.sin(angle)) ** 2 + (right - distance_mm * math.cos(angle)) ** 2
    shape: Tensor = (
        (slope_down * down + slope_right * right) / (2 * _HEART_MM)
        + curve * down * right / _HEART_MM**2
        + sign * torch.exp(-squared / (2 * _BUMP_MM**2))
    )
    heart = shape[torch.hypot(down, right) < _HEART_MM]
    low, high = float(heart.min()), float(heart.max())
    # Far from the heart nobody shims: what the polynomial says there is cut off.
    return range_hz * (((shape - (low + high) / 2) / (high - low)).clamp(-1.5, 1.5) + offset)


def hertz(parts_per_million: float, field_strength_t: float) -> float:
    """Frequency of protons [Hz] that differ by so much [ppm]."""
    return parts_per_million * field_strength_t * _PROTON_HZ_PER_T_PPM


def fold(image: Inexact[Tensor, "*batch tall col"], margin: int) -> Inexact[Tensor, "*batch row col"]:
    """Wrap what lies beyond the field of view along the columns: ``margin`` rows above and as many below."""
    if margin == 0:
        return image
    inside = image[..., margin:-margin, :].clone()
    inside[..., -margin:, :] += image[..., :margin, :]
    inside[..., :margin, :] += image[..., -margin:, :]
    return inside


def add_ghosts(
    image: Inexact[Tensor, "*batch row col"],
    pulsating: Inexact[Tensor, "*batch row col"],
    fraction: Share,
    shift: int,
) -> Inexact[Tensor, "*batch row col"]:
    """Repeat what pulsates along the columns, ``shift`` rows up and down (folded), with opposite signs.

    Parameters
    ----------
    image
        Signed image.
    pulsating
        Its part that changes between the lines of k-space: blood.
    fraction
        Signal of a ghost over that of its source.
    shift
        Distance of the ghosts [pixels].
    """
    up, down = torch.roll(pulsating, -shift, dims=-2), torch.roll(pulsating, shift, dims=-2)
    return image + fraction * (down - up)


def magnitude_image(
    signed: Inexact[Tensor, "*batch row col"],
    sigma: Share,
    generator: torch.Generator,
    *,
    sensitivity: Float[Tensor, "*#batch row col"] | None = None,
    evened_fraction: float = 0.0,
    resolution: tuple[Share, Share] = (1.0, 1.0),
) -> Float[Tensor, "*batch row col"]:
    """Receive, sample and reconstruct: noise, coil shading, and the edges of k-space.

    Parameters
    ----------
    signed
        Signal before reception, signed or complex.
    sigma
        Standard deviation of the noise in each of the two receiver channels at the heart, where sensitivity
        is 1, in the delivered image; at every resolution.
    generator
        Source of the noise.
    sensitivity
        Receive sensitivity; None is uniform.
    evened_fraction
        How much of the shading the scanner takes out again, noise with it: 0 none, 1 all.
    resolution
        Acquired share of k-space along columns (phase encoding) and rows (read-out); the rest is filled with
        zeros, which blurs and rings.
    """
    noise = torch.randn((2, *signed.shape), generator=generator, device=signed.device)
    received = signed if sensitivity is None else signed * sensitivity
    real, imaginary = (received.real, received.imag) if received.is_complex() else (received, 0.0)
    keep = _windows(signed, resolution)
    if keep is None:
        image = torch.hypot(real + sigma * noise[0], imaginary + sigma * noise[1])
    else:
        # Fewer samples carry less noise; sigma is that of the image.
        raised = sigma / keep.square().mean(dim=(-2, -1), keepdim=True).sqrt()
        noisy = torch.complex(real + raised * noise[0], imaginary + raised * noise[1])
        image = torch.fft.ifft2(torch.fft.fft2(noisy) * keep).abs()
    if sensitivity is not None and evened_fraction > 0:
        image = image * torch.pow(sensitivity, -evened_fraction)
    return image


def limit_resolution(
    image: Inexact[Tensor, "*batch row col"], resolution: tuple[Share, Share]
) -> Inexact[Tensor, "*batch row col"]:
    """Signed image from the inner share of k-space along columns and rows."""
    keep = _windows(image, resolution)
    if keep is None:
        return image
    limited: Tensor = torch.fft.ifft2(torch.fft.fft2(image) * keep)
    return limited if image.is_complex() else limited.real


def _windows(
    image: Inexact[Tensor, "*batch row col"], resolution: tuple[Share, Share]
) -> Float[Tensor, "*#batch row col"] | None:
    """Weight of each place in k-space, in the order of the FFT; None where all of it is acquired.

    A fifth of the kept share is tapered, as scanners do.
    """
    if all(isinstance(share, float) and share >= 1 for share in resolution):
        return None
    weights = []
    for n, share, shape in (
        (image.shape[-2], resolution[0], (-1, 1)),
        (image.shape[-1], resolution[1], (1, -1)),
    ):
        reach = (torch.fft.fftfreq(n, device=image.device) * 2).abs().view(shape)
        taper = (5 * (1 - reach / share)).clamp(0, 1)
        weight = (1 - torch.cos(math.pi * taper)) / 2
        full = torch.as_tensor(share, device=image.device) >= 1
        weights.append(torch.where(full, torch.ones_like(weight), weight))
    return weights[0] * weights[1]


def _pixel(at_mm: tuple[float, float], grid: Grid) -> tuple[int, int]:
    """Pixel that a place relative to the image's center (down, right) falls on, at most at the border."""
    row, col = (
        min(max(round(mm / grid.pixel_mm + (n - 1) / 2), 0), n - 1)
        for mm, n in zip(at_mm, (grid.n_rows, grid.n_cols), strict=True)
    )
    return row, col
