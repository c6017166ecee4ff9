"""The guide carried across visits, on drawn hearts whose place at the later visit is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.dice import dice_coefficients
from cmrcore.segmentation import EarlierGuides, Guide, Lent, Planes, guide_from_earlier
from tests.cmrcore.hearts import drawn_heart

LENT = (Lent(0, "reader", 0.9), Lent(1, "reader", 0.8), Lent(2, "reader", 0.7))
AXIAL = Planes(
    positions_mm=((0.0, 0.0, 60.0), (0.0, 0.0, 30.0), (0.0, 0.0, 0.0)),
    orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    spacing_mm=(1.5, 1.5),
)
"""Where the slices of the earlier visit lie."""


def own_guide(masks: Bool[Tensor, "label row col"]) -> Guide:
    """Guide that a network found on the third echo."""
    return Guide(masks, 2, "model", 0.5, ("the wall is thin",), ("echo 0: the ring is open",))


def image_of(masks: Bool[Tensor, "label row col"]) -> Float[Tensor, "row col"]:
    """Bright blood in a gray wall, so that the image bears a guide out."""
    image: Tensor = masks[0] * 100.0 + (masks[1] | masks[2]) * 200.0
    return image


def carry(
    own: Bool[Tensor, "label row col"],
    earlier: Bool[Tensor, "label from_row from_col"],
    planes: Planes = AXIAL,
    index: int = 1,
) -> Guide:
    """Carry the guide of a visit whose three slices look alike."""
    guides = EarlierGuides(earlier[:, None].expand(-1, 3, -1, -1), LENT, AXIAL)
    return guide_from_earlier(own_guide(own), image_of(own), planes, index, guides)


def shifted(masks: Bool[Tensor, "label row col"], rows: int, cols: int) -> Bool[Tensor, "label row col"]:
    """Masks moved down and to the right."""
    return masks.roll((rows, cols), (1, 2))


def test_a_guide_follows_a_patient_who_lies_elsewhere() -> None:
    """Moved by twelve pixels and turned by 20 degrees: the earlier wall lies where the heart is now."""
    earlier = drawn_heart(inner=13.0)
    expected = shifted(drawn_heart(septum_deg=200.0, inner=13.0), 12, -7)
    guide = carry(shifted(drawn_heart(septum_deg=200.0, inner=15.0), 12, -7), earlier)
    assert guide.origin == "baseline"
    assert guide.lent == LENT[1]
    assert (guide.echo, guide.findings, guide.not_carried) == (2, (), None)
    assert guide.rejected == ()
    for found, wanted in zip(guide.masks, expected, strict=True):
        assert float(dice_coefficients(found, wanted)) > 0.95
    # Of the earlier wall, what lies in today's blood looks like blood.
    assert guide.score == pytest.approx(1 - (15**2 - 13**2) / (22**2 - 13**2), abs=0.03)


@pytest.mark.parametrize("view", ["mirrored", "transposed", "turned by a quarter"])
def test_a_mirrored_or_turned_image_changes_nothing(view: str) -> None:
    """The planes say how rows and columns run, so the guide is mirrored with the image."""
    heart = drawn_heart(septum_deg=160.0, inner=13.0)
    turned, orientation = {
        "mirrored": (heart.flip(2), (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
        "transposed": (heart.transpose(1, 2), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0)),
        "turned by a quarter": (heart.rot90(1, (1, 2)), (0.0, 1.0, 0.0, -1.0, 0.0, 0.0)),
    }[view]
    guide = carry(turned, heart, replace(AXIAL, orientation=orientation))
    assert guide.origin == "baseline"
    for found, wanted in zip(guide.masks, turned, strict=True):
        assert float(dice_coefficients(found, wanted)) > 0.97


def test_pixels_of_another_size_show_the_same_heart() -> None:
    """Pixels of 1.5 mm become pixels of 1.0 by 1.2 mm: the carried wall keeps its area in mm2."""
    earlier = drawn_heart(inner=9.0, outer=14.0)
    rows, cols = np.indices((144, 120))
    down_mm, right_mm = (rows - 71.5) * 1.0, (cols - 59.5) * 1.2
    radius = torch.from_numpy(np.hypot(down_mm, right_mm))
    rv = torch.from_numpy(np.hypot(down_mm, right_mm + 18.0)) < 19.5
    own = torch.stack([(radius >= 13.5) & (radius < 21), radius < 13.5, rv & (radius >= 21)])
    guide = carry(own, earlier, replace(AXIAL, spacing_mm=(1.0, 1.2)))
    assert guide.origin == "baseline"
    area_mm2 = float(guide.masks[0].sum()) * 1.2
    assert area_mm2 == pytest.approx(math.pi * (21**2 - 13.5**2), rel=0.03)


def test_slices_are_paired_by_their_place_in_the_stack() -> None:
    """A table that moved and a stack that runs the other way: the slice near the apex stays there."""
    heart = drawn_heart()
    moved = tuple((x + 40, y - 9, z + 210) for x, y, z in AXIAL.positions_mm)
    assert carry(heart, heart, replace(AXIAL, positions_mm=moved), 2).lent == LENT[2]
    flipped = replace(AXIAL, orientation=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0), positions_mm=moved)
    assert carry(heart.flip(1), heart, flipped, 2).lent == LENT[2]


def test_a_readers_guide_stays() -> None:
    """What a reader drew at this very visit is worth more than what was seen at another."""
    drawn = replace(own_guide(drawn_heart()), origin="reader")
    guides = EarlierGuides(drawn_heart()[:, None], LENT[:1], AXIAL)
    assert guide_from_earlier(drawn, image_of(drawn.masks), AXIAL, 0, guides) is drawn


@pytest.mark.parametrize(
    ("earlier", "planes", "why"),
    [
        (drawn_heart(inner=25.0, outer=35.0), AXIAL, "covers the own one by 0.5"),
        (drawn_heart(septum_deg=90.0), AXIAL, "its RV lies turned by 90 degrees, expected at most 40"),
        (
            drawn_heart(),
            replace(AXIAL, orientation=(1.0, 0.0, 0.0, 0.0, 0.0, 1.0)),
            "its slices are tilted by 90 degrees, expected at most 30",
        ),
        (
            drawn_heart(),
            replace(AXIAL, positions_mm=((0.0, 0.0, 45.0), (0.0, 0.0, 30.0), (0.0, 0.0, 0.0))),
            "its slices lie elsewhere in the stack, the nearest one 7.5 mm off, expected at most 5 mm",
        ),
        (drawn_heart(inner=21.0), AXIAL, "aligned, wall 1"),
    ],
    ids=["another size", "another turn", "another plane", "another place", "a wall of a pixel"],
)
def test_an_implausible_guide_is_not_carried(
    earlier: Bool[Tensor, "label row col"], planes: Planes, why: str
) -> None:
    """The own guide stays with all it says, and with the reason."""
    own = drawn_heart()
    guide = carry(own, earlier, planes)
    assert guide.not_carried is not None
    assert why in guide.not_carried
    assert replace(guide, not_carried=None, masks=own) == replace(own_guide(own), masks=own)


def test_a_series_or_slice_without_a_sound_guide_lends_none() -> None:
    """The baseline has no post-contrast series, or its own guide there failed a check."""
    own, image = own_guide(drawn_heart()), image_of(drawn_heart())
    assert guide_from_earlier(own, image, AXIAL, 1, None).not_carried == "it has none for this series"
    doubted = EarlierGuides(drawn_heart()[:, None].expand(-1, 3, -1, -1), (LENT[0], None, LENT[2]), AXIAL)
    guide = guide_from_earlier(own, image, AXIAL, 1, doubted)
    assert guide.not_carried == "its slice 1 has no guide that passed its checks"
    assert torch.equal(guide.masks, own.masks)


def test_without_an_rv_only_the_planes_turn_a_guide() -> None:
    """An apical slice shows none; its ring looks the same from all sides."""
    heart = drawn_heart(with_rv=False)
    guide = carry(shifted(heart, -3, 4), heart)
    assert guide.origin == "baseline"
    assert not bool(guide.masks[2].any())
    assert float(dice_coefficients(guide.masks[0], shifted(heart, -3, 4)[0])) > 0.97


def test_a_later_heart_without_a_wall_takes_no_guide() -> None:
    """There is nothing to lay the earlier one onto."""
    own = drawn_heart()
    own[0] = False
    assert carry(own, drawn_heart()).not_carried == "the own guide has no myocardium"
