"""Masks seen in polar coordinates about the center of the left ventricle.

Angles run from the image's right downwards: a place at radius r and angle t lies at (row, col) = (r sin t,
r cos t) from the center. Masks may be soft, 0-1: a network's probabilities are as good as drawn pixels.

References
----------
Fahmy et al. 2019, J Cardiovasc Magn Reson 21:7, doi:10.1186/s12968-018-0516-1, resample each echo of a T1
series on a polar grid about the center of its own mask; Zhu et al. 2020, doi:10.1148/ryai.2019190034.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

N_ANGLES = 72
_STEP_MM = 0.5


def mask_center(masks: Float[Tensor, "n row col"]) -> Float[Tensor, "n 2"]:
    """Center of gravity (row, col) of masks [pixel]; NaN for an empty one."""
    rows = torch.arange(masks.shape[1], device=masks.device, dtype=masks.dtype)
    cols = torch.arange(masks.shape[2], device=masks.device, dtype=masks.dtype)
    mass = masks.sum((1, 2))
    moments = torch.stack([masks.sum(2) @ rows, masks.sum(1) @ cols], dim=1)
    return moments / mass[:, None]


def polar_samples(
    masks: Float[Tensor, "n row col"],
    center_px: Float[Tensor, "n 2"],
    pixel_spacing_mm: tuple[float, float],
    reach_mm: float,
) -> tuple[Float[Tensor, "n angle radius"], Float[Tensor, " radius"]]:
    """Masks along rays, linearly interpolated and 0 beyond the image, and the radii of the samples [mm]."""
    radii_mm = torch.arange(0.5, max(1.0, reach_mm / _STEP_MM), device=masks.device) * _STEP_MM
    angle = torch.arange(N_ANGLES, device=masks.device) * (2 * math.pi / N_ANGLES)
    direction = torch.stack([torch.sin(angle) / pixel_spacing_mm[0], torch.cos(angle) / pixel_spacing_mm[1]])
    at = center_px[:, :, None, None] + (direction[:, :, None] * radii_mm).to(masks.dtype)
    half = at.new_tensor([(masks.shape[1] - 1) / 2, (masks.shape[2] - 1) / 2])[:, None, None]
    grid = ((at - half) / half).flip(1).permute(0, 2, 3, 1)
    return functional.grid_sample(masks[:, None], grid, align_corners=True)[:, 0], radii_mm


def radial_profile(
    masks: Float[Tensor, "n row col"],
    center_px: Float[Tensor, "n 2"],
    pixel_spacing_mm: tuple[float, float],
    reach_mm: float,
) -> Float[Tensor, "n angle"]:
    """How much of each ray a mask fills [mm]; of a disc about the center that is the radius of its edge."""
    samples, _ = polar_samples(masks, center_px, pixel_spacing_mm, reach_mm)
    return samples.sum(2) * _STEP_MM


def angular_profile(
    masks: Float[Tensor, "n row col"],
    center_px: Float[Tensor, "n 2"],
    pixel_spacing_mm: tuple[float, float],
    reach_mm: float,
) -> Float[Tensor, "n angle"]:
    """Area of a mask at each angle [mm2 per radian], such as that of the RV, which tells the LV's turn."""
    samples, radii_mm = polar_samples(masks, center_px, pixel_spacing_mm, reach_mm)
    return (samples * radii_mm).sum(2) * _STEP_MM


def turn_between(
    profiles: Float[Tensor, "n angle"], reference: Float[Tensor, " angle"], limit_rad: float
) -> Float[Tensor, " n"]:
    """Turn that brings a reference profile onto each profile, towards larger angles [radians].

    The best circular correlation within a limit, between its samples by a parabola.
    """
    n_angles = profiles.shape[1]
    step_rad = 2 * math.pi / n_angles
    most = max(1, math.floor(limit_rad / step_rad))
    spectrum = torch.fft.rfft(profiles) * torch.fft.rfft(reference).conj()
    correlation = torch.fft.irfft(spectrum, n=n_angles)
    shifts = torch.arange(-most - 1, most + 2, device=profiles.device)
    near = correlation[:, shifts % n_angles]
    best = near[:, 1:-1].argmax(1, keepdim=True) + 1
    left, middle, right = (near.gather(1, best + offset)[:, 0] for offset in (-1, 0, 1))
    bend = (left - 2 * middle + right).clamp_max(-torch.finfo(near.dtype).tiny)
    between = (0.5 * (left - right) / bend).clamp(-0.5, 0.5)
    turn: Tensor = (shifts[best[:, 0]] + between) * step_rad
    return turn.clamp(-limit_rad, limit_rad)
