"""A guide that follows the heart: ways as drawn, and masks read where the heart lies."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.segmentation import EchoMasks, GuidedSegmenter, UNet
from cmrcore.segmentation.follow import center_px, heart_ways_px, translate
from cmrcore.segmentation.frame import Frame
from cmrcore.segmentation.infer import View
from tests.cmrcore.hearts import drawn_heart, guide_of

SPACING_MM = (1.5, 1.5)
FRAME = Frame((47.5, 47.5), 1.5)
SURE = 12.0


def echoes_with(moves: Sequence[tuple[int, int]]) -> Float[Tensor, "ti row col"]:
    """Echoes whose bright wall lies so far from the image's center (down, right) [pixel]."""
    return torch.stack([100 * drawn_heart()[0].float().roll(way, (0, 1)) for way in moves])


def by_eye(
    images: Float[Tensor, "n row col"], spacing_mm: tuple[float, float], frame: Frame, view: View
) -> Float[Tensor, "n label row col"]:
    """Take what is bright for myocardium, as a base network would."""
    del spacing_mm, frame, view
    wall = (images > 50).float()
    return torch.stack([wall, torch.zeros_like(wall), torch.zeros_like(wall)], 1)


class Halfway(UNet):
    """Draws its guide half of the way to what is bright, the less sure the longer that way."""

    def __init__(self) -> None:
        super().__init__(guided=True, widths=(4, 4))
        self.eval()
        self.n_seen: list[int] = []

    def forward(
        self, image: Float[Tensor, "n row col"], scaled_guide: Float[Tensor, "n row col"] | None = None
    ) -> Float[Tensor, "n label row col"]:
        """Myocardium is the guide's, moved."""
        assert scaled_guide is not None
        self.n_seen.append(len(image))
        guide = scaled_guide / scaled_guide.amax().clamp_min(1e-6)
        way_px = center_px((image > 0.5).float()) - center_px(guide)
        inside = translate(guide, way_px / 2) > 0.5
        logit = SURE / (1 + way_px.norm(dim=1))[:, None, None]
        return torch.where(inside, logit, -SURE)[:, None].expand(-1, 3, -1, -1)


def read(
    moves: Sequence[tuple[int, int]], network: UNet, alpha: float = 0.25, *, held: bool = False
) -> EchoMasks:
    """Read echoes with the guide of a heart in the image's center, drawn on the first."""
    segment = GuidedSegmenter(network, None if held else by_eye)
    return segment(echoes_with(moves), SPACING_MM, guide_of(drawn_heart()), alpha)


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
    moves = [(0, 0), (8, -6), (0, 0), (-6, 0)]
    followed, held = read(moves, Halfway()), read(moves, Halfway(), held=True)
    for echo, way in enumerate(moves):
        assert shared(followed.masks[0, echo], drawn_heart()[0].roll(way, (0, 1))) > 0.94
    assert shared(held.masks[0, 1], drawn_heart()[0].roll((4, -3), (0, 1))) > 0.9
    assert followed.agreement[1] < 0.7 < 0.94 < followed.agreement[2]
    assert (followed.confidence[[1, 3]] > held.confidence[[1, 3]] + 0.02).all()
    assert torch.equal(followed.masks[:, [0, 2]], held.masks[:, [0, 2]])


def test_only_echoes_whose_masks_moved_are_asked_for() -> None:
    """The base network sees the reference and these; still echoes cost nothing."""
    asked = []

    def counted(
        images: Float[Tensor, "n row col"], spacing_mm: tuple[float, float], frame: Frame, view: View
    ) -> Float[Tensor, "n label row col"]:
        asked.append(len(images))
        return by_eye(images, spacing_mm, frame, view)

    network, guide = Halfway(), guide_of(drawn_heart())
    for moves in ([(0, 0), (0, 0)], [(0, 0), (6, 0), (0, 0)]):
        GuidedSegmenter(network, counted)(echoes_with(moves), SPACING_MM, guide, 0.25)
    assert asked == [2]
    assert network.n_seen == [2, 3, 1]


def test_an_echo_that_hardly_moved_is_read_once() -> None:
    """Under the error of the base network's centers, the guide stays."""
    network = Halfway()
    guide = guide_of(drawn_heart())
    found = GuidedSegmenter(network, by_eye)(echoes_with([(0, 0), (1, 0)]), (1.3, 1.3), guide, 0.25)
    assert network.n_seen == [2]
    assert shared(found.masks[0, 1], drawn_heart()[0]) > 0.9


def test_a_reading_that_is_less_sure_is_dropped() -> None:
    """The base network errs: it sees the heart far beyond where it lies."""

    def misled(
        images: Float[Tensor, "n row col"], spacing_mm: tuple[float, float], frame: Frame, view: View
    ) -> Float[Tensor, "n label row col"]:
        seen = by_eye(images, spacing_mm, frame, view)
        seen[1] = seen[1].roll((9, 9), (1, 2))
        return seen

    network = Halfway()
    found = GuidedSegmenter(network, misled)(
        echoes_with([(0, 0), (3, 0)]), SPACING_MM, guide_of(drawn_heart()), 0.25
    )
    assert network.n_seen == [2, 1]
    assert torch.equal(found.masks, read([(0, 0), (3, 0)], Halfway(), held=True).masks)


def test_without_a_share_of_the_guide_nobody_asks_where_the_heart_is() -> None:
    """At alpha 0 the guide is not seen, so it need not move."""
    network = Halfway()
    read([(0, 0), (8, 0)], network, alpha=0.0)
    assert network.n_seen == [2]


def shared(mask: Tensor, truth: Tensor) -> float:
    """Dice coefficient."""
    return 2 * int((mask & truth).sum()) / int(mask.sum() + truth.sum())
