"""T1 that a sequence gives without noise, motion and lost polarity: the yardstick for every pipeline.

Nothing here comes from the code that is measured with it. The curve A - B exp(-t / T) is fitted to signed
samples; A and B are linear, so for each T the best of them are known, and T is found on a grid and then by
golden section.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from scipy import ndimage
from torch import Tensor

from cmrcore.phantom.scheme import SASHA, SHMOLLI

IdealModel = Literal["molli", "shmolli", "saturation"]
"""How the scanner turns a series into T1."""

_SHORTEST_MS, _LONGEST_MS = 10.0, 10_000.0
_N_GRID = 160
_N_SECTIONS = 26
"""Golden sections that narrow a step of the grid, 4 %, down to 3e-7 of it."""
_SHMOLLI_SHORT_FRACTION = 0.4


def ideal_model(scheme: str) -> IdealModel:
    """Say which fit the scheme is evaluated with."""
    models: dict[str, IdealModel] = {SASHA: "saturation", SHMOLLI: "shmolli"}
    return models.get(scheme, "molli")


def phase_restored(
    signal: Complex[Tensor, "ti *space"], times_ms: Float[Tensor, " ti"]
) -> Float[Tensor, "ti *space"]:
    """Signed signal: real part relative to the phase of the latest image, which has recovered."""
    latest = signal[times_ms.argmax()]
    return (signal * torch.exp(-1j * latest.angle())).real


def ideal_t1_ms(
    signed: Float[Tensor, "ti *space"], times_ms: Float[Tensor, " ti"] | Sequence[float], model: IdealModel
) -> Float[Tensor, "*space"]:
    """T1 [ms] of noise-free signed curves, float64; NaN where there is none.

    Parameters
    ----------
    signed
        Samples with their sign, in acquisition order.
    times_ms
        Inversion or saturation times [ms].
    model
        ``"molli"``: T1 = T (B / A - 1); ``"shmolli"``: the same of 5, 6 or 7 samples;
        ``"saturation"``: T1 = T.

    References
    ----------
    Messroghli et al. 2004, doi:10.1002/mrm.20110; Piechnik et al. 2010,
    doi:10.1186/1532-429X-12-69; Chow et al. 2014, doi:10.1002/mrm.24878
    """
    times = torch.as_tensor(times_ms, dtype=torch.float64)
    curves = signed.to(torch.float64).reshape(len(times), -1)
    if model == "shmolli":
        t1_ms = _shmolli(curves, times)
    else:
        t1_ms, _ = _fit(curves, times, has_read_out_correction=model == "molli")
    return t1_ms.reshape(signed.shape[1:])


def ideal_blood_t1_ms(
    signed: Float[Tensor, "ti row col"],
    times_ms: Float[Tensor, " ti"],
    pool: Bool[Tensor, "row col"],
    *,
    without: Bool[Tensor, "row col"],
    model: IdealModel,
    erosion_mm: float,
    pixel_spacing_mm: tuple[float, float],
) -> float:
    """T1 [ms] of the mean blood signal away from the pool's edge, left-out pixels aside; NaN without any."""
    depth_mm = ndimage.distance_transform_edt(np.pad(pool.numpy(), 1), sampling=pixel_spacing_mm)[1:-1, 1:-1]
    # The edge lies half a pixel outside the outermost centers.
    core = torch.from_numpy(depth_mm >= erosion_mm + min(pixel_spacing_mm) / 2) & ~without
    if not core.any():
        return math.nan
    return ideal_t1_ms(signed[:, core].to(torch.float64).mean(1), times_ms, model).item()


def ideal_wall(
    myocardium: Bool[Tensor, "row col"],
    blood_pool: Bool[Tensor, "row col"],
    *,
    erosion_mm: float,
    pixel_spacing_mm: tuple[float, float],
) -> Bool[Tensor, "row col"]:
    """Myocardium in which ideal values are read: without edge pixels, which it shares with what lies beyond.

    As far from both borders as asked, or a quarter of the wall's thickness, whichever is less.
    """
    wall, pool = myocardium.numpy(), blood_pool.numpy()
    if not (wall.any() and pool.any()):
        return myocardium
    # The edges lie half a pixel before the centers of what is beyond.
    depths_mm = [
        ndimage.distance_transform_edt(~beyond, sampling=pixel_spacing_mm) - min(pixel_spacing_mm) / 2
        for beyond in (pool, ~(wall | pool))
    ]
    least_mm = np.minimum(erosion_mm, (depths_mm[0] + depths_mm[1]) / 4)
    return torch.from_numpy(wall & (np.minimum(*depths_mm) > least_mm - 1e-6))


def ideal_ecv_fraction(
    t1_native_ms: Float[Tensor, "*space"],
    t1_post_ms: Float[Tensor, "*space"],
    blood_t1_native_ms: float,
    blood_t1_post_ms: float,
    hematocrit_fraction: float,
) -> Float[Tensor, "*space"]:
    """ECV, 0-1 (Arheden et al. 1999, doi:10.1148/radiology.211.3.r99jn41698)."""
    blood_change = 1 / blood_t1_post_ms - 1 / blood_t1_native_ms
    return (1 - hematocrit_fraction) * (1 / t1_post_ms - 1 / t1_native_ms) / blood_change


def _fit(
    curves: Float[Tensor, "ti pixel"], times_ms: Float[Tensor, " ti"], *, has_read_out_correction: bool
) -> tuple[Float[Tensor, " pixel"], Float[Tensor, " pixel"]]:
    """T1 [ms] and sum of squared residuals; NaN where A, B and T do not belong to a recovery."""
    rest = curves - curves.mean(0)
    grid = torch.logspace(
        math.log10(_SHORTEST_MS), math.log10(_LONGEST_MS), _N_GRID, dtype=torch.float64, device=curves.device
    )
    decay = torch.exp(-times_ms[:, None] / grid)
    decay = decay - decay.mean(0)
    explained = (decay.T @ rest) ** 2 / (decay**2).sum(0)[:, None]
    best = explained.argmax(0)
    low, high = grid[(best - 1).clamp(min=0)].log(), grid[(best + 1).clamp(max=_N_GRID - 1)].log()

    shrink = (math.sqrt(5) - 1) / 2
    left, right = high - shrink * (high - low), low + shrink * (high - low)
    at_left, at_right = _explained(left, rest, times_ms), _explained(right, rest, times_ms)
    for _ in range(_N_SECTIONS):
        is_left = at_left > at_right
        low, high = torch.where(is_left, low, left), torch.where(is_left, right, high)
        probe = torch.where(is_left, high - shrink * (high - low), low + shrink * (high - low))
        at_probe = _explained(probe, rest, times_ms)
        left, right = torch.where(is_left, probe, right), torch.where(is_left, left, probe)
        at_left, at_right = (
            torch.where(is_left, at_probe, at_right),
            torch.where(is_left, at_left, at_probe),
        )
    time_ms = ((low + high) / 2).exp()

    decay = torch.exp(-times_ms[:, None] / time_ms)
    centered = decay - decay.mean(0)
    b = -(centered * rest).sum(0) / (centered**2).sum(0)
    a = curves.mean(0) + b * decay.mean(0)
    residual = ((curves - a + b * decay) ** 2).sum(0)
    is_recovery = (a > 0) & (b > a) if has_read_out_correction else (a > 0) & (b > 0)
    is_inside = (best > 0) & (best < _N_GRID - 1)
    t1_ms = time_ms * (b / a - 1) if has_read_out_correction else time_ms
    return torch.where(is_recovery & is_inside, t1_ms, torch.nan), residual


def _explained(
    log_time: Float[Tensor, " pixel"], rest: Float[Tensor, "ti pixel"], times_ms: Float[Tensor, " ti"]
) -> Float[Tensor, " pixel"]:
    """Share of the squared deviation from the mean that the best curve of this T takes up, not normalized."""
    decay = torch.exp(-times_ms[:, None] * torch.exp(-log_time))
    decay = decay - decay.mean(0)
    return (decay * rest).sum(0) ** 2 / (decay**2).sum(0)


def _shmolli(curves: Float[Tensor, "ti pixel"], times_ms: Float[Tensor, " ti"]) -> Float[Tensor, " pixel"]:
    """Conditional use of the second and third inversion, which come before long T1 have recovered.

    Five samples where their T1 exceeds the heart beat; the sixth, then the seventh where T1 is below it and
    below 0.4 of it, and the further sample fits about as well as the others.
    """
    beat_ms = float(times_ms[:5].diff().mean())
    fits: dict[int, tuple[Tensor, Tensor]] = {}
    for n_samples in (5, 6, 7):
        t1_ms, residual = _fit(curves[:n_samples], times_ms[:n_samples], has_read_out_correction=True)
        fits[n_samples] = (t1_ms, (residual / (n_samples - 1)).sqrt())
    (t_5, s_5), (t_6, s_6), (t_7, s_7) = fits[5], fits[6], fits[7]
    # Comparisons with NaN are false: a fit that failed is neither short nor good.
    takes_six = (t_5 < beat_ms) & (s_6 * t_6 < s_5 * beat_ms)
    t_before = torch.where(takes_six, t_6, t_5)
    takes_seven = (t_before < beat_ms) & (s_7 * t_7 < _SHMOLLI_SHORT_FRACTION * s_6 * beat_ms)
    # A recovery that is over before the second sample leaves five samples undecided; seven tell.
    is_lost = t_5.isnan() & (t_7 < _SHMOLLI_SHORT_FRACTION * beat_ms)
    return torch.where(takes_seven | is_lost, t_7, t_before)
