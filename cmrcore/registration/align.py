"""Alignment of the echoes of one slice onto its reference echo, and the choice how far to go."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from cmrcore.registration.affine import (
    AffineFit,
    AffineLimits,
    AffineStatus,
    TurnSource,
    affine_displacement,
    register_masks,
)
from cmrcore.registration.decide import Candidate, Method, choose, confirm, weigh
from cmrcore.registration.groupwise import LEAST_ECHOES, refine
from cmrcore.registration.warp import jacobian_determinant, warp

EchoState = Literal[
    "reference",
    "aligned",
    "still",
    "contradicted",
    "empty",
    "at_border",
    "reference_unusable",
    "implausible",
    "unconfirmed",
    "not_aligned",
]
"""What became of an echo. ``still`` lay where the reference does, by its masks; ``contradicted`` fits the
other echoes better where it is than where its masks would have it. ``not_aligned`` is an echo that its masks
would have moved, but its slice as a whole fits better without, or the trial aligns none. ``unconfirmed`` is
one of fewer than `LEAST_ECHOES`, too few for the images to say whether its masks are right. The others name
why its masks could not be used."""

UNALIGNED: tuple[EchoState, ...] = ("empty", "at_border", "reference_unusable", "implausible", "unconfirmed")
"""States of an echo that may have moved and was left where it is."""

SETTLED: tuple[EchoState, ...] = ("reference", "aligned", "still")
"""States of an echo that shows the heart where the reference does, as far as masks and images say."""

_AROUND_MM = 5.0
"""How far beyond the LV echoes are compared [mm]."""
STATES: dict[int, EchoState] = {
    AffineStatus.EMPTY: "empty",
    AffineStatus.AT_BORDER: "at_border",
    AffineStatus.REFERENCE_UNUSABLE: "reference_unusable",
    AffineStatus.IMPLAUSIBLE: "implausible",
}
"""State of an echo whose masks could not be aligned."""


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """How echoes are aligned; what changes results."""

    method: Method
    """The most that is done: ``none``, ``affine`` from the masks, or ``refined`` from image and model too."""
    shift_max_mm: float
    """Largest plausible way of the LV's center [mm]."""
    turn_max_deg: float
    """Largest plausible turn of the heart [degrees]."""
    scale_max_fraction: float
    """Largest plausible change of the LV's radius, 0-1."""
    still_px: float
    """Echoes whose myocardium moved by less are left as they are [pixel]; masks are no finer."""
    r_squared_fall_max: float
    """How much the mean R2 in the myocardium may fall before an alignment is not believed, 0-1."""
    post_dice_min: float
    """Least overlap of native and aligned post-contrast myocardium for an ECV, 0-1."""


@dataclass(frozen=True, slots=True)
class SliceAlignment:
    """Echoes of one slice on the pixels of the reference echo."""

    method: Method
    """What was chosen."""
    echoes: Float[Tensor, "ti row col"]
    """Magnitudes, each resampled once from the original or not at all [a.u.]."""
    displacement_px: Float[Tensor, "ti 2 row col"]
    """Where in each original echo a pixel lies, minus the pixel (row, col) [pixel]."""
    states: tuple[EchoState, ...]
    """What became of each echo."""
    way_mm: tuple[float, ...]
    """Mean way of the myocardium on each echo [mm]."""
    reference_apart_px: float
    """How far the other echoes' masks lie from the reference's, as a vector's median [pixel]: what they have
    in common. Hearts wander about a place; a reference mask that is wrong lies apart from all others."""
    turn_deg: tuple[float | None, ...]
    """Turn of each echo's heart by its masks, clockwise [degrees]; None where they could not tell."""
    turn_from: tuple[TurnSource, ...]
    """What told each turn."""
    scale: tuple[float | None, ...]
    """LV radius over that of the reference, by the masks; None where they could not tell."""
    jacobian_min: tuple[float, ...]
    """Least local change of area in the heart; under 0 the field folds."""
    candidates: tuple[Candidate, ...]
    """Every alignment that was weighed, the first of them none."""

    @property
    def recovered(self) -> int:
        """Index of the last echo that lies where the reference does; of the last one where none is known."""
        settled = [index for index, state in enumerate(self.states) if state in SETTLED]
        return settled[-1] if settled else len(self.states) - 1


def align_slice(
    echoes: Float[Tensor, "ti row col"],
    ti_ms: Float[Tensor, " ti"],
    masks: Float[Tensor, "label ti row col"],
    reference: int,
    pixel_spacing_mm: tuple[float, float],
    model: str,
    settings: AlignSettings,
    r_squared_low: float,
) -> SliceAlignment:
    """Align every echo of a slice to one of them.

    Masks and echoes are read where they were acquired. What is given back was resampled once by cubic
    splines; an echo that hardly moved is given back as it is, bit by bit.

    Parameters
    ----------
    echoes
        Magnitudes [a.u.].
    ti_ms
        Inversion times [ms].
    masks
        Myocardium, blood pool and RV on every echo, 0-1.
    reference
        Index of the echo that stays, on whose pixels the others come to lie.
    pixel_spacing_mm
        Distance of rows and columns [mm].
    model
        Signal model of `fit_t1`, by which alignments are weighed.
    settings
        What may be done.
    r_squared_low
        R2 under which the candidates count a pixel as badly fitted; the choice does not depend on it.
    """
    by_echo = masks.transpose(0, 1)
    myocardium, heart = masks[0, reference] > 0.5, (masks[:, reference] > 0.5).any(0)
    nothing = torch.zeros(len(echoes), 2, *echoes.shape[1:], dtype=echoes.dtype, device=echoes.device)
    if settings.method == "none":
        as_it_is = weigh("none", echoes, ti_ms, myocardium, torch.ones(len(echoes)), model, r_squared_low)
        return _unaligned(echoes, nothing, as_it_is, reference)
    limits = AffineLimits(settings.shift_max_mm, settings.turn_max_deg, settings.scale_max_fraction)
    fit = register_masks(by_echo, by_echo[reference], pixel_spacing_mm, limits)
    told_px = _settled(
        affine_displacement(fit, (echoes.shape[1], echoes.shape[2]), pixel_spacing_mm).to(echoes.dtype),
        myocardium,
        reference,
        settings.still_px,
    )
    contradicted = torch.zeros(len(echoes), dtype=torch.bool, device=echoes.device)
    is_confirmable = len(echoes) >= LEAST_ECHOES
    moved_px, moved = (told_px, resample(echoes, told_px)) if is_confirmable else (nothing, echoes)
    moves = moved_px.flatten(1).any(1)
    if bool(moves.any()):
        around = surroundings(masks[:2, reference].amax(0) > 0.5, pixel_spacing_mm)
        contradicted = moves & ~confirm(echoes, moved, ti_ms, around, model)
        moved_px = torch.where(contradicted[:, None, None, None], 0.0, moved_px)
        moved = torch.where(contradicted[:, None, None], echoes, moved)
    fields: list[tuple[Method, Tensor, Tensor]] = [("none", nothing, echoes)]
    if bool(myocardium.any()):
        if bool(moved_px.any()):
            fields.append(("affine", moved_px, moved))
        if settings.method == "refined" and is_confirmable:
            found = refine(echoes, ti_ms, moved_px, heart, reference, pixel_spacing_mm, model)
            found = _settled(found, myocardium, reference, settings.still_px)
            fields.append(("refined", found, resample(echoes, found)))
    candidates = [
        weigh(method, image, ti_ms, myocardium, _least_jacobian(field, heart), model, r_squared_low)
        for method, field, image in fields
    ]
    chosen = choose(candidates, settings.r_squared_fall_max)
    method, field, image = fields[chosen]
    states = _states(fit, field, told_px, contradicted, reference, method)
    others = fit.status == AffineStatus.OK
    others[reference] = False
    return SliceAlignment(
        method=method,
        echoes=image,
        displacement_px=field,
        states=states,
        way_mm=tuple(_way(field, myocardium, pixel_spacing_mm).tolist()),
        reference_apart_px=_in_common_px(told_px, myocardium, others),
        turn_deg=_where_known(torch.rad2deg(fit.turn_rad), fit),
        turn_from=fit.turn_from,
        scale=_where_known(fit.scale, fit),
        jacobian_min=tuple(_least_jacobian(field, heart).tolist()),
        candidates=tuple(candidates),
    )


def _unaligned(
    echoes: Float[Tensor, "ti row col"],
    nothing: Float[Tensor, "ti 2 row col"],
    candidate: Candidate,
    reference: int,
) -> SliceAlignment:
    """Echoes as they are, for a trial that aligns none."""
    n_echoes = len(echoes)
    no_turn: tuple[TurnSource] = ("none",)
    states: list[EchoState] = ["not_aligned"] * n_echoes
    states[reference] = "reference"
    return SliceAlignment(
        method="none",
        echoes=echoes,
        displacement_px=nothing,
        states=tuple(states),
        way_mm=(0.0,) * n_echoes,
        reference_apart_px=0.0,
        turn_deg=(None,) * n_echoes,
        turn_from=no_turn * n_echoes,
        scale=(None,) * n_echoes,
        jacobian_min=(1.0,) * n_echoes,
        candidates=(candidate,),
    )


def resample(
    echoes: Float[Tensor, "ti row col"], displacement_px: Float[Tensor, "ti 2 row col"]
) -> Float[Tensor, "ti row col"]:
    """Echoes where the displacement points; those without any stay bit by bit, no magnitude is negative."""
    moves = displacement_px.flatten(1).any(1)
    result = echoes.clone()
    if bool(moves.any()):
        pulled = warp(echoes[moves][:, None], displacement_px[moves], "cubic")[:, 0]
        result[moves] = pulled.clamp_min(0)
    return result


def _settled(
    displacement_px: Float[Tensor, "ti 2 row col"],
    myocardium: Bool[Tensor, "row col"],
    reference: int,
    still_px: float,
) -> Float[Tensor, "ti 2 row col"]:
    """Displacement with 0 for the reference and for echoes that hardly moved."""
    if not bool(myocardium.any()):
        return torch.zeros_like(displacement_px)
    still = _way(displacement_px, myocardium, (1.0, 1.0)) < still_px
    still[reference] = True
    return torch.where(still[:, None, None, None], 0.0, displacement_px)


def _way(
    displacement_px: Float[Tensor, "ti 2 row col"],
    myocardium: Bool[Tensor, "row col"],
    pixel_spacing_mm: tuple[float, float],
) -> Float[Tensor, " ti"]:
    """Mean way over the myocardium in the unit of the spacing; 0 without one."""
    spacing = displacement_px.new_tensor(pixel_spacing_mm)[:, None]
    way: Tensor = (displacement_px[:, :, myocardium] * spacing).norm(dim=1)
    return way.mean(1) if way.shape[1] else way.new_zeros(len(way))


def _in_common_px(
    displacement_px: Float[Tensor, "ti 2 row col"],
    myocardium: Bool[Tensor, "row col"],
    others: Bool[Tensor, " ti"],
) -> float:
    """Length of the median over echoes of the myocardium's mean displacement [pixel]; 0 without any."""
    if not bool(myocardium.any()) or not bool(others.any()):
        return 0.0
    ways: Tensor = displacement_px[others][:, :, myocardium].mean(2)
    return float(ways.median(0).values.norm())


def surroundings(
    ventricle: Bool[Tensor, "row col"], pixel_spacing_mm: tuple[float, float]
) -> Bool[Tensor, "row col"]:
    """LV with the tissue that its outer edge is told from."""
    reach = max(1, round(_AROUND_MM / math.sqrt(pixel_spacing_mm[0] * pixel_spacing_mm[1])))
    wide = max_pool2d(ventricle.float()[None, None], 2 * reach + 1, stride=1, padding=reach)
    return wide[0, 0] > 0


def _least_jacobian(
    displacement_px: Float[Tensor, "ti 2 row col"], heart: Bool[Tensor, "row col"]
) -> Float[Tensor, " ti"]:
    """Least Jacobian determinant in the heart; 1 without one."""
    inside = jacobian_determinant(displacement_px)[:, heart]
    return inside.amin(1) if inside.shape[1] else inside.new_ones(len(inside))


def _where_known(values: Float[Tensor, " ti"], fit: AffineFit) -> tuple[float | None, ...]:
    """Values of the echoes whose masks could be aligned, None for the others."""
    known = (fit.status == AffineStatus.OK).tolist()
    return tuple(value if ok else None for value, ok in zip(values.tolist(), known, strict=True))


def _states(
    fit: AffineFit,
    field: Float[Tensor, "ti 2 row col"],
    told_px: Float[Tensor, "ti 2 row col"],
    contradicted: Bool[Tensor, " ti"],
    reference: int,
    method: Method,
) -> tuple[EchoState, ...]:
    """Say what became of each echo."""
    moves, told = field.flatten(1).any(1).tolist(), told_px.flatten(1).any(1).tolist()
    states: list[EchoState] = []
    for index, status in enumerate(fit.status.tolist()):
        if status != AffineStatus.OK and not moves[index]:
            states.append(STATES[status])
        elif index == reference:
            states.append("reference")
        elif moves[index]:
            states.append("aligned")
        elif bool(contradicted[index]):
            states.append("contradicted")
        elif method != "none" or not told[index]:
            states.append("still")
        else:
            states.append("not_aligned" if len(field) >= LEAST_ECHOES else "unconfirmed")
    return tuple(states)
