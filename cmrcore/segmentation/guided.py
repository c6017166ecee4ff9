"""The consistency-parametrized loss of system S1 (Florkow et al., equation 1)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

GuideTarget = Literal["scaled", "whole"]
"""``scaled``: the guide enters the loss times alpha, as equation 1 is written; ``whole``: as a 0/1 mask."""

_SMOOTH = 1.0
"""Added above and below in Dice [pixel], so that finding nothing where nothing is costs nothing."""


def overlap_loss(
    logits: Float[Tensor, "n row col"], target: Float[Tensor, "n row col"]
) -> Float[Tensor, " n"]:
    """Mean of binary cross-entropy and Dice loss per image, the f of equation 1; targets lie in 0-1."""
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    shared = 2 * (probability * target).sum((-2, -1)) + _SMOOTH
    dice = shared / (probability.sum((-2, -1)) + target.sum((-2, -1)) + _SMOOTH)
    return (entropy.mean((-2, -1)) + 1 - dice) / 2


def shift_guide(
    guide: Float[Tensor, "n row col"], truth: Float[Tensor, "n row col"], share: Float[Tensor, " n"]
) -> Float[Tensor, "n row col"]:
    """Translate each guide's center towards its truth's by a share of the way, T of equation 1.

    Share 1 puts center on center, 0 leaves the guide where it is, as does an empty mask on either side.
    Translations by parts of a pixel interpolate linearly.
    """
    rows, cols = guide.shape[-2:]
    way = share[:, None] * (_center(truth) - _center(guide))
    way = torch.where((_any(guide) & _any(truth))[:, None], way, 0.0)
    theta = torch.eye(2, 3, device=guide.device).repeat(len(guide), 1, 1)
    # Pulling: a mask that moves down is read further up; torch counts (x, y) in half image sides.
    theta[:, 0, 2] = -way[:, 1] * 2 / cols
    theta[:, 1, 2] = -way[:, 0] * 2 / rows
    grid = torch.nn.functional.affine_grid(theta, [len(guide), 1, rows, cols], align_corners=False)
    return torch.nn.functional.grid_sample(guide[:, None], grid, align_corners=False)[:, 0].clamp(0, 1)


def guided_loss(
    logits: Float[Tensor, "n row col"],
    truth: Float[Tensor, "n row col"],
    guide: Float[Tensor, "n row col"],
    alpha: Float[Tensor, " n"],
    *,
    target: GuideTarget = "scaled",
) -> Float[Tensor, " n"]:
    r"""Loss of the myocardium on each image.

    .. math:: L = (1 - \alpha) f(p, y) + \alpha f(p, T_{1-\alpha}(\alpha \hat y))

    Parameters
    ----------
    logits
        What the network says of the myocardium.
    truth
        True myocardium y, 0 or 1.
    guide
        Guiding myocardium before it is scaled, 0 or 1.
    alpha
        Weight of the guide, 0-1.
    target
        Whether the guide is scaled by alpha in the loss as well. Written literally, it is: where guide and
        truth agree the target of the second term is alpha, not 1.

    References
    ----------
    Florkow et al., under review for MIDL 2026, equation 1.
    """
    shifted = shift_guide(guide, truth, 1 - alpha)
    if target == "scaled":
        shifted = alpha[:, None, None] * shifted
    return (1 - alpha) * overlap_loss(logits, truth) + alpha * overlap_loss(logits, shifted)


def _any(mask: Float[Tensor, "n row col"]) -> Tensor:
    return mask.sum((-2, -1)) > 0


def _center(mask: Float[Tensor, "n row col"]) -> Float[Tensor, "n 2"]:
    """Center of mass (row, col) [pixel]; 0 for an empty mask."""
    rows = torch.arange(mask.shape[-2], device=mask.device, dtype=mask.dtype)
    cols = torch.arange(mask.shape[-1], device=mask.device, dtype=mask.dtype)
    total = mask.sum((-2, -1)).clamp_min(torch.finfo(mask.dtype).tiny)
    return (
        torch.stack([(mask.sum(-1) * rows).sum(-1), (mask.sum(-2) * cols).sum(-1)], dim=-1) / total[:, None]
    )
