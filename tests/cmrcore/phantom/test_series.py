"""A slice through sequence and scanner."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.phantom.anatomy import Grid, View, draw_anatomy
from cmrcore.phantom.difficulty import Imperfections
from cmrcore.phantom.motion import MotionStrength, Reposition, draw_reposition, position_mm
from cmrcore.phantom.series import Scene, SliceSeries, draw_beats, image_slice, tall_grid, tissue_table
from cmrcore.phantom.tissue import tissues

GRID = Grid(n_rows=112, n_cols=128, pixel_mm=2.0)
TISSUES = tissue_table(tissues(1.5, 0.42, 0.45))
NOTHING = Imperfections()
MOVING = replace(NOTHING, motion=MotionStrength(breathing_share=1.0, breathing_mm=8.0, bend_fraction=0.2))


def scene(strengths: Imperfections, sigma: float = 0.0, gain: float = 4000.0) -> Scene:
    """Mid slice of an amyloid heart, uniform field and coil."""
    tall = tall_grid(GRID, strengths.wrap_mm)
    return Scene(
        anatomy=draw_anatomy(np.random.default_rng(5), "amyloid"),
        view=View(along_fraction=0.5, shift_mm=(4.0, -6.0)),
        heart_mm=(4.0, -6.0),
        grid=GRID,
        field_hz=torch.zeros(tall.n_rows, tall.n_cols),
        sensitivity=torch.ones(GRID.n_rows, GRID.n_cols),
        strengths=strengths,
        gain=gain,
        sigma=sigma,
    )


def take(strengths: Imperfections, sigma: float = 0.0, reposition: Reposition | None = None) -> SliceSeries:
    """Series 5(3)3 of that slice."""
    return image_slice(
        np.random.default_rng(1),
        torch.Generator().manual_seed(1),
        scene(strengths, sigma),
        TISSUES,
        "5(3)3",
        900.0,
        reposition,
    )


def warp(
    image: Float[Tensor, "n row col"], displacement_mm: Float[Tensor, "n 2 row col"]
) -> Float[Tensor, "n row col"]:
    """Read an image at each pixel's position plus its displacement, linearly."""
    down, right = position_mm(GRID)
    half = torch.tensor([(GRID.n_cols - 1) / 2, (GRID.n_rows - 1) / 2]) * GRID.pixel_mm
    at = torch.stack([right + displacement_mm[:, 1], down + displacement_mm[:, 0]], dim=-1) / half
    return torch.nn.functional.grid_sample(
        image[:, None], at, padding_mode="border", align_corners=True, mode="bicubic"
    )[:, 0]


def test_without_imperfections_the_images_are_those_of_the_sequence() -> None:
    """No noise, no motion, nothing else: the magnitude of the Bloch simulation, painted."""
    still = take(NOTHING)
    assert torch.equal(still.echoes, still.ideal.abs())
    assert (still.labels == still.labels[0]).all()
    assert not still.motion.moves


def test_noise_has_the_stated_level() -> None:
    """Standard deviation of one receiver channel, far above the noise and in air."""
    noisy, still = take(NOTHING, sigma=25.0), take(NOTHING)
    bright = still.echoes > 500
    assert (noisy.echoes - still.echoes)[bright].std().item() == pytest.approx(25, rel=0.05)
    air = still.echoes == 0
    assert noisy.echoes[air].mean().item() == pytest.approx(25 * (np.pi / 2) ** 0.5, rel=0.05)


def test_the_still_image_moved_by_the_displacement_is_the_moved_image() -> None:
    """The stated displacement is the truth that alignment is measured against, to interpolation error."""
    moved = take(MOVING)
    assert max(moved.motion.excursion_mm) > 4
    warped = warp(moved.ideal.abs(), moved.motion.displacement_mm)
    inside = (slice(None), slice(12, -12), slice(12, -12))
    off = (warped - moved.echoes)[inside].abs().mean(dim=(1, 2))
    unmoved = (moved.ideal.abs() - moved.echoes)[inside].abs().mean(dim=(1, 2))
    far = torch.tensor(moved.motion.excursion_mm) > 4
    assert far.any()
    assert (off[far] < 0.35 * unmoved[far]).all()
    # Labels obey it too.
    carried = warp(moved.labels[:1, 1].float().expand(8, -1, -1), moved.motion.displacement_mm) > 0.5
    both = (
        (carried & moved.labels[:, 1]).sum(dim=(1, 2)),
        carried.sum(dim=(1, 2)) + moved.labels[:, 1].sum((1, 2)),
    )
    assert (2 * both[0] / both[1] > 0.97).all()


def test_a_reposition_moves_all_images_alike() -> None:
    """A later series lies elsewhere as a whole; its own motion is told against its own first image."""
    strength = MotionStrength(between_series_mm=5.0, between_series_deg=4.0)
    placed = draw_reposition(np.random.default_rng(2), strength, GRID, (4.0, -6.0))
    in_plane = replace(placed, through_plane_mm=0.0)
    moved = take(NOTHING, reposition=in_plane)
    assert not moved.motion.moves
    assert (moved.labels == moved.labels[0]).all()
    still = take(NOTHING)
    assert torch.equal(moved.ideal, still.ideal)
    carried = warp(still.labels[:1, 1].float(), placed.displacement_mm[None])[0] > 0.5
    shown = moved.labels[0, 1]
    assert 2 * (carried & shown).sum() / (carried.sum() + shown.sum()) > 0.97
    assert 2 * (still.labels[0, 1] & shown).sum() / (still.labels[0, 1].sum() + shown.sum()) < 0.97


@pytest.mark.parametrize(
    "motion",
    [
        MotionStrength(drift_mm_per_s=0.01, through_plane_fraction=300.0),
        MotionStrength(mistrigger_share=1.0),
    ],
    ids=["through plane", "mistriggers"],
)
def test_labels_follow_what_no_displacement_tells(motion: MotionStrength) -> None:
    """Another plane and another moment of the heart beat have other masks."""
    moved = take(replace(NOTHING, motion=motion))
    area = moved.labels[:, 1].sum(dim=(1, 2))
    assert (area[1:] != area[0]).any()


@pytest.mark.parametrize(
    "strengths",
    [
        replace(NOTHING, wrap_mm=20.0),
        replace(NOTHING, ghost_fraction=0.1),
        replace(NOTHING, resolution_fraction=0.6),
    ],
    ids=["wrap", "ghosts", "resolution"],
)
def test_artifacts_change_images_and_no_truth(strengths: Imperfections) -> None:
    """Labels, displacements and the ideal are those of the still, perfect scan."""
    clean, spoiled = take(NOTHING), take(strengths)
    assert spoiled.echoes.shape == clean.echoes.shape
    assert not torch.allclose(spoiled.echoes, clean.echoes, atol=5.0)
    assert torch.equal(spoiled.labels, clean.labels)
    torch.testing.assert_close(spoiled.ideal, clean.ideal, rtol=0, atol=0.5)
    assert not spoiled.motion.displacement_mm.any()


def test_missed_beats_lengthen_the_series() -> None:
    """Two heart beats become one interval."""
    regular = draw_beats(np.random.default_rng(0), 900.0, 0.0)
    missed = draw_beats(np.random.default_rng(0), 900.0, 0.3)
    assert np.mean(regular) == pytest.approx(900, rel=0.02)
    assert max(regular) < 1000
    assert max(missed) > 1700
    assert sum(missed) == pytest.approx(sum(regular))


def test_a_number_of_images_that_cannot_be_had_is_refused() -> None:
    """Slices with different numbers of images do not make a stack."""
    with pytest.raises(InvalidInputError, match=r"gave 8 images .* other slices have 9"):
        image_slice(
            np.random.default_rng(1),
            torch.Generator(),
            scene(NOTHING),
            TISSUES,
            "5(3)3",
            900.0,
            n_images=9,
        )
