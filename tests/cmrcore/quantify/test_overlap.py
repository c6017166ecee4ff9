"""Agreement of masks."""

import pytest
import torch

from cmrcore.quantify.overlap import dice, displacement_mm
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
