r"""Inner products of a model's shape, its derivatives along ln T and the samples: all that a fit needs.

With E = exp(-t / T) and x = t / T the shape is f = c + s E, its derivatives along ln T are f' = s x E and
f'' = s (x^2 - x) E. So every inner product follows from sums of E, E^2 and E y over the samples, each
weighted with t^0, t^1 and t^2: one exponential and one small matrix product for a value of T.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.relaxation.model import SignalModel


@dataclass(frozen=True, slots=True)
class ShapeProducts:
    """Inner products at one T a pixel; f, f', f'' and y without their means where the model has an offset."""

    shape_mean: Float[Tensor, " pixel"]
    """Mean of f itself."""
    slope_mean: Float[Tensor, " pixel"]
    """Mean of f' itself."""
    shape_y: Float[Tensor, " pixel"]
    """f . y."""
    slope_y: Float[Tensor, " pixel"]
    """f' . y."""
    bend_y: Float[Tensor, " pixel"]
    """f'' . y."""
    shape_shape: Float[Tensor, " pixel"]
    """f . f."""
    shape_slope: Float[Tensor, " pixel"]
    """f . f'."""
    shape_bend: Float[Tensor, " pixel"]
    """f . f''."""
    slope_slope: Float[Tensor, " pixel"]
    """f' . f'."""

    def log_projection_derivatives(self) -> tuple[Float[Tensor, " pixel"], Float[Tensor, " pixel"]]:
        """First and second derivative of (f . y)^2 / (f . f) along ln T, divided by it."""
        along_y, along_f = self.slope_y / self.shape_y, self.shape_slope / self.shape_shape
        bend_y = self.bend_y / self.shape_y
        bend_f = (self.slope_slope + self.shape_bend) / self.shape_shape
        slope = 2 * (along_y - along_f)
        bend = 2 * (bend_y - along_y.square() - bend_f) + 4 * along_f.square()
        return slope, slope.square() + bend


def without_mean(model: SignalModel, samples: Float[Tensor, "time pixel"]) -> Float[Tensor, "time pixel"]:
    """Center samples where the model has an offset, as `shape_products` takes them."""
    return samples - samples.mean(0) if model.constant is None else samples


def shape_products(
    model: SignalModel,
    time_ms: Float[Tensor, " time"],
    samples: Float[Tensor, "time pixel"],
    log_time: Float[Tensor, " pixel"],
) -> ShapeProducts:
    """Inner products at T = exp(log_time) [ms] with samples from `without_mean`."""
    n_times, longest_ms = len(time_ms), time_ms.amax()
    powers = (time_ms / longest_ms) ** torch.arange(3, device=time_ms.device)[:, None]
    decays = samples.new_empty(3, *samples.shape)  # E, E^2 and E y, filled in place: half the time
    torch.mul(-time_ms[:, None], torch.exp(-log_time), out=decays[0]).exp_()
    torch.mul(decays[0], decays[0], out=decays[1])
    torch.mul(decays[0], samples, out=decays[2])
    once, twice, with_y = powers @ decays
    scale = longest_ms * torch.exp(-log_time)
    once_1, twice_1, with_y_1 = once[1] * scale, twice[1] * scale, with_y[1] * scale
    scale = scale * scale
    once_2, twice_2, with_y_2 = once[2] * scale, twice[2] * scale, with_y[2] * scale

    s, c = model.slope, model.constant or 0.0
    shape_sum, slope_sum, bend_sum = c * n_times + s * once[0], s * once_1, s * (once_2 - once_1)
    shape_y = s * with_y[0]
    shape_shape = s * s * twice[0]
    shape_slope = s * s * twice_1
    shape_bend = s * s * (twice_2 - twice_1)
    slope_slope = s * s * twice_2
    if model.constant is None:
        mean = shape_sum / n_times
        shape_shape = shape_shape - mean * shape_sum
        shape_slope = shape_slope - mean * slope_sum
        shape_bend = shape_bend - mean * bend_sum
        slope_slope = slope_slope - slope_sum.square() / n_times
    elif c:
        shape_y = shape_y + c * samples.sum(0)
        shape_shape = shape_shape + c * (2 * shape_sum - c * n_times)
        shape_slope = shape_slope + c * slope_sum
        shape_bend = shape_bend + c * bend_sum
    return ShapeProducts(
        shape_mean=shape_sum / n_times,
        slope_mean=slope_sum / n_times,
        shape_y=shape_y,
        slope_y=s * with_y_1,
        bend_y=s * (with_y_2 - with_y_1),
        shape_shape=shape_shape,
        shape_slope=shape_slope,
        shape_bend=shape_bend,
        slope_slope=slope_slope,
    )
