"""Anatomy of the digital trial: one subject in every slice, moment and pose."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, distance_transform_edt, label

from cmrcore.phantom.anatomy import (
    STRUCTURES,
    Anatomy,
    Grid,
    View,
    draw_anatomy,
    labels,
    landmarks,
    remodel,
    structure_fractions,
)
from cmrcore.phantom.heart import HeartKind

GRID = Grid(128, 128, 1.6)
MID = View(0.5)
KINDS: tuple[HeartKind, ...] = ("normal", "hypertrophied", "amyloid", "dilated", "thin_apex", "small_thick")


def subjects(n: int, kind: HeartKind | None = None) -> list[Anatomy]:
    """Draw a few subjects."""
    return [draw_anatomy(np.random.default_rng(seed), kind) for seed in range(n)]


def masks_of(anatomy: Anatomy, view: View, grid: Grid = GRID) -> np.ndarray:
    """Draw one image and label it."""
    return labels(structure_fractions([anatomy], [view], grid))[0].numpy()


def test_the_same_seed_draws_the_same_subject() -> None:
    """A subject is its seed."""
    assert subjects(2) == subjects(2)
    assert subjects(2)[0] != subjects(2)[1]


def test_fractions_are_shares_of_a_pixel_and_every_structure_occurs() -> None:
    """No pixel holds more than itself; nothing declared is missing."""
    people = subjects(24)
    fractions = structure_fractions(people, [MID] * 24, Grid(192, 192, 2.2))
    assert fractions.min() >= 0
    assert fractions.sum(1).max() <= 1 + 1e-5
    absent = [name for name, seen in zip(STRUCTURES, fractions.amax((0, 2, 3)), strict=True) if seen < 0.9]
    assert absent == []


def test_a_batch_equals_its_images_one_by_one() -> None:
    """Neighbors in a batch do not mix."""
    people = subjects(6)
    views = [View(0.1 + 0.12 * index, 0.15 * index, (3.0 * index, -2.0), 5.0 * index) for index in range(6)]
    together = structure_fractions(people, views, GRID)
    for index in range(6):
        alone = structure_fractions([people[index]], [views[index]], GRID)[0]
        torch.testing.assert_close(together[index], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("along", [0.25, 0.5, 0.8])
def test_the_myocardium_is_one_closed_ring_around_one_cavity(kind: HeartKind, along: float) -> None:
    """Blood of the two ventricles touches nowhere."""
    for anatomy in subjects(5, kind):
        myocardium, pool, rv = masks_of(anatomy, View(along), Grid(160, 160, 1.2))
        assert label(myocardium)[1] == 1
        assert label(pool)[1] == 1
        # What surrounds the cavity is the wall.
        assert not (binary_dilation(pool, np.ones((3, 3))) & ~pool & ~myocardium).any()
        assert not (pool & rv).any()


def test_the_wall_opens_towards_the_outflow_tract_at_the_base_only() -> None:
    """At the base many rings are open, below none."""

    def is_closed(anatomy: Anatomy, along: float) -> bool:
        myocardium, pool, _ = masks_of(anatomy, View(along), Grid(160, 160, 1.2))
        return not (binary_dilation(pool, np.ones((3, 3))) & ~pool & ~myocardium).any()

    people = subjects(20, "normal")
    assert sum(is_closed(one, -0.05) for one in people) < 10
    assert all(is_closed(one, 0.25) for one in people)


@pytest.mark.parametrize("kind", KINDS)
def test_the_drawn_wall_is_as_thick_as_the_heart_says(kind: HeartKind) -> None:
    """Thickness measured from the masks is the drawn one."""
    pixel_mm = 0.8
    for anatomy in subjects(3, kind):
        myocardium, pool, _ = masks_of(anatomy, View(0.25), Grid(240, 240, pixel_mm))
        area, inner = (mask.sum() * pixel_mm**2 for mask in (myocardium | pool, pool))
        thickness_mm = math.sqrt(area / math.pi) - math.sqrt(inner / math.pi)
        heart = anatomy.heart
        bulge = 1 + 0.31 * heart.bulge_fraction  # mean of the bulge's bell over the ring
        assert thickness_mm == pytest.approx(heart.wall_mm * bulge, abs=pixel_mm + 0.06 * heart.wall_mm)


def test_systole_shrinks_the_cavity_and_keeps_the_muscle() -> None:
    """The cavity contracts as stated; muscle only shortens along the axis."""
    for anatomy in subjects(6, "normal"):
        relaxed, contracted = (masks_of(anatomy, View(0.5, phase)) for phase in (0.0, 1.0))
        fraction = contracted[1].sum() / relaxed[1].sum()
        assert fraction == pytest.approx((1 - anatomy.heart.contraction_fraction) ** 2, abs=0.06)
        assert contracted[0].sum() / relaxed[0].sum() == pytest.approx(1.15, abs=0.08)


def test_neighboring_levels_look_alike_and_the_apex_closes() -> None:
    """The anatomy is contiguous along the axis and ends."""
    for anatomy in subjects(6):
        levels = [structure_fractions([anatomy], [View(0.3 + step)], GRID) for step in (0.0, 0.01, 0.3)]
        near, far = ((levels[0] - other).abs().mean() for other in levels[1:])
        assert near < 0.25 * far
        # Half a millimeter along the axis moves no border by more than a pixel.
        assert labels(levels[0])[:, 0].logical_xor(labels(levels[1])[:, 0]).float().mean() < 0.01
        assert not masks_of(anatomy, View(1.3))[:2].any()


def test_remodeling_thickens_the_wall_alone() -> None:
    """A later visit has the same cavity in a thicker wall."""
    anatomy = subjects(1, "normal")[0]
    before, after = (masks_of(one, MID, Grid(240, 240, 0.8)) for one in (anatomy, remodel(anatomy, 3.0)))
    np.testing.assert_array_equal(before[1], after[1])
    outer = [math.sqrt((mask[0] | mask[1]).sum() * 0.64 / math.pi) for mask in (before, after)]
    taper = 1 - (1 - anatomy.heart.apical_wall_fraction) * 0.25
    assert outer[1] - outer[0] == pytest.approx(3 * taper, abs=0.4)


def test_pixels_partly_filled_keep_the_area() -> None:
    """Partial volume does not depend on the pixel size."""
    anatomy = subjects(1)[0]
    areas = []
    for pixel_mm in (2.2, 1.1, 0.55):
        n_pixels = round(150 / pixel_mm)
        fractions = structure_fractions([anatomy], [MID], Grid(n_pixels, n_pixels, pixel_mm))
        filled = fractions[0, [STRUCTURES.index("blood_pool"), STRUCTURES.index("papillary")]].sum()
        areas.append(float(filled) * pixel_mm**2)
    assert areas[0] == pytest.approx(areas[2], rel=0.03)
    assert areas[1] == pytest.approx(areas[2], rel=0.01)


def test_a_displaced_image_shows_the_shifted_anatomy() -> None:
    """A pixel shows what lies at its place plus the displacement."""
    anatomy = subjects(1)[0]
    displacement_mm = torch.zeros(1, 2, 128, 128)
    displacement_mm[:, 0] = 3 * GRID.pixel_mm
    moved = structure_fractions([anatomy], [MID], GRID, displacement_mm)
    still = structure_fractions([anatomy], [MID], GRID)
    torch.testing.assert_close(moved[..., :-3, :], still[..., 3:, :], atol=1e-3, rtol=0)


def test_a_turned_and_shifted_view_moves_landmarks_with_the_image() -> None:
    """Landmarks follow the pose."""
    anatomy = subjects(1, "normal")[0]
    view = View(0.5, shift_mm=(6.4, -9.6), turn_deg=90.0)
    upright, turned = (landmarks([anatomy], [one], GRID)[0].numpy() for one in (MID, view))
    middle = (GRID.n_rows - 1) / 2
    # Clockwise by 90 degrees: what was right is below.
    expected = np.stack([upright[:, 1] + 4, 2 * middle - upright[:, 0] - 6], axis=1)
    np.testing.assert_allclose(turned, expected, atol=1e-3)
    pool = masks_of(anatomy, view)[1]
    assert np.linalg.norm(np.argwhere(pool).mean(0) - turned[2]) < 2


@pytest.mark.parametrize("kind", KINDS)
def test_insertions_lie_where_the_right_ventricle_meets_the_left(kind: HeartKind) -> None:
    """Insertions touch the RV and the epicardium, anterior on top."""
    for anatomy in subjects(4, kind):
        myocardium, pool, rv = masks_of(anatomy, MID)
        points = landmarks([anatomy], [MID], GRID)[0]
        near_rv, near_wall = (distance_transform_edt(~mask) for mask in (rv, myocardium | pool))
        for row, col in points[:2].round().int().tolist():
            assert near_rv[row, col] < 3
            assert near_wall[row, col] < 2
        anterior, inferior = points[0], points[1]
        assert anterior[0] < inferior[0]  # anterior is on top
        assert np.linalg.norm(np.argwhere(pool).mean(0) - points[2].numpy()) < 2.5


@pytest.mark.parametrize(
    ("kind", "volume_ml", "mass_g"),
    [
        ("normal", (85, 210), (65, 165)),
        ("amyloid", (60, 175), (120, 330)),
        ("dilated", (180, 400), (80, 230)),
    ],
)
def test_left_ventricles_are_as_large_as_published_ones(
    kind: HeartKind, volume_ml: tuple[int, int], mass_g: tuple[int, int]
) -> None:
    """End-diastolic volume and mass, papillary muscles in the volume (Kawel-Boehm et al. 2020)."""
    grid, levels = Grid(90, 90, 1.6), [0.025 + 0.05 * index for index in range(20)]
    for anatomy in subjects(6, kind):
        masks = labels(structure_fractions([anatomy] * 20, [View(level) for level in levels], grid))
        voxel_ml = grid.pixel_mm**2 * anatomy.heart.length_mm / 20 / 1000
        myocardium_ml, pool_ml = masks[:, :2].sum((0, 2, 3)).mul(voxel_ml).tolist()
        assert volume_ml[0] < pool_ml < volume_ml[1]
        assert mass_g[0] < 1.05 * myocardium_ml < mass_g[1]
