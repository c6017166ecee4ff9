r"""Separable least squares of a curve: amplitudes drop out, one unknown is searched.

For a given time constant T the model S = offset + amplitude f(t; T), f = c + s exp(-t / T), is linear in the
offset and the amplitude, and the residual of the best ones is that of an orthogonal projection (Golub and
Pereyra 1973, doi:10.1137/0710036):

.. math:: \min \|y - S\|^2 = \|y\|^2 - (q_0 \cdot y)^2 - (q_1(T) \cdot y)^2

with q_0 constant and q_1 the centered, normalized f; a model without offset lacks q_0 and the centering. So
a fit is a search for T alone. Magnitudes lack the sign of the samples before the null: of n samples in order
of time the first k are negative, k = 0..n unknown. Turning the first k signs of q_0 and q_1 instead of the
data's gives all T and all k as one matrix product (all polarities: Barral et al. 2010,
doi:10.1002/mrm.22497).
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmrcore.relaxation.model import SignalModel
from cmrcore.relaxation.newton import highest_projection
from cmrcore.relaxation.products import ShapeProducts, shape_products, without_mean

_GRID_SPACING = 0.147
"""Largest step of ln T; 48 points from 10 ms to 10 s."""
_GRID_BLOCK = {"cpu": 2048}
"""Pixels whose projections onto the grid fit into a processor's cache; a GPU takes all at once."""
_ROUNDING = 1e-5
"""Error of the grid's sums in single precision, as a fraction of the signal's energy: a hundred roundings."""


@dataclass(frozen=True, slots=True)
class SearchGrid:
    """Projections onto the curves of a grid of T, for every polarity that may have been lost."""

    model: SignalModel
    """What is searched."""
    time_ms: Float[Tensor, " time"]
    """Times of the samples [ms], sorted, float64."""
    least_negative: int
    """Samples known to be negative; row k of what follows has k more."""
    log_time: Float[Tensor, " grid"]
    """Natural logarithm of T [ms], equally spaced, float64."""
    level: Float[Tensor, "k time"]
    """The constant direction q_0 with each polarity's signs; zero for a model without offset."""
    direction: Float[Tensor, "time grid"]
    """The direction q_1 of each T."""
    turned: Float[Tensor, "k*grid time"]
    """The direction q_1 of each T with each polarity's signs."""
    between: float
    """How far the projection of a signal of length 1 may rise above its values at the grid's points."""


@dataclass(frozen=True, slots=True)
class FoundCurves:
    """Best curve of each pixel."""

    is_valid: Bool[Tensor, " pixel"]
    """Whether any polarity has a curve that the model accepts."""
    log_time: Float[Tensor, " pixel"]
    """Natural logarithm of T [ms]."""
    offset: Float[Tensor, " pixel"]
    """Offset [a.u.], zero for a model without."""
    amplitude: Float[Tensor, " pixel"]
    """Amplitude [a.u.]."""
    signed: Float[Tensor, "time pixel"]
    """Samples with the signs of the best polarity [a.u.]."""
    products: ShapeProducts
    """Inner products at T."""


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Curves of one polarity each; the residual is infinite where the model does not accept the curve."""

    log_time: Float[Tensor, " pixel"]
    offset: Float[Tensor, " pixel"]
    amplitude: Float[Tensor, " pixel"]
    residual: Float[Tensor, " pixel"]
    polarity: Int[Tensor, " pixel"]
    products: ShapeProducts


def search_grid(
    model: SignalModel, time_ms: Float[Tensor, " time"], *, least_negative: int = 0
) -> SearchGrid:
    """Grid of T for sorted times [ms].

    Of magnitudes, at least the first `least_negative` samples are known to be negative.
    """
    n_times, device = len(time_ms), time_ms.device
    low, high = (math.log(bound) for bound in model.range_ms)
    n_grid = math.ceil((high - low) / _GRID_SPACING) + 1
    log_time = torch.linspace(low, high, n_grid, dtype=torch.float64, device=device)
    direction = _direction(model, time_ms, log_time)
    most_negative = n_times if model.is_magnitude else least_negative
    counts = torch.arange(least_negative, most_negative + 1, device=device)
    polarity = torch.where(torch.arange(n_times, device=device) < counts[:, None], -1.0, 1.0).double()
    has_offset = 1 if model.constant is None else 0
    return SearchGrid(
        model=model,
        time_ms=time_ms,
        least_negative=least_negative,
        log_time=log_time,
        level=(has_offset * polarity / n_times**0.5).float(),
        direction=direction.float(),
        turned=(polarity[:, None] * direction.T).flatten(0, 1).float(),
        between=_rise_between_points(model, time_ms, log_time),
    )


def curve_shape(
    model: SignalModel, time_ms: Float[Tensor, " time"], log_time: Float[Tensor, " pixel"]
) -> Float[Tensor, "time pixel"]:
    """Shape f of the model's curve, one column for each T."""
    return (model.constant or 0) + model.slope * torch.exp(-time_ms[:, None] * torch.exp(-log_time))


def best_curve(curves: Float[Tensor, "time pixel"], grid: SearchGrid) -> FoundCurves:
    """Find the valid curve of least residual over all T and all polarities of the grid.

    The grid's points bound what each polarity can reach. The most promising polarity is refined for every
    pixel, then those others whose bound does not exclude that they are better.
    """
    wide = curves.double()
    promised, bound = polarity_bounds(curves, grid)
    index = torch.arange(len(promised), device=curves.device)
    # The last of the least: an argmin that runs along pixels, many times as fast as torch's.
    first = torch.where(promised == promised.amin(0), index[:, None], 0).amax(0)
    best = _refined(wide, first, grid)
    can_win = (bound < best.residual) & (index[:, None] != first)
    polarity, pixel = can_win.nonzero(as_tuple=True)
    if len(pixel):
        _take_better(best, pixel, _refined(wide[:, pixel], polarity, grid))
    return FoundCurves(
        is_valid=best.residual.isfinite(),
        log_time=best.log_time,
        offset=best.offset,
        amplitude=best.amplitude,
        signed=_turn(wide, best.polarity, grid),
        products=best.products,
    )


def polarity_bounds(
    curves: Float[Tensor, "time pixel"], grid: SearchGrid
) -> tuple[Float[Tensor, "k pixel"], Float[Tensor, "k pixel"]]:
    """Residual that each polarity has at the grid's points, and a bound below it between them.

    Infinite where every amplitude is negative.
    """
    block = _GRID_BLOCK.get(curves.device.type, curves.shape[1])
    narrow = curves.float()
    along = narrow.new_empty(len(grid.turned), min(block, narrow.shape[1]))
    highest = narrow.new_empty(len(grid.level), narrow.shape[1])
    for start in range(0, narrow.shape[1], block):
        part, into = narrow[:, start : start + block], highest[:, start : start + block]
        here = torch.mm(grid.turned, part, out=along[:, : part.shape[1]])
        torch.amax(here.reshape(len(grid.level), -1, part.shape[1]), dim=1, out=into)
    energy = narrow.square().sum(0)
    centered = (energy - (grid.level @ narrow).square()).clamp(min=0)
    ceiling = highest + grid.between * centered.sqrt()
    promised = torch.where(highest > 0, centered - highest.square(), torch.inf)
    bound = torch.where(ceiling > 0, centered - ceiling.square() - _ROUNDING * energy, torch.inf)
    return promised, bound


def _direction(
    model: SignalModel, time_ms: Float[Tensor, " time"], log_time: Float[Tensor, " grid"]
) -> Float[Tensor, "time grid"]:
    """Direction q_1 of each T."""
    shape = without_mean(model, curve_shape(model, time_ms, log_time))
    return shape / shape.square().sum(0).sqrt()


def _rise_between_points(
    model: SignalModel, time_ms: Float[Tensor, " time"], log_time: Float[Tensor, " grid"]
) -> float:
    """Bound h^2 / 8 max |q_1''| on how far q_1 . y rises above the higher of two neighbors h apart, |y| = 1.

    The second derivative is that of a mesh sixteen times as fine, with a tenth to spare.
    """
    fine = torch.linspace(
        float(log_time[0]),
        float(log_time[-1]),
        16 * (len(log_time) - 1) + 1,
        dtype=torch.float64,
        device=log_time.device,
    )
    difference = _direction(model, time_ms, fine).diff(n=2, dim=1) * 16**2
    return 1.1 * float(difference.norm(dim=0).max()) / 8


def _turn(
    wide: Float[Tensor, "time pixel"], polarity: Int[Tensor, " pixel"], grid: SearchGrid
) -> Float[Tensor, "time pixel"]:
    """Give samples the signs of one polarity for each pixel."""
    index = torch.arange(len(wide), device=wide.device)
    return torch.where(index[:, None] < polarity + grid.least_negative, -wide, wide)


def _refined(
    wide: Float[Tensor, "time pixel"], polarity: Int[Tensor, " pixel"], grid: SearchGrid
) -> _Candidates:
    """Curve of least residual of one polarity for each pixel."""
    model = grid.model
    signed = _turn(wide, polarity, grid)
    samples = without_mean(model, signed)
    log_time = highest_projection(model, grid.time_ms, samples, _start(samples, grid), grid.log_time)
    products = shape_products(model, grid.time_ms, samples, log_time)
    amplitude = products.shape_y / products.shape_shape
    offset = signed.mean(0) - amplitude * products.shape_mean
    if model.constant is not None:
        offset = torch.zeros_like(offset)
    residual = samples.square().sum(0) - amplitude * products.shape_y
    residual = torch.where(model.is_valid(offset, amplitude), residual, torch.inf)
    return _Candidates(log_time, offset, amplitude, residual, polarity, products)


def _start(samples: Float[Tensor, "time pixel"], grid: SearchGrid) -> Float[Tensor, " pixel"]:
    """Value of ln T at the top of a parabola through the grid's highest point and its neighbors."""
    along = samples.float().T @ grid.direction
    inner = along.max(dim=1).indices.clamp(1, len(grid.log_time) - 2)
    near = along.gather(1, inner[:, None] + torch.arange(-1, 2, device=inner.device))
    before, middle, after = near.double().unbind(1)
    bend = before - 2 * middle + after
    offset = torch.where(bend < 0, (before - after) / (2 * bend), 0).clamp(-1, 1)
    return grid.log_time[0] + (grid.log_time[1] - grid.log_time[0]) * (inner + offset)


def _take_better(best: _Candidates, pixel: Int[Tensor, " other"], others: _Candidates) -> None:
    """Put the best of the others in place where it is better; `pixel` tells whose they are."""
    least = best.residual.scatter_reduce(0, pixel, others.residual, "amin")
    # Of equal ones any is as good: they differ in the sign of a sample that is zero.
    wins = (others.residual == least[pixel]) & (others.residual < best.residual[pixel])
    for into, taken in ((best, others), (best.products, others.products)):
        for field in fields(into):
            if field.name != "products":
                getattr(into, field.name)[pixel[wins]] = getattr(taken, field.name)[wins]
