"""Failures planted into sound scans: guides, masks, images and times that are wrong in ways of real trials.

Each is made from images and truth alone, without a look at how checks are computed. A plant is a failure only
if the pipeline falls for it, see `tests.benchmarks.verdicts`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor

from cmrcore.quantify import GuideNote, Series
from cmrcore.quantify.records import Role
from cmrcore.relaxation import fit_t1, molli_signal
from cmrcore.segmentation import Segmenter
from storage.config import load_config
from storage.dicom_series import EchoStack
from tasks.segment import GuideFinder, compute_device, finder_of, segment_series, segmenter_of
from tests.benchmarks.scanned import DEMO_CONFIG, SCANNED_AT, ScannedVisit

_FAT_T1_MS = 300.0
_ROLES: tuple[Role, Role] = ("native", "post")


@dataclass(frozen=True, slots=True)
class Plant:
    """A visit with one failure in it."""

    kind: str
    """Key of `PLANTS`."""
    role: Role
    """Role it was planted in."""
    slice_index: int
    """Slice it was planted in, or one of those that it touches."""
    visit: ScannedVisit
    """What the pipeline gets."""


Change = Callable[[ScannedVisit, Role, int, np.random.Generator], Series]


def plant(visit: ScannedVisit, kind: str, rng: np.random.Generator) -> Plant:
    """Plant a failure into a random slice of a visit."""
    role: Role = "post" if kind == "no contrast" else _ROLES[int(rng.integers(2))]
    index = int(rng.integers(len(visit.native.levels)))
    if kind == "roles swapped":
        changed = replace(visit, native=visit.post, post=visit.native)
    else:
        series = PLANTS[kind](visit, role, index, rng)
        changed = replace(visit, native=series) if role == "native" else replace(visit, post=series)
    return Plant(kind, role, index, changed)


def series_of(visit: ScannedVisit, role: Role) -> Series:
    """Series of a role."""
    return visit.native if role == "native" else visit.post


def segmented(series: Series, index: int, drawn: Bool[Tensor, "label row col"] | None = None) -> Series:
    """Segment one slice anew as a night does, with a reader's guide if there is one."""
    alone = slice(index, index + 1)
    row, col = series.orientation[:3], series.orientation[3:]
    stack = EchoStack(
        role="native",
        echoes=series.echoes[alone].numpy(),
        ti_ms=series.ti_ms[alone].numpy(),
        acquisition_index=series.acquisition_index[alone].numpy(),
        ti_source=(),
        sources=(),
        positions_mm=((0.0, 0.0, 0.0),),
        orientation=(*row, *col),
        pixel_spacing_mm=series.pixel_spacing_mm,
        slice_thickness_mm=None,
        levels=("mid",),
        anterior=series.anterior,
        scheme=series.scheme,
        acquired_at=SCANNED_AT,
        study_date=SCANNED_AT.date(),
        field_strength_t=None,
        manufacturer="",
        scanner_model="",
        repeats=(),
    )
    segmenter, finder, alpha = _methods()
    uploaded = None if drawn is None else drawn[:, None].numpy()
    (found,) = segment_series(segmenter, finder, stack, uploaded, alpha)
    masks, guide, confidence = (
        _there(one).clone() for one in (series.masks, series.guide, series.confidence)
    )
    reference, notes = series.reference().clone(), list(series.guide_notes)
    masks[:, index], guide[:, index], confidence[index], notes[index] = False, False, torch.nan, None
    reference[index] = series.acquisition_index[index].argmin()
    if found is not None:
        masks[:, index], guide[:, index] = found.found.masks, found.guide.masks
        confidence[index], reference[index] = found.found.confidence, found.guide.echo
        one = found.guide
        notes[index] = GuideNote(
            one.origin, one.score, one.findings, one.rejected, one.overlap, one.reader_replaced
        )
    return replace(
        series,
        masks=masks,
        guide=guide,
        confidence=confidence,
        reference_echo=reference,
        guide_notes=tuple(notes),
    )


@cache
def _methods() -> tuple[Segmenter, GuideFinder, float]:
    """Read what the demo's configuration segments with."""
    config = load_config(DEMO_CONFIG).segment
    device = compute_device()
    return segmenter_of(Path(), config, device), finder_of(Path(), config, device), config.alpha


def _heart(visit: ScannedVisit, role: Role, index: int) -> Bool[Tensor, "label row col"]:
    """Take the true labels of a slice on its first-acquired echo, which readers draw on."""
    first = int(series_of(visit, role).acquisition_index[index].argmin())
    return visit.labels[role][:, index, first]


def _shifted_guide(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Shift a guide by 8 to 50 pixels, as drawn on an image of another origin."""
    away, turn = rng.uniform(8, 50), rng.uniform(0, 2 * np.pi)
    shift = (round(away * np.sin(turn)), round(away * np.cos(turn)))
    return segmented(series_of(visit, role), index, _heart(visit, role, index).roll(shift, (1, 2)))


def _mirrored_guide(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Mirror a guide, as written by a tool that counts rows or columns from the other end."""
    axes = ((1,), (2,), (1, 2))[int(rng.integers(3))]
    return segmented(series_of(visit, role), index, _heart(visit, role, index).flip(axes))


def _scaled_guide(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Scale a guide to half, or by half again: drawn on other pixels, or round another border."""
    scale = float(rng.uniform(0.5, 0.68) if rng.integers(2) else rng.uniform(1.4, 1.7))
    return segmented(series_of(visit, role), index, _zoomed(_heart(visit, role, index), scale))


def _guide_of_other_level(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Take the guide of the slice at the other end of the stack, from before the patient moved."""
    other = 2 if index == 0 else 0
    guide = _heart(visit, role, other).roll(tuple(rng.integers(-6, 7, 2).tolist()), (1, 2))
    return segmented(series_of(visit, role), index, guide)


def _reference_mask_off(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Shift the mask of the one echo that everything is read in."""
    series, away, turn = series_of(visit, role), rng.uniform(4, 10), rng.uniform(0, 2 * np.pi)
    masks, echo = _masks(series).clone(), int(series.reference()[index])
    shift = (round(away * np.sin(turn)), round(away * np.cos(turn)))
    masks[:, index, echo] = masks[:, index, echo].roll(shift, (1, 2))
    return replace(series, masks=masks)


def _masks_on_rv(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Take the RV for the LV on every echo."""
    del rng
    series, heart = series_of(visit, role), _heart(visit, role, index).numpy()
    pool = ndimage.binary_opening(heart[2], iterations=1)
    ring = ndimage.binary_dilation(pool, iterations=4) & ~pool
    wrong = torch.from_numpy(np.stack([ring, pool, np.zeros_like(ring)]))
    return _with_masks(series, index, lambda _: wrong)


def _masks_too_wide(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Draw the wall too far out, into fat and lung, or too far in, over the blood."""
    n_out, n_in = ((3, 0), (0, 3), (2, 2))[int(rng.integers(3))]

    def change(masks: Bool[Tensor, "label row col"]) -> Bool[Tensor, "label row col"]:
        wall, pool, rv = masks.numpy()
        inner = ndimage.binary_erosion(pool, iterations=n_in) if n_in else pool
        outer = ndimage.binary_dilation(wall | pool, iterations=n_out) if n_out else wall | pool
        return torch.from_numpy(np.stack([outer & ~inner, inner, rv & ~outer]))

    return _with_masks(series_of(visit, role), index, change)


def _masks_shifted(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Shift every mask of the slice, guide and all, by a wall's width."""
    away, turn = rng.uniform(4, 9), rng.uniform(0, 2 * np.pi)
    shift = (round(away * np.sin(turn)), round(away * np.cos(turn)))
    return _with_masks(series_of(visit, role), index, lambda masks: masks.roll(shift, (1, 2)))


def _through_plane(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Let three to six echoes show the next slice: a breath that no alignment in the plane takes back."""
    series = series_of(visit, role)
    other = 1 if index != 1 else int(rng.choice([0, 2]))
    n_echoes = series.echoes.shape[1]
    taken = torch.from_numpy(rng.choice(np.arange(1, n_echoes), int(rng.integers(3, 7)), replace=False))
    echoes = series.echoes.clone()
    echoes[index, taken] = series.echoes[other, taken]
    return segmented(replace(series, echoes=echoes), index)


def _noise(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Add noise of a tenth to a third of the brightest tissue: a coil that was off."""
    series = series_of(visit, role)
    echoes = series.echoes.clone()
    sigma = float(rng.uniform(0.1, 0.35)) * torch.quantile(echoes[index, -1].flatten(), 0.98).item()
    noise = torch.from_numpy(rng.normal(0, sigma, (2, *echoes[index].shape))).float()
    echoes[index] = torch.hypot(echoes[index] + noise[0], noise[1]).round()
    return segmented(replace(series, echoes=echoes), index)


def _wrong_times(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Take times of another beat, with a trigger delay in them, or of other echoes."""
    del index
    series = series_of(visit, role)
    ti_ms, way = series.ti_ms.clone(), int(rng.integers(3))
    if way == 0:
        scale = float(rng.choice([rng.uniform(0.65, 0.8), rng.uniform(1.25, 1.5)]))
        ti_ms = ti_ms[:, :1] + (ti_ms - ti_ms[:, :1]) * scale
    elif way == 1:
        ti_ms = ti_ms + float(rng.uniform(150, 500))
    else:
        n_echoes = ti_ms.shape[1]
        first, second = rng.choice(n_echoes // 2, 1)[0], rng.integers(n_echoes // 2, n_echoes)
        echoes = series.echoes.clone()
        echoes[:, [first, second]] = series.echoes[:, [second, first]]
        return replace(series, echoes=echoes)
    return replace(series, ti_ms=ti_ms)


def _no_contrast(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Show the native heart again after contrast: the injection failed."""
    del role, index
    series = visit.native
    noise = torch.from_numpy(rng.normal(0, 5, series.echoes.shape)).float()
    return replace(series, echoes=(series.echoes + noise).clamp_min(0).round())


def _fat(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Mix fat into the wall's pixels, which a balanced readout shows with the opposite sign."""
    series, share = series_of(visit, role), float(rng.uniform(0.15, 0.45))
    ti_ms = series.ti_ms[index]
    echoes = series.echoes.clone()
    fit = fit_t1(echoes[index], ti_ms)
    null_ms = fit.t1_star_ms * (fit.b / fit.a).log()
    signed = torch.where(ti_ms[:, None, None] < null_ms, -echoes[index], echoes[index])
    where = visit.labels[role][0, index] & torch.isfinite(fit.t1_ms)
    full = fit.a.nan_to_num(0.0)
    fat = molli_signal(ti_ms, full, 1.9 * full, torch.full_like(full, _FAT_T1_MS))
    mixed = ((1 - share) * signed - share * fat).abs().float().round()
    echoes[index] = torch.where(where, mixed, echoes[index])
    return segmented(replace(series, echoes=echoes), index)


def _ghosts(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Add a displaced copy to half of the echoes: an arrhythmia, or a patient who moved."""
    series = series_of(visit, role)
    echoes, n_echoes = series.echoes.clone(), series.echoes.shape[1]
    for echo in rng.choice(n_echoes, n_echoes // 2, replace=False).tolist():
        shift, share = int(rng.integers(6, 30)), float(rng.uniform(0.3, 0.7))
        axis = int(rng.integers(2))
        echoes[index, echo] += share * echoes[index, echo].roll(shift * int(rng.choice([-1, 1])), axis)
    return segmented(replace(series, echoes=echoes.round()), index)


def _scaled_echoes(visit: ScannedVisit, role: Role, index: int, rng: np.random.Generator) -> Series:
    """Stretch every image to its own range of gray, and lose the slope that undoes it."""
    del index, rng
    series = series_of(visit, role)
    brightest = torch.quantile(series.echoes.flatten(2), 0.995, dim=2)
    return replace(series, echoes=(1000 * series.echoes / brightest[:, :, None, None]).round())


PLANTS: dict[str, Change] = {
    "shifted guide": _shifted_guide,
    "mirrored guide": _mirrored_guide,
    "scaled guide": _scaled_guide,
    "guide of another level": _guide_of_other_level,
    "reference mask off": _reference_mask_off,
    "masks on the RV": _masks_on_rv,
    "masks too wide": _masks_too_wide,
    "masks shifted": _masks_shifted,
    "motion through the plane": _through_plane,
    "noise": _noise,
    "wrong inversion times": _wrong_times,
    "no contrast": _no_contrast,
    "roles swapped": _no_contrast,  # done by `plant`, as it takes both roles
    "fat in the wall": _fat,
    "ghosts": _ghosts,
    "echoes scaled one by one": _scaled_echoes,
}
"""What can be planted."""


def _with_masks(
    series: Series,
    index: int,
    change: Callable[[Bool[Tensor, "label row col"]], Bool[Tensor, "label row col"]],
) -> Series:
    """Change the guide and all masks of a slice alike."""
    masks, guide = _masks(series).clone(), _there(series.guide).clone()
    guide[:, index] = change(guide[:, index])
    for echo in range(masks.shape[2]):
        masks[:, index, echo] = change(masks[:, index, echo])
    return replace(series, masks=masks, guide=guide)


def _masks(series: Series) -> Bool[Tensor, "label slice ti row col"]:
    return _there(series.masks)


def _there(values: Tensor | None) -> Tensor:
    assert values is not None
    return values


def _zoomed(masks: Bool[Tensor, "label row col"], scale: float) -> Bool[Tensor, "label row col"]:
    """Scale masks about the LV's center."""
    center = torch.nonzero(masks[0]).double().mean(0)
    rows, cols = (torch.arange(n, dtype=torch.float64) for n in masks.shape[1:])
    at = [
        ((line - middle) / scale + middle).round() for line, middle in zip((rows, cols), center, strict=True)
    ]
    row, col = (line.long().clamp(0, n - 1) for line, n in zip(at, masks.shape[1:], strict=True))
    return masks[:, row][:, :, col]
