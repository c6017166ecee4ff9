"""Tests of training on hearts drawn on the fly."""

import copy
from dataclasses import replace

import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.segmentation.frame import SIZE
from cmrcore.segmentation.train import Recipe, Samples, Trainer, draw_samples, learning_rate_share
from cmrcore.segmentation.unet import UNet, guided_from

RECIPE = Recipe(n_steps=20, n_slices=2, n_echoes=2, learning_rate=0.02)
CPU = torch.device("cpu")
SMALL = (4, 6, 8)


@pytest.fixture(scope="module")
def samples() -> Samples:
    """Draw what one step learns from."""
    return draw_samples(RECIPE, 3)


def test_a_step_draws_the_same_samples_again(samples: Samples) -> None:
    """A training that was killed goes on with what it would have seen."""
    again = draw_samples(RECIPE, 3)
    assert torch.equal(samples.images, again.images)
    assert torch.equal(samples.guides, again.guides)
    assert torch.equal(samples.alpha, again.alpha)
    assert not torch.equal(samples.images, draw_samples(RECIPE, 4).images)


def test_samples_are_what_the_network_takes(samples: Samples) -> None:
    """Two echoes of two slices, one guide and one alpha a slice."""
    assert samples.images.shape == (4, SIZE, SIZE)
    assert samples.masks.shape == (4, 3, SIZE, SIZE)
    assert torch.equal(samples.guides[0], samples.guides[1])
    assert samples.alpha[0] == samples.alpha[1] != samples.alpha[2]
    assert set(samples.guides.flatten().tolist()) == {0.0, 1.0}


def test_a_fixed_alpha_is_kept() -> None:
    """The comparison trains networks for one alpha each."""
    fixed = Recipe(n_steps=1, n_slices=1, n_echoes=2, alpha=0.25)
    assert draw_samples(fixed, 0).alpha.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("guided", [False, True], ids=["base", "guided"])
def test_a_network_learns_what_it_sees(samples: Samples, guided: bool) -> None:
    """The loss on the same samples falls."""
    torch.manual_seed(0)
    network = UNet(guided=False, widths=SMALL)
    trainer = Trainer(guided_from(network) if guided else network, RECIPE, CPU)
    losses = [trainer.learn(samples) for _ in range(10)]
    assert losses[-1] < losses[0] - 0.02


def test_only_what_was_drawn_teaches(samples: Samples) -> None:
    """Whatever stands in the mask of a label that nobody drew on a slice, and whoever its neighbors are."""
    drawn = samples.drawn.clone()
    drawn[2:, 2] = False
    partly = replace(samples, drawn=drawn)
    otherwise = replace(partly, masks=samples.masks.clone())
    otherwise.masks[2:, 2] = 1 - samples.masks[2:, 2]

    def learned(seen: Samples) -> tuple[float, list[torch.Tensor]]:
        torch.manual_seed(0)
        trainer = Trainer(UNet(guided=False, widths=SMALL), RECIPE, CPU)
        return trainer.learn(seen), list(trainer.network.parameters())

    loss, weights = learned(partly)
    other_loss, other_weights = learned(otherwise)
    assert loss == other_loss
    assert all(torch.equal(one, other) for one, other in zip(weights, other_weights, strict=True))
    assert learned(replace(otherwise, drawn=samples.drawn))[0] != learned(samples)[0] != loss


def test_a_resumed_training_ends_with_the_same_weights(samples: Samples) -> None:
    """Network, average and optimizer all go on where they were."""
    torch.manual_seed(0)
    through = Trainer(UNet(guided=False, widths=SMALL), RECIPE, CPU)
    for _ in range(3):
        through.learn(samples)
    saved = copy.deepcopy(through.state_dict())
    through.learn(samples)
    resumed = Trainer(UNet(guided=False, widths=SMALL), RECIPE, CPU)
    resumed.load_state_dict(saved)
    resumed.learn(samples)
    assert resumed.step == through.step == 4
    for one, other in zip(through.averaged.parameters(), resumed.averaged.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_learning_rate_rises_and_falls() -> None:
    """It starts small, reaches its highest value once and ends at a hundredth."""
    shares = [learning_rate_share(step, 1000) for step in range(1000)]
    assert shares[0] < 0.05
    assert max(shares) == pytest.approx(1.0)
    assert shares[-1] == pytest.approx(0.01, abs=1e-3)


def test_a_training_without_steps_is_refused() -> None:
    """It would hand out untrained weights."""
    with pytest.raises(InvalidInputError, match="0 training steps"):
        Trainer(UNet(guided=False, widths=SMALL), Recipe(n_steps=0), CPU)
