"""T1 of the blood pool from its mean signal."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from cmrcore.relaxation import FitStatus, T1Fit, fit_t1

_BLOOD_SDS = 2.5
"""Pixels whose T1 lies further from the pool's median are no blood [robust standard deviations]."""
_SD_PER_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_LEAST_SPREAD = 0.01
"""Share of the median T1 that the robust standard deviation counts as at least."""
_OUTLIER_SHARE = 0.05
"""Share of the recovered signal that an echo must lie off to be left out."""
_OUTLIER_F = 50.0
"""How many times the others' variance the fall must be: noise gets there in 0.2 % of eight echoes."""
_N_PARAMETERS = 3
"""Parameters of a fit."""
_MAX_LEFT_OUT = 2
"""Echoes that may be left out."""
_LEAST_ECHOES = 6
"""Echoes that must remain."""


@dataclass(frozen=True, slots=True)
class BloodT1:
    """Blood T1 of one slice."""

    t1_ms: float
    """T1 of the mean blood signal [ms]."""
    t1_sd_ms: float
    """Its standard deviation from the fit [ms]."""
    r_squared: float
    """R2 of the fit's magnitudes, over the echoes that were used."""
    n_pixels: int
    """Pixels of the eroded pool on the reference echo, less papillary muscle."""
    n_left_out: int
    """Echoes that were left out."""


@dataclass(frozen=True, slots=True)
class BloodFit:
    """Fit of a mean blood signal."""

    fit: T1Fit
    """Fit of the echoes that were used."""
    left_out: tuple[int, ...]
    """Echoes whose signal does not follow that of the others, such as by inflow."""


def erode_mask(
    mask: Bool[Tensor, "row col"], erosion_mm: float, pixel_spacing_mm: tuple[float, float]
) -> Bool[Tensor, "row col"]:
    """Pixels whose center lies at least a distance inside the mask's edge [mm].

    The edge is taken half a pixel outside the centers of the mask's outermost pixels.
    """
    padded = np.pad(mask.cpu().numpy(), 1)
    depth_mm = ndimage.distance_transform_edt(padded, sampling=pixel_spacing_mm)[1:-1, 1:-1]
    inside = depth_mm - min(pixel_spacing_mm) / 2 >= erosion_mm
    return torch.from_numpy(inside & mask.cpu().numpy()).to(mask.device)


def blood_pixels(t1_ms: Float[Tensor, "row col"], pool: Bool[Tensor, "row col"]) -> Bool[Tensor, "row col"]:
    """Pixels of a pool that hold blood and no papillary muscle or trabecula, by their T1.

    Muscle has another T1 than blood, before contrast and after. A pixel is left out if its T1 lies more than
    2.5 robust standard deviations (from the median absolute deviation, at least 1 % of the median) from the
    pool's median, or if it has none.

    Parameters
    ----------
    t1_ms
        T1 of each pixel [ms], NaN where the fit failed.
    pool
        Blood pool, eroded.
    """
    valid = pool & ~torch.isnan(t1_ms)
    if not bool(valid.any()):
        return valid
    median = t1_ms[valid].median()
    spread = _SD_PER_MAD * (t1_ms[valid] - median).abs().median()
    spread = torch.maximum(spread, _LEAST_SPREAD * median)
    return valid & ((t1_ms - median).abs() <= _BLOOD_SDS * spread)


def mean_signal(
    echoes: Float[Tensor, "ti row col"], masks: Bool[Tensor, "ti row col"]
) -> Float[Tensor, " ti"] | None:
    """Mean signal of each echo within that echo's mask; None where a mask is empty."""
    counts = masks.sum((1, 2))
    if bool((counts == 0).any()):
        return None
    return torch.where(masks, echoes, 0).sum((1, 2), dtype=torch.float64) / counts


def blood_t1(
    echoes: Float[Tensor, "ti row col"],
    masks: Bool[Tensor, "ti row col"],
    ti_ms: Float[Tensor, " ti"] | Sequence[float],
    model: str = "molli",
) -> BloodFit | None:
    """Fit of the mean blood signal, echo by echo within the masks; None without blood.

    Averaging before the fit keeps noise out of it; `erode_mask` the blood pool and take its `blood_pixels`
    first, so that trabeculae and partial volume stay out too.

    An echo that blood flowed into is left out: without it, the sum of squared residuals falls by more than
    the square of 5 % of the recovered signal, and by more than 50 times the variance that is left. If no
    single one does that, two together may, each by so much; six must remain. ``shmolli`` chooses its images
    itself, and keeps them.
    """
    mean = mean_signal(echoes, masks)
    if mean is None:
        return None
    times_ms = torch.as_tensor(ti_ms, dtype=torch.float64)
    every = range(len(mean))
    fit = fit_t1(mean, times_ms, model=model)
    residual = _residual(fit, mean)
    if model == "shmolli" or residual <= _least_fall(fit):
        return BloodFit(fit=fit, left_out=())
    for n_left_out in range(1, min(_MAX_LEFT_OUT, len(mean) - _LEAST_ECHOES) + 1):
        others = [list(kept) for kept in combinations(every, len(mean) - n_left_out)]
        fits = [fit_t1(mean[kept], times_ms[kept], model=model) for kept in others]
        residuals = [_residual(one, mean[kept]) for one, kept in zip(fits, others, strict=True)]
        best = int(np.argmin(residuals))
        fall, freedom = (residual - residuals[best]) / n_left_out, len(others[best]) - _N_PARAMETERS
        if fall > _least_fall(fits[best]) and fall * freedom > _OUTLIER_F * residuals[best]:
            left_out = tuple(echo for echo in every if echo not in others[best])
            return BloodFit(fit=fits[best], left_out=left_out)
    return BloodFit(fit=fit, left_out=())


def _least_fall(fit: T1Fit) -> float:
    """Fall of the sum of squared residuals under which no echo is left out; NaN where the fit failed."""
    return (_OUTLIER_SHARE * fit.a.item()) ** 2


def _residual(fit: T1Fit, mean: Float[Tensor, " ti"]) -> float:
    """Sum of squared residuals of the magnitudes; infinite where the fit failed."""
    if int(fit.status) != FitStatus.OK:
        return float("inf")
    spread = (mean - mean.mean()).square().sum().item()
    return (1 - fit.r_squared.item()) * spread
