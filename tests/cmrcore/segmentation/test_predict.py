"""From a guide to masks on every echo: carried, read by a network with the guide, or without one."""

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.segmentation import (
    EchoMasks,
    GuidedSegmenter,
    Segmenter,
    UNet,
    base_probability,
    carry_guide,
)
from cmrcore.segmentation.frame import Frame
from tests.cmrcore.hearts import drawn_heart, guide_of

SPACING_MM = (1.5, 1.5)
SURE = 12.0
"""Logit of a network that has no doubt."""


class Copyist(UNet):
    """Answers with the guide it sees, in every label; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(guided=True, widths=(4, 4))
        self.eval()
        self.seen: list[Tensor] = []

    def forward(
        self, image: Float[Tensor, "n row col"], scaled_guide: Float[Tensor, "n row col"] | None = None
    ) -> Float[Tensor, "n label row col"]:
        """Myocardium where the scaled guide is more than half of its largest value."""
        del image
        assert scaled_guide is not None
        self.seen.append(scaled_guide)
        inside = scaled_guide > scaled_guide.amax() / 2
        return (SURE * (2.0 * inside - 1))[:, None].expand(-1, 3, -1, -1)


class Brightness(UNet):
    """Takes bright pixels for myocardium and blood alike."""

    def __init__(self) -> None:
        super().__init__(guided=False, widths=(4, 4))
        self.eval()

    def forward(
        self, image: Float[Tensor, "n row col"], scaled_guide: Float[Tensor, "n row col"] | None = None
    ) -> Float[Tensor, "n label row col"]:
        """Sure of every pixel."""
        assert scaled_guide is None
        return (SURE * (2.0 * (image > 0.5) - 1))[:, None].expand(-1, 3, -1, -1)


def carry(
    echoes: Float[Tensor, "ti row col"], guide: Bool[Tensor, "label row col"], alpha: float
) -> EchoMasks:
    """Carry a drawn guide."""
    segment: Segmenter = carry_guide
    return segment(echoes, SPACING_MM, guide_of(guide), alpha)


def test_every_echo_gets_the_guide() -> None:
    """Full consistency, through the interface that models fill too."""
    guide = drawn_heart()
    found = carry(torch.rand(5, *guide.shape[1:]), guide, alpha=0.25)
    assert found.masks.shape == (3, 5, *guide.shape[1:])
    assert all(torch.equal(found.masks[:, echo], guide) for echo in range(5))
    assert found.agreement.tolist() == [1.0] * 5


def test_masks_are_independent_of_the_guide() -> None:
    """Whoever edits one echo's mask must not edit the guide."""
    guide = drawn_heart()
    found = carry(torch.rand(2, *guide.shape[1:]), guide, alpha=0.25)
    found.masks[:, 0] = False
    assert guide.any()
    assert found.masks[:, 1].any()


def test_confidence_is_the_contrast_of_the_echo() -> None:
    """1 where blood and muscle are told apart, either way round; 0 where they look alike."""
    guide = drawn_heart()
    bright_blood = 100 * guide[1].float()
    bright_muscle = 100 * guide[0].float()
    flat = torch.ones_like(bright_blood)
    found = carry(torch.stack([bright_blood, bright_muscle, flat]), guide, alpha=0.25)
    assert found.confidence.tolist() == pytest.approx([1, 1, 0])


def test_confidence_is_a_rank_statistic() -> None:
    """Random intensities give the Mann-Whitney value near 0, not a contrast of means."""
    guide = drawn_heart()
    noise = torch.rand(1, *guide.shape[1:], generator=torch.Generator().manual_seed(0))
    assert carry(noise, guide, alpha=0.25).confidence.item() < 0.1


def test_no_blood_pool_means_no_confidence() -> None:
    """With nothing to compare, nothing can be said."""
    guide = drawn_heart()
    guide[1] = False
    assert carry(torch.rand(1, *guide.shape[1:]), guide, alpha=0.25).confidence.item() == 0


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
@pytest.mark.parametrize(
    "segment",
    [carry_guide, GuidedSegmenter(Copyist())],
    ids=["carry", "guided"],
)
def test_alpha_outside_its_range_is_refused(segment: Segmenter, alpha: float) -> None:
    """A percent value would otherwise pass unseen."""
    with pytest.raises(InvalidInputError, match="expected 0-1"):
        segment(torch.rand(1, 96, 96), SPACING_MM, guide_of(drawn_heart()), alpha)


def test_a_network_that_repeats_its_guide_gives_it_back_in_place() -> None:
    """Through the frame and back: off-center hearts and pixels that are not square stay where they are."""
    guide = drawn_heart().roll((-9, 13), (1, 2))
    found = GuidedSegmenter(Copyist())(torch.rand(4, 96, 96), (1.6, 1.3), guide_of(guide), alpha=0.5)
    assert found.masks.shape == (3, 4, 96, 96)
    assert found.agreement.min() > 0.95
    assert found.confidence.min() > 0.9


def test_the_network_sees_the_guide_times_alpha() -> None:
    """Alpha is a dial at run time; at 0 the guide is not seen at all."""
    network = Copyist()
    for alpha in (0.0, 0.25, 1.0):
        GuidedSegmenter(network)(torch.rand(2, 96, 96), SPACING_MM, guide_of(drawn_heart()), alpha)
    assert [seen.max().item() for seen in network.seen] == pytest.approx([0.0, 0.25, 1.0], abs=1e-4)


def test_a_guide_without_a_heart_gives_empty_masks() -> None:
    """There is nowhere to look."""
    nothing = guide_of(torch.zeros(3, 96, 96, dtype=torch.bool))
    found = GuidedSegmenter(Copyist())(torch.rand(2, 96, 96), SPACING_MM, nothing, alpha=0.25)
    assert not found.masks.any()
    assert found.confidence.tolist() == found.agreement.tolist() == [0.0, 0.0]


def test_the_base_network_follows_the_image_alone() -> None:
    """A heart that moves between echoes moves its mask."""
    heart = drawn_heart()
    muscle = heart[0].float()
    echoes = torch.stack([muscle, muscle.roll(6, 1)])
    frame = Frame((47.5, 47.5), 1.1)
    found = base_probability(Brightness(), echoes, SPACING_MM, frame, "upright")[:, 0] > 0.5
    moved = found[1] & heart[0].roll(6, 1)
    assert moved.sum() > 0.9 * heart[0].sum()
    assert (found[0] & moved).sum() < 0.8 * moved.sum()
