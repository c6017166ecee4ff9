"""Failures planted into sound scans: guides, masks, images and times that are wrong in ways of real trials.

Each is made from images and truth alone, without a look at how checks are computed. A plant is a failure only
if the pipeline falls for it, see `tests.benchmarks.verdicts`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor

from cmrcore.quantify.records import Role, Series
from cmrcore.relaxation import fit_t1, molli_signal
from tests.benchmarks.verdict_scans import ROLES, DrawnScan, Networks, segment

_FAT_T1_MS = 300.0


@dataclass(frozen=True, slots=True)
class Plant:
    """A scan with one failure in it."""

    kind: str
    """Key of `PLANTS`."""
    role: Role
    """Role it was planted in."""
    slice_index: int
    """Slice it was planted in, or one of those that it touches."""
    scan: DrawnScan
    """What the pipeline gets."""


Change = Callable[[DrawnScan, Role, int, np.random.Generator, Networks], Series]


def plant(drawn: DrawnScan, kind: str, rng: np.random.Generator, networks: Networks) -> Plant:
    """Plant a failure into a random slice of a scan."""
    role: Role = "post" if kind == "no contrast" else ROLES[int(rng.integers(2))]
    index = int(rng.integers(len(drawn.series[role].levels)))
    if kind == "roles swapped":
        native, post = (drawn.series[one] for one in ROLES)
        series = {"native": post, "post": native}
    else:
        series = {**drawn.series, role: PLANTS[kind](drawn, role, index, rng, networks)}
    return Plant(kind, role, index, replace(drawn, series=series))


def _guided(
    drawn: DrawnScan, role: Role, index: int, guide: Bool[Tensor, "label row col"], networks: Networks
) -> Series:
    """Read a slice with another reader's guide."""
    return segment(drawn.series[role], (index,), networks, guide)


def _shifted_guide(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """Drawn on an image of another origin: 8 to 50 pixels off."""
    away, turn = rng.uniform(8, 50), rng.uniform(0, 2 * np.pi)
    shift = (round(away * np.sin(turn)), round(away * np.cos(turn)))
    return _guided(drawn, role, index, drawn.truth[role].heart[:, index].roll(shift, (1, 2)), networks)


def _mirrored_guide(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """Written by a tool that counts rows or columns from the other end."""
    axes = ((1,), (2,), (1, 2))[int(rng.integers(3))]
    return _guided(drawn, role, index, drawn.truth[role].heart[:, index].flip(axes), networks)


def _scaled_guide(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """Drawn on an image of other pixels, or round another border: half to two thirds, or half again as large."""
    scale = float(rng.uniform(0.5, 0.68) if rng.integers(2) else rng.uniform(1.4, 1.7))
    return _guided(drawn, role, index, _zoomed(drawn.truth[role].heart[:, index], scale), networks)


def _guide_of_other_level(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """Belongs to the slice at the other end of the stack, from before the patient moved."""
    other = 2 if index == 0 else 0
    guide = drawn.truth[role].heart[:, other].roll(tuple(rng.integers(-6, 7, 2).tolist()), (1, 2))
    return _guided(drawn, role, index, guide, networks)


def _reference_mask_off(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """The mask of one echo slipped, and it is the one that everything is read in."""
    del networks
    series, away, turn = drawn.series[role], rng.uniform(4, 10), rng.uniform(0, 2 * np.pi)
    masks, echo = _masks(series).clone(), int(series.reference()[index])
    shift = (round(away * np.sin(turn)), round(away * np.cos(turn)))
    masks[:, index, echo] = masks[:, index, echo].roll(shift, (1, 2))
    return replace(series, masks=masks)


def _masks_on_rv(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """The network took the RV for the LV on every echo."""
    del networks, rng
    series, heart = drawn.series[role], drawn.truth[role].heart[:, index].numpy()
    pool = ndimage.binary_opening(heart[2], iterations=1)
    ring = ndimage.binary_dilation(pool, iterations=4) & ~pool
    wrong = torch.from_numpy(np.stack([ring, pool, np.zeros_like(ring)]))
    return _with_masks(series, index, lambda _: wrong)


def _masks_too_wide(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """The wall was drawn too far out, into fat and lung, or too far in, over the blood."""
    del networks
    n_out, n_in = ((3, 0), (0, 3), (2, 2))[int(rng.integers(3))]

    def change(masks: Bool[Tensor, "label row col"]) -> Bool[Tensor, "label row col"]:
        wall, pool, rv = masks.numpy()
        inner = ndimage.binary_erosion(pool, iterations=n_in) if n_in else pool
        outer = ndimage.binary_dilation(wall | pool, iterations=n_out) if n_out else wall | pool
        return torch.from_numpy(np.stack([outer & ~inner, inner, rv & ~outer]))

    return _with_masks(drawn.series[role], index, change)


def _masks_shifted(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """Every mask of the slice, guide and all, lies a wall's width off."""
    del networks
    away, turn = rng.uniform(4, 9), rng.uniform(0, 2 * np.pi)
    shift = (round(away * np.sin(turn)), round(away * np.cos(turn)))
    return _with_masks(drawn.series[role], index, lambda masks: masks.roll(shift, (1, 2)))


def _through_plane(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """Three to six echoes show the next slice: a breath that no alignment in the plane takes back."""
    series = drawn.series[role]
    other = 1 if index != 1 else int(rng.choice([0, 2]))
    n_echoes = series.echoes.shape[1]
    taken = torch.from_numpy(rng.choice(np.arange(1, n_echoes), int(rng.integers(3, 7)), replace=False))
    echoes = series.echoes.clone()
    echoes[index, taken] = series.echoes[other, taken]
    return segment(replace(series, echoes=echoes), (index,), networks)


def _noise(drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks) -> Series:
    """A coil that was off: noise of a tenth to a third of the brightest tissue."""
    series = drawn.series[role]
    echoes = series.echoes.clone()
    sigma = float(rng.uniform(0.1, 0.35)) * torch.quantile(echoes[index, -1].flatten(), 0.98).item()
    noise = torch.from_numpy(rng.normal(0, sigma, (2, *echoes[index].shape))).float()
    echoes[index] = torch.hypot(echoes[index] + noise[0], noise[1]).round()
    return segment(replace(series, echoes=echoes), (index,), networks)


def _wrong_times(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """Times from another attribute: of another heart rate, with a trigger delay in them, or of other echoes."""
    del index, networks
    series = drawn.series[role]
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


def _no_contrast(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """The injection failed: the post-contrast series shows the native heart again."""
    del role, index, networks
    series = drawn.series["native"]
    noise = torch.from_numpy(rng.normal(0, 5, series.echoes.shape)).float()
    return replace(series, echoes=(series.echoes + noise).clamp_min(0).round())


def _fat(drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks) -> Series:
    """Fat within the wall's pixels, which a balanced readout shows with the opposite sign."""
    series, share = drawn.series[role], float(rng.uniform(0.15, 0.45))
    ti_ms = series.ti_ms[index]
    echoes = series.echoes.clone()
    fit = fit_t1(echoes[index], ti_ms)
    null_ms = fit.t1_star_ms * (fit.b / fit.a).log()
    signed = torch.where(ti_ms[:, None, None] < null_ms, -echoes[index], echoes[index])
    where = drawn.truth[role].walls[index] & torch.isfinite(fit.t1_ms)
    full = fit.a.nan_to_num(0.0)
    fat = molli_signal(ti_ms, full, 1.9 * full, torch.full_like(full, _FAT_T1_MS))
    mixed = ((1 - share) * signed - share * fat).abs().float().round()
    echoes[index] = torch.where(where, mixed, echoes[index])
    return segment(replace(series, echoes=echoes), (index,), networks)


def _ghosts(drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks) -> Series:
    """Half of the echoes carry a displaced copy of themselves: an arrhythmia, or a patient who moved."""
    series = drawn.series[role]
    echoes, n_echoes = series.echoes.clone(), series.echoes.shape[1]
    for echo in rng.choice(n_echoes, n_echoes // 2, replace=False).tolist():
        shift, share = int(rng.integers(6, 30)), float(rng.uniform(0.3, 0.7))
        axis = int(rng.integers(2))
        echoes[index, echo] += share * echoes[index, echo].roll(shift * int(rng.choice([-1, 1])), axis)
    return segment(replace(series, echoes=echoes.round()), (index,), networks)


def _scaled_echoes(
    drawn: DrawnScan, role: Role, index: int, rng: np.random.Generator, networks: Networks
) -> Series:
    """Every image was stretched to its own range of gray, and the slope that undoes it is lost."""
    del index, networks, rng
    series = drawn.series[role]
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
    masks, guide = _masks(series).clone(), series.guide
    assert guide is not None
    guide = guide.clone()
    guide[:, index] = change(guide[:, index])
    for echo in range(masks.shape[2]):
        masks[:, index, echo] = change(masks[:, index, echo])
    return replace(series, masks=masks, guide=guide)


def _masks(series: Series) -> Bool[Tensor, "label slice ti row col"]:
    assert series.masks is not None
    return series.masks


def _zoomed(masks: Bool[Tensor, "label row col"], scale: float) -> Bool[Tensor, "label row col"]:
    """Scale masks about the LV's center."""
    center = torch.nonzero(masks[0]).double().mean(0)
    rows, cols = (torch.arange(n, dtype=torch.float64) for n in masks.shape[1:])
    at = [
        ((line - middle) / scale + middle).round() for line, middle in zip((rows, cols), center, strict=True)
    ]
    row, col = (line.long().clamp(0, n - 1) for line, n in zip(at, masks.shape[1:], strict=True))
    return masks[:, row][:, :, col]
