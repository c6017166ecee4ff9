"""Blood T1 from the pool's mean signal."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.quantify import blood_pixels, blood_t1, erode_mask
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
    found = blood_t1(echoes, pool.expand(8, -1, -1), TI_MS)
    assert found is not None
    assert found.left_out == ()
    assert found.fit.t1_ms.item() == pytest.approx(1500, rel=0.01)


def test_no_pool_gives_no_t1() -> None:
    """One echo without blood pixels leaves a hole in the curve."""
    pool = drawn_heart()[1].expand(8, -1, -1).clone()
    pool[3] = False
    assert blood_t1(torch.ones(pool.shape), pool, TI_MS) is None


def curve(t1_star_ms: float, ti_ms: list[float] = TI_MS) -> Float[Tensor, " ti"]:
    """Magnitudes of blood with T1 = 1.05 T1*."""
    a, star = torch.tensor(300.0, dtype=torch.float64), torch.tensor(t1_star_ms, dtype=torch.float64)
    return molli_signal(torch.tensor(ti_ms, dtype=torch.float64), a, 2.05 * a, star).abs()


@pytest.mark.parametrize(
    ("echoes", "left_out"),
    [({}, ()), ({3: 60.0}, (3,)), ({4: -60.0}, (4,)), ({2: 70.0, 7: -60.0}, (2, 7))],
    ids=["none", "brighter", "darker", "two"],
)
def test_echoes_with_inflow_are_left_out(echoes: dict[int, float], left_out: tuple[int, ...]) -> None:
    """Fresh blood in one or two echoes is another signal; the others still give the T1, through noise."""
    generator = torch.Generator().manual_seed(3)
    signal = curve(1500.0) + torch.randn(8, generator=generator, dtype=torch.float64)
    for echo, change in echoes.items():
        signal[echo] += change
    pool = torch.ones(8, 2, 2, dtype=torch.bool)
    found = blood_t1(signal[:, None, None].expand(8, 2, 2), pool, TI_MS)
    assert found is not None
    assert found.left_out == left_out
    assert found.fit.t1_ms.item() == pytest.approx(1575, rel=0.02)


def test_shmolli_keeps_its_images() -> None:
    """It chooses among them by their place."""
    times_ms = [100.0, 1000.0, 1900.0, 2800.0, 3700.0, 180.0, 260.0]
    signal = curve(1500.0, times_ms)
    signal[3] += 60
    found = blood_t1(signal[:, None, None], torch.ones(7, 1, 1, dtype=torch.bool), times_ms, "shmolli")
    assert found is not None
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("blood_ms", "muscle_ms"), [(1650.0, 1100.0), (350.0, 470.0)], ids=["native", "post"]
)
def test_papillary_muscle_is_no_blood(blood_ms: float, muscle_ms: float) -> None:
    """A fifth of the pool has the T1 of muscle; noise leaves out few pixels of blood, on both sides."""
    pool = drawn_heart()[1]
    generator = torch.Generator().manual_seed(8)
    t1_ms = blood_ms * (1 + 0.03 * torch.randn(pool.shape, generator=generator))
    muscle = torch.zeros_like(pool)
    muscle[40:52, 50:60] = True
    t1_ms[muscle] = muscle_ms * (1 + 0.03 * torch.randn(120, generator=generator))
    t1_ms[36, 48] = torch.nan
    found = blood_pixels(t1_ms, pool)
    assert not bool((found & muscle).any())
    assert not bool(found[36, 48])
    assert int(found.sum()) / int((pool & ~muscle).sum()) > 0.96
    assert t1_ms[found].mean().item() == pytest.approx(blood_ms, rel=0.003)


def test_a_pool_without_t1_has_no_blood() -> None:
    """No signal, no blood; and exact blood is not split by rounding."""
    pool = drawn_heart()[1]
    assert not bool(blood_pixels(torch.full(pool.shape, torch.nan), pool).any())
    even = torch.full(pool.shape, 1600.0)
    even[40] += 0.01
    assert torch.equal(blood_pixels(even, pool), pool)
