"""Myocardium away from its borders, where pixels hold nothing else."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

_SIDE_SHARE = 0.25
"""Share of the local wall that erosion may take from each side: the middle half stays."""


def erode_wall(
    myocardium: Bool[Tensor, "row col"],
    blood_pool: Bool[Tensor, "row col"],
    erosion_mm: float,
    pixel_spacing_mm: tuple[float, float],
) -> Bool[Tensor, "row col"]:
    """Myocardium without a rim at the cavity and one on the outside.

    A pixel stays if its center is as far from both borders as the erosion asks, or a quarter of the wall's
    thickness there, whichever is less. So a thin wall keeps its middle half, and never vanishes. Borders lie
    half a pixel outside the outermost centers; the wall's thickness is the sum of the distances to them.

    Parameters
    ----------
    myocardium, blood_pool
        Masks of one slice. Holes of the myocardium are cavity, too.
    erosion_mm
        Width of each rim [mm].
    pixel_spacing_mm
        Distance of rows and columns [mm].

    Returns
    -------
        The myocardium as it is where no cavity borders on it.
    """
    wall = myocardium.cpu().numpy()
    cavity = (ndimage.binary_fill_holes(wall) | blood_pool.cpu().numpy()) & ~wall
    if not (wall.any() and cavity.any()):
        return myocardium
    half_px_mm = min(pixel_spacing_mm) / 2
    from_cavity_mm = _distance_mm(cavity, pixel_spacing_mm) - half_px_mm
    from_outside_mm = _distance_mm(~(wall | cavity), pixel_spacing_mm) - half_px_mm
    thickness_mm = from_cavity_mm + from_outside_mm
    asked_mm = np.minimum(erosion_mm, _SIDE_SHARE * thickness_mm)
    # A pixel that lies on the limit stays, whatever the rounding.
    deep = np.minimum(from_cavity_mm, from_outside_mm) >= asked_mm - 1e-6
    return torch.from_numpy(wall & deep).to(myocardium.device)


def erode_walls(
    myocardium: Bool[Tensor, "slice row col"],
    blood_pool: Bool[Tensor, "slice row col"],
    erosion_mm: float,
    pixel_spacing_mm: tuple[float, float],
) -> Bool[Tensor, "slice row col"]:
    """Erode the wall of every slice, see `erode_wall`."""
    return torch.stack(
        [
            erode_wall(wall, pool, erosion_mm, pixel_spacing_mm)
            for wall, pool in zip(myocardium, blood_pool, strict=True)
        ]
    )


def _distance_mm(
    region: Bool[np.ndarray, "row col"], pixel_spacing_mm: tuple[float, float]
) -> Float[np.ndarray, "row col"]:
    """Distance of each pixel's center from the nearest one of a region [mm]."""
    return np.asarray(ndimage.distance_transform_edt(~region, sampling=pixel_spacing_mm))
