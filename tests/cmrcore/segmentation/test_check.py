"""Plausibility of guiding masks."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from cmrcore.segmentation import GuideLimits, check_guide, complete_guide, inspect_guide
from cmrcore.segmentation.check import separation
from tests.cmrcore.hearts import PIXELS, drawn_heart

SPACING_MM = (1.5, 1.5)
LIMITS = GuideLimits()


def image(blood: float = 2.0) -> Float[Tensor, "row col"]:
    """Drawn heart as it looks with bright blood, with noise."""
    heart = drawn_heart()
    noise = torch.randn(heart.shape[1:], generator=torch.Generator().manual_seed(0))
    return 5 + heart[0] + blood * heart[1:].any(0) + 0.1 * noise


def test_a_drawn_heart_is_plausible() -> None:
    """A closed ring with its cavity and RV passes."""
    assert check_guide(drawn_heart()) == []


def test_blood_pool_may_be_missing() -> None:
    """Many readers draw the myocardium only."""
    heart = drawn_heart()
    heart[1] = False
    assert check_guide(heart) == []


def test_empty_myocardium_is_named() -> None:
    """Nothing else can be said about a mask that is not there."""
    heart = drawn_heart()
    heart[0] = False
    assert check_guide(heart) == ["the myocardium is empty"]


def test_open_ring_is_named() -> None:
    """A C-shaped myocardium has no cavity to measure blood in."""
    heart = drawn_heart()
    heart[0, PIXELS // 2 - 3 : PIXELS // 2 + 3, PIXELS // 2 :] = False
    assert check_guide(heart) == ["the myocardium does not enclose a cavity"]


def test_stray_pixels_are_counted() -> None:
    """A slip of the pen would move the LV's center."""
    heart = drawn_heart()
    heart[0, 2, 2] = True
    assert check_guide(heart) == ["the myocardium has 2 separate pieces"]


def test_overlap_is_named() -> None:
    """A pixel cannot be muscle and blood."""
    heart = drawn_heart()
    heart[1] |= heart[0]
    n_shared = int(heart[0].sum())
    assert check_guide(heart) == [f"myocardium and blood pool share {n_shared} pixels"]


def test_missing_blood_pool_becomes_the_cavity() -> None:
    """What the ring encloses is blood."""
    heart = drawn_heart()
    without = heart.clone()
    without[1] = False
    assert torch.equal(complete_guide(without), heart)


def test_drawn_blood_pool_is_kept() -> None:
    """A reader who left papillary muscles out meant it."""
    heart = drawn_heart()
    heart[1, : PIXELS // 2] = False
    assert torch.equal(complete_guide(heart), heart)


def test_a_drawn_heart_is_not_doubted() -> None:
    """Size, place and contrast are as they should be."""
    assert inspect_guide(drawn_heart(), image(), SPACING_MM, LIMITS) == []


@pytest.mark.parametrize(
    ("limits", "finding"),
    [
        pytest.param(
            replace(LIMITS, thickness_min_mm=12.5),
            "wall 12.1 mm thick on average, expected 12.5 to 25 mm",
            id="thin",
        ),
        pytest.param(
            replace(LIMITS, thickness_max_mm=12.0),
            "wall 12.1 mm thick on average, expected 3 to 12 mm",
            id="thick",
        ),
        pytest.param(
            replace(LIMITS, gap_mm=15.0),
            "wall under 15 mm or a pixel along 100% of the endocardium, expected at most 20%",
            id="gap",
        ),
        pytest.param(
            replace(LIMITS, area_min_mm2=4000.0),
            "3438 mm2 within the epicardium, expected 4000 to 9000 mm2",
            id="small",
        ),
        pytest.param(
            replace(LIMITS, area_max_mm2=3000.0),
            "3438 mm2 within the epicardium, expected 300 to 3000 mm2",
            id="large",
        ),
    ],
)
def test_each_check_fails_alone(limits: GuideLimits, finding: str) -> None:
    """One reason, one finding, with what was found and what was expected."""
    assert inspect_guide(drawn_heart(), image(), SPACING_MM, limits) == [finding]


def test_wall_that_looks_like_blood_is_doubted() -> None:
    """Near blood's or muscle's null point nothing says where the border is."""
    (finding,) = inspect_guide(drawn_heart(), image(blood=1.0), SPACING_MM, LIMITS)
    assert finding.startswith("wall and blood separated by 0.0")
    assert finding.endswith("expected at least 0.4")


def test_a_wall_of_one_pixel_is_a_gap() -> None:
    """Contours close a ring that is open towards the outflow tract; that is no muscle."""
    heart = drawn_heart()
    outside = torch.arange(PIXELS)[:, None] > PIXELS // 2 + 8
    heart[0] &= ~outside
    edge = outside & (torch.nn.functional.max_pool2d(heart[1][None].float(), 3, 1, 1)[0] > 0) & ~heart[1]
    heart[0] |= edge
    assert check_guide(heart) == []
    (finding,) = inspect_guide(heart, image(), SPACING_MM, LIMITS)
    assert finding.startswith("wall under 2 mm or a pixel along")


def test_a_heart_at_the_edge_is_doubted() -> None:
    """The rest of the wall is beyond it."""
    heart, seen = drawn_heart(with_rv=False), image()
    assert inspect_guide(heart[:, :, 25:], seen[:, 25:], SPACING_MM, LIMITS) == []
    findings = inspect_guide(heart[:, :, 26:], seen[:, 26:], SPACING_MM, LIMITS)
    assert findings == ["the myocardium is cut off by the image's edge"]


def test_a_heart_far_off_center_is_doubted() -> None:
    """Whoever planned the scan put the heart in the middle."""
    limits = replace(LIMITS, margin_fraction=0.35)
    findings = inspect_guide(drawn_heart()[:, :, 25:], image()[:, 25:], SPACING_MM, limits)
    assert findings == ["center 32% of the image from its edge, expected at least 35%"]


def test_an_unusable_guide_is_not_measured() -> None:
    """An open ring has no thickness."""
    heart = drawn_heart()
    heart[0, PIXELS // 2 - 3 : PIXELS // 2 + 3, PIXELS // 2 :] = False
    assert inspect_guide(heart, image(), SPACING_MM, LIMITS) == check_guide(heart) != []


@given(shift=st.floats(-5.0, 5.0), scale=st.floats(0.1, 10.0))
def test_separation_knows_no_scale(shift: float, scale: float) -> None:
    """Magnitudes have no unit."""
    wall, blood = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 5.0, 6.0, 7.0])
    expected = 2 * 11 / 12 - 1
    assert separation(wall, blood) == pytest.approx(expected)
    assert separation(shift - scale * wall, shift - scale * blood) == pytest.approx(expected)
    assert separation(wall, blood[:0]) == 0
