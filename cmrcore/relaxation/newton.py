"""Refinement of T within the grid's spacing, in float64."""

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.relaxation.model import SignalModel
from cmrcore.relaxation.products import shape_products

_LAST_NEWTON_STEP = 1e-4
"""Step of ln T after which the next would be of the order of its square, 1e-8."""
_LAST_BISECTION = 1e-7
_MAX_STEPS = 40


def highest_projection(
    model: SignalModel,
    time_ms: Float[Tensor, " time"],
    samples: Float[Tensor, "time pixel"],
    start: Float[Tensor, " pixel"],
    grid: Float[Tensor, " grid"],
) -> Float[Tensor, " pixel"]:
    """Value of ln T [ms] whose curve explains most of each pixel's samples, by Newton steps.

    Parameters
    ----------
    model
        The model.
    time_ms
        Times of the samples [ms], sorted.
    samples
        Signed samples [a.u.] from `without_mean`.
    start
        First guess of ln T. The result is within one spacing of it: a bracket keeps the steps safe, which are
        halved where Newton's would leave it, except at the ends of the search.
    grid
        Grid of ln T, equally spaced.
    """
    spacing = grid[1] - grid[0]
    low, high = (start - spacing).clamp(min=grid[0]), (start + spacing).clamp(max=grid[-1])
    result, here, open_pixels = start.clone(), start, torch.arange(len(start), device=start.device)
    for step in range(_MAX_STEPS):
        slope, bend = shape_products(model, time_ms, samples, here).log_projection_derivatives()
        low, high = torch.where(slope > 0, here, low), torch.where(slope > 0, high, here)
        newton = here + slope / bend.abs()
        is_end = ((newton <= low) & (low <= grid[0])) | ((newton >= high) & (high >= grid[-1]))
        is_newton = ((newton > low) & (newton < high) & (bend < 0)) | is_end
        there = torch.where(is_newton, torch.maximum(low, newton.minimum(high)), (low + high) / 2)
        moved = (there - here).abs()
        here = there
        if step == 0:  # hardly any pixel is there after one step
            continue
        result[open_pixels] = there
        moving = moved > torch.where(is_newton, _LAST_NEWTON_STEP, _LAST_BISECTION)
        if not bool(moving.any()):
            break
        open_pixels, samples = open_pixels[moving], samples[:, moving]
        low, high, here = low[moving], high[moving], there[moving]
    return result
