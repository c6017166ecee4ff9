"""Imperfections of the simulated scanner."""

import math

import numpy as np
import pytest
import torch

from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.difficulty import DIFFICULTIES, Difficulty, draw_strengths
from cmrcore.phantom.imperfections import (
    add_ghosts,
    draw_off_resonance,
    draw_sensitivity,
    fold,
    hertz,
    limit_resolution,
    magnitude_image,
)

GRID = Grid(n_rows=128, n_cols=160, pixel_mm=1.5)
HEART_MM = (9.0, -12.0)
HEART_PIXEL = (70, 72)
FLAT = torch.full((4, 128, 160), 1000.0)


def generator(seed: int = 0) -> torch.Generator:
    """Source of noise."""
    return torch.Generator().manual_seed(seed)


def test_without_imperfections_the_magnitude_is_that_of_the_signal() -> None:
    """The analytic image, to the last bit."""
    signed = torch.linspace(-500, 500, 128 * 160).reshape(1, 128, 160)
    assert torch.equal(magnitude_image(signed, 0.0, generator()), signed.abs())


@pytest.mark.parametrize("resolution", [(1.0, 1.0), (0.7, 0.9)], ids=["full", "zero-filled"])
def test_noise_has_the_stated_level(resolution: tuple[float, float]) -> None:
    """Far above the noise a magnitude varies like one channel; in air it is Rayleigh distributed."""
    bright = magnitude_image(FLAT, 20.0, generator(), resolution=resolution)
    assert bright.std().item() == pytest.approx(20, rel=0.03)
    air = magnitude_image(torch.zeros(4, 128, 160), 20.0, generator(), resolution=resolution)
    assert air.mean().item() == pytest.approx(20 * math.sqrt(math.pi / 2), rel=0.03)
    assert air.std().item() == pytest.approx(20 * math.sqrt(2 - math.pi / 2), rel=0.03)


def test_the_same_seed_gives_the_same_noise() -> None:
    """To the last bit."""
    first, again, other = (magnitude_image(FLAT, 20.0, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sensitivity_is_one_at_the_heart_and_has_the_stated_ratio() -> None:
    """Noise is promised at the heart."""
    shading = draw_sensitivity(np.random.default_rng(0), 5.0, GRID, HEART_MM)
    assert shading[HEART_PIXEL].item() == pytest.approx(1)
    assert (shading.max() / shading.min()).item() == pytest.approx(5, rel=1e-3)
    uniform = draw_sensitivity(np.random.default_rng(0), 1.0, GRID, HEART_MM)
    torch.testing.assert_close(uniform, torch.ones(128, 160))


def test_coils_lie_on_the_chest() -> None:
    """Anterior, on top of the image, is brighter than the middle."""
    shading = draw_sensitivity(np.random.default_rng(0), 5.0, GRID, HEART_MM)
    assert shading[:10].mean() > shading[60:70].mean()


def test_evening_out_the_shading_moves_it_into_the_noise() -> None:
    """A scanner's correction makes the image flat and its noise uneven."""
    shading = draw_sensitivity(np.random.default_rng(0), 5.0, GRID, HEART_MM)
    images = magnitude_image(
        FLAT.repeat(16, 1, 1), 20.0, generator(), sensitivity=shading, evened_fraction=1.0
    )
    torch.testing.assert_close(images.mean(0), FLAT[0], rtol=0.05, atol=0)
    weak, strong = shading < shading.quantile(0.1), shading > shading.quantile(0.9)
    ratio = images.std(0)[weak].mean() / images.std(0)[strong].mean()
    assert ratio.item() == pytest.approx((shading[strong].mean() / shading[weak].mean()).item(), rel=0.1)


def test_field_varies_across_the_heart_as_stated() -> None:
    """Kellman et al. measured 62 Hz at 1.5 T and 125 Hz at 3 T: 1 ppm."""
    assert hertz(0.98, 1.5) == pytest.approx(62.6, abs=0.1)
    assert hertz(0.98, 3.0) == pytest.approx(125.2, abs=0.2)
    for seed in range(5):
        field = draw_off_resonance(np.random.default_rng(seed), 62.0, GRID, HEART_MM)
        rows, cols = torch.meshgrid(torch.arange(128), torch.arange(160), indexing="ij")
        heart = field[torch.hypot(rows - 69.5, cols - 71.5) < 33]
        assert (heart.max() - heart.min()).item() == pytest.approx(62, rel=0.03)
        assert abs(heart.max() + heart.min()).item() / 2 < 18
    assert not draw_off_resonance(np.random.default_rng(0), 0.0, GRID, HEART_MM).any()


def test_folding_wraps_what_lies_outside() -> None:
    """A bright row beyond the lower edge appears inside the upper one, and nothing else changes."""
    tall = torch.zeros(1, 148, 160)
    tall[0, 70, 80] = 1.0
    tall[0, 138 + 3, 20] = 5.0
    folded = fold(tall, 10)
    assert folded.shape == (1, 128, 160)
    assert folded[0, 60, 80] == 1
    assert folded[0, 3, 20] == 5
    assert folded.count_nonzero() == 2


def test_ghosts_repeat_only_what_pulsates() -> None:
    """Ghosts have the stated strength and distance."""
    image = torch.full((1, 64, 64), 7.0)
    blood = torch.zeros(1, 64, 64)
    blood[0, 32, 32] = 100.0
    changed = add_ghosts(image, blood, 0.05, shift=16) - image
    assert changed[0, 48, 32].item() == pytest.approx(5)
    assert changed[0, 16, 32].item() == pytest.approx(-5)
    assert changed.count_nonzero() == 2
    assert torch.equal(add_ghosts(image, blood, 0.0, shift=16), image)


def test_less_of_k_space_blurs_and_rings_along_its_axis_only() -> None:
    """A step along columns overshoots and widens; a step along rows stays as it is."""
    across_columns, across_rows = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64)
    across_columns[:, 16:48] = 100.0
    across_rows[:, :, 16:48] = 100.0
    rung = limit_resolution(across_columns, (0.6, 1.0))
    assert 102 < rung.max().item() < 115
    torch.testing.assert_close(rung.mean(), across_columns.mean())
    torch.testing.assert_close(limit_resolution(across_rows, (0.6, 1.0)), across_rows, rtol=0, atol=1e-3)
    torch.testing.assert_close(
        magnitude_image(across_columns + 50, 0.0, generator(), resolution=(0.6, 1.0)),
        limit_resolution(across_columns + 50, (0.6, 1.0)).abs(),
        rtol=0,
        atol=1e-3,
    )


def test_clean_is_noise_and_nothing_else() -> None:
    """The accuracy that the project promises is measured on it."""
    drawn = draw_strengths(np.random.default_rng(0), DIFFICULTIES["clean"])
    assert drawn == DIFFICULTIES["clean"]
    assert (drawn.snr, drawn.wrap_mm, drawn.ghost_fraction, drawn.resolution_fraction) == (40, 0, 0, 1)


@pytest.mark.parametrize("difficulty", ["typical", "hard"])
def test_scans_differ_around_their_preset(difficulty: Difficulty) -> None:
    """Strengths vary from scan to scan, stay possible, and have their preset as the middle."""
    preset = DIFFICULTIES[difficulty]
    rng = np.random.default_rng(0)
    drawn = [draw_strengths(rng, preset) for _ in range(200)]
    assert np.median([one.snr for one in drawn]) == pytest.approx(preset.snr, rel=0.05)
    assert min(one.snr for one in drawn) > 5
    assert all(0.4 <= one.resolution_fraction <= 1 for one in drawn)
    assert all(one.sensitivity_ratio > 1 for one in drawn)
