"""Agreement of two masks."""

import math

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor

from cmrcore.dice import dice_coefficients


def dice(first: Bool[Tensor, "row col"], second: Bool[Tensor, "row col"]) -> float | None:
    """Dice coefficient, 0-1; None if both masks are empty."""
    found = float(dice_coefficients(first, second))
    return None if math.isnan(found) else found


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


def edge_distances_mm(
    mask: Bool[Tensor, "row col"],
    reference: Bool[Tensor, "row col"],
    pixel_spacing_mm: tuple[float, float],
) -> tuple[float, float] | None:
    """Largest (Hausdorff) and mean distance between the edges of two masks, both ways [mm].

    An edge is made of the mask's pixels that have a neighbor (of four) outside, or lie at the image's edge;
    from each the distance to the nearest edge pixel of the other mask counts. None if either mask is empty.
    """
    edges = [_edge(one.cpu().numpy()) for one in (mask, reference)]
    if not all(edge.any() for edge in edges):
        return None
    away_mm = [ndimage.distance_transform_edt(~edge, sampling=pixel_spacing_mm) for edge in edges]
    both_ways = np.concatenate([away_mm[1][edges[0]], away_mm[0][edges[1]]])
    return float(both_ways.max()), float(both_ways.mean())


def _edge(mask: Bool[np.ndarray, "row col"]) -> Bool[np.ndarray, "row col"]:
    """Pixels of a mask with a neighbor outside."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask))
