"""Tests of the network."""

import pytest
import torch
from torch import nn

from cmrcore.segmentation.unet import UNet, guided_from


def test_it_is_small_enough_to_ship() -> None:
    """At most 2.5 million parameters and 10 MB."""
    n_parameters = sum(one.numel() for one in UNet(guided=True).parameters())
    assert n_parameters < 2.5e6
    assert 4 * n_parameters < 10e6


def test_logits_have_the_size_of_the_image() -> None:
    """Any sides that the network can halve do."""
    network = UNet(guided=False, widths=(4, 6, 8))
    assert network.multiple_of == 8
    assert network(torch.rand(2, 24, 40)).shape == (2, 3, 24, 40)


def test_a_guided_network_starts_with_the_answers_of_its_base() -> None:
    """Nothing that was learned is lost; the guide's weights begin at zero."""
    torch.manual_seed(0)
    base = UNet(guided=False, widths=(4, 6, 8))
    guided = guided_from(base)
    images, guides = torch.rand(2, 16, 16), torch.rand(2, 16, 16)
    torch.testing.assert_close(guided(images, guides), base(images))


def test_an_answer_does_not_depend_on_the_batch() -> None:
    """Each image is normalized by itself."""
    torch.manual_seed(0)
    network = UNet(guided=False, widths=(4, 6, 8)).eval()
    images = torch.rand(3, 16, 16)
    torch.testing.assert_close(network(images)[1], network(images[1:2])[0])


def test_halves_doubles_and_norms_are_those_of_torch() -> None:
    """Written anew for their speed alone: weights mean the same."""
    torch.manual_seed(0)
    network = UNet(guided=False, widths=(4, 6)).eval()
    images = torch.rand(2, 16, 16)
    norm = torch.nn.functional.instance_norm

    def block(layers: torch.nn.Sequential, features: torch.Tensor) -> torch.Tensor:
        for first in (0, 3):
            features = layers[first](features)
            features = norm(
                features,
                weight=layers[first + 1].get_parameter("weight"),
                bias=layers[first + 1].get_parameter("bias"),
            )
            features = torch.nn.functional.leaky_relu(features, 0.01)
        return features

    upper, lower, up = (
        layers for layers in (*network.down, *network.up) if isinstance(layers, nn.Sequential)
    )
    at_full = block(upper, torch.nn.functional.pixel_unshuffle(images[:, None], 2))
    at_half = block(lower, torch.nn.functional.max_pool2d(at_full, 2))
    larger = torch.nn.functional.interpolate(at_half, scale_factor=2.0, mode="nearest")
    expected = network.head(block(up, torch.cat([larger, at_full], dim=1)))
    torch.testing.assert_close(network(images), torch.nn.functional.pixel_shuffle(expected, 2))


@pytest.mark.parametrize("guided", [False, True], ids=["base", "guided"])
def test_every_weight_learns(guided: bool) -> None:
    """No part of the network is left out of the answer."""
    torch.manual_seed(0)
    network = UNet(guided=guided, widths=(4, 6, 8))
    guides = torch.rand(2, 16, 16) if guided else None
    network(torch.rand(2, 16, 16), guides).square().mean().backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in network.parameters())
