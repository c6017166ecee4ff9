r"""Standard deviations of fitted parameters.

The covariance of p = (offset, amplitude, ln T) is s^2 (J^T J)^-1, s^2 = residual / (samples - parameters).
A quantity with gradient g along p has the variance s^2 g^T (J^T J)^-1 g; with J = Q R that is s^2 |R^-T g|^2.
Polarity counts as known.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.relaxation.model import SignalModel
from cmrcore.relaxation.projection import BestCurve, curve_shape


@dataclass(frozen=True, slots=True)
class StandardErrors:
    """Standard deviations of what was fitted, one for each pixel."""

    offset: Float[Tensor, " pixel"]
    """Of the offset [a.u.]; zero for a model without."""
    amplitude: Float[Tensor, " pixel"]
    """Of the amplitude [a.u.]."""
    apparent_ms: Float[Tensor, " pixel"]
    """Of the time constant as fitted [ms]."""
    corrected_ms: Float[Tensor, " pixel"]
    """Of the time constant after the read-out correction, if the model has one [ms]."""


@dataclass(frozen=True, slots=True)
class _Factor:
    """Upper triangular R of J = Q R; row and column 0 are the offset, 1 the amplitude, 2 ln T."""

    r_00: float
    r_01: Float[Tensor, " pixel"]
    r_02: Float[Tensor, " pixel"]
    r_11: Float[Tensor, " pixel"]
    r_12: Float[Tensor, " pixel"]
    r_22: Float[Tensor, " pixel"]


def standard_errors(model: SignalModel, time_ms: Float[Tensor, " time"], curve: BestCurve) -> StandardErrors:
    """Compute the standard errors of every parameter of a fit [a.u., ms]."""
    factor = _factor(model, time_ms, curve)
    scale = _noise(model, time_ms, curve)
    t_ms = curve.log_time.exp()
    zero, one = torch.zeros_like(t_ms), torch.ones_like(t_ms)
    has_offset = one if model.constant is None else zero
    return StandardErrors(
        offset=scale * _length(factor, has_offset, zero, zero),
        amplitude=scale * _length(factor, zero, one, zero),
        apparent_ms=scale * _length(factor, zero, zero, t_ms),
        corrected_ms=scale * _length(factor, *_time_gradient(model, curve)),
    )


def time_standard_deviation(
    model: SignalModel, time_ms: Float[Tensor, " time"], curve: BestCurve
) -> Float[Tensor, " pixel"]:
    """Compute the standard deviation of the (corrected) time constant alone [ms]."""
    length = _length(_factor(model, time_ms, curve), *_time_gradient(model, curve))
    return _noise(model, time_ms, curve) * length


def _time_gradient(
    model: SignalModel, curve: BestCurve
) -> tuple[Float[Tensor, " pixel"], Float[Tensor, " pixel"], Float[Tensor, " pixel"]]:
    """Gradient of the (corrected) time constant along offset, amplitude and ln T."""
    t_ms = curve.log_time.exp()
    if not model.has_read_out_correction:
        zero = torch.zeros_like(t_ms)
        return zero, zero, t_ms
    a, b = curve.offset, curve.amplitude
    return -t_ms * b / a.square(), t_ms / a, t_ms * (b / a - 1)


def _noise(model: SignalModel, time_ms: Float[Tensor, " time"], curve: BestCurve) -> Float[Tensor, " pixel"]:
    """Estimate the standard deviation of the samples from the residual."""
    return (curve.residual / (len(time_ms) - model.n_parameters)).sqrt()


def _factor(model: SignalModel, time_ms: Float[Tensor, " time"], curve: BestCurve) -> _Factor:
    """Gram-Schmidt of the Jacobian's columns 1, f and amplitude df/dlnT; without the first, no offset."""
    column_1 = curve_shape(model, time_ms, curve.log_time)
    scaled = time_ms[:, None] * torch.exp(-curve.log_time)
    column_2 = curve.amplitude * model.slope * torch.exp(-scaled) * scaled
    root_n = len(time_ms) ** 0.5
    if model.constant is None:
        mean_1, mean_2 = column_1.mean(0), column_2.mean(0)
        column_1, column_2 = column_1 - mean_1, column_2 - mean_2
    else:
        mean_1 = mean_2 = torch.zeros_like(curve.amplitude)
    r_11 = column_1.square().sum(0).sqrt()
    r_12 = (column_1 * column_2).sum(0) / r_11
    r_22 = (column_2 - r_12 * column_1 / r_11).square().sum(0).sqrt()
    return _Factor(r_00=root_n, r_01=mean_1 * root_n, r_02=mean_2 * root_n, r_11=r_11, r_12=r_12, r_22=r_22)


def _length(
    factor: _Factor,
    along_offset: Float[Tensor, " pixel"],
    along_amplitude: Float[Tensor, " pixel"],
    along_log_time: Float[Tensor, " pixel"],
) -> Float[Tensor, " pixel"]:
    """Length of R^-T g."""
    solved_0 = along_offset / factor.r_00
    solved_1 = (along_amplitude - factor.r_01 * solved_0) / factor.r_11
    solved_2 = (along_log_time - factor.r_02 * solved_0 - factor.r_12 * solved_1) / factor.r_22
    return (solved_0.square() + solved_1.square() + solved_2.square()).sqrt()
