"""The carried guide as the first segmenter."""

import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.segmentation import Segmenter, carry_guide
from tests.cmrcore.hearts import drawn_heart


def test_every_echo_gets_the_guide() -> None:
    """Full consistency, through the interface that models fill too."""
    segment: Segmenter = carry_guide
    guide = drawn_heart()
    found = segment(torch.rand(5, *guide.shape[1:]), guide, alpha=0.25)
    assert found.masks.shape == (3, 5, *guide.shape[1:])
    assert all(torch.equal(found.masks[:, echo], guide) for echo in range(5))


def test_masks_are_independent_of_the_guide() -> None:
    """Whoever edits one echo's mask must not edit the guide."""
    guide = drawn_heart()
    found = carry_guide(torch.rand(2, *guide.shape[1:]), guide, alpha=0.25)
    found.masks[:, 0] = False
    assert guide.any()
    assert found.masks[:, 1].any()


def test_confidence_is_the_contrast_of_the_echo() -> None:
    """1 where blood and muscle are told apart, either way round; 0 where they look alike."""
    guide = drawn_heart()
    bright_blood = 100 * guide[1].float()
    bright_muscle = 100 * guide[0].float()
    flat = torch.ones_like(bright_blood)
    found = carry_guide(torch.stack([bright_blood, bright_muscle, flat]), guide, alpha=0.25)
    assert found.confidence.tolist() == pytest.approx([1, 1, 0])


def test_confidence_is_a_rank_statistic() -> None:
    """Random intensities give the Mann-Whitney value near 0, not a contrast of means."""
    guide = drawn_heart()
    noise = torch.rand(1, *guide.shape[1:], generator=torch.Generator().manual_seed(0))
    assert carry_guide(noise, guide, alpha=0.25).confidence.item() < 0.1


def test_no_blood_pool_means_no_confidence() -> None:
    """With nothing to compare, nothing can be said."""
    guide = drawn_heart()
    guide[1] = False
    assert carry_guide(torch.rand(1, *guide.shape[1:]), guide, alpha=0.25).confidence.item() == 0


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_outside_its_range_is_refused(alpha: float) -> None:
    """A percent value would otherwise pass unseen."""
    with pytest.raises(InvalidInputError, match="expected 0-1"):
        carry_guide(torch.rand(1, 96, 96), drawn_heart(), alpha=alpha)
