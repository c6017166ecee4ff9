"""Hearts of the digital trial as a reader would check them: closed, contiguous and of human size."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from cmrcore.phantom.anatomy import (
    STRUCTURES,
    Grid,
    HeartKind,
    View,
    draw_anatomy,
    labels,
    landmarks,
    structure_fractions,
)

KINDS: tuple[HeartKind, ...] = ("normal", "hypertrophied", "amyloid", "dilated", "thin_apex", "small_thick")
GRID = Grid(n_rows=128, n_cols=128, pixel_mm=1.8)
N_SUBJECTS = 6


@pytest.mark.parametrize("phase", [0.0, 1.0], ids=["diastole", "systole"])
@pytest.mark.parametrize("kind", KINDS)
def test_wall_separates_the_ventricles(kind: HeartKind, phase: float) -> None:
    """Below the outflow tract the wall is one closed ring, so blood never meets blood across the septum."""
    rng = np.random.default_rng(3)
    anatomies = [draw_anatomy(rng, kind) for _ in range(N_SUBJECTS)]
    views = [View(along_fraction=0.5, phase_fraction=phase)] * N_SUBJECTS
    for wall, pool, rv in labels(structure_fractions(anatomies, views, GRID)).numpy():
        assert ndimage.label(wall)[1] == 1
        assert ndimage.label(pool)[1] == 1
        assert not (ndimage.binary_dilation(pool, np.ones((3, 3))) & rv).any()
        hole = ndimage.binary_fill_holes(wall) & ~wall
        assert (hole & pool).sum() == pool.sum()


@pytest.mark.parametrize("level", [0.25, 0.4, 0.55, 0.7])
def test_neighboring_slices_show_one_heart(level: float) -> None:
    """A quarter of the step along the axis changes the picture by about a quarter: nothing jumps."""
    anatomy = draw_anatomy(np.random.default_rng(5))
    views = [View(along_fraction=level + step) for step in (0.0, 0.0025, 0.01)]
    still, near, far = structure_fractions([anatomy] * 3, views, GRID)
    small, large = (near - still).abs().sum().item(), (far - still).abs().sum().item()
    assert small > 0
    assert 3 < large / small < 5


def test_images_of_a_batch_do_not_mix() -> None:
    """Drawn together or alone, the image is the same."""
    rng = np.random.default_rng(7)
    anatomies = [draw_anatomy(rng, kind) for kind in KINDS]
    views = [View(0.1 * index, 0.2 * index, (3.0 * index, -5.0), 20.0 * index) for index in range(len(KINDS))]
    together = structure_fractions(anatomies, views, GRID)
    for index, (anatomy, view) in enumerate(zip(anatomies, views, strict=True)):
        alone = structure_fractions([anatomy], [view], GRID)[0]
        torch.testing.assert_close(together[index], alone, atol=1e-5, rtol=0)


def test_uniform_displacement_moves_the_drawing_by_whole_pixels() -> None:
    """The pixel shows the point at its place plus displacement; nothing is resampled."""
    anatomy, view = draw_anatomy(np.random.default_rng(9)), View(along_fraction=0.4)
    still = structure_fractions([anatomy], [view], GRID)
    displacement_mm = torch.tensor([2 * 1.8, -3 * 1.8])[None, :, None, None].expand(1, 2, 128, 128)
    moved = structure_fractions([anatomy], [view], GRID, displacement_mm)
    torch.testing.assert_close(moved[:, :, :-2, 3:], still[:, :, 2:, :-3], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["blood_pool", "myocardium", "rv"])
def test_area_does_not_depend_on_pixel_size(name: str) -> None:
    """Partial volume keeps areas: 2.2 mm pixels hold what 0.6 mm pixels hold."""
    anatomy, view = draw_anatomy(np.random.default_rng(11), "normal"), View(along_fraction=0.3)
    coarse, fine = (
        structure_fractions([anatomy], [view], Grid(n, n, mm))[0, STRUCTURES.index(name)].sum().item() * mm**2
        for n, mm in ((90, 2.2), (330, 0.6))
    )
    assert coarse == pytest.approx(fine, rel=0.03)


def test_insertions_lie_where_the_ventricles_meet() -> None:
    """Within two pixels of both RV and LV wall, anterior above inferior, LV center in the cavity."""
    rng = np.random.default_rng(13)
    anatomies = [draw_anatomy(rng, kind) for kind in KINDS]
    views = [View(along_fraction=0.4)] * len(KINDS)
    masks = labels(structure_fractions(anatomies, views, GRID)).numpy()
    for (wall, pool, rv), points in zip(masks, landmarks(anatomies, views, GRID), strict=True):
        anterior, inferior, center = points.round().long().tolist()
        assert anterior[0] < inferior[0]
        assert pool[tuple(center)]
        for point in (anterior, inferior):
            for mask in (wall, rv):
                assert ndimage.distance_transform_edt(~mask)[tuple(point)] <= 2.5


def test_the_same_seed_draws_the_same_subject() -> None:
    """A trial can be made again to the last bit."""
    assert draw_anatomy(np.random.default_rng(1)) == draw_anatomy(np.random.default_rng(1))
    assert draw_anatomy(np.random.default_rng(1)) != draw_anatomy(np.random.default_rng(2))
