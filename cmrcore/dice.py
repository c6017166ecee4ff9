"""How far masks cover each other."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def dice_coefficients(
    masks: Bool[Tensor, "*n row col"], other: Bool[Tensor, "*m row col"]
) -> Float[Tensor, "*broadcast"]:
    """Dice coefficient of masks with one other, or with one each, 0-1; NaN where both are empty."""
    shared = (masks & other).sum((-2, -1), dtype=torch.float64)
    return 2 * shared / (masks.sum((-2, -1)) + other.sum((-2, -1)))
