"""From images to fitted curves: checks, chunks, statuses and goodness, the same for every model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.relaxation.model import FitStatus, SignalModel
from cmrcore.relaxation.projection import FoundCurves, SearchGrid, best_curve, curve_shape, search_grid
from cmrcore.relaxation.recovery import look_locker_t1
from cmrcore.relaxation.uncertainty import time_standard_deviation

_BOUND_MARGIN = 1e-3
_CHUNK_PIXELS = {"cpu": 16384, "cuda": 1 << 20}


@dataclass(frozen=True, slots=True)
class FittedCurves:
    """Fits of curves or of the pixels of an image; NaN wherever `status` is not `FitStatus.OK`."""

    time_ms: Float[Tensor, "*space"]
    """Time constant, corrected for the read-outs where the model says so [ms]."""
    apparent_ms: Float[Tensor, "*space"]
    """Time constant as fitted [ms]."""
    offset: Float[Tensor, "*space"]
    """Offset [a.u.]."""
    amplitude: Float[Tensor, "*space"]
    """Amplitude of the model's shape [a.u.]."""
    residual: Float[Tensor, "*space"]
    """Sum of squared residuals [a.u.^2]."""
    r_squared: Float[Tensor, "*space"]
    """Coefficient of determination of the magnitudes against the magnitude of the fitted curve."""
    r_squared_signed: Float[Tensor, "*space"]
    """The same of signed samples."""
    time_sd_ms: Float[Tensor, "*space"]
    """Standard deviation of `time_ms` from the residual [ms]."""
    status: Int8[Tensor, "*space"]
    """`FitStatus`."""
    n_samples: Int8[Tensor, "*space"]
    """Samples that the fit used; 0 where there is no fit."""


CurveFit = Callable[[Float[Tensor, "time pixel"]], FittedCurves]


def named_model(name: str, models: Mapping[str, SignalModel], *, quantity: str) -> SignalModel:
    """Look a model up by its name; `quantity` is what the models are of, for the message."""
    if name not in models:
        raise InvalidInputError(
            f"unknown {quantity} model {name!r}; known are {', '.join(map(repr, models))}"
        )
    return models[name]


def fit_signal(
    signal: Float[Tensor, "time *space"],
    time_ms: Float[Tensor, " time"] | Sequence[float],
    model: SignalModel,
    mask: Bool[Tensor, "*space"] | None,
    *,
    kind: str,
    prepare: Callable[[Float[Tensor, " time"]], CurveFit] | None = None,
) -> FittedCurves:
    """Fit a model to every pixel of a mask; the same for each quantity.

    `kind` names the times in messages. `prepare` makes the fit of curves from sorted times [ms] where that is
    more than one least-squares fit of the model.
    """
    times, order = _sorted_times(time_ms, signal, kind=kind, zero_allowed=model.slope > 0)
    _require_times(times, model, kind=kind)
    fit = prepare(times) if prepare else partial(fit_curves, grid=search_grid(model, times))
    return _fit_image(signal, order, fit, mask)


def fit_curves(curves: Float[Tensor, "time pixel"], grid: SearchGrid) -> FittedCurves:
    """Least-squares fit of curves sorted by time, with status and goodness."""
    model = grid.model
    finite = curves.isfinite()
    lost, silent = ~finite.all(0), ~finite.any(0)
    curves = torch.where(lost, 0, curves)
    if model.is_magnitude and bool((curves < 0).any()):
        raise InvalidInputError(
            f"model {model.name!r} fits magnitudes, found negative samples; use '{model.name}-signed'"
        )
    no_signal = silent | (~lost & (curves.amax(0) == curves.amin(0)))
    best = best_curve(curves, grid)
    t_ms = best.log_time.exp()
    fitted = best.offset + best.amplitude * curve_shape(model, grid.time_ms, best.log_time)
    residual = (best.signed - fitted).square().sum(0)
    magnitude = best.signed.abs()

    low, high = model.range_ms
    at_bound = (t_ms < low * (1 + _BOUND_MARGIN)) | (t_ms > high * (1 - _BOUND_MARGIN))
    status = torch.zeros(curves.shape[1], dtype=torch.int8, device=curves.device)
    status[at_bound] = FitStatus.AT_BOUND
    status[~best.is_valid] = model.invalid_status
    status[lost] = FitStatus.TOO_FEW_SAMPLES
    status[no_signal] = FitStatus.NO_SIGNAL
    ok = status == FitStatus.OK

    def where_ok(image: Float[Tensor, " pixel"]) -> Float[Tensor, " pixel"]:
        return torch.where(ok, image, torch.nan)

    return FittedCurves(
        time_ms=where_ok(_corrected_time(model, best)),
        apparent_ms=where_ok(t_ms),
        offset=where_ok(best.offset),
        amplitude=where_ok(best.amplitude),
        residual=where_ok(residual),
        r_squared=where_ok(1 - (magnitude - fitted.abs()).square().sum(0) / _spread(magnitude)),
        r_squared_signed=where_ok(1 - residual / _spread(best.signed)),
        time_sd_ms=where_ok(time_standard_deviation(grid, best, residual)),
        status=status,
        n_samples=(ok * len(curves)).to(torch.int8),
    )


def _sorted_times(
    time_ms: Float[Tensor, " time"] | Sequence[float],
    signal: Float[Tensor, "time *space"],
    *,
    kind: str,
    zero_allowed: bool,
) -> tuple[Float[Tensor, " time"], Tensor]:
    """Sort times, float64, and give the order of the images; `kind` names the times in messages."""
    times = torch.as_tensor(time_ms, dtype=torch.float64, device=signal.device)
    if times.ndim != 1 or signal.ndim == 0 or len(times) != len(signal):
        raise InvalidInputError(
            f"{times.numel()} {kind} times for {len(signal) if signal.ndim else 0} images: "
            f"the signal's first axis must be that of the times, found shape {tuple(signal.shape)}"
        )
    low = times >= 0 if zero_allowed else times > 0
    if not bool((torch.isfinite(times) & low).all()):
        least = "not negative" if zero_allowed else "above 0 ms"
        raise InvalidInputError(f"{kind} times must be finite and {least}, found {times.tolist()}")
    return times.sort(stable=True)


def _require_times(time_ms: Float[Tensor, " time"], model: SignalModel, *, kind: str) -> None:
    """Refuse times that leave no sample over for the residual."""
    n_different, needed = len(set(time_ms.tolist())), model.n_parameters + 1
    if n_different < needed:
        raise InvalidInputError(
            f"{n_different} different {kind} times, the {model.n_parameters}-parameter fit needs at least "
            f"{needed}"
        )


def _fit_image(
    signal: Float[Tensor, "time *space"],
    order: Tensor,
    fit: CurveFit,
    mask: Bool[Tensor, "*space"] | None,
) -> FittedCurves:
    """Fit every pixel (of a mask), a bounded number at a time, so that extra memory is bounded too."""
    space = signal.shape[1:]
    if not signal.is_floating_point():
        raise InvalidInputError(f"signal must be of floating point, found {signal.dtype}")
    if mask is not None and (mask.shape != space or mask.dtype != torch.bool):
        raise InvalidInputError(
            f"mask must be bool of shape {tuple(space)}, found {mask.dtype} {tuple(mask.shape)}"
        )
    flat = signal.reshape(len(signal), -1)
    n_pixels = flat.shape[1]
    inside = None if mask is None else torch.nonzero(mask.flatten()).squeeze(1)
    n_inside = n_pixels if inside is None else len(inside)
    images = _nothing_fitted(n_pixels, signal)
    has_sample = torch.zeros(len(signal), dtype=torch.bool, device=signal.device)
    chunk = _CHUNK_PIXELS.get(signal.device.type, _CHUNK_PIXELS["cpu"])
    for start in range(0, n_inside, chunk):
        here = slice(start, start + chunk)
        part = here if inside is None else inside[here]
        curves = flat[:, part][order]
        has_sample |= curves.isfinite().any(1)
        fitted = fit(curves)
        for field in fields(FittedCurves):
            getattr(images, field.name)[part] = getattr(fitted, field.name).to(
                getattr(images, field.name).dtype
            )
    if n_inside and not bool(has_sample.all()):
        empty = order[~has_sample].tolist()
        raise InvalidInputError(f"no finite sample in image {', '.join(map(str, empty))} of {len(signal)}")
    return FittedCurves(
        **{field.name: getattr(images, field.name).reshape(space) for field in fields(FittedCurves)}
    )


def _corrected_time(model: SignalModel, curve: FoundCurves) -> Float[Tensor, " pixel"]:
    """Time constant [ms], corrected where the read-outs drive the recovery."""
    t_ms = curve.log_time.exp()
    return look_locker_t1(curve.offset, curve.amplitude, t_ms) if model.has_read_out_correction else t_ms


def _spread(samples: Float[Tensor, "time pixel"]) -> Float[Tensor, " pixel"]:
    """Sum of squares about the mean."""
    return (samples - samples.mean(0)).square().sum(0)


def _nothing_fitted(n_pixels: int, signal: Float[Tensor, "time *space"]) -> FittedCurves:
    """Images to be filled, in the signal's precision."""
    images = {
        field.name: torch.full((n_pixels,), torch.nan, dtype=signal.dtype, device=signal.device)
        for field in fields(FittedCurves)
        if field.name not in ("status", "n_samples")
    }
    status = torch.full((n_pixels,), int(FitStatus.NOT_FITTED), dtype=torch.int8, device=signal.device)
    return FittedCurves(**images, status=status, n_samples=torch.zeros_like(status))
