"""Alignment of a slice's echoes, and which alignment is chosen."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cmrcore.registration.align import AlignSettings, SliceAlignment, align_slice
from cmrcore.registration.decide import Candidate, choose
from cmrcore.registration.warp import warp
from cmrcore.relaxation import fit_t1, molli_signal
from tests.cmrcore.hearts import PIXELS, drawn_heart

SETTINGS = AlignSettings(
    method="affine",
    shift_max_mm=30.0,
    turn_max_deg=20.0,
    scale_max_fraction=0.25,
    still_px=0.25,
    r_squared_fall_max=0.0,
    post_dice_min=0.6,
)
TI_MS = torch.tensor([120.0, 200.0, 1020.0, 1100.0, 1920.0, 2000.0, 2820.0, 3720.0])
SPACING_MM = (1.5, 1.5)


def still_echoes(ti_ms: Float[Tensor, " ti"] = TI_MS) -> Float[Tensor, "ti row col"]:
    """Magnitudes of a drawn heart in a body of long T1."""
    heart = drawn_heart()
    t1_star_ms = torch.full(heart.shape[1:], 800.0)
    t1_star_ms[heart[0]], t1_star_ms[heart[1] | heart[2]] = 1000.0, 1500.0
    brightness = torch.full_like(t1_star_ms, 60.0)
    brightness[heart[0]], brightness[heart[1]] = 100.0, 130.0
    return molli_signal(ti_ms, brightness, 1.9 * brightness, t1_star_ms).abs()


def moved(shifts_px: list[tuple[float, float]], ti_ms: Float[Tensor, " ti"] = TI_MS) -> tuple[Tensor, Tensor]:
    """Echoes and masks whose heart moved (down, right) [pixel]."""
    shift = -torch.tensor(shifts_px)[:, :, None, None].expand(-1, -1, PIXELS, PIXELS)
    echoes = warp(still_echoes(ti_ms)[:, None], shift, "cubic")[:, 0].clamp_min(0)
    masks = warp(drawn_heart().float().expand(len(shift), -1, -1, -1), shift)
    return echoes, masks.transpose(0, 1)


def align(
    echoes: Float[Tensor, "ti row col"],
    masks: Float[Tensor, "label ti row col"],
    settings: AlignSettings = SETTINGS,
) -> SliceAlignment:
    """Onto the first echo."""
    return align_slice(echoes, TI_MS, masks, 0, SPACING_MM, "molli", settings, 0.95)


SHIFTS = [(0.0, 0.0), (3.0, 1.0), (0.0, 0.0), (-2.5, 0.0), (4.0, -4.0), (0.1, 0.0), (0.0, 2.0), (1.0, 1.0)]


def test_echoes_that_moved_come_back() -> None:
    """Each by its own way; those that lay still are the same bytes."""
    echoes, masks = moved(SHIFTS)
    aligned = align(echoes, masks)
    assert aligned.method == "affine"
    assert aligned.states == (
        "reference",
        "aligned",
        "still",
        "aligned",
        "aligned",
        "still",
        "aligned",
        "aligned",
    )
    still = [index for index, state in enumerate(aligned.states) if state != "aligned"]
    assert torch.equal(aligned.echoes[still], echoes[still])
    assert aligned.way_mm[4] == pytest.approx(1.5 * 32**0.5, abs=0.1)
    heart = drawn_heart().any(0)
    off = (aligned.echoes - still_echoes())[:, heart].abs().mean(1)
    before = (echoes - still_echoes())[:, heart].abs().mean(1)
    assert bool((off[[1, 3, 4]] < 0.3 * before[[1, 3, 4]]).all())
    none, affine = aligned.candidates
    assert (none.method, affine.method) == ("none", "affine")
    assert affine.r_squared_mean is not None
    assert none.r_squared_mean is not None
    assert affine.r_squared_mean > none.r_squared_mean + 0.05


def test_a_still_series_is_given_back_bit_by_bit() -> None:
    """Alignment cannot make a good series worse."""
    echoes, masks = moved([(0.0, 0.0)] * 8)
    aligned = align(echoes, masks)
    assert aligned.method == "none"
    assert torch.equal(aligned.echoes, echoes)
    assert aligned.states == ("reference", *["still"] * 7)


def test_masks_that_lie_are_not_believed() -> None:
    """Where the images contradict the masks, the slice is left as it is."""
    echoes, _ = moved([(0.0, 0.0)] * 8)
    _, masks = moved(SHIFTS)
    aligned = align(echoes, masks)
    assert aligned.method == "none"
    assert torch.equal(aligned.echoes, echoes)
    assert set(aligned.states) <= {"reference", "contradicted", "still"}
    assert aligned.reference_apart_px < 1
    assert aligned.recovered == 5


def test_masks_that_disagree_with_the_reference_alone_worsen_the_fit() -> None:
    """A wrong mask on the reference would pull all others along, so the slice is left as it is."""
    echoes, masks = moved([(0.0, 0.0)] * 8)
    masks[:, 0] = masks[:, 0].roll(6, -1)
    aligned = align(echoes, masks)
    assert aligned.method == "none"
    assert set(aligned.states[1:]) <= {"contradicted", "not_aligned"}
    assert "not_aligned" in aligned.states
    assert aligned.reference_apart_px == pytest.approx(6, abs=0.1)
    assert aligned.recovered == 0


def test_one_wrong_mask_is_found_out() -> None:
    """The images contradict it, and the other echoes are aligned all the same."""
    echoes, masks = moved(SHIFTS)
    masks[:, 2] = masks[:, 2].roll(5, -1)
    aligned = align(echoes, masks)
    assert aligned.states[2] == "contradicted"
    assert torch.equal(aligned.echoes[2], echoes[2])
    assert [aligned.states[index] for index in (1, 3, 4)] == ["aligned"] * 3


def test_shmolli_is_aligned() -> None:
    """Six echoes that predict the seventh are no ShMOLLI any more."""
    ti_ms = torch.tensor([100.0, 180.0, 260.0, 1100.0, 2100.0, 3100.0, 4100.0])
    echoes, masks = moved(SHIFTS[:7], ti_ms)
    aligned = align_slice(echoes, ti_ms, masks, 0, SPACING_MM, "shmolli", SETTINGS, 0.95)
    assert aligned.method == "affine"
    assert [aligned.states[index] for index in (1, 3, 4, 6)] == ["aligned"] * 4


@pytest.mark.parametrize("method", ["affine", "refined"])
def test_too_few_echoes_confirm_nothing(method: Literal["affine", "refined"]) -> None:
    """Three of four echoes predict no fourth: what the masks say is told, not done."""
    echoes, masks = moved(SHIFTS[:4], TI_MS[::2])
    settings = replace(SETTINGS, method=method)
    aligned = align_slice(echoes, TI_MS[::2], masks, 0, SPACING_MM, "molli", settings, 0.95)
    assert torch.equal(aligned.echoes, echoes)
    assert aligned.states == ("reference", "unconfirmed", "still", "unconfirmed")


def test_a_trial_may_align_nothing() -> None:
    """The same numbers as without this room."""
    echoes, masks = moved(SHIFTS)
    aligned = align(echoes, masks, replace(SETTINGS, method="none"))
    assert torch.equal(aligned.echoes, echoes)
    assert aligned.turn_deg == (None,) * 8


def test_what_cannot_be_aligned_has_a_state_and_the_rest_is_aligned() -> None:
    """An echo without masks stays where it is."""
    echoes, masks = moved(SHIFTS)
    masks[:, 4] = 0
    aligned = align(echoes, masks)
    assert aligned.states[4] == "empty"
    assert aligned.states[1] == "aligned"
    assert aligned.scale[4] is None
    assert torch.equal(aligned.echoes[4], echoes[4])


def test_without_any_mask_nothing_happens() -> None:
    """A slice without guide is fitted as it is."""
    echoes, masks = moved(SHIFTS)
    aligned = align(echoes, torch.zeros_like(masks))
    assert aligned.method == "none"
    assert aligned.states == ("reference_unusable",) * 8
    assert aligned.candidates[0].r_squared_mean is None


def test_an_echo_cut_off_by_the_border_stays_and_the_rest_is_aligned() -> None:
    """The center of an LV that leaves the image is not known."""
    echoes, masks = moved(SHIFTS)
    masks[:, 4] = masks[:, 4].roll(30, -1)
    aligned = align(echoes, masks)
    assert aligned.states[4] == "at_border"
    assert torch.equal(aligned.echoes[4], echoes[4])
    assert [aligned.states[index] for index in (1, 3, 6)] == ["aligned"] * 3


def test_nothing_moves_onto_a_reference_cut_off_by_the_border() -> None:
    """All echoes say why, and are as they were."""
    echoes, masks = moved(SHIFTS)
    masks[:, 0] = masks[:, 0].roll(30, -1)
    aligned = align(echoes, masks)
    assert aligned.states == ("reference_unusable",) * 8
    assert torch.equal(aligned.echoes, echoes)


@pytest.mark.parametrize("method", ["affine", "refined"])
def test_one_usable_echo_aligns_nothing_by_masks(method: Literal["affine", "refined"]) -> None:
    """The reference alone has masks: the others say so, and only the images may move them."""
    echoes, masks = moved(SHIFTS)
    masks[:, 1:] = 0
    aligned = align(echoes, masks, replace(SETTINGS, method=method))
    assert aligned.states[0] == "reference"
    assert torch.equal(aligned.echoes[0], echoes[0])
    left = [index for index, state in enumerate(aligned.states) if state == "empty"]
    assert torch.equal(aligned.echoes[left], echoes[left])
    assert set(aligned.states[1:]) <= ({"empty"} if method == "affine" else {"empty", "aligned"})


def test_masks_that_err_by_half_a_pixel_leave_a_good_series_as_good() -> None:
    """The median T1 of a still heart with noise changes by less than 2 ms."""
    generator = torch.Generator().manual_seed(5)
    still, masks = moved([(0.0, 0.0)] * 8)
    echoes = (still + 1.5 * torch.randn(still.shape, generator=generator)).abs()
    coarse = 0.5 * torch.randn(8, 2, 8, 8, generator=generator)
    field = functional.interpolate(coarse, (PIXELS, PIXELS), mode="bicubic", align_corners=True)
    erring = (warp(masks.transpose(0, 1), field) > 0.5).float().transpose(0, 1)
    wall = drawn_heart()[0]
    before, after = (fit_t1(one[:, wall], TI_MS).t1_ms for one in (echoes, align(echoes, erring).echoes))
    assert abs((after.nanmedian() - before.nanmedian()).item()) < 2


NONE = Candidate("none", 0.90, 0.2, is_plausible=True)


@pytest.mark.parametrize(
    ("candidate", "chosen"),
    [
        (Candidate("affine", 0.89, 0.2, is_plausible=True), 1),
        (Candidate("affine", 0.87, 0.2, is_plausible=True), 0),
        (Candidate("affine", 0.99, 0.0, is_plausible=False), 0),
        (Candidate("refined", 0.91, 0.1, is_plausible=True), 0),
        (Candidate("refined", 0.93, 0.1, is_plausible=True), 1),
    ],
    ids=["masks are believed", "not against the fit", "never a fold", "images must convince", "by a margin"],
)
def test_choice_follows_its_rule(candidate: Candidate, chosen: int) -> None:
    """Simplest first, folds never."""
    assert choose([NONE, candidate], 0.02) == chosen
