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
from cmrcore.relaxation.projection import FoundCurves, SearchGrid


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


def standard_errors(
    grid: SearchGrid, curve: FoundCurves, residual: Float[Tensor, " pixel"]
) -> StandardErrors:
    """Compute the standard errors of every parameter of a fit [a.u., ms] from its residual [a.u.^2]."""
    factor = _factor(grid, curve)
    noise = _noise(grid, residual)
    t_ms = curve.log_time.exp()
    zero, one = torch.zeros_like(t_ms), torch.ones_like(t_ms)
    has_offset = one if grid.model.constant is None else zero
    return StandardErrors(
        offset=noise * _length(factor, has_offset, zero, zero),
        amplitude=noise * _length(factor, zero, one, zero),
        apparent_ms=noise * _length(factor, zero, zero, t_ms),
        corrected_ms=time_standard_deviation(grid, curve, residual),
    )


def time_standard_deviation(
    grid: SearchGrid, curve: FoundCurves, residual: Float[Tensor, " pixel"]
) -> Float[Tensor, " pixel"]:
    """Compute the standard deviation of the (corrected) time constant alone [ms]."""
    length = _length(_factor(grid, curve), *_time_gradient(grid.model, curve))
    return _noise(grid, residual) * length


def _time_gradient(
    model: SignalModel, curve: FoundCurves
) -> tuple[Float[Tensor, " pixel"], Float[Tensor, " pixel"], Float[Tensor, " pixel"]]:
    """Gradient of the (corrected) time constant along offset, amplitude and ln T."""
    t_ms = curve.log_time.exp()
    if not model.has_read_out_correction:
        zero = torch.zeros_like(t_ms)
        return zero, zero, t_ms
    a, b = curve.offset, curve.amplitude
    return -t_ms * b / a.square(), t_ms / a, t_ms * (b / a - 1)


def _noise(grid: SearchGrid, residual: Float[Tensor, " pixel"]) -> Float[Tensor, " pixel"]:
    """Estimate the standard deviation of the samples from the residual."""
    return (residual / (len(grid.time_ms) - grid.model.n_parameters)).sqrt()


def _factor(grid: SearchGrid, curve: FoundCurves) -> _Factor:
    """Gram-Schmidt of the Jacobian's columns 1, f and amplitude f'; without the first, no offset."""
    products = curve.products
    root_n = len(grid.time_ms) ** 0.5
    level = root_n if grid.model.constant is None else 0.0
    r_11 = products.shape_shape.sqrt()
    along = products.shape_slope / r_11
    return _Factor(
        r_00=root_n,
        r_01=level * products.shape_mean,
        r_02=level * products.slope_mean * curve.amplitude,
        r_11=r_11,
        r_12=curve.amplitude * along,
        r_22=curve.amplitude * (products.slope_slope - along.square()).sqrt(),
    )


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
