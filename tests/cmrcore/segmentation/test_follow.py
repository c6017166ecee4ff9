"""A guide that follows the heart: ways as drawn, and masks read where the heart lies."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.segmentation import EchoMasks, GuidedSegmenter, UNet
from cmrcore.segmentation.follow import heart_ways_px, translate
from cmrcore.segmentation.frame import Frame
from cmrcore.segmentation.infer import View
from tests.cmrcore.hearts import drawn_heart, guide_of

SPACING_MM = (1.5, 1.5)
FRAME = Frame((47.5, 47.5), 1.5)
SURE, DOUBTFUL = 12.0, 0.4


def echoes_with(ways_px: Sequence[tuple[int, int]]) -> Float[Tensor, "ti row col"]:
    """Echoes whose bright wall lies so far from the image's center (down, right) [pixel]."""
    return torch.stack([100 * drawn_heart()[0].float().roll(way, (0, 1)) for way in ways_px])


def by_eye(
    images: Float[Tensor, "n row col"], spacing_mm: tuple[float, float], frame: Frame, view: View
) -> Float[Tensor, "n label row col"]:
    """Take what is bright for myocardium, as a base network would."""
    del spacing_mm, frame, view
    wall = (images > 50).float()
    return torch.stack([wall, torch.zeros_like(wall), torch.zeros_like(wall)], 1)


class Leaning(UNet):
    """Answers with its guide, and is sure of it only where the image is bright as well."""

    def __init__(self) -> None:
        super().__init__(guided=True, widths=(4, 4))
        self.eval()
        self.seen: list[Tensor] = []

    def forward(
        self, image: Float[Tensor, "n row col"], scaled_guide: Float[Tensor, "n row col"] | None = None
    ) -> Float[Tensor, "n label row col"]:
        """Myocardium where the guide is, doubtful where the image is dark."""
        assert scaled_guide is not None
        self.seen.append(scaled_guide)
        inside = scaled_guide > scaled_guide.amax() / 2
        logit = torch.where(image > 0.5, SURE, DOUBTFUL)
        return torch.where(inside, logit, -SURE)[:, None].expand(-1, 3, -1, -1)


def read(
    ways_px: Sequence[tuple[int, int]], network: UNet, alpha: float = 0.25, *, held: bool = False
) -> EchoMasks:
    """Read echoes with the guide of a heart in the image's center, drawn on the first."""
    segment = GuidedSegmenter(network, None if held else by_eye)
    return segment(echoes_with(ways_px), SPACING_MM, guide_of(drawn_heart()), alpha)


def test_ways_are_those_of_the_heart() -> None:
    """Told from the reference echo, wherever that lies; 0 where nothing is seen."""
    echoes = echoes_with([(0, 0), (4, -3), (-5, 0)])
    dark = torch.cat([echoes, torch.zeros(1, 96, 96)])
    ways_px = heart_ways_px(by_eye, dark, SPACING_MM, FRAME, 1)
    expected = torch.tensor([[-4.0, 3.0], [0.0, 0.0], [-9.0, 3.0], [0.0, 0.0]])
    torch.testing.assert_close(ways_px, expected, atol=0.1, rtol=0)
    assert not heart_ways_px(by_eye, dark, SPACING_MM, FRAME, 3).any()


def test_masks_move_by_whole_and_half_pixels() -> None:
    """Down and right; what leaves the image is gone."""
    mask = torch.zeros(2, 8, 10)
    mask[:, 2, 3] = mask[:, 7, 9] = 1.0
    moved = translate(mask, torch.tensor([[3.0, -2.0], [0.0, 0.5]]))
    expected = torch.zeros(2, 8, 10)
    expected[0, 5, 1] = 1.0
    expected[1, 2, 3:5] = 0.5
    expected[1, 7, 9] = 0.5
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_an_echo_that_moved_is_read_where_its_heart_lies() -> None:
    """The guide alone would hold its mask back; agreement is still told from the guide as drawn."""
    ways_px = [(0, 0), (8, -6), (0, 0), (-5, 0)]
    followed, held = read(ways_px, Leaning()), read(ways_px, Leaning(), held=True)
    for echo, way in enumerate(ways_px):
        truth = drawn_heart()[0].roll(way, (0, 1))
        assert shared(followed.masks[0, echo], truth) > 0.94
    assert shared(held.masks[0, 1], drawn_heart()[0]) > 0.94
    assert followed.agreement[1] < 0.7 < 0.94 < followed.agreement[2]
    assert (followed.confidence[[1, 3]] > held.confidence[[1, 3]] + 0.05).all()


def test_an_echo_that_hardly_moved_is_read_once() -> None:
    """Under the error of the base network's centers, the guide stays."""
    network = Leaning()
    followed, held = read([(0, 0), (1, 0)], network), read([(0, 0), (1, 0)], Leaning(), held=True)
    assert len(network.seen) == 1
    assert torch.equal(followed.masks, held.masks)


def test_a_reading_that_is_less_sure_is_dropped() -> None:
    """The base network errs: it sees the heart of a still echo elsewhere."""

    def misled(
        images: Float[Tensor, "n row col"], spacing_mm: tuple[float, float], frame: Frame, view: View
    ) -> Float[Tensor, "n label row col"]:
        seen = by_eye(images, spacing_mm, frame, view)
        seen[1] = seen[1].roll((9, 9), (1, 2))
        return seen

    network = Leaning()
    found = GuidedSegmenter(network, misled)(
        echoes_with([(0, 0), (0, 0)]), SPACING_MM, guide_of(drawn_heart()), 0.25
    )
    assert len(network.seen) == 2
    assert shared(found.masks[0, 1], drawn_heart()[0]) > 0.94


def test_without_a_share_of_the_guide_nobody_asks_where_the_heart_is() -> None:
    """At alpha 0 the guide is not seen, so it need not move."""
    network = Leaning()
    read([(0, 0), (8, 0)], network, alpha=0.0)
    assert len(network.seen) == 1


def shared(mask: Tensor, truth: Tensor) -> float:
    """Dice coefficient."""
    return 2 * int((mask & truth).sum()) / int(mask.sum() + truth.sum())
