"""Displacement fields of the digital trial."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.difficulty import DIFFICULTIES, Difficulty
from cmrcore.phantom.motion import (
    INVERTIBLE_MM,
    STILL,
    MotionStrength,
    SeriesMotion,
    compose,
    draw_motion,
    draw_reposition,
    knots_shape,
    position_mm,
    spline_field,
)

GRID = Grid(n_rows=128, n_cols=112, pixel_mm=2.0)
HEART_MM = (6.0, -10.0)
TIME_S = [0.0, 0.9, 1.8, 2.7, 3.6, 7.2, 8.1, 9.0]
ONLY_BREATHING = MotionStrength(breathing_share=1.0, breathing_mm=10.0)


def motion(strength: MotionStrength, seed: int = 0) -> SeriesMotion:
    """One breath-hold."""
    return draw_motion(np.random.default_rng(seed), strength, TIME_S, GRID, HEART_MM)


def jacobian(displacement_mm: Float[Tensor, "n 2 row col"]) -> Float[Tensor, "n row col"]:
    """Differentiate the mapping by central differences; its determinant."""
    by_row, by_col = torch.gradient(displacement_mm, spacing=GRID.pixel_mm, dim=(2, 3))
    return (1 + by_row[:, 0]) * (1 + by_col[:, 1]) - by_row[:, 1] * by_col[:, 0]


def at_heart(displacement_mm: Float[Tensor, "n 2 row col"]) -> Float[Tensor, "n 2"]:
    """Displacement of the pixel at the LV center."""
    row, col = (round(mm / 2 + (n - 1) / 2) for mm, n in zip(HEART_MM, (128, 112), strict=True))
    return displacement_mm[:, :, row, col]


def test_a_still_heart_does_not_move() -> None:
    """Zero strength is exactly no motion, on every image."""
    still = motion(STILL)
    assert not still.displacement_mm.any()
    assert not any(still.through_plane_mm)
    assert not any(still.phase_fraction)
    assert not still.breathes


@pytest.mark.parametrize("difficulty", ["typical", "hard"])
def test_the_first_image_is_the_still_one(difficulty: Difficulty) -> None:
    """Displacements are told against it, so that its labels are those of the anatomy."""
    moved = motion(DIFFICULTIES[difficulty].motion)
    assert not moved.displacement_mm[0].any()
    assert moved.through_plane_mm[0] == moved.phase_fraction[0] == moved.excursion_mm[0] == 0
    assert moved.displacement_mm[1:].any(dim=3).any(dim=2).all()


def test_the_same_seed_gives_the_same_motion() -> None:
    """To the last bit."""
    strength = DIFFICULTIES["hard"].motion
    assert torch.equal(motion(strength, 3).displacement_mm, motion(strength, 3).displacement_mm)
    assert not torch.equal(motion(strength, 3).displacement_mm, motion(strength, 4).displacement_mm)


@pytest.mark.parametrize("difficulty", ["typical", "hard"])
def test_fields_do_not_fold(difficulty: Difficulty) -> None:
    """Jacobian above 0 everywhere: every field has an inverse."""
    smallest = min(
        jacobian(motion(DIFFICULTIES[difficulty].motion, seed).displacement_mm).min().item()
        for seed in range(40)
    )
    assert smallest > 0.2


def test_absurd_coefficients_are_scaled_down_until_they_do_not_fold() -> None:
    """The bound of Choi and Lee holds whatever is drawn."""
    rng = np.random.default_rng(1)
    drawn = torch.from_numpy(500 * rng.normal(size=(64, 2, *knots_shape(GRID))))
    field = spline_field(drawn, GRID)
    assert jacobian(field).min() > 0
    assert 0.3 * INVERTIBLE_MM < field.abs().max() < INVERTIBLE_MM


def test_equal_coefficients_are_a_translation() -> None:
    """B-splines sum to one."""
    shift = torch.tensor([5.0, -3.0], dtype=torch.float64)[None, :, None, None]
    field = spline_field(shift.expand(1, 2, *knots_shape(GRID)), GRID)
    torch.testing.assert_close(field, shift.to(torch.float32).expand_as(field))


def test_the_heart_goes_the_stated_way() -> None:
    """The reported excursion is what the LV center shows, but for the smoothing by the spline."""
    moved = motion(ONLY_BREATHING)
    assert moved.breathes
    assert max(moved.excursion_mm) > 2
    ways = at_heart(moved.displacement_mm).norm(dim=1)
    torch.testing.assert_close(ways, torch.tensor(moved.excursion_mm), rtol=0.12, atol=0.01)


def test_the_back_moves_less_than_the_heart() -> None:
    """Breathing moves the heart, the spine stays."""
    field = motion(ONLY_BREATHING).displacement_mm
    latest = field.norm(dim=1).amax(0)
    assert latest[-1].max() < 0.7 * latest.max()


def test_drift_grows_with_time() -> None:
    """A slow diaphragm, image after image."""
    ways = np.array(motion(MotionStrength(drift_mm_per_s=0.3)).excursion_mm)
    np.testing.assert_allclose(ways / ways[-1], np.array(TIME_S) / TIME_S[-1], rtol=1e-6)


@pytest.mark.parametrize(
    ("switch", "displaced", "through", "wrong_phase"),
    [
        ({"drift_mm_per_s": 1.0}, True, False, False),
        ({"beat_mm": 1.0}, True, False, False),
        ({"drift_mm_per_s": 1.0, "through_plane_fraction": 1.0}, True, True, False),
        ({"mistrigger_share": 1.0}, False, False, True),
        ({"between_series_mm": 5.0, "between_series_deg": 5.0, "bend_fraction": 1.0}, False, False, False),
    ],
    ids=["drift", "beats", "through plane", "mistriggers", "between series"],
)
def test_each_switch_does_only_what_it_says(
    switch: dict[str, float], *, displaced: bool, through: bool, wrong_phase: bool
) -> None:
    """Strengths are independent of each other."""
    moved = motion(replace(STILL, **switch))
    assert bool(moved.displacement_mm.any()) == displaced
    assert any(moved.through_plane_mm) == through
    assert any(moved.phase_fraction) == wrong_phase


def test_a_series_is_repositioned_about_the_heart() -> None:
    """A turn alone leaves the LV center where it was, and is rigid."""
    strength = replace(STILL, between_series_deg=5.0)
    moved = draw_reposition(np.random.default_rng(0), strength, GRID, HEART_MM).displacement_mm[None]
    assert at_heart(moved).abs().max() < 0.1
    torch.testing.assert_close(jacobian(moved), torch.ones(1, 128, 112), rtol=0, atol=1e-4)
    assert moved.abs().max() > 1


def test_no_reposition_at_strength_zero() -> None:
    """Native and post-contrast series lie on each other."""
    placed = draw_reposition(np.random.default_rng(0), STILL, GRID, HEART_MM)
    assert not placed.displacement_mm.any()
    assert placed.through_plane_mm == 0


def test_composed_displacements_follow_one_another() -> None:
    """A linear outer field can be written down: what follows must be exact but for the border."""
    inner = motion(ONLY_BREATHING).displacement_mm
    down, right = position_mm(GRID)
    outer = torch.stack([0.1 * down + 0 * right, -0.05 * right + 0.02 * down]).expand_as(inner)
    both = compose(inner, outer, GRID)
    at_down, at_right = down + inner[:, 0], right + inner[:, 1]
    expected = inner + torch.stack([0.1 * at_down, -0.05 * at_right + 0.02 * at_down], dim=1)
    inside = (slice(None), slice(None), slice(15, -15), slice(15, -15))
    torch.testing.assert_close(both[inside], expected[inside], rtol=0, atol=1e-3)
