"""Mean curves of regions, to be fitted as pixels are."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def region_curves(
    signal: Float[Tensor, "time *space"], regions: Bool[Tensor, "region *space"]
) -> Float[Tensor, "time region"]:
    """Mean signal of each region, for `fit_t1`, `fit_t2` or `fit_t1rho`; NaN for an empty region.

    Averaging before the fit keeps noise out of it. Magnitudes of mixed polarity do not average to the
    magnitude of their mean: near the null of a mixed region prefer signed samples.
    """
    inside = regions.flatten(1).to(torch.float64)
    samples = signal.flatten(1).to(torch.float64)
    usable = torch.where(regions.any(0).flatten(), samples, 0)
    return usable @ inside.T / inside.sum(1)
