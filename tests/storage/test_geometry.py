"""Geometry of slices."""

import numpy as np
import pytest

from storage.geometry import (
    anterior_direction,
    base_to_apex,
    is_orthonormal,
    levels,
    positions_along_normal,
    slice_normal,
    split_orientations,
    split_slices,
)
from tests.storage.drawn_uploads import ORIENTATION

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def test_the_normal_is_right_handed() -> None:
    """Its sign decides where the base is."""
    assert np.allclose(slice_normal(AXIAL), (0, 0, 1))
    assert np.allclose(slice_normal(ORIENTATION) @ np.reshape(ORIENTATION, (2, 3)).T, 0)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        pytest.param(AXIAL, True, id="axial"),
        pytest.param(ORIENTATION, True, id="oblique"),
        pytest.param((1.0, 0.0, 0.0, 1.0, 0.0, 0.0), False, id="parallel"),
        pytest.param((2.0, 0.0, 0.0, 0.0, 1.0, 0.0), False, id="long"),
    ],
)
def test_a_pair_of_directions_is_checked(orientation: tuple[float, ...], expected: bool) -> None:
    """A broken header must not become a geometry."""
    assert is_orthonormal(orientation) is expected


def test_the_base_lies_right_posterior_and_superior() -> None:
    """Seen on axial slices the superior end is the base, whichever way the slices are numbered."""
    assert base_to_apex([0.0, 20.0, 10.0], AXIAL) == [1, 2, 0]
    upside_down = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    along = positions_along_normal([(0, 0, 0), (0, 0, 20), (0, 0, 10)], upside_down)
    assert base_to_apex(along.tolist(), upside_down) == [1, 2, 0]


@pytest.mark.parametrize(
    ("n_slices", "expected"),
    [
        (1, ["mid"]),
        (2, ["basal", "apical"]),
        (3, ["basal", "mid", "apical"]),
        (5, ["basal", "basal", "mid", "apical", "apical"]),
        (6, ["basal", "basal", "mid", "mid", "apical", "apical"]),
    ],
)
def test_levels_are_thirds_of_the_stack(n_slices: int, expected: list[str]) -> None:
    """Every number of slices has its levels."""
    assert list(levels(n_slices)) == expected


def test_anterior_points_up_in_an_axial_image() -> None:
    """Rows run from anterior to posterior there."""
    assert anterior_direction(AXIAL) == pytest.approx((-1.0, 0.0))


def test_anterior_turns_with_the_image() -> None:
    """In an image turned by 90 degrees the anterior lies to its side."""
    assert anterior_direction((0.0, 1.0, 0.0, -1.0, 0.0, 0.0)) == pytest.approx((0.0, -1.0))


def test_images_are_split_by_orientation_within_a_tolerance() -> None:
    """Rounding in a header makes no other orientation."""
    rounded = tuple(value + 5e-4 for value in ORIENTATION)
    tilted = tuple(value + 5e-3 for value in ORIENTATION)
    assert split_orientations([ORIENTATION, tilted, rounded, tilted]) == [[0, 2], [1, 3]]
    assert split_orientations([]) == []


def test_images_are_split_into_slices_by_place_along_the_normal() -> None:
    """From base to apex; a slice reaches no further than the tolerance from its first image."""
    positions = [(50.0, 0.0, 20.9), (0.0, 70.0, 0.0), (3.0, 0.0, 20.0), (0.0, 0.0, 40.0)]
    assert split_slices(positions, AXIAL, 1.0) == [[3], [2, 0], [1]]
