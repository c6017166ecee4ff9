"""The consistency-parametrized loss of system S1 (Florkow et al., equation 1)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.segmentation.follow import center_px, is_drawn, translate

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
    way_px = share[:, None] * (center_px(truth) - center_px(guide))
    return translate(guide, torch.where((is_drawn(guide) & is_drawn(truth))[:, None], way_px, 0.0))


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
