"""Labelled images of one's own: what is learned from them, and the score."""

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.phantom.augment import NO_AUGMENTATION
from cmrcore.segmentation import UNet
from cmrcore.segmentation.frame import SIZE, heart_frame, look, look_mask
from cmrcore.segmentation.own_images import LabelledSlice, draw_slices, mean_dice, samples_of
from cmrcore.segmentation.train import Recipe
from tests.cmrcore.hearts import drawn_heart

SPACING_MM = (1.6, 1.4)
RECIPE = Recipe(n_steps=1, n_slices=2, n_echoes=3, first_look_share=0.0)


class Bright(UNet):
    """Takes the brightest pixels for muscle, those in the middle for blood, the darker ones for RV."""

    def __init__(self, *, guided: bool = False) -> None:
        super().__init__(guided=guided, widths=(4, 4))

    def forward(
        self, image: Float[Tensor, "n row col"], scaled_guide: Float[Tensor, "n row col"] | None = None
    ) -> Float[Tensor, "n label row col"]:
        """Sure of every pixel."""
        assert (scaled_guide is not None) == self.guided
        shown = torch.stack([image > 0.8, (image > 0.5) & (image <= 0.8), (image > 0.2) & (image <= 0.5)], 1)
        return 12.0 * (2.0 * shown - 1)


def labelled(n_echoes: int = 4, *, with_rv: bool = True) -> LabelledSlice:
    """Slice on which intensity tells the label, its heart moving down by two pixels an echo."""
    heart = drawn_heart(with_rv=with_rv)
    masks = torch.stack([heart.roll(2 * echo, 1) for echo in range(n_echoes)])
    levels = torch.tensor([1.0, 0.65, 0.35])[None, :, None, None]
    return LabelledSlice((levels * masks).sum(1), masks, SPACING_MM)


def test_without_augmentation_a_slice_is_seen_as_in_a_night(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame about the heart, read as the networks read it."""
    monkeypatch.setattr("cmrcore.segmentation.own_images._OFF_CENTER_MM", 0.0)
    one = labelled(1)
    samples = samples_of([one], RECIPE, np.random.default_rng(0), NO_AUGMENTATION)
    frame = heart_frame(one.masks[0], SPACING_MM)
    assert frame is not None
    seen = look_mask(one.masks[0], frame, SPACING_MM) > 0.5
    differ = (samples.masks[0].bool() ^ seen).sum() / seen.sum()
    assert differ < 0.1
    away = (samples.images[0] - look(one.images, frame, SPACING_MM)[0]).abs().mean()
    assert away < 0.03


def test_image_and_masks_are_turned_together() -> None:
    """After flips, turns, zoom and distortion the brightest pixels are still the myocardium."""
    samples = samples_of([labelled(), labelled(2)], RECIPE, np.random.default_rng(1))
    assert samples.images.shape == (6, SIZE, SIZE)
    assert samples.masks.shape == (6, 3, SIZE, SIZE)
    for image, masks in zip(samples.images, samples.masks.bool(), strict=True):
        if bool(masks[0].any()) and bool(masks[2].any()):
            assert image[masks[0]].median() > image[masks[2]].median()


def test_the_guide_is_the_first_echos_myocardium() -> None:
    """It does not move with the other echoes."""
    samples = samples_of([labelled(), labelled()], RECIPE, np.random.default_rng(2))
    assert torch.equal(samples.guides[0], samples.masks[0, 0])
    assert torch.equal(samples.guides[2], samples.masks[0, 0])
    assert torch.equal(samples.guides[3], samples.masks[3, 0])
    assert samples.alpha[0] == samples.alpha[2] != samples.alpha[3]


def test_a_label_that_nobody_drew_teaches_nothing() -> None:
    """Public sets of T1 images have no RV; a network must not learn that there is none."""
    samples = samples_of([labelled(), labelled(with_rv=False)], RECIPE, np.random.default_rng(3))
    assert samples.drawn.tolist() == 3 * [[True, True, True]] + 3 * [[True, True, False]]


def test_a_slice_without_myocardium_is_refused() -> None:
    """There is no heart to look at."""
    one = labelled()
    empty = LabelledSlice(one.images, torch.zeros_like(one.masks), SPACING_MM)
    with pytest.raises(InvalidInputError, match="without myocardium"):
        samples_of([empty], RECIPE, np.random.default_rng(0))


@pytest.mark.parametrize("guided", [False, True], ids=["base", "guided"])
def test_the_score_of_a_network_that_knows_is_high(guided: bool) -> None:
    """And it counts the labels that somebody drew, no others."""
    knows = mean_dice(Bright(guided=guided), [labelled(), labelled(with_rv=False)])
    assert knows > 0.8
    one = labelled()
    moved = LabelledSlice(one.images, one.masks.roll(30, 2), SPACING_MM)
    assert mean_dice(Bright(guided=guided), [moved]) < 0.3


def test_drawn_slices_are_the_same_for_a_seed() -> None:
    """Scores of two trainings can be compared."""
    first, again = draw_slices(2, 5), draw_slices(2, 5)
    assert all(torch.equal(one.images, other.images) for one, other in zip(first, again, strict=True))
    assert all(bool(one.masks[:, 0].any()) for one in first)
