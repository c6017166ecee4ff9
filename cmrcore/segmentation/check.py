"""Checks of a guiding mask before it is used."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.stats import rankdata
from torch import Tensor

from cmrcore.segmentation.contours import holes

_EIGHT_NEIGHBORS = np.ones((3, 3), dtype=bool)
_ROUNDING = 1.01
"""How much longer a pixel may be than it is."""


@dataclass(frozen=True, slots=True)
class GuideLimits:
    """What a guiding mask must keep to."""

    thickness_min_mm: float = 3.0
    """Least mean thickness of the wall [mm]."""
    thickness_max_mm: float = 25.0
    """Largest mean thickness of the wall [mm]."""
    gap_mm: float = 2.0
    """Thickness under which the wall counts as a gap [mm]; never less than a pixel."""
    gap_fraction_max: float = 0.2
    """Largest share of the endocardium behind a gap, 0-1."""
    area_min_mm2: float = 300.0
    """Least area within the epicardium [mm2]."""
    area_max_mm2: float = 9000.0
    """Largest area within the epicardium [mm2]."""
    margin_fraction: float = 0.1
    """How close to an edge of the image the center may lie, as a share of its length."""
    separation_min: float = 0.4
    """Least separation of wall and blood in the image, |2 AUC - 1|."""
    agreement_min: float = 0.75
    """Least mean Dice coefficient between turned inputs."""
    score_min: float = 0.05
    """Score under which what a network found is no guide at all; on pure noise it stays below 0.01."""
    consensus_min: float = 0.5
    """Least median Dice coefficient with the masks of other echoes; hearts move little between echoes."""
    overlap_min: float = 0.5
    """Least Dice coefficient of a reader's left ventricle with what a network takes for it; below, a finding.
    Under `guide_overlap_min` of trial.toml the slice's numbers are left out as well."""
    n_first: int = 3
    """Echoes that the heart is looked for on."""
    n_candidates: int = 5
    """Echoes that are tried for the guide."""
    n_tries: int = 4
    """Echoes that are tried with turned inputs."""


def complete_guide(guide: Bool[Tensor, "label row col"]) -> Bool[Tensor, "label row col"]:
    """Fill a missing blood pool with the cavity that the myocardium encloses; all else stays as drawn."""
    myocardium, blood_pool, rv = guide
    if bool(blood_pool.any()):
        return guide
    return torch.stack([myocardium, _cavity(myocardium), rv])


def check_guide(guide: Bool[Tensor, "label row col"]) -> list[str]:
    """Reasons why a guiding mask of one slice cannot be used; empty if it can.

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


def inspect_guide(
    guide: Bool[Tensor, "label row col"],
    image: Float[Tensor, "row col"],
    spacing_mm: tuple[float, float],
    limits: GuideLimits,
) -> list[str]:
    """Failed checks of a guiding mask: reasons why it cannot be used, else reasons to doubt it.

    To doubt it: wall thickness, gaps in the wall, area, place in the image, and how well the image's
    intensities tell wall from blood.
    """
    reasons = check_guide(guide)
    if reasons:
        return reasons
    return [
        *_check_size(guide[0].cpu().numpy(), spacing_mm, limits),
        *_check_place(guide[0] | guide[1], limits),
        *_check_contrast(guide, image, limits),
    ]


def separation(first: Float[Tensor, " pixel"], second: Float[Tensor, " other"]) -> float:
    """|2 AUC - 1| of two groups of intensities by the rank sum (Mann-Whitney), 0 if one is empty."""
    n_first, n_second = len(first), len(second)
    if n_first == 0 or n_second == 0:
        return 0.0
    ranks = rankdata(torch.cat([first, second]).cpu().numpy())
    area = (float(ranks[:n_first].sum()) - n_first * (n_first + 1) / 2) / (n_first * n_second)
    return abs(2 * area - 1)


def _check_size(
    myocardium: Bool[np.ndarray, "row col"], spacing_mm: tuple[float, float], limits: GuideLimits
) -> list[str]:
    """Check thickness, gaps and area of a closed wall."""
    cavity = holes(myocardium)
    pixel_mm2 = spacing_mm[0] * spacing_mm[1]
    cavity_mm2, outer_mm2 = cavity.sum() * pixel_mm2, (cavity | myocardium).sum() * pixel_mm2
    thickness_mm = math.sqrt(outer_mm2 / math.pi) - math.sqrt(cavity_mm2 / math.pi)
    findings = []
    if not limits.thickness_min_mm <= thickness_mm <= limits.thickness_max_mm:
        findings.append(
            f"wall {thickness_mm:.1f} mm thick on average, expected {limits.thickness_min_mm:g} to "
            f"{limits.thickness_max_mm:g} mm"
        )
    # From pixel center to pixel center, beyond the wall on both sides.
    across_mm = ndimage.distance_transform_edt(np.pad(cavity | myocardium, 1), sampling=spacing_mm)[
        1:-1, 1:-1
    ]
    edge = cavity & ndimage.binary_dilation(myocardium)
    pixel_mm = math.sqrt(pixel_mm2)
    gap_fraction = float((across_mm[edge] - pixel_mm <= max(limits.gap_mm, _ROUNDING * pixel_mm)).mean())
    if gap_fraction > limits.gap_fraction_max:
        findings.append(
            f"wall under {limits.gap_mm:g} mm or a pixel along {gap_fraction:.0%} of the endocardium, "
            f"expected at most {limits.gap_fraction_max:.0%}"
        )
    if not limits.area_min_mm2 <= outer_mm2 <= limits.area_max_mm2:
        findings.append(
            f"{outer_mm2:.0f} mm2 within the epicardium, expected {limits.area_min_mm2:g} to "
            f"{limits.area_max_mm2:g} mm2"
        )
    return findings


def _check_place(ventricle: Bool[Tensor, "row col"], limits: GuideLimits) -> list[str]:
    """Check that a ventricle lies within the image."""
    findings = []
    edges = (ventricle[0], ventricle[-1], ventricle[:, 0], ventricle[:, -1])
    if any(bool(edge.any()) for edge in edges):
        findings.append("the myocardium is cut off by the image's edge")
    center = torch.nonzero(ventricle).double().mean(0)
    share = (center + 0.5) / torch.tensor(ventricle.shape, device=center.device)
    margin = float(torch.minimum(share, 1 - share).min())
    if margin < limits.margin_fraction:
        findings.append(
            f"center {margin:.0%} of the image from its edge, expected at least {limits.margin_fraction:.0%}"
        )
    return findings


def _check_contrast(
    guide: Bool[Tensor, "label row col"], image: Float[Tensor, "row col"], limits: GuideLimits
) -> list[str]:
    """Check that wall and blood differ in the image."""
    found = separation(image[guide[0]], image[guide[1]])
    if found >= limits.separation_min:
        return []
    return [f"wall and blood separated by {found:.2f}, expected at least {limits.separation_min:g}"]


def _cavity(myocardium: Bool[Tensor, "row col"]) -> Bool[Tensor, "row col"]:
    """Pixels that the myocardium encloses."""
    return torch.from_numpy(holes(myocardium.cpu().numpy())).to(myocardium.device)
