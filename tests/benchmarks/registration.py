"""Alignment on known motion. ``python -m tests.benchmarks.registration [N_SCANS]``.

Series of the digital trial at ``typical`` and ``hard``, native and post-contrast, three slices a scan. Side
by side: no correction, the true displacement (what no alignment can beat), affine from the true masks, affine
from masks that err (contours displaced by a smooth random field, one mask in twelve at a wrong place), the
model-driven refinement on top and alone, and SimpleITK pairwise. Networks come in through ``masks_of``.

The mean T1 of a slice is moved at will by a pixel whose fit ran away, so errors of medians are told.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cmrcore.registration.affine import affine_displacement, register_masks
from cmrcore.registration.align import AlignSettings, align_slice
from cmrcore.registration.groupwise import RefineSettings, refine
from cmrcore.registration.warp import inverse, warp
from tests.benchmarks.figure import Figure, print_figures
from tests.benchmarks.moving import Align, MovingSeries, Summary, judge, moving_series, summarize
from tests.benchmarks.peer_simpleitk import pairwise
from tests.benchmarks.peers import say

MasksOf = Callable[[MovingSeries], Float[Tensor, "ti label row col"]]
"""Masks of every echo of a series, 0-1, such as a network's."""

N_SCANS = 4
N_PEER_SERIES = 4
"""Series that SimpleITK aligns: it takes seconds for each."""
SETTINGS = AlignSettings(
    method="affine",
    shift_max_mm=30.0,
    turn_max_deg=20.0,
    scale_max_fraction=0.25,
    still_px=0.25,
    r_squared_fall_max=0.0,
    post_dice_min=0.6,
)


def registration_figures(n_scans: int = N_SCANS, masks_of: MasksOf | None = None) -> list[Figure]:
    """All figures; ``masks_of`` gives predicted masks, erring ones stand in for them without it."""
    predicted = masks_of or erring_masks
    alignments: dict[str, Align] = {
        "none": nothing,
        "truth": true_displacement,
        "affine, true masks": masked(true_masks),
        "affine, predicted masks": masked(predicted),
        "the same, unconfirmed": unconfirmed(predicted),
        "refined, predicted masks": masked(predicted, "refined"),
        "refined, no masks": image_only,
    }
    figures: list[Figure] = []
    for difficulty in ("clean", "typical", "hard"):
        drawn = list(moving_series(difficulty, max(1, n_scans // 4) if difficulty == "clean" else n_scans))
        for role in ("native", "post"):
            series = [one for one in drawn if one.role == role]
            say(f"aligning {len(series)} series: {difficulty}, {role}")
            figures += _compare(f"{difficulty} {role}", series, alignments)
            if difficulty != "clean":
                few = {"none": nothing, "affine, true masks": masked(true_masks), "SimpleITK": pairwise}
                figures += _compare(f"{difficulty} {role}, few", series[:N_PEER_SERIES], few)
    return [*figures, Figure("load average", os.getloadavg()[0], "", "", f"{os.cpu_count()} cores")]


def nothing(series: MovingSeries) -> Float[Tensor, "ti 2 row col"]:
    """Leave every echo where it is."""
    return torch.zeros_like(series.moved_px)


def true_displacement(series: MovingSeries) -> Float[Tensor, "ti 2 row col"]:
    """Take back the displacement that was put in."""
    return inverse(series.moved_px)


def true_masks(series: MovingSeries) -> Float[Tensor, "ti label row col"]:
    """Labels of the digital trial."""
    return series.labels.float()


def erring_masks(series: MovingSeries) -> Float[Tensor, "ti label row col"]:
    """Masks whose contours err by half a pixel, and one echo in twelve with its heart at a wrong place."""
    generator = torch.Generator().manual_seed(int(series.echoes.sum().item()) % 2**31)
    n_echoes, shape = len(series.echoes), series.echoes.shape[1:]
    coarse = 0.5 * torch.randn(n_echoes, 2, 12, 12, generator=generator)
    field = functional.interpolate(coarse, shape, mode="bicubic", align_corners=True)
    elsewhere = 6 * torch.randn(n_echoes, 2, 1, 1, generator=generator)
    is_wrong = torch.rand(n_echoes, generator=generator) < 1 / 12
    is_wrong[0] = False
    return warp(series.labels.float(), field + elsewhere * is_wrong[:, None, None, None])


def masked(masks_of: MasksOf, method: Literal["affine", "refined"] = "affine") -> Align:
    """Alignment as the night does it, from the masks that a source gives."""

    def align(series: MovingSeries) -> Float[Tensor, "ti 2 row col"]:
        masks = masks_of(series).transpose(0, 1)
        settings = replace(SETTINGS, method=method)
        return align_slice(
            series.echoes, series.ti_ms, masks, 0, series.pixel_spacing_mm, "molli", settings, 0.95
        ).displacement_px

    return align


def unconfirmed(masks_of: MasksOf) -> Align:
    """Affine alignment that believes every mask."""

    def align(series: MovingSeries) -> Float[Tensor, "ti 2 row col"]:
        masks = masks_of(series)
        fit = register_masks(masks, masks[0], series.pixel_spacing_mm)
        shape = (series.echoes.shape[1], series.echoes.shape[2])
        return affine_displacement(fit, shape, series.pixel_spacing_mm)

    return align


def image_only(series: MovingSeries) -> Float[Tensor, "ti 2 row col"]:
    """Model-driven refinement with one mask, that of the first echo."""
    heart, start = series.labels[0].any(0), nothing(series)
    far = RefineSettings(spread_mm=6.0, roughness_mm=1.0, blur_mm=(4.0, 3.0, 2.0, 1.5, 1.5))
    return refine(series.echoes, series.ti_ms, start, heart, 0, series.pixel_spacing_mm, settings=far)


def _compare(name: str, series: Sequence[MovingSeries], alignments: dict[str, Align]) -> list[Figure]:
    """Figures of every alignment of the same series."""
    before = [judge(one, nothing(one)) for one in series]
    figures = []
    for method, align in alignments.items():
        started = time.perf_counter()
        fields = [align(one) for one in series]
        seconds = (time.perf_counter() - started) / len(series)
        outcomes = [judge(one, field) for one, field in zip(series, fields, strict=True)]
        figures += _figures(f"{name}: {method}", summarize(outcomes, before), seconds)
    return figures


def _figures(name: str, found: Summary, seconds: float) -> list[Figure]:
    """Figures of one alignment."""
    note = f"n = {found.n_series} series"
    far = f"n = {found.n_far} echoes"
    return [
        Figure(f"{name}: error, median", found.error_px, "pixel", "< 1.0", note),
        Figure(f"{name}: error, 95th percentile", found.error_95_px, "pixel", "", note),
        Figure(f"{name}: halved where over 2 pixels", found.halved_fraction, "", "1", far),
        Figure(f"{name}: mean R2", found.r_squared_mean, "", "", note),
        Figure(f"{name}: series with mean R2 > 0.9", 100 * found.above_fraction, "%", ">= 98.7", note),
        Figure(f"{name}: series with > 10 % low pixels", 100 * found.low_fraction, "%", "<= 26.4", note),
        Figure(f"{name}: error of the median T1", found.t1_median_error_ms, "ms", "", note),
        Figure(f"{name}: T1 error of a pixel", found.t1_pixel_error_ms, "ms", "", note),
        Figure(f"{name}: time a slice", seconds, "s", "affine < 0.3, refined < 3", note),
    ]


def main() -> None:
    """Measure and print."""
    print_figures("alignment", registration_figures(int(sys.argv[1]) if len(sys.argv) > 1 else N_SCANS))


if __name__ == "__main__":
    main()
