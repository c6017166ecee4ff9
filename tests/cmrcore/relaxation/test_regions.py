"""Mean curves of regions, and polarity from phase."""

import math

import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.relaxation import FitStatus, fit_t1, region_curves, signed_from_phase

TI_MS = [120.0, 1020.0, 1920.0, 2820.0, 3720.0, 200.0, 1100.0, 2000.0]


def _signed(t1_ms: torch.Tensor) -> torch.Tensor:
    times = torch.tensor(TI_MS, dtype=torch.float64).reshape(-1, *(1 for _ in t1_ms.shape))
    return 300 * (1 - 2 * torch.exp(-times / t1_ms))


def test_each_region_has_the_t1_of_its_mean_curve() -> None:
    """Two tissues, and an empty region that is NaN with a status; NaN outside regions does no harm."""
    t1_ms = torch.full((4, 6), 1200.0, dtype=torch.float64)
    t1_ms[:, 3:] = 1600
    signal = _signed(t1_ms).abs()
    signal[:, 0, 0] = torch.nan
    regions = torch.zeros(3, 4, 6, dtype=torch.bool)
    regions[0, 1:, :3] = True
    regions[1, :, 3:] = True
    fit = fit_t1(region_curves(signal, regions), TI_MS)
    torch.testing.assert_close(fit.t1_ms[:2], torch.tensor([1200.0, 1600.0], dtype=torch.float64))
    assert fit.status.tolist() == [FitStatus.OK, FitStatus.OK, FitStatus.NO_SIGNAL]


def test_phase_restores_the_sign_whatever_its_offset() -> None:
    """A coil's phase, different in every pixel, drops out."""
    signed = _signed(torch.linspace(300, 2000, 40, dtype=torch.float64))
    offset = torch.linspace(-3, 3, 40, dtype=torch.float64)
    phase_rad = torch.where(signed < 0, math.pi, 0.0) + offset
    torch.testing.assert_close(signed_from_phase(signed.abs(), phase_rad, TI_MS), signed)


def test_phases_of_another_shape_are_refused() -> None:
    """Phase images must be those of the magnitudes."""
    with pytest.raises((InvalidInputError, TypeError), match=r"belong together|parameter"):
        signed_from_phase(torch.ones(8, 4), torch.ones(7, 4), TI_MS)
