"""Training images of the digital trial."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.phantom.anatomy import STRUCTURES, Grid, labels
from cmrcore.phantom.augment import (
    AUGMENTATION,
    NO_AUGMENTATION,
    Augmentation,
    draw_geometry,
    shade,
    spoil,
    trabeculate,
)
from cmrcore.phantom.contrast import draw_contrast
from cmrcore.phantom.difficulty import Difficulty
from cmrcore.phantom.training import TrainingBatch, training_batch

GRID = Grid(n_rows=96, n_cols=112, pixel_mm=2.8)
CONTRASTS = pytest.mark.parametrize("contrast", ["random", "physics"])


def batch(
    contrast: Literal["random", "physics"],
    difficulty: Difficulty = "typical",
    n: int = 6,
    seed: int = 0,
    augmentation: Augmentation = AUGMENTATION,
) -> TrainingBatch:
    """Small batch of two echoes a slice."""
    return training_batch(
        np.random.default_rng(seed),
        n,
        GRID,
        contrast=contrast,
        difficulty=difficulty,
        augmentation=augmentation,
    )


def spread(image: Float[Tensor, "row col"], masks: Bool[Tensor, "label row col"]) -> float:
    """Sum up squared deviations from the mean within wall and cavity."""
    inside = [image[mask] for mask in masks[:2] if mask.any()]
    return sum(((pixels - pixels.mean()) ** 2).sum().item() for pixels in inside)


@CONTRASTS
def test_a_batch_has_images_and_masks_of_each_echo(contrast: Literal["random", "physics"]) -> None:
    """What a guided network reads: reference echo and moved echo, each with its masks."""
    drawn = batch(contrast)
    assert drawn.images.shape == (6, 2, 96, 112)
    assert drawn.images.dtype == torch.float32
    assert drawn.masks.shape == (6, 2, 3, 96, 112)
    assert torch.isfinite(drawn.images).all()
    assert drawn.images.min() >= 0
    assert (drawn.images.amax(dim=(2, 3)) > 0).all()


@CONTRASTS
def test_the_same_seed_gives_the_same_batch(contrast: Literal["random", "physics"]) -> None:
    """A training can be repeated."""
    first, again, other = (batch(contrast, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    assert not torch.equal(first.images, other.images)


def test_masks_do_not_overlap_and_most_slices_show_the_heart() -> None:
    """A pixel belongs to what fills most of it; only planes beyond the apex or the image lack some."""
    masks = batch("random", n=16).masks
    assert masks.sum(2).max() == 1
    assert masks[:, :, 0].any(dim=(2, 3)).float().mean() > 0.9


def test_masks_lie_on_what_the_image_shows() -> None:
    """Each echo is flatter within its own masks than within the same a few pixels off."""
    drawn = batch("random", "clean", n=12, augmentation=NO_AUGMENTATION)
    fits = []
    for image, mask in zip(drawn.images.flatten(0, 1), drawn.masks.flatten(0, 1), strict=True):
        fits += [
            spread(image, mask) < spread(image, torch.roll(mask, shift, dims=(1, 2)))
            for shift in ((3, 0), (-3, 0), (0, 3), (0, -3))
        ]
    assert np.mean(fits) > 0.9


def test_hard_echoes_move_and_clean_ones_do_not() -> None:
    """The reference echo's masks are no answer for a moved echo."""
    clean, hard = (batch("random", difficulty).masks for difficulty in ("clean", "hard"))
    assert torch.equal(clean[:, 0], clean[:, 1])
    assert not torch.equal(hard[:, 0], hard[:, 1])


def test_every_echo_has_its_own_contrast() -> None:
    """A slice looks different at each inversion time."""
    drawn = batch("random", "clean", augmentation=NO_AUGMENTATION)
    ratio = [
        (image[mask[0]].mean() / image[mask[1]].mean()).item()
        for image, mask in zip(drawn.images.flatten(0, 1), drawn.masks.flatten(0, 1), strict=True)
    ]
    assert len(set(np.round(ratio, 3))) > 6


def test_blood_mostly_looks_alike_on_both_sides() -> None:
    """A network must not tell the ventricles by their brightness; the wall sometimes nearly vanishes."""
    mean = draw_contrast(np.random.default_rng(0), 2000).mean
    column = {name: index for index, name in enumerate(STRUCTURES)}
    blood, rv, wall = (mean[:, column[name]] for name in ("blood_pool", "rv", "myocardium"))
    assert ((blood - rv).abs() < 0.1).float().mean() > 0.85
    assert 0.15 < ((blood - wall).abs() < 0.2).float().mean() < 0.5
    assert 0.02 < (mean.amin(1) < -0.5).float().mean() < 0.5


def test_no_augmentation_changes_nothing() -> None:
    """All strengths at zero."""
    rng = np.random.default_rng(0)
    assert draw_geometry(rng, 3, NO_AUGMENTATION, GRID).abs().max() < 1e-4
    image = torch.rand(3, 96, 112)
    torch.testing.assert_close(shade(image, rng, NO_AUGMENTATION, GRID), image)
    assert torch.equal(spoil(image.clone(), rng, NO_AUGMENTATION), image)


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ({"flip_share": 1.0}, (-1.0, 0.0, 0.0, -1.0)),
        ({"turn_share": 1.0}, None),
        ({"rotation_deg": 90.0}, None),
    ],
    ids=["flip", "quarter turn", "rotation"],
)
def test_rigid_augmentations_keep_lengths(
    switch: dict[str, float], expected: tuple[float, ...] | None
) -> None:
    """Where a pixel looks, as a matrix, is orthogonal; both flips are a half turn."""
    field = draw_geometry(np.random.default_rng(3), 1, replace(NO_AUGMENTATION, **switch), GRID)[0]
    by_row, by_col = torch.gradient(field, spacing=GRID.pixel_mm, dim=(1, 2))
    matrix = torch.stack([by_row, by_col], dim=1)[:, :, 48, 56] + torch.eye(2)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(2), rtol=0, atol=1e-4)
    assert (matrix - torch.eye(2)).abs().max() > 0.1
    if expected is not None:
        torch.testing.assert_close(matrix, torch.tensor(expected).view(2, 2), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "switch",
    [{"zoom_factor": 2.0}, {"perspective_fraction": 0.5}, {"distortion_mm": 6.0}],
    ids=lambda one: next(iter(one)),
)
def test_bending_augmentations_move_pixels_without_folding(switch: dict[str, float]) -> None:
    """Every pixel shows one point, and no point is shown inside out."""
    field = draw_geometry(np.random.default_rng(0), 8, replace(NO_AUGMENTATION, **switch), GRID)
    assert field.abs().max() > 2
    by_row, by_col = torch.gradient(field, spacing=GRID.pixel_mm, dim=(2, 3))
    determinant = (1 + by_row[:, 0]) * (1 + by_col[:, 1]) - by_row[:, 1] * by_col[:, 0]
    assert determinant.min() > 0


def test_cropping_blacks_out_the_corners() -> None:
    """As scanners do after correcting gradient distortion."""
    image = torch.full((8, 96, 112), 0.5)
    cropped = spoil(image.clone(), np.random.default_rng(0), replace(NO_AUGMENTATION, crop_share=1.0))
    assert not cropped[:, 0, 0].any()
    assert (cropped[:, 48, 56] == 0.5).all()


def test_masking_out_blanks_rectangles_only() -> None:
    """The rest of the image stays as it is."""
    image = torch.full((8, 96, 112), 0.5)
    blanked = spoil(image.clone(), np.random.default_rng(0), replace(NO_AUGMENTATION, mask_share=1.0))
    assert ((blanked == 0) | (blanked == 0.5)).all()
    assert 0 < (blanked == 0).float().mean() < 0.05


def test_trabeculae_line_the_cavity_and_leave_the_masks() -> None:
    """Muscle takes blood's place at the cavity's edge, not in its middle; a reader's contour is the same."""
    grid = Grid(128, 128, 1.5)
    fractions = torch.zeros(4, len(STRUCTURES), 128, 128)
    row, col = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    radius = torch.hypot(row - grid.n_rows / 2, col - grid.n_cols / 2)
    blood, muscle = STRUCTURES.index("blood_pool"), STRUCTURES.index("papillary")
    fractions[:, blood] = (radius < 24).float()
    fractions[:, STRUCTURES.index("myocardium")] = ((radius >= 24) & (radius < 32)).float()
    lined = replace(NO_AUGMENTATION, trabeculae_share=1.0)
    found = trabeculate(
        fractions.clone(), np.random.default_rng(0), lined, 2, torch.Generator().manual_seed(0)
    )
    assert torch.equal(labels(found), labels(fractions))
    torch.testing.assert_close(found.sum(1), fractions.sum(1))
    assert found[:, muscle, radius < 12].max().item() == 0.0
    at_edge = found[:, muscle, (radius > 22) & (radius < 24)].mean(1)
    assert at_edge.min().item() > 0.05
    assert torch.equal(found[0], found[1])
    same = trabeculate(
        fractions.clone(), np.random.default_rng(0), NO_AUGMENTATION, 2, torch.Generator().manual_seed(0)
    )
    assert torch.equal(same, fractions)


def test_the_share_of_post_contrast_slices_can_be_chosen() -> None:
    """A network can be trained on native echoes alone."""
    native, post = (
        training_batch(np.random.default_rng(1), 3, GRID, contrast="physics", post_share=share)
        for share in (0.0, 1.0)
    )
    assert torch.equal(native.masks, post.masks)
    assert not torch.equal(native.images, post.images)
