"""Tests of the consistency-parametrized loss on drawn masks."""

import pytest
import torch

from cmrcore.segmentation.guided import guided_loss, overlap_loss, shift_guide


def square(row: int, col: int, side: int = 8) -> torch.Tensor:
    """Draw a square with its corner at a place."""
    mask = torch.zeros(1, 40, 40)
    mask[0, row : row + side, col : col + side] = 1.0
    return mask


TRUTH, GUIDE = square(12, 20), square(16, 12)
"""The guide's center lies 4 rows below and 8 columns left of the truth's."""


@pytest.mark.parametrize(
    ("alpha", "row", "col"), [(0.0, 12, 20), (0.25, 13, 18), (0.5, 14, 16), (1.0, 16, 12)], ids=str
)
def test_the_guide_moves_by_what_alpha_leaves(alpha: float, row: int, col: int) -> None:
    """All the way to the truth at alpha 0, three quarters at 0.25, not at all at 1."""
    shifted = shift_guide(GUIDE, TRUTH, torch.tensor([1 - alpha]))
    torch.testing.assert_close(shifted, square(row, col), atol=1e-5, rtol=0)


def test_a_part_of_a_pixel_is_interpolated() -> None:
    """Half a pixel of shift leaves the center half a pixel away and the mass as it was."""
    shifted = shift_guide(square(10, 10), square(11, 10), torch.tensor([0.5]))
    assert shifted.sum().item() == pytest.approx(64.0, abs=1e-3)
    assert shifted[0, 10, 12].item() == pytest.approx(0.5, abs=1e-4)
    assert shifted[0, 18, 12].item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("empty", ["guide", "truth"])
def test_nothing_moves_without_a_counterpart(empty: str) -> None:
    """An empty mask has no center to move from or to."""
    nothing = torch.zeros(1, 40, 40)
    guide, truth = (nothing, TRUTH) if empty == "guide" else (GUIDE, nothing)
    torch.testing.assert_close(shift_guide(guide, truth, torch.tensor([1.0])), guide)


def test_overlap_loss_is_the_mean_of_cross_entropy_and_dice() -> None:
    """Computed by hand: logits 0 are probability 1/2 everywhere."""
    found = overlap_loss(torch.zeros(1, 40, 40), TRUTH).item()
    dice = (2 * 0.5 * 64 + 1) / (0.5 * 1600 + 64 + 1)
    assert found == pytest.approx((0.6931472 + 1 - dice) / 2, abs=1e-5)


def test_alpha_zero_is_the_plain_loss() -> None:
    """At alpha 0 the guide says nothing."""
    logits = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(0))
    plain = overlap_loss(logits, TRUTH)
    torch.testing.assert_close(guided_loss(logits, TRUTH, GUIDE, torch.zeros(1)), plain)


def test_alpha_one_is_the_loss_against_the_guide() -> None:
    """At alpha 1 the truth says nothing, and the guide stays where it is."""
    logits = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(0))
    against_guide = overlap_loss(logits, GUIDE)
    torch.testing.assert_close(guided_loss(logits, TRUTH, GUIDE, torch.ones(1)), against_guide)


@pytest.mark.parametrize("target", ["scaled", "whole"])
def test_alpha_a_quarter_weighs_both(target: str) -> None:
    """Equation 1 by hand; the moved guide is scaled by alpha when it is written literally."""
    logits = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(0))
    moved = square(13, 18) * (0.25 if target == "scaled" else 1.0)
    expected = 0.75 * overlap_loss(logits, TRUTH) + 0.25 * overlap_loss(logits, moved)
    found = guided_loss(logits, TRUTH, GUIDE, torch.tensor([0.25]), target=target)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_each_image_has_its_own_alpha() -> None:
    """Alpha is drawn per slice in training."""
    logits = torch.randn(2, 40, 40, generator=torch.Generator().manual_seed(0))
    both = guided_loss(logits, TRUTH.expand(2, -1, -1), GUIDE.expand(2, -1, -1), torch.tensor([0.0, 1.0]))
    assert both[0] == overlap_loss(logits[:1], TRUTH)[0]
    torch.testing.assert_close(both[1], overlap_loss(logits[1:], GUIDE)[0])


def test_the_loss_falls_along_its_gradient() -> None:
    """It can be learned from."""
    logits = torch.zeros(1, 40, 40, requires_grad=True)
    alpha = torch.tensor([0.25])
    before = guided_loss(logits, TRUTH, GUIDE, alpha).sum()
    before.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    assert logits.grad is not None
    after = guided_loss(logits.detach() - 10 * logits.grad, TRUTH, GUIDE, alpha).sum()
    assert after.item() < before.item()
