r"""Standard uncertainty of regional means, by propagation of what the fits and the blood sample say.

Of a mean over pixels, the noise of each pixel's T1 averages out; the error of the blood's T1 is the same for
all pixels that one blood fit serves, and that of the hematocrit for all. With the ECV of
`cmrcore.quantify.ecv.ecv_map`, a pixel's noise is

.. math:: \sigma = \frac{1 - Hct}{\Delta R_{1,blood}} \sqrt{\left(\frac{\sigma_{T_1}}{T_1^2}\right)^2_{native}
          + \left(\frac{\sigma_{T_1}}{T_1^2}\right)^2_{post}}

and the relative errors that are common are :math:`\sigma(\Delta R_{1,blood}) / \Delta R_{1,blood}` and
:math:`\sigma(Hct) / (1 - Hct)`. Errors of masks and of alignment are not in it, but for the residuals that
they leave in the fits.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PIXELS_PER_SAMPLE = 2.0
"""Pixels that share one independent sample of noise.

Images are resampled, by scanners that fill k-space with zeros and by the alignment, so neighbors share noise.
"""


@dataclass(frozen=True, slots=True)
class CommonErrors:
    """Relative errors of ECV that pixels have in common."""

    blood: Float[Tensor, " slice"]
    """Standard deviation of the blood's change of R1 over that change, for each slice."""
    blood_slice: tuple[int, ...]
    """Slice whose blood each slice uses; equal ones err together."""
    hematocrit: float
    """Standard deviation of the hematocrit over 1 - hematocrit."""


def mean_noise(sd: Float[Tensor, "*space"], mask: Bool[Tensor, "*space"]) -> float | None:
    """Propagate each pixel's noise to the mean over a mask's valid pixels; None without any."""
    inside = sd[mask].double()
    inside = inside[torch.isfinite(inside)]
    if not len(inside):
        return None
    return math.sqrt(PIXELS_PER_SAMPLE * inside.square().sum().item()) / len(inside)


def ecv_noise(
    t1_ms: tuple[Float[Tensor, "*space"], Float[Tensor, "*space"]],
    t1_sd_ms: tuple[Float[Tensor, "*space"], Float[Tensor, "*space"]],
    blood_t1_ms: tuple[float, float],
) -> Float[Tensor, "*space"]:
    """Propagate the noise of native and post-contrast T1 to each pixel's partition coefficient."""
    change = abs(1 / blood_t1_ms[1] - 1 / blood_t1_ms[0])
    native, post = (sd / time.square() for time, sd in zip(t1_ms, t1_sd_ms, strict=True))
    return torch.hypot(native, post) / change


def blood_error(blood_t1_ms: tuple[float, float], blood_t1_sd_ms: tuple[float, float]) -> float:
    """Propagate both fits to the relative error of the blood's change of R1; NaN where it did not change."""
    change = abs(1 / blood_t1_ms[1] - 1 / blood_t1_ms[0])
    if change == 0:
        return math.nan
    return math.hypot(*(sd / t**2 for t, sd in zip(blood_t1_ms, blood_t1_sd_ms, strict=True))) / change


def ecv_uncertainty(
    ecv_fraction: Float[Tensor, "slice row col"],
    noise_fraction: Float[Tensor, "slice row col"],
    mask: Bool[Tensor, "slice row col"],
    common: CommonErrors,
) -> float | None:
    """Give the standard uncertainty of the mean ECV over a mask's valid pixels; None without any.

    Parameters
    ----------
    ecv_fraction
        ECV of each pixel, NaN where it is not valid.
    noise_fraction
        Its standard deviation from noise alone.
    mask
        The region.
    common
        Errors that do not average out.
    """
    valid = mask & torch.isfinite(ecv_fraction)
    noise = mean_noise(noise_fraction, valid)
    if noise is None:
        return None
    shares = torch.where(valid, ecv_fraction, 0).double().sum((1, 2)) / int(valid.sum())
    errors = shares * common.blood.nan_to_num(0.0)
    together: dict[int, float] = {}
    for source, error in zip(common.blood_slice, errors.tolist(), strict=True):
        together[source] = together.get(source, 0.0) + error
    return math.hypot(noise, *together.values(), shares.sum().item() * common.hematocrit)
