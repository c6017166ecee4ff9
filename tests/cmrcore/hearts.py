"""Drawn hearts that several tests measure."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from cmrcore.segmentation import Guide

PIXELS = 96


def drawn_heart(
    *, septum_deg: float = 180.0, inner: float = 14.0, outer: float = 22.0, with_rv: bool = True
) -> Bool[Tensor, "label row col"]:
    """Round LV in the image's center and an RV disc that meets it 60 degrees off mid-septum [pixels]."""
    axis = torch.arange(PIXELS) - PIXELS / 2 + 0.5
    down, right = torch.meshgrid(axis, axis, indexing="ij")
    radius = torch.hypot(down, right)
    septum = math.radians(septum_deg)
    from_rv = torch.hypot(down - 0.87 * outer * math.sin(septum), right - 0.87 * outer * math.cos(septum))
    myocardium = (radius >= inner) & (radius < outer)
    rv = (from_rv < 0.93 * outer) & (radius >= outer)
    return torch.stack([myocardium, radius < inner, rv & torch.tensor(with_rv)])


def guide_of(masks: Bool[Tensor, "label row col"], echo: int = 0) -> Guide:
    """Guide of a reader who drew these masks."""
    return Guide(masks=masks, echo=echo, origin="reader", score=1.0, findings=(), rejected=())
