"""Plausibility of guiding masks."""

import torch

from cmrcore.segmentation import check_guide, complete_guide
from tests.cmrcore.hearts import PIXELS, drawn_heart


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
