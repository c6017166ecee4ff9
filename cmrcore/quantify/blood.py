"""T1 of the blood pool from its mean signal."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from cmrcore.relaxation import T1Fit, fit_t1


@dataclass(frozen=True, slots=True)
class BloodT1:
    """Blood T1 of one slice."""

    t1_ms: float
    """T1 of the mean blood signal [ms]."""
    t1_sd_ms: float
    """Its standard deviation from the fit [ms]."""
    r_squared: float
    """R2 of the fit's magnitudes."""
    n_pixels: int
    """Pixels of the eroded pool on the reference echo."""


def erode_mask(
    mask: Bool[Tensor, "row col"], erosion_mm: float, pixel_spacing_mm: tuple[float, float]
) -> Bool[Tensor, "row col"]:
    """Pixels whose center lies at least a distance inside the mask's edge [mm].

    The edge is taken half a pixel outside the centers of the mask's outermost pixels.
    """
    padded = np.pad(mask.cpu().numpy(), 1)
    depth_mm = ndimage.distance_transform_edt(padded, sampling=pixel_spacing_mm)[1:-1, 1:-1]
    inside = depth_mm - min(pixel_spacing_mm) / 2 >= erosion_mm
    return torch.from_numpy(inside & mask.cpu().numpy()).to(mask.device)


def mean_signal(
    echoes: Float[Tensor, "ti row col"], masks: Bool[Tensor, "ti row col"]
) -> Float[Tensor, " ti"] | None:
    """Mean signal of each echo within that echo's mask; None where a mask is empty."""
    counts = masks.sum((1, 2))
    if bool((counts == 0).any()):
        return None
    return torch.where(masks, echoes, 0).sum((1, 2), dtype=torch.float64) / counts


def blood_t1(
    echoes: Float[Tensor, "ti row col"],
    masks: Bool[Tensor, "ti row col"],
    ti_ms: Float[Tensor, " ti"] | Sequence[float],
    model: str = "molli",
) -> T1Fit | None:
    """Fit of the mean blood signal, echo by echo within the masks; None without blood.

    Averaging before the fit keeps noise out of it; `erode_mask` the blood pool first, so that trabeculae and
    partial volume stay out too.
    """
    mean = mean_signal(echoes, masks)
    return None if mean is None else fit_t1(mean, ti_ms, model=model)
