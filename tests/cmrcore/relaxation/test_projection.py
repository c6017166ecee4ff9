"""The bound that lets the search leave polarities out."""

import pytest
import torch

from cmrcore.relaxation.model import SignalModel
from cmrcore.relaxation.models.inversion import INVERSION_2P, INVERSION_3P
from cmrcore.relaxation.projection import curve_shape, polarity_bounds, search_grid

TIMES_MS = {
    "5(3)3": [120.0, 200.0, 1020.0, 1100.0, 1920.0, 2000.0, 2820.0, 3720.0],
    "few": [100.0, 400.0, 900.0, 2500.0],
}


@pytest.mark.parametrize("model", [INVERSION_2P, INVERSION_3P], ids=lambda model: model.name)
@pytest.mark.parametrize("times_ms", TIMES_MS.values(), ids=TIMES_MS.keys())
def test_no_curve_between_the_points_is_better_than_the_bound(
    model: SignalModel, times_ms: list[float]
) -> None:
    """Of noise and of recoveries, with every polarity, on a mesh forty times as fine; nor is it loose."""
    times = torch.tensor(times_ms, dtype=torch.float64)
    generator = torch.Generator().manual_seed(9)
    noise = torch.rand(len(times), 300, generator=generator, dtype=torch.float64)
    t1_ms = 50 + 3000 * torch.rand(300, generator=generator, dtype=torch.float64)
    curves = torch.cat((noise, (1 - 2 * torch.exp(-times[:, None] / t1_ms) + 0.05 * noise).abs()), dim=1)
    grid = search_grid(model, times)
    _, bound = polarity_bounds(curves, grid)

    fine = torch.linspace(
        float(grid.log_time[0]),
        float(grid.log_time[-1]),
        40 * (len(grid.log_time) - 1) + 1,
        dtype=torch.float64,
    )
    shape = curve_shape(model, times, fine)
    for n_negative in range(len(times) + 1):
        signed = torch.where(torch.arange(len(times))[:, None] < n_negative, -curves, curves)
        if model.constant is None:
            samples, directions = signed - signed.mean(0), shape - shape.mean(0)
        else:
            samples, directions = signed, shape
        along = (directions / directions.norm(dim=0)).T @ samples
        best = samples.square().sum(0) - along.amax(0).clamp(min=0).square()
        has_amplitude = along.amax(0) > 0
        assert (bound[n_negative] <= best)[has_amplitude].all()
        slack = ((best - bound[n_negative]) / curves.square().sum(0))[has_amplitude]
        assert slack.max() < 0.02
