"""Alignment driven by the signal model: fit the echoes, synthesize each from the fit of the others, align.

Echoes of a recovery differ in contrast, cross zero and turn over; what the model predicts for an echo's
inversion time looks like it, but for motion. Predictions come from the fit of all other echoes, or an echo
that moved would draw its own prediction along. Displacements are cubic B-splines on top of a given start,
found by Gauss-Newton steps from coarse to fine; robust weights keep ghosts, folding and what will not fit
out. The reference echo stays where it is. (To let it move like the others and to take its displacement off
all was worse: its prediction is an extrapolation to the shortest time.)

References
----------
Xue et al. 2012, Magn Reson Med 67:1644, doi:10.1002/mrm.23153 (synthetic images); Tagkalakis et al. 2021,
doi:10.3390/jimaging7090190 (model-driven registration); Choi and Lee 2000, doi:10.1006/gmod.2000.0531
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.registration.warp import blur, pixel_positions, sample
from cmrcore.relaxation import T1Fit, fit_t1


@dataclass(frozen=True, slots=True)
class RefineSettings:
    """How far and how smoothly echoes may be displaced on top of their start, which is that of the masks."""

    knot_mm: float = 25.0
    """Distance of the control points of a displacement [mm]."""
    spread_mm: float = 1.5
    """Standard deviation that is expected of a displacement [mm]."""
    roughness_mm: float = 0.5
    """The same of its change from one control point to the next [mm]."""
    margin_mm: float = 15.0
    """How far around the heart echoes are compared [mm]."""
    blur_mm: tuple[float, ...] = (3.0, 2.0, 1.5)
    """Blur of the echoes in each round [mm]."""


DEFAULT_REFINEMENT = RefineSettings()
_CORRELATED_PX = 6.0
"""Pixels whose errors are about as good as one, as they are alike."""
_STEPS_A_ROUND = 2
LEAST_ECHOES = 5
"""Echoes that a slice needs to predict one of them: the fit of the others has three parameters."""


def refine(
    echoes: Float[Tensor, "ti row col"],
    ti_ms: Float[Tensor, " ti"],
    start_px: Float[Tensor, "ti 2 row col"],
    heart: Bool[Tensor, "row col"],
    reference: int,
    pixel_spacing_mm: tuple[float, float],
    model: str = "molli",
    settings: RefineSettings = DEFAULT_REFINEMENT,
) -> Float[Tensor, "ti 2 row col"]:
    """Displacement that pulls each echo onto the reference echo, starting from a given one [pixel].

    Parameters
    ----------
    echoes
        Magnitudes [a.u.].
    ti_ms
        Inversion times [ms].
    start_px
        Displacement to start from, such as that of the masks; 0 for the reference echo.
    heart
        Where on the reference echo the echoes shall agree.
    reference
        Index of the echo that stays.
    pixel_spacing_mm
        Distance of rows and columns [mm].
    model
        Signal model of `fit_t1`.
    settings
        Smoothness and rounds.

    Raises
    ------
    InvalidInputError
        If there is no heart, or fewer than `LEAST_ECHOES`.
    """
    if not bool(heart.any()):
        raise InvalidInputError("no heart to align: the mask of the reference echo is empty")
    spacing = echoes.new_tensor(pixel_spacing_mm)
    weight = _near(heart, settings.margin_mm, pixel_spacing_mm)
    rows, cols = _span(weight, 1), _span(weight, 0)
    weight = weight[rows, cols]
    inside = weight > 0.05
    along_rows = _knots(heart.shape[0], rows, settings.knot_mm / pixel_spacing_mm[0], echoes)
    along_cols = _knots(heart.shape[1], cols, settings.knot_mm / pixel_spacing_mm[1], echoes)
    here = pixel_positions((heart.shape[0], heart.shape[1]), echoes.device, echoes.dtype)[:, rows, cols]
    start_at = here + start_px[:, :, rows, cols]
    basis = torch.einsum("ri,cj->ijrc", along_rows[rows], along_cols[cols]).flatten(0, 1)[:, inside]
    prior = _prior(along_rows.shape[1], along_cols.shape[1], settings, echoes)
    coefficients = echoes.new_zeros(len(echoes), 2, basis.shape[0])  # [mm]
    scale = echoes.mean().clamp_min(torch.finfo(echoes.dtype).tiny)
    for blur_mm in settings.blur_mm:
        soft = blur(echoes / scale, blur_mm / math.sqrt(pixel_spacing_mm[0] * pixel_spacing_mm[1]))
        predicted: Tensor | None = None
        for _ in range(_STEPS_A_ROUND):
            moved_mm = _field(coefficients, along_rows[rows], along_cols[cols])
            seen = sample(soft[:, None], start_at + moved_mm / spacing[:, None, None])[:, 0]
            if predicted is None:
                predicted = predict_each(seen, ti_ms, inside, model)
            step = _step(seen, predicted, coefficients, basis, prior, weight, inside, spacing)
            coefficients = coefficients + step
            coefficients[reference] = 0
    field_px = _field(coefficients, along_rows, along_cols) / spacing[:, None, None]
    return start_px + field_px


def predict_each(
    echoes: Float[Tensor, "ti row col"],
    ti_ms: Float[Tensor, " ti"],
    inside: Bool[Tensor, "row col"],
    model: str,
    wanted: Bool[Tensor, " ti"] | None = None,
) -> Float[Tensor, "ti row col"]:
    """Magnitude of each (wanted) echo by the fit of all others; NaN outside a mask and where nothing fits.

    There must be `LEAST_ECHOES`. Seven echoes of ``"shmolli"`` without one are no ShMOLLI; they follow the
    same curve, so ``"molli"`` predicts the one that is left out.
    """
    one_less = "molli" if model == "shmolli" else model
    predicted = torch.full_like(echoes, torch.nan)
    curves = echoes[:, inside].clamp_min(0)
    for index in range(len(echoes)) if wanted is None else wanted.nonzero()[:, 0].tolist():
        others = [one for one in range(len(echoes)) if one != index]
        fit = fit_t1(curves[others], ti_ms[others], model=one_less)
        predicted[index, inside] = synthesize(fit, ti_ms[index : index + 1])[0].to(echoes.dtype)
    return predicted


def synthesize(fit: T1Fit, ti_ms: Float[Tensor, " ti"]) -> Float[Tensor, "ti *space"]:
    """Magnitudes of fitted curves; NaN where there is no fit."""
    times = ti_ms.view(-1, *[1] * fit.a.ndim).to(fit.a.dtype)
    return (fit.a - fit.b * torch.exp(-times / fit.t1_star_ms)).abs()


def _step(
    seen: Float[Tensor, "ti row col"],
    predicted: Float[Tensor, "ti row col"],
    coefficients: Float[Tensor, "ti 2 knot"],
    basis: Float[Tensor, "knot pixel"],
    prior: Float[Tensor, "knot knot"],
    weight: Float[Tensor, "row col"],
    inside: Bool[Tensor, "row col"],
    spacing: Float[Tensor, " 2"],
) -> Float[Tensor, "ti 2 knot"]:
    """Gauss-Newton step of every echo towards its prediction [mm]."""
    filled = torch.where(predicted.isnan(), seen, predicted)
    slopes = torch.stack(torch.gradient((seen + filled) / 2, dim=(1, 2)), dim=1)
    slopes = (slopes / spacing[:, None, None])[:, :, inside]
    misfit = (filled - seen)[:, inside]
    known = ~predicted.isnan()[:, inside]
    sigma = _spread(misfit, known)
    robust = 1 / (1 + (misfit / (2 * sigma)).square())
    trust = weight[inside] * robust * known / (sigma.square() * _CORRELATED_PX)
    n_echoes, n_knots = len(seen), basis.shape[0]
    steps = torch.zeros_like(coefficients)
    both = torch.kron(torch.eye(2, dtype=prior.dtype, device=prior.device), prior)
    for index in range(n_echoes):
        design = torch.cat([basis * slopes[index, 0], basis * slopes[index, 1]])
        weighted = design * trust[index]
        pull = weighted @ misfit[index] - both @ coefficients[index].flatten()
        steps[index] = torch.linalg.solve(weighted @ design.T + both, pull).view(2, n_knots)
    return steps


def _spread(misfit: Float[Tensor, "ti pixel"], known: Bool[Tensor, "ti pixel"]) -> Float[Tensor, "ti 1"]:
    """Robust standard deviation of each echo's misfit, never below a tenth of a percent of the signal."""
    size = torch.where(known, misfit.abs(), torch.nan)
    return (1.4826 * size.nanmedian(dim=1, keepdim=True).values).nan_to_num(1.0).clamp_min(1e-3)


def _near(
    heart: Bool[Tensor, "row col"], margin_mm: float, pixel_spacing_mm: tuple[float, float]
) -> Float[Tensor, "row col"]:
    """1 in the heart, falling off to 0 within the margin around it."""
    pixel_mm = math.sqrt(pixel_spacing_mm[0] * pixel_spacing_mm[1])
    reach = max(1, round(margin_mm / 2 / pixel_mm))
    size = 2 * reach + 1
    wide = torch.nn.functional.max_pool2d(heart.float()[None, None], size, stride=1, padding=reach)
    return blur(wide[0], margin_mm / 4 / pixel_mm)[0]


def _span(weight: Float[Tensor, "row col"], axis: int) -> slice:
    """Rows (axis 1) or columns (axis 0) with any weight, and one beyond for slopes."""
    inside = torch.nonzero((weight > 0.05).any(axis))[:, 0]
    return slice(max(0, int(inside[0]) - 1), int(inside[-1]) + 2)


def _knots(n_pixels: int, span: slice, knot_px: float, like: Tensor) -> Float[Tensor, "pixel knot"]:
    """Weight of each control point at every pixel; control points cover the span and one more each side."""
    start, stop = span.start, min(span.stop, n_pixels)
    n_steps = max(1, math.ceil((stop - 1 - start) / knot_px))
    first = (start + stop - 1) / 2 - n_steps * knot_px / 2 - knot_px
    places = first + knot_px * torch.arange(n_steps + 3, device=like.device, dtype=like.dtype)
    pixels = torch.arange(n_pixels, device=like.device, dtype=like.dtype)
    away = ((pixels[:, None] - places) / knot_px).abs()
    near = 2 / 3 - away**2 + away**3 / 2
    far = (2 - away).clamp_min(0) ** 3 / 6
    return torch.where(away < 1, near, far)


def _field(
    coefficients_mm: Float[Tensor, "ti 2 knot"],
    along_rows: Float[Tensor, "row i"],
    along_cols: Float[Tensor, "col j"],
) -> Float[Tensor, "ti 2 row col"]:
    """Displacement [mm] at pixels."""
    grid = coefficients_mm.view(len(coefficients_mm), 2, along_rows.shape[1], along_cols.shape[1])
    field: Tensor = along_rows @ grid @ along_cols.T
    return field


def _prior(n_rows: int, n_cols: int, settings: RefineSettings, like: Tensor) -> Float[Tensor, "knot knot"]:
    """Inverse covariance of the coefficients: their size and their change between neighbors."""

    def steps(n: int) -> Tensor:
        eye = torch.eye(n, device=like.device, dtype=like.dtype)
        return eye[1:] - eye[:-1]

    def eye(n: int) -> Tensor:
        return torch.eye(n, device=like.device, dtype=like.dtype)

    down = torch.kron(steps(n_rows), eye(n_cols))
    right = torch.kron(eye(n_rows), steps(n_cols))
    rough = (down.T @ down + right.T @ right) / settings.roughness_mm**2
    return rough + eye(n_rows * n_cols) / settings.spread_mm**2
