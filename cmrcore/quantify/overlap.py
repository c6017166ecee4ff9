"""Agreement of two masks."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor


def dice(first: Bool[Tensor, "row col"], second: Bool[Tensor, "row col"]) -> float | None:
    """Dice coefficient, 0-1; None if both masks are empty."""
    total = int(first.sum()) + int(second.sum())
    return None if total == 0 else 2 * int((first & second).sum()) / total


def centroid(mask: Bool[Tensor, "row col"]) -> tuple[float, float] | None:
    """Mean (row, col) of a mask's pixels; None if it is empty."""
    pixels = torch.nonzero(mask)
    if len(pixels) == 0:
        return None
    row, col = pixels.to(torch.float64).mean(0).tolist()
    return row, col


def displacement_mm(
    mask: Bool[Tensor, "row col"],
    reference: Bool[Tensor, "row col"],
    pixel_spacing_mm: tuple[float, float],
) -> float | None:
    """Distance of a mask's centroid from that of a reference [mm]; None if either is empty."""
    here, there = centroid(mask), centroid(reference)
    if here is None or there is None:
        return None
    return math.hypot(
        *((a - b) * spacing for a, b, spacing in zip(here, there, pixel_spacing_mm, strict=True))
    )
