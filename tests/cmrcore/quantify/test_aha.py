"""AHA segments of drawn hearts."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cmrcore.quantify.aha import (
    AHA_NAMES,
    aha_segments,
    present_segments,
    rv_insertions,
    septal,
    slice_orientation,
    stack_orientations,
)
from tests.cmrcore.hearts import PIXELS, drawn_heart

UP = (-1.0, 0.0)
SPACING_MM = (1.5, 1.5)


def segments_of(heart: Tensor, level: str, anterior: tuple[float, float] = UP) -> Tensor:
    """Segment map of a drawn heart."""
    orientation = slice_orientation(heart[0], heart[2], anterior, SPACING_MM)
    assert orientation is not None
    return aha_segments(heart[0], orientation, level, SPACING_MM)


def at(segments: Tensor, clock_deg: float) -> int:
    """Segment in mid-wall at an angle, counted clockwise from image right."""
    row = PIXELS / 2 - 0.5 + 18 * math.sin(math.radians(clock_deg))
    col = PIXELS / 2 - 0.5 + 18 * math.cos(math.radians(clock_deg))
    return int(segments[round(row), round(col)])


def test_insertions_lie_where_the_rv_joins() -> None:
    """60 degrees to either side of mid-septum, the anterior one on top."""
    heart = drawn_heart()
    found = rv_insertions(heart[0], heart[2], UP)
    assert found is not None
    for (row, col), expected_deg in zip(found, (-120, 120), strict=True):
        angle_deg = math.degrees(math.atan2(row - PIXELS / 2 + 0.5, col - PIXELS / 2 + 0.5))
        assert angle_deg == pytest.approx(expected_deg, abs=6)


def test_basal_segments_stand_where_aha_puts_them() -> None:
    """Septum left, anterior on top: anterior wall above, inferior below, lateral right."""
    segments = segments_of(drawn_heart(), "basal")
    found = [at(segments, angle) for angle in (-90, -150, 150, 90, 30, -30)]
    assert [AHA_NAMES[number] for number in found] == [
        "basal anterior",
        "basal anteroseptal",
        "basal inferoseptal",
        "basal inferior",
        "basal inferolateral",
        "basal anterolateral",
    ]


def test_mid_segments_follow_the_basal_ones() -> None:
    """Mid numbers are the basal ones plus six."""
    basal, mid = segments_of(drawn_heart(), "basal"), segments_of(drawn_heart(), "mid")
    inside = basal > 0
    assert torch.equal(mid[inside], basal[inside] + 6)


def test_apical_segments_are_four_quarters() -> None:
    """Septal 14 is centered on the border of the septal segments above."""
    segments = segments_of(drawn_heart(), "apical")
    assert [at(segments, angle) for angle in (-90, 180, 90, 0)] == [13, 14, 15, 16]
    assert [at(segments, angle) for angle in (-140, 140)] == [14, 14]


@pytest.mark.parametrize("level", ["basal", "mid", "apical"])
def test_segments_share_the_ring_evenly(level: str) -> None:
    """Equal angles of a round ring have equal areas, and every pixel belongs to one."""
    heart = drawn_heart()
    segments = segments_of(heart, level)
    assert ((segments > 0) == heart[0]).all()
    numbers = present_segments(segments)
    share = [int((segments == number).sum()) / int(heart[0].sum()) for number in numbers]
    assert share == pytest.approx([1 / len(numbers)] * len(numbers), rel=0.06)


POSES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[float, float]]] = {
    "mirrored": (lambda image: image.flip(-1), (-1.0, 0.0)),
    "upside down": (lambda image: image.flip(-2), (1.0, 0.0)),
    "quarter turn": (lambda image: image.rot90(1, (-2, -1)), (0.0, -1.0)),
    "transposed": (lambda image: image.transpose(-1, -2), (0.0, -1.0)),
}


@pytest.mark.parametrize("level", ["basal", "apical"])
@pytest.mark.parametrize(("move", "anterior"), POSES.values(), ids=POSES.keys())
def test_pose_does_not_matter(
    level: str, move: Callable[[Tensor], Tensor], anterior: tuple[float, float]
) -> None:
    """The same tissue keeps its segment however the image is stored."""
    heart = drawn_heart(septum_deg=171.0)
    moved = segments_of(move(heart).contiguous(), level, anterior)
    expected = move(segments_of(heart, level))
    agree = (moved == expected)[expected > 0].double().mean()
    assert agree > 0.98


def test_oblong_pixels_do_not_bend_the_segments() -> None:
    """Angles are those of the tissue, not of the matrix."""
    heart = drawn_heart()[:, ::2]
    orientation = slice_orientation(heart[0], heart[2], UP, (3.0, 1.5))
    assert orientation is not None
    segments = aha_segments(heart[0], orientation, "basal", (3.0, 1.5))
    expected = segments_of(drawn_heart(), "basal")[::2]
    assert (segments == expected)[expected > 0].double().mean() > 0.93


def test_slice_without_rv_borrows_from_its_neighbor() -> None:
    """The apex often shows no RV; the insertion above still orients it."""
    with_rv, without = drawn_heart(septum_deg=170.0), drawn_heart(with_rv=False)
    stack = torch.stack([with_rv, drawn_heart(septum_deg=200.0), without], dim=1)
    found = stack_orientations(stack[0], stack[2], UP, SPACING_MM)
    assert found[2] == found[1] != found[0]


@pytest.mark.parametrize("mirrored", [False, True], ids=["as it is", "mirrored"])
def test_a_readers_point_turns_the_segments(mirrored: bool) -> None:
    """20 degrees past the insertion of the masks: all segments follow, in a mirrored image as well."""
    heart = torch.stack([drawn_heart(), drawn_heart(), drawn_heart(with_rv=False)], dim=1)
    angle = math.radians(-140)
    middle = PIXELS / 2 - 0.5
    point = [middle + 22 * math.sin(angle), middle + 22 * math.cos(angle)]
    if mirrored:
        heart, point = heart.flip(3), [point[0], PIXELS - 1 - point[1]]
    nowhere = [math.nan, math.nan]
    points = torch.tensor([point, nowhere, nowhere], dtype=torch.float64)
    by_masks = stack_orientations(heart[0], heart[2], UP, SPACING_MM)
    found = stack_orientations(heart[0], heart[2], UP, SPACING_MM, points)
    expected_deg = -40.0 if mirrored else -140.0
    assert found[0] is not None
    assert found[0].insertion_deg == pytest.approx(expected_deg)
    assert found[0].turn == (1 if mirrored else -1)
    assert found[1:] == by_masks[1:]
    on_apex = stack_orientations(heart[0], heart[2], UP, SPACING_MM, points.flip(0))
    assert on_apex == [by_masks[0], by_masks[1], found[0]]


def test_no_rv_anywhere_gives_no_orientation() -> None:
    """A guess would put every segment in a wrong place."""
    heart = drawn_heart(with_rv=False)[:, None]
    assert stack_orientations(heart[0], heart[2], UP, SPACING_MM) == [None]
    assert rv_insertions(heart[0, 0], heart[2, 0], UP) is None


def test_septum_is_its_five_segments() -> None:
    """Septal means are read in 2, 3, 8, 9 and 14."""
    numbers = torch.arange(18, dtype=torch.uint8)
    assert torch.nonzero(septal(numbers)).flatten().tolist() == [2, 3, 8, 9, 14]


def test_every_segment_has_a_name() -> None:
    """16 segments; the apex itself is not on short-axis slices."""
    assert sorted(AHA_NAMES) == list(range(1, 17))
    assert len(set(AHA_NAMES.values())) == 16


@pytest.mark.parametrize("turn_deg", range(0, 360, 40))
def test_borders_stand_where_aha_puts_them_however_the_patient_lies(turn_deg: int) -> None:
    """From the anterior insertion 60 degrees each into the septum; 14 is centered on the border 8 | 9."""
    heart = drawn_heart(septum_deg=180.0 + turn_deg)
    turn = math.radians(turn_deg)
    anterior = (-math.cos(turn), math.sin(turn))
    orientation = slice_orientation(heart[0], heart[2], anterior, SPACING_MM)
    assert orientation is not None
    assert orientation.turn == -1
    assert (orientation.insertion_deg - (turn_deg - 120) + 180) % 360 - 180 == pytest.approx(0, abs=6)
    basal, mid, apical = (segments_of(heart, level, anterior) for level in ("basal", "mid", "apical"))
    for segments, number, start, width in (
        (basal, 2, 0, 60),
        (basal, 3, 60, 60),
        (basal, 1, 300, 60),
        (mid, 8, 0, 60),
        (mid, 9, 60, 60),
        (mid, 7, 300, 60),
        (apical, 14, 15, 90),
        (apical, 15, 105, 90),
        (apical, 13, 285, 90),
    ):
        for past in (start + 5, start + width - 5):
            assert at(segments, orientation.insertion_deg - past) == number
