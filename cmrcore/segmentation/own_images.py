"""Labelled images of one's own: samples to learn from, and the score of a network on images it never saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.dice import dice_coefficients
from cmrcore.errors import InvalidInputError
from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.augment import (
    AUGMENTATION,
    NO_AUGMENTATION,
    Augmentation,
    draw_geometry,
    shade,
    spoil,
)
from cmrcore.phantom.motion import position_mm
from cmrcore.phantom.training import training_batch
from cmrcore.segmentation.frame import SIZE, Frame, heart_frame, normalize, whole_frame
from cmrcore.segmentation.infer import look_in_frame, look_twice
from cmrcore.segmentation.train import Recipe, Samples
from cmrcore.segmentation.unet import UNet

_PIXELS, _PIXEL_MM = 192, 1.8
"""Grid on which slices of the digital trial are drawn for the score; its side in millimeters."""
_ALPHA = 0.25
"""Weight of the guide for the score."""
_OFF_CENTER_MM = 4.0
"""How far the second look is off the heart's center in training, as it will be later [mm]."""


@dataclass(frozen=True, slots=True)
class LabelledSlice:
    """Echoes of one slice on which somebody drew the labels."""

    images: Float[Tensor, "ti row col"]
    """Magnitudes [a.u.], as acquired: the first one's masks are the guide of all."""
    masks: Bool[Tensor, "ti label row col"]
    """Masks of every echo in the order of `LABELS`; a label that nobody drew is all False."""
    spacing_mm: tuple[float, float]
    """Distance between rows and between columns [mm]."""


def samples_of(
    slices: Sequence[LabelledSlice],
    recipe: Recipe,
    rng: np.random.Generator,
    augmentation: Augmentation = AUGMENTATION,
) -> Samples:
    """Look at slices as the networks will, each time a little differently.

    A slice with fewer echoes than asked for gives some of them again.

    Parameters
    ----------
    slices
        Slices of one step.
    recipe
        Echoes of each, and the share of first looks.
    rng
        Source of all draws.
    augmentation
        Strengths of geometry and intensity; the same geometry for all echoes of a slice.
    """
    shown = [_look(one, recipe, rng, augmentation) for one in slices]
    masks = torch.cat([masks for _, masks in shown])
    drawn = torch.stack([_drawn(one) for one in slices])
    alpha = rng.uniform(size=len(slices)) if recipe.alpha is None else np.full(len(slices), recipe.alpha)
    return Samples(
        images=normalize(torch.cat([images for images, _ in shown])),
        masks=masks,
        guides=masks[:: recipe.n_echoes, 0].repeat_interleave(recipe.n_echoes, dim=0),
        alpha=torch.from_numpy(alpha).float().repeat_interleave(recipe.n_echoes),
        drawn=drawn.repeat_interleave(recipe.n_echoes, dim=0),
    )


def draw_slices(n: int, seed: int) -> list[LabelledSlice]:
    """Draw slices of the digital trial as labelled images that nobody learns from."""
    grid = Grid(_PIXELS, _PIXELS, _PIXEL_MM)
    rng = np.random.default_rng(seed)
    drawn = training_batch(rng, n, grid, contrast="physics", augmentation=NO_AUGMENTATION)
    return [
        LabelledSlice(images, masks, (grid.pixel_mm, grid.pixel_mm))
        for images, masks in zip(drawn.images, drawn.masks, strict=True)
        if bool(masks[:, 0].any())
    ]


def mean_dice(network: UNet, slices: Sequence[LabelledSlice]) -> float:
    """Mean Dice coefficient over the echoes and drawn labels of slices, each looked at as in a night.

    The base network looks twice; the guided one sees the first echo's true myocardium as its guide, at S1's
    alpha, and is scored on the other echoes where there are any.
    """
    scores: list[float] = []
    device = next(network.parameters()).device
    for one in slices:
        images, masks = one.images.to(device), one.masks.to(device)
        if network.guided:
            frame = heart_frame(masks[0], one.spacing_mm)
            if frame is None:
                continue
            guide = _ALPHA * masks[0, 0].float()
            first = min(1, len(images) - 1)
            images, masks = images[first:], masks[first:]
            probability = look_in_frame(network, images, one.spacing_mm, frame, guide)
        else:
            probability = look_twice(network, images, one.spacing_mm)
        overlap = dice_coefficients(probability > 0.5, masks).nan_to_num()
        scores += overlap[:, _drawn(one).to(device)].flatten().tolist()
    return float(np.mean(scores))


def _drawn(one: LabelledSlice) -> Bool[Tensor, " label"]:
    """Which labels somebody drew on a slice, on whatever echo."""
    return one.masks.any(dim=-1).any(dim=-1).any(dim=0)


def _look(
    one: LabelledSlice, recipe: Recipe, rng: np.random.Generator, augmentation: Augmentation
) -> tuple[Float[Tensor, "n size size"], Float[Tensor, "n label size size"]]:
    """Echoes of one slice and their masks in one frame; the first-acquired echo first."""
    if not bool(one.masks[:, 0].any()):
        raise InvalidInputError(
            "a labelled slice without myocardium; leave slices out on which none is drawn"
        )
    frame = None if rng.random() < recipe.first_look_share else heart_frame(one.masks[0], one.spacing_mm)
    if frame is None:
        frame = whole_frame((one.images.shape[1], one.images.shape[2]), one.spacing_mm)
    others = 1 + rng.permutation(len(one.images) - 1)
    others = np.resize(others if len(others) else [0], recipe.n_echoes - 1)
    chosen = torch.from_numpy(np.append(0, others).astype(np.int64))
    grid = Grid(SIZE, SIZE, frame.pixel_mm)
    away_mm = draw_geometry(rng, 1, augmentation, grid)[0]
    away_mm = away_mm + torch.from_numpy(rng.normal(0, _OFF_CENTER_MM, size=(2, 1, 1))).float()
    images = _read(one.images[chosen], frame, one.spacing_mm, away_mm, grid)
    masks = _read(one.masks[chosen].flatten(0, 1).float(), frame, one.spacing_mm, away_mm, grid) > 0.5
    images = spoil(shade(images, rng, augmentation, grid), rng, augmentation)
    return images, masks.view(len(chosen), -1, SIZE, SIZE).float()


def _read(
    values: Float[Tensor, "n row col"],
    frame: Frame,
    spacing_mm: tuple[float, float],
    away_mm: Float[Tensor, "2 size size"],
    grid: Grid,
) -> Float[Tensor, "n size size"]:
    """Read values where a displaced frame has its pixels; 0 beyond the image."""
    places = [
        2 * (center + (at_mm + away) / spacing + 0.5) / count - 1
        for center, at_mm, away, spacing, count in zip(
            frame.center, position_mm(grid), away_mm, spacing_mm, values.shape[1:], strict=True
        )
    ]
    sampling = torch.stack(places[::-1], dim=-1)[None]
    return torch.nn.functional.grid_sample(values[None], sampling, align_corners=False)[0]
