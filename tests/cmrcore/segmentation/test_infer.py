"""Tests of looking at images of any size with a network."""

import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.segmentation.frame import Frame
from cmrcore.segmentation.infer import View, look_in_frame, look_twice
from cmrcore.segmentation.networks import network_from
from cmrcore.segmentation.unet import UNet, guided_from

SPACING_MM = (1.5, 1.5)


class Bright(UNet):
    """Stands for a trained network: what is bright is the LV's cavity."""

    def __init__(self, *, guided: bool = False) -> None:
        super().__init__(guided=guided, widths=(2, 2))
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor, scaled_guide: torch.Tensor | None = None) -> torch.Tensor:
        """Answer from the brightness alone, and remember the guide."""
        self.seen.append(image if scaled_guide is None else scaled_guide)
        cavity = 20.0 * (image - 0.5)
        return torch.stack([torch.full_like(image, -9.0), cavity, torch.full_like(image, -9.0)], dim=1)


def spots() -> torch.Tensor:
    """Two images with a bright disk of 30 pixels' diameter, each at a place of its own."""
    row, col = torch.meshgrid(torch.arange(140.0), torch.arange(160.0), indexing="ij")
    return torch.stack([(torch.hypot(row - r, col - c) < 15).float() for r, c in ((60, 70), (80, 95))])


def test_the_second_look_is_at_the_heart() -> None:
    """Each image is seen once as a whole and once about what the first look found there."""
    network = Bright()
    found = look_twice(network, spots(), SPACING_MM)
    assert found.shape == (2, 3, 140, 160)
    assert ((found[:, 1] > 0.5) == (spots() > 0.5)).float().mean().item() > 0.998
    first, second = network.seen
    assert second.mean().item() > 1.5 * first.mean().item()


def test_an_image_without_a_heart_keeps_the_first_look() -> None:
    """Nothing found is an answer; the others get their second look."""
    images = torch.stack([torch.zeros(140, 160), spots()[0]])
    network = Bright()
    found = look_twice(network, images, SPACING_MM)
    assert not bool((found[0] > 0.5).any())
    assert len(network.seen[1]) == 1


def test_the_guide_is_seen_through_the_frame_of_the_echoes() -> None:
    """The network gets the guide times alpha, once for each echo."""
    network = Bright(guided=True)
    guide = 0.25 * spots()[0]
    look_in_frame(network, spots(), SPACING_MM, Frame((60.0, 70.0), 1.5), guide)
    (seen,) = network.seen
    assert seen.shape == (2, 128, 128)
    assert seen.max().item() == pytest.approx(0.25, abs=1e-5)
    assert seen[0, 63, 63].item() == pytest.approx(0.25, abs=1e-5)


class Upper(UNet):
    """Takes the upper left quarter of whatever it is shown for an LV."""

    def __init__(self) -> None:
        super().__init__(guided=False, widths=(2, 2))

    def forward(self, image: torch.Tensor, scaled_guide: torch.Tensor | None = None) -> torch.Tensor:
        """Sure of the quarter."""
        assert scaled_guide is None
        said = torch.full((len(image), 3, 128, 128), -9.0)
        said[..., :64, :64] = 9.0
        return said


@pytest.mark.parametrize(
    ("view", "rows", "cols"),
    [
        ("upright", slice(64), slice(64)),
        ("left_right", slice(64), slice(64, 128)),
        ("up_down", slice(64, 128), slice(64)),
        ("quarter", slice(64), slice(64, 128)),
    ],
)
def test_what_a_network_says_of_a_turned_frame_is_turned_back(view: View, rows: slice, cols: slice) -> None:
    """Quarter turns go against the clock there, and with it back."""
    said = look_in_frame(Upper(), torch.rand(1, 128, 128), (1.0, 1.0), Frame((63.5, 63.5), 1.0), view=view)
    expected = torch.zeros(128, 128, dtype=torch.bool)
    expected[rows, cols] = True
    assert torch.equal(said[0, 0] > 0.5, expected)


@pytest.mark.parametrize("view", ["left_right", "up_down", "quarter"])
def test_the_network_sees_the_frame_turned_and_answers_for_the_image(view: View) -> None:
    """A network that follows the image says the same of every view."""
    shown = spots()[:1]
    frame = Frame((66.0, 80.0), 1.5)
    network = Bright()
    upright = look_in_frame(network, shown, (1.5, 1.2), frame)
    turned = look_in_frame(network, shown, (1.5, 1.2), frame, view=view)
    assert torch.allclose(upright, turned, atol=1e-5)
    assert not torch.allclose(network.seen[0], network.seen[1], atol=0.1)


@pytest.mark.parametrize("guided", [False, True], ids=["base", "guided"])
def test_weights_give_their_network_back(guided: bool) -> None:
    """Widths and kind are read from the weights themselves."""
    base = UNet(guided=False, widths=(4, 6, 8))
    network = guided_from(base) if guided else base
    again = network_from(network.state_dict())
    assert again.guided == guided
    assert again.widths == (4, 6, 8)
    assert not again.training


def test_other_weights_are_refused() -> None:
    """A file of another network says so, instead of predicting nonsense."""
    with pytest.raises(InvalidInputError, match="1 tensors are not the weights"):
        network_from({"conv.weight": torch.zeros(3)})
