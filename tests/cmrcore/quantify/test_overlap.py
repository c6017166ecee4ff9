"""Agreement of masks."""

import pytest
import torch

from cmrcore.quantify.overlap import dice, displacement_mm, edge_distances_mm
from tests.cmrcore.hearts import drawn_heart

RING = drawn_heart()[0]
EMPTY = torch.zeros_like(RING)


def test_dice_counts_shared_pixels_twice() -> None:
    """1 for the same mask, 0 for disjoint ones, 2/3 for a half of a whole."""
    square = torch.zeros(8, 8, dtype=torch.bool)
    square[:4] = True
    assert dice(RING, RING) == 1
    assert dice(RING, EMPTY) == 0
    assert dice(square, torch.ones_like(square)) == pytest.approx(2 / 3)


def test_dice_of_nothing_is_nothing() -> None:
    """Two empty masks agree on no heart at all."""
    assert dice(EMPTY, EMPTY) is None


def test_displacement_is_in_mm() -> None:
    """3 rows and 4 columns of 2 mm are 10 mm."""
    assert displacement_mm(RING.roll((3, 4), (0, 1)), RING, (2.0, 2.0)) == pytest.approx(10)
    assert displacement_mm(EMPTY, RING, (2.0, 2.0)) is None


def test_edge_distances_are_in_mm() -> None:
    """A square moved by two columns of 1.5 mm: its far ends are 3 mm apart, its long sides less."""
    square = torch.zeros(20, 20, dtype=torch.bool)
    square[5:12, 5:12] = True
    found = edge_distances_mm(square.roll(2, 1), square, (2.0, 1.5))
    assert found is not None
    hausdorff_mm, mean_mm = found
    assert hausdorff_mm == pytest.approx(3.0)
    # Of 24 edge pixels a side of 7 is 3 mm off, one of 5 too, and its neighbors less.
    assert 1.0 < mean_mm < 2.0
    assert edge_distances_mm(square, square, (2.0, 1.5)) == (0, 0)


def test_one_stray_pixel_makes_the_hausdorff_distance() -> None:
    """It is the largest distance, whichever mask it starts from."""
    stray = RING.clone()
    stray[2, 48] = True
    top = int(torch.nonzero(RING[:, 48])[0])
    for masks in ((stray, RING), (RING, stray)):
        found = edge_distances_mm(*masks, (1.0, 1.0))
        assert found is not None
        assert found[0] == pytest.approx(top - 2, abs=0.1)
        assert found[1] < 0.2


def test_edges_of_nothing_have_no_distance() -> None:
    """Neither mask may be empty."""
    assert edge_distances_mm(EMPTY, RING, (1.0, 1.0)) is None
    assert edge_distances_mm(RING, EMPTY, (1.0, 1.0)) is None
