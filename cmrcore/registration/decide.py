"""Which alignment of an echo and a slice is used: by what the model leaves unexplained, and by plausibility.

A better fit alone proves nothing: a field that is free enough bends any echo towards the model. So the
simplest alignment stands until a further one is better by a margin, and one that folds is never taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.registration.groupwise import predict_each
from cmrcore.registration.warp import blur, span
from cmrcore.relaxation import fit_t1

Method = Literal["none", "affine", "refined"]

CONFIRM_BLUR_PX = 0.7
"""Blur before echoes are compared, so that the blur of resampling wins nothing [pixel]."""
CONFIRM_MARGIN_PX = 3
"""Pixels around the region that its blur reads, and one more."""
CONFIRM_ROUNDS = 2
"""Predictions from the echoes that a first round settled."""
REFINED_GAIN = 0.02
"""How much the mean R2 must rise for the images to overrule the masks."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One alignment of a slice and how well the model explains what comes of it."""

    method: Method
    """How it was found."""
    r_squared_mean: float | None
    """Mean R2 in the myocardium of the reference, pixels without a fit as 0; None without myocardium."""
    low_fraction: float | None
    """Share of its pixels with low R2 or without a fit, 0-1; None without myocardium."""
    is_plausible: bool
    """Whether no echo's field folds."""


def confirm(
    echoes: Float[Tensor, "ti row col"],
    moved: Float[Tensor, "ti row col"],
    ti_ms: Float[Tensor, " ti"],
    region: Bool[Tensor, "row col"],
    model: str,
) -> Bool[Tensor, " ti"]:
    """Ask the images whether each echo fits the others better where its masks moved it.

    The fit of all other echoes predicts an echo; the nearer of the two stays. A wrong mask, and a contour
    that errs by more than the heart moved, are found so: an echo has no part in its own prediction.

    Parameters
    ----------
    echoes, moved
        Magnitudes as acquired, and as the masks would have them [a.u.].
    ti_ms
        Inversion times [ms].
    region
        Where they are compared; it must hold edges of the heart.
    model
        Signal model of `fit_t1`.
    """
    rows, cols = span(region, CONFIRM_MARGIN_PX)
    still, aligned = (blur(images[:, rows, cols], CONFIRM_BLUR_PX) for images in (echoes, moved))
    near = region[rows, cols]
    moves = (echoes != moved).flatten(1).any(1)
    is_better = moves.clone()
    for _ in range(CONFIRM_ROUNDS):
        now = torch.where(is_better[:, None, None], aligned, still)
        predicted = predict_each(now, ti_ms, near, model, moves)
        misfit = [(images - predicted).abs()[:, near].nanmean(1) for images in (still, aligned)]
        before, is_better = is_better, moves & (misfit[1] < misfit[0])
        if torch.equal(before, is_better):
            break
    return is_better


def weigh(
    method: Method,
    echoes: Float[Tensor, "ti row col"],
    ti_ms: Float[Tensor, " ti"],
    myocardium: Bool[Tensor, "row col"],
    jacobian_min: Float[Tensor, " ti"],
    model: str,
    r_squared_low: float,
) -> Candidate:
    """Fit aligned echoes within the myocardium of the reference; count pixels whose R2 is under a limit."""
    is_plausible = bool((jacobian_min > 0).all())
    if not bool(myocardium.any()):
        return Candidate(method, None, None, is_plausible)
    r_squared = fit_t1(echoes[:, myocardium], ti_ms, model=model).r_squared.double().nan_to_num(0.0)
    return Candidate(
        method=method,
        r_squared_mean=r_squared.mean().item(),
        low_fraction=(r_squared < r_squared_low).double().mean().item(),
        is_plausible=is_plausible,
    )


def choose(candidates: Sequence[Candidate], r_squared_fall_max: float) -> int:
    """Index of the alignment to use.

    Masks see what moved where noise hides it from the fit: their alignment is used unless the fit gets worse
    by more than ``r_squared_fall_max``. Images must convince by `REFINED_GAIN`.
    """
    chosen = 0
    for index, candidate in enumerate(candidates):
        now, best = candidate.r_squared_mean, candidates[chosen].r_squared_mean
        if index == 0 or now is None or best is None or not candidate.is_plausible:
            continue
        margin = REFINED_GAIN if candidate.method == "refined" else -r_squared_fall_max
        if now >= best + margin:
            chosen = index
    return chosen
