"""Post-contrast slices on native pixels."""

from dataclasses import replace

import pytest
import torch

from cmrcore.registration.align import align_slice
from cmrcore.registration.post import PostAlignment, align_post, fit_post
from cmrcore.registration.warp import inverse, pixel_positions, warp
from cmrcore.relaxation import fit_t1
from tests.cmrcore.hearts import PIXELS, drawn_heart
from tests.cmrcore.registration.test_align import SETTINGS, SPACING_MM, TI_MS, moved, still_echoes

SAME = (still_echoes()[-1], still_echoes()[-1])


def test_a_heart_that_lies_elsewhere_is_brought_back() -> None:
    """Its T1 comes to lie on the native myocardium, from echoes resampled once."""
    echoes, masks = moved([(3.0, -2.0)] * 8)
    post_masks = masks[:, 0] > 0.5
    aligned = align_slice(echoes, TI_MS, masks, 0, SPACING_MM, "molli", SETTINGS, 0.95)
    onto = align_post(drawn_heart(), post_masks, (still_echoes()[-1], echoes[-1]), SPACING_MM, SETTINGS)
    assert onto.state == "aligned"
    assert onto.refused_px == 0
    assert onto.way_mm == pytest.approx(1.5 * 13**0.5, abs=0.1)
    assert onto.dice is not None
    assert onto.dice > 0.97
    wall = drawn_heart()[0]
    t1_ms = fit_post(echoes, TI_MS, aligned, onto, "molli").t1_ms
    assert t1_ms[wall].nanmedian().item() == pytest.approx(900, abs=5)
    assert bool(t1_ms.isfinite().all())


def test_both_displacements_are_chained_in_their_order() -> None:
    """Of echoes that grew and shrank, and a heart that lies elsewhere; the other order gives 0.81."""
    echoes, masks = moved([(0.0, 0.0)] * 8)
    still = align_slice(echoes, TI_MS, masks, 0, SPACING_MM, "molli", SETTINGS, 0.95)
    at = pixel_positions((PIXELS, PIXELS)) - PIXELS / 2
    growth = torch.tensor([0.0, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0.1])
    echo_px = growth[:, None, None, None] * at
    onto_px = torch.tensor([6.0, -8.0])[:, None, None].expand(2, PIXELS, PIXELS)
    elsewhere = warp(echoes[:, None], -onto_px.expand(8, -1, -1, -1), "cubic")
    grown = warp(elsewhere, inverse(echo_px), "cubic")[:, 0].clamp_min(0)
    onto = PostAlignment(onto_px, "aligned", 0.0, None, None, drawn_heart()[0])
    t1_ms = fit_post(grown, TI_MS, replace(still, displacement_px=echo_px), onto, "molli").t1_ms
    wall = drawn_heart()[0]
    off_ms = (t1_ms - fit_t1(echoes, TI_MS).t1_ms)[wall].abs()
    assert (off_ms < 50).float().mean().item() > 0.95


def test_another_place_of_the_heart_shows_in_the_overlap() -> None:
    """No affine map makes a thick wall thin; empty masks overlap with nothing."""
    thin = drawn_heart(inner=20.0)
    onto = align_post(drawn_heart(), thin, SAME, SPACING_MM, SETTINGS)
    assert onto.dice is not None
    assert onto.dice < SETTINGS.post_dice_min
    nothing = align_post(drawn_heart(), torch.zeros_like(thin), SAME, SPACING_MM, SETTINGS)
    assert nothing.state == "empty"
    assert nothing.dice == 0.0


def test_a_slice_that_lies_still_or_may_not_be_moved_is_not() -> None:
    """Nothing is resampled then."""
    echoes, masks = moved([(3.0, -2.0)] * 8)
    assert not align_post(drawn_heart(), drawn_heart(), SAME, SPACING_MM, SETTINGS).moves
    post_masks, images = masks[:, 0] > 0.5, (still_echoes()[-1], echoes[-1])
    assert not align_post(
        drawn_heart(), post_masks, images, SPACING_MM, replace(SETTINGS, method="none")
    ).moves


def test_images_contradict_a_wrong_mask() -> None:
    """A post-contrast guide at another place than the heart moves nothing."""
    _, masks = moved([(3.0, -2.0)] * 8)
    onto = align_post(drawn_heart(), masks[:, 0] > 0.5, SAME, SPACING_MM, SETTINGS)
    assert onto.state == "contradicted"
    assert onto.refused_px == pytest.approx(13**0.5, abs=0.1)
    assert not onto.moves
