"""Where each echo shows the heart, as a network sees it that knows no guide, and masks moved there."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.segmentation.contours import masks_from
from cmrcore.segmentation.frame import Frame
from cmrcore.segmentation.heart import Look


def heart_ways_px(
    look: Look,
    echoes: Float[Tensor, "ti row col"],
    spacing_mm: tuple[float, float],
    frame: Frame,
    reference: int,
) -> Float[Tensor, "ti 2"]:
    """Way (down, right) of the LV's center from where one echo shows it to where each one does [pixel].

    0 on an echo that shows no LV, and on all if the reference shows none.

    Parameters
    ----------
    look
        The base network.
    echoes
        Magnitudes of one slice [a.u.].
    spacing_mm
        Distance of rows and columns [mm].
    frame
        Where to look.
    reference
        The echo that ways start from, as an index along ``ti``.
    """
    seen = look(echoes, spacing_mm, frame, "upright")
    return ways_px(torch.stack([masks_from(one, spacing_mm) for one in seen], dim=1), reference)


def ways_px(masks: Bool[Tensor, "label ti row col"], reference: int) -> Float[Tensor, "ti 2"]:
    """Way of the LV's center as drawn from one echo to each [pixel]; 0 where one of both has none."""
    ventricles = masks[:2].any(0).float()
    center, drawn = center_px(ventricles), is_drawn(ventricles)
    return torch.where((drawn & drawn[reference])[:, None], center - center[reference], 0.0)


def translate(masks: Float[Tensor, "n row col"], way_px: Float[Tensor, "n 2"]) -> Float[Tensor, "n row col"]:
    """Move masks by whole pixels or parts (down, right), interpolated linearly; what comes in is empty."""
    rows, cols = masks.shape[-2:]
    theta = torch.eye(2, 3, device=masks.device).repeat(len(masks), 1, 1)
    # Pulling: a mask that moves down is read further up; torch counts (x, y) in half image sides.
    theta[:, 0, 2] = -way_px[:, 1] * 2 / cols
    theta[:, 1, 2] = -way_px[:, 0] * 2 / rows
    grid = torch.nn.functional.affine_grid(theta, [len(masks), 1, rows, cols], align_corners=False)
    return torch.nn.functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0].clamp(0, 1)


def center_px(masks: Float[Tensor, "n row col"]) -> Float[Tensor, "n 2"]:
    """Center of mass (row, col) [pixel]; 0 for an empty mask."""
    rows = torch.arange(masks.shape[-2], device=masks.device, dtype=masks.dtype)
    cols = torch.arange(masks.shape[-1], device=masks.device, dtype=masks.dtype)
    total = masks.sum((-2, -1)).clamp_min(torch.finfo(masks.dtype).tiny)
    moments = torch.stack([(masks.sum(-1) * rows).sum(-1), (masks.sum(-2) * cols).sum(-1)], dim=-1)
    return moments / total[:, None]


def is_drawn(masks: Float[Tensor, "n row col"]) -> Bool[Tensor, " n"]:
    """Whether each mask holds anything."""
    return masks.sum((-2, -1)) > 0
