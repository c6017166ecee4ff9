"""T1 of every pixel from an inversion recovery."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.relaxation.models import look_locker_t1, molli_signal
from cmrcore.relaxation.projection import (
    T1_STAR_MAX_MS,
    T1_STAR_MIN_MS,
    RecoveryGrid,
    best_recovery,
    recovery_grid,
)
from cmrcore.relaxation.uncertainty import t1_standard_deviation

MODELS = ("molli", "molli-signed")
"""Names that `fit_t1` knows: three parameters with Look-Locker correction, of magnitudes or signed data."""

_MIN_SAMPLES = 4
_BOUND_MARGIN = 1e-3
_CHUNK_PIXELS = {"cpu": 8192, "cuda": 1 << 18}


class FitStatus(IntEnum):
    """What became of a pixel's fit; only `OK` has values."""

    OK = 0
    AT_BOUND = 1
    """The best T1* lies at the end of the search range."""
    NO_SIGNAL = 2
    """A sample is not finite, or all samples are the same."""
    NOT_AN_INVERSION = 3
    """No recovery with B > A > 0 describes the samples."""
    NOT_FITTED = 4
    """Outside the mask."""


@dataclass(frozen=True, slots=True)
class T1Fit:
    """Maps of a T1 fit; NaN wherever `status` is not `FitStatus.OK`."""

    t1_ms: Float[Tensor, "*space"]
    """T1 with Look-Locker correction [ms]."""
    t1_star_ms: Float[Tensor, "*space"]
    """Apparent recovery time [ms]."""
    a: Float[Tensor, "*space"]
    """Amplitude A of S = A - B exp(-TI/T1*) [a.u.]."""
    b: Float[Tensor, "*space"]
    """Amplitude B [a.u.]."""
    r_squared: Float[Tensor, "*space"]
    """Coefficient of determination of the acquired magnitudes against the magnitude of the fitted curve."""
    r_squared_signed: Float[Tensor, "*space"]
    """The same of signed samples (polarity restored for magnitudes); near 1 even where blood contaminates."""
    t1_sd_ms: Float[Tensor, "*space"]
    """Standard deviation of T1 from the fit's residual [ms]."""
    status: Int8[Tensor, "*space"]
    """`FitStatus` of each pixel."""


_MAPS = ("t1_ms", "t1_star_ms", "a", "b", "r_squared", "r_squared_signed", "t1_sd_ms")


def fit_t1(
    signal: Float[Tensor, "ti *space"],
    ti_ms: Float[Tensor, " ti"] | Sequence[float],
    model: str = "molli",
    mask: Bool[Tensor, "*space"] | None = None,
) -> T1Fit:
    """T1 of every pixel by least squares, exact over all polarities.

    Parameters
    ----------
    signal
        Samples [a.u.], one image per inversion time; magnitudes, but signed for ``"molli-signed"``.
    ti_ms
        Inversion times [ms], in the order of the images; they need not be sorted.
    model
        ``"molli"`` or ``"molli-signed"``: three-parameter recovery (`molli_signal`) with `look_locker_t1`.
    mask
        Pixels to fit; all when None.

    Returns
    -------
        Maps in the signal's precision.

    Raises
    ------
    InvalidInputError
        If the model is unknown, the times do not fit the images, fewer than four times differ, or
        ``"molli"`` is given negative samples.
    """
    time_ms, order = _sorted_times(ti_ms, signal)
    if model not in MODELS:
        raise InvalidInputError(f"unknown T1 model {model!r}; known are {', '.join(map(repr, MODELS))}")
    space = signal.shape[1:]
    chosen = torch.ones(space, dtype=torch.bool, device=signal.device) if mask is None else mask
    pixels = torch.nonzero(chosen.flatten()).squeeze(1)
    curves = signal[order].reshape(len(order), -1)[:, pixels]
    if model == "molli" and bool((curves < 0).any()):
        raise InvalidInputError("model 'molli' fits magnitudes, found negative samples; use 'molli-signed'")

    n_negative = range(len(time_ms) + 1) if model == "molli" else (0,)
    grid = recovery_grid(time_ms, n_negative, signal.dtype)
    maps = torch.full((len(_MAPS), chosen.numel()), torch.nan, dtype=signal.dtype, device=signal.device)
    status = torch.full((chosen.numel(),), int(FitStatus.NOT_FITTED), dtype=torch.int8, device=signal.device)
    chunk = _CHUNK_PIXELS.get(signal.device.type, _CHUNK_PIXELS["cpu"])
    for start in range(0, len(pixels), chunk):
        part = pixels[start : start + chunk]
        maps[:, part], status[part] = _fit_curves(curves[:, start : start + chunk], grid)
    named = {name: image.reshape(space) for name, image in zip(_MAPS, maps, strict=True)}
    return T1Fit(**named, status=status.reshape(space))


def _sorted_times(ti_ms: Tensor | Sequence[float], signal: Tensor) -> tuple[Float[Tensor, " ti"], Tensor]:
    """Inversion times in ascending order, float64, and the order of the images."""
    time_ms = torch.as_tensor(ti_ms, dtype=torch.float64, device=signal.device)
    if len(time_ms) != len(signal):
        raise InvalidInputError(f"{len(time_ms)} inversion times for {len(signal)} images")
    if not bool((torch.isfinite(time_ms) & (time_ms > 0)).all()):
        raise InvalidInputError(f"inversion times must be finite and above 0 ms, found {time_ms.tolist()}")
    n_different = len(set(time_ms.tolist()))
    if n_different < _MIN_SAMPLES:
        raise InvalidInputError(
            f"{n_different} different inversion times, the three-parameter fit needs at least {_MIN_SAMPLES}"
        )
    return time_ms.sort()


def _fit_curves(
    curves: Float[Tensor, "ti pixel"], grid: RecoveryGrid
) -> tuple[Float[Tensor, "map pixel"], Int8[Tensor, " pixel"]]:
    """Fit a bounded number of curves: maps in the order of `_MAPS`, and the status."""
    magnitude = curves.abs().to(torch.float64)
    spread = (magnitude - magnitude.mean(0)).square().sum(0)
    no_signal = ~torch.isfinite(spread) | (magnitude.amax(0) == magnitude.amin(0))
    curves = torch.where(no_signal, 0, curves)
    found = best_recovery(curves, grid)

    t1_star_ms = found.log_t1_star.exp()
    fitted = molli_signal(grid.time_ms, found.a, found.b, t1_star_ms)
    signed = curves * grid.polarity[found.n_negative].T
    spread_signed = (signed - signed.mean(0)).square().sum(0)
    maps = torch.stack(
        [
            look_locker_t1(found.a, found.b, t1_star_ms),
            t1_star_ms,
            found.a,
            found.b,
            1 - (magnitude - fitted.abs()).square().sum(0) / spread,
            1 - found.residual / spread_signed,
            t1_standard_deviation(grid.time_ms, found.a, found.b, t1_star_ms, found.residual),
        ]
    )
    at_bound = (t1_star_ms < T1_STAR_MIN_MS * (1 + _BOUND_MARGIN)) | (
        t1_star_ms > T1_STAR_MAX_MS * (1 - _BOUND_MARGIN)
    )
    status = torch.zeros(curves.shape[1], dtype=torch.int8, device=curves.device)
    status[at_bound] = FitStatus.AT_BOUND
    status[torch.isinf(found.residual)] = FitStatus.NOT_AN_INVERSION
    status[no_signal] = FitStatus.NO_SIGNAL
    maps = torch.where(status == FitStatus.OK, maps, torch.nan)
    return maps.to(curves.dtype), status
