"""Blood T1 from the pool's mean signal."""

import pytest
import torch

from cmrcore.quantify import blood_t1, erode_mask
from cmrcore.relaxation import molli_signal
from tests.cmrcore.hearts import drawn_heart

TI_MS = [120.0, 1020.0, 1920.0, 2820.0, 3720.0, 200.0, 1100.0, 2000.0]


def test_erosion_keeps_its_distance_in_mm() -> None:
    """A disc of radius 14 pixels of 1.5 mm loses 3 mm all round."""
    eroded = erode_mask(drawn_heart()[1], 3.0, (1.5, 1.5))
    assert int(eroded.sum()) == pytest.approx(torch.pi * 12**2, rel=0.05)


def test_erosion_by_nothing_changes_nothing() -> None:
    """0 mm is a setting like any other."""
    pool = drawn_heart()[1]
    assert torch.equal(erode_mask(pool, 0.0, (1.5, 1.5)), pool)


def test_erosion_counts_the_edge_of_the_image_as_outside() -> None:
    """A pool cut off by the image's edge is not deep there."""
    eroded = erode_mask(torch.ones(9, 9, dtype=torch.bool), 1.0, (1.0, 1.0))
    assert torch.nonzero(eroded).min() == 1
    assert int(eroded.sum()) == 49


def test_mean_signal_gives_t1_through_noise() -> None:
    """Averaging 600 pixels takes most of the noise out before the fit."""
    pool = drawn_heart()[1]
    a, t1_star_ms = torch.tensor(300.0, dtype=torch.float64), torch.tensor(1500.0, dtype=torch.float64)
    curve = molli_signal(torch.tensor(TI_MS, dtype=torch.float64), a, 2 * a, t1_star_ms).abs()
    noise = torch.randn(8, *pool.shape, generator=torch.Generator().manual_seed(5))
    echoes = (curve.float()[:, None, None] + 5 * noise) * pool
    fit = blood_t1(echoes, pool.expand(8, -1, -1), TI_MS)
    assert fit is not None
    assert fit.t1_ms.item() == pytest.approx(1500, rel=0.01)


def test_no_pool_gives_no_t1() -> None:
    """One echo without blood pixels leaves a hole in the curve."""
    pool = drawn_heart()[1].expand(8, -1, -1).clone()
    pool[3] = False
    assert blood_t1(torch.ones(pool.shape), pool, TI_MS) is None
