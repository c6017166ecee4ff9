"""The window through which a network looks at a slice: two looks, first at all of it, then at the heart.

A heart fills a tenth to a third of an image, and the wall of a small one is four pixels wide. The second look
shows every LV at about the same size in the middle of the frame, whatever matrix the scanner chose.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

SIZE = 128
"""Side of the network's square image [pixel]."""
FIRST_LOOK_MM, SECOND_LOOK_MM = 2.1, 1.5
"""Side of the network's pixels on the first look, and on the second look at an LV of usual size [mm]."""

_LV_PIXELS = 46
"""Diameter that the LV's epicardium gets on the second look [pixel]."""
_PIXEL_MM = (1.0, 2.2)
"""Smallest and largest pixel of the second look [mm]."""
_SAMPLES = 2
"""Samples along each side of a pixel that are averaged, so that a coarse frame does not alias."""
_DARK, _BRIGHT = 0.01, 0.99
"""Quantiles of the frame that become 0 and 1."""
_BRIGHTEST = 1.5


@dataclass(frozen=True, slots=True)
class Frame:
    """Square window of `SIZE` x `SIZE` pixels."""

    center: tuple[float, float]
    """Place of its center (row, col) on the image [pixel]; pixel centers lie at integers."""
    pixel_mm: float
    """Side of its pixels [mm]."""


def whole_frame(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> Frame:
    """Frame of the first look: the middle of the image, wide enough for the chest around any heart.

    Parameters
    ----------
    shape
        Rows and columns of the image.
    spacing_mm
        Distance between its rows and between its columns [mm].
    """
    rows, cols = shape
    shorter_mm = min(rows * spacing_mm[0], cols * spacing_mm[1])
    return Frame(((rows - 1) / 2, (cols - 1) / 2), min(FIRST_LOOK_MM, shorter_mm / SIZE))


def heart_frame(
    masks: Bool[Tensor, "label row col"] | Float[Tensor, "label row col"], spacing_mm: tuple[float, float]
) -> Frame | None:
    """Frame of the second look, about the LV; None if there is no LV.

    Parameters
    ----------
    masks
        Masks, or probabilities, in the order of `LABELS`.
    spacing_mm
        Distance between rows and between columns [mm].
    """
    lv = (masks[0].float() + masks[1].float() > 0.5).cpu().numpy()
    pieces, n_pieces = ndimage.label(lv)
    if n_pieces == 0:
        return None
    # What looks like a second heart, such as the stomach, must not pull the frame away.
    rows, cols = np.nonzero(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax())
    diameter_mm = 2 * math.sqrt(len(rows) * spacing_mm[0] * spacing_mm[1] / math.pi)
    smallest, largest = _PIXEL_MM
    center = float(rows.mean()), float(cols.mean())
    return Frame(center, min(max(diameter_mm / _LV_PIXELS, smallest), largest))


def look(
    images: Float[Tensor, "n row col"], frame: Frame, spacing_mm: tuple[float, float]
) -> Float[Tensor, "n size size"]:
    """Show images through a frame, black beyond their edges, brightness as `normalize` makes it."""
    return normalize(look_mask(images, frame, spacing_mm))


def look_mask(
    values: Float[Tensor, "n row col"] | Bool[Tensor, "n row col"],
    frame: Frame,
    spacing_mm: tuple[float, float],
) -> Float[Tensor, "n size size"]:
    """Show values through a frame as they are; a mask becomes the share of each pixel that it covers."""
    n_samples = SIZE * _SAMPLES
    offset_mm = (torch.arange(n_samples, device=values.device) - (n_samples - 1) / 2) * (
        frame.pixel_mm / _SAMPLES
    )
    places = _places(frame.center, offset_mm, spacing_mm, tuple(values.shape[1:]))
    shown = _sample(values.float()[:, None], places)
    return torch.nn.functional.avg_pool2d(shown, _SAMPLES)[:, 0]


def normalize(images: Float[Tensor, "n row col"]) -> Float[Tensor, "n row col"]:
    """Scale each image so that its darkest and brightest hundredth lie at 0 and 1."""
    shares = torch.tensor([_DARK, _BRIGHT], dtype=images.dtype, device=images.device)
    limits: Tensor = torch.quantile(images.flatten(1), shares, dim=1)
    dark, bright = limits[0, :, None, None], limits[1, :, None, None]
    return ((images - dark) / (bright - dark).clamp_min(torch.finfo(images.dtype).tiny)).clamp(0, _BRIGHTEST)


def show(
    values: Float[Tensor, "n label size size"],
    frame: Frame,
    spacing_mm: tuple[float, float],
    shape: tuple[int, int],
) -> Float[Tensor, "n label row col"]:
    """Bring what a network says of a frame back onto the image's pixels; 0 outside the frame."""
    rows, cols = (torch.arange(count, device=values.device, dtype=torch.float32) for count in shape)
    down = (rows - frame.center[0]) * spacing_mm[0] / frame.pixel_mm
    right = (cols - frame.center[1]) * spacing_mm[1] / frame.pixel_mm
    return _sample(values, _grid(down * 2 / SIZE, right * 2 / SIZE))


def _places(
    center: tuple[float, float],
    offset_mm: Float[Tensor, " sample"],
    spacing_mm: tuple[float, float],
    shape: tuple[int, ...],
) -> Float[Tensor, "1 sample sample 2"]:
    """Where the frame's samples lie on the image, in torch's coordinates (-1 to 1 from edge to edge)."""
    down, right = (
        2 * (at + offset_mm / spacing + 0.5) / count - 1
        for at, spacing, count in zip(center, spacing_mm, shape, strict=True)
    )
    return _grid(down, right)


def _grid(down: Float[Tensor, " row"], right: Float[Tensor, " col"]) -> Float[Tensor, "1 row col 2"]:
    """Cross rows with columns; torch wants (x, y)."""
    y, x = torch.meshgrid(down, right, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def _sample(
    values: Float[Tensor, "n channel row col"], grid: Float[Tensor, "1 to_row to_col 2"]
) -> Float[Tensor, "n channel to_row to_col"]:
    """Read all images at the same places: they go through as channels of one."""
    n, channels = values.shape[:2]
    folded = values.reshape(1, n * channels, *values.shape[2:])
    read = torch.nn.functional.grid_sample(folded, grid, padding_mode="zeros", align_corners=False)
    return read.view(n, channels, *read.shape[2:])
