"""Checks of a guiding mask before it is used."""

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor

_EIGHT_NEIGHBORS = np.ones((3, 3), dtype=bool)


def complete_guide(guide: Bool[Tensor, "label row col"]) -> Bool[Tensor, "label row col"]:
    """Fill a missing blood pool with the cavity that the myocardium encloses; all else stays as drawn."""
    myocardium, blood_pool, rv = guide
    if bool(blood_pool.any()):
        return guide
    return torch.stack([myocardium, _cavity(myocardium), rv])


def check_guide(guide: Bool[Tensor, "label row col"]) -> list[str]:
    """Reasons why a guiding mask of one slice is not plausible; empty if it is.

    The myocardium must be there, in one piece (diagonal neighbors count) and closed around a cavity; blood
    pool and RV may not overlap it.
    """
    myocardium, blood_pool, rv = guide
    if not bool(myocardium.any()):
        return ["the myocardium is empty"]
    reasons = []
    n_pieces = int(ndimage.label(myocardium.cpu().numpy(), structure=_EIGHT_NEIGHBORS)[1])
    if n_pieces > 1:
        reasons.append(f"the myocardium has {n_pieces} separate pieces")
    if not bool(_cavity(myocardium).any()):
        reasons.append("the myocardium does not enclose a cavity")
    for name, other in (("blood pool", blood_pool), ("RV", rv)):
        n_shared = int((myocardium & other).sum())
        if n_shared:
            reasons.append(f"myocardium and {name} share {n_shared} pixels")
    return reasons


def _cavity(myocardium: Bool[Tensor, "row col"]) -> Bool[Tensor, "row col"]:
    """Pixels that the myocardium encloses."""
    filled = torch.from_numpy(ndimage.binary_fill_holes(myocardium.cpu().numpy()))
    return filled.to(myocardium.device) & ~myocardium
