"""Series of the digital trial whose motion is known, and how well an alignment of them does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.phantom import RoleEchoes, SimulatedScan, simulate_scan
from cmrcore.phantom.difficulty import Difficulty
from cmrcore.registration.warp import Kernel, warp
from cmrcore.relaxation import fit_t1


@dataclass(frozen=True, slots=True)
class MovingSeries:
    """Echoes of one slice in acquisition order, the first of them still."""

    role: str
    """``native`` or ``post``."""
    echoes: Float[Tensor, "ti row col"]
    """Magnitudes [a.u.]."""
    ti_ms: Float[Tensor, " ti"]
    """Inversion times [ms]."""
    labels: Bool[Tensor, "ti label row col"]
    """True masks of each echo."""
    moved_px: Float[Tensor, "ti 2 row col"]
    """Point of the first echo that each pixel shows, minus the pixel (row, col) [pixel]."""
    is_told: Bool[Tensor, " ti"]
    """Echoes whose motion the displacement tells: not the first, and none at a wrong moment of the beat."""
    t1_ideal_ms: Float[Tensor, "row col"]
    """T1 without noise and motion on the pixels of the first echo, NaN outside the heart [ms]."""
    pixel_spacing_mm: tuple[float, float]
    """Distance of rows and columns [mm]."""

    @property
    def myocardium(self) -> Bool[Tensor, "row col"]:
        """True myocardium of the first echo."""
        return self.labels[0, 0]


Align = Callable[[MovingSeries], Float[Tensor, "ti 2 row col"]]
"""Displacement that pulls each echo onto the first [pixel]."""


def moving_series(difficulty: Difficulty, n_scans: int, seed: int = 7) -> Iterator[MovingSeries]:
    """Series of a number of scans, three slices and two roles each."""
    for index in range(n_scans):
        scan = simulate_scan(
            seed,
            index,
            0,
            scheme_native=("5(3)3", "3(3)3(3)5")[index % 2],
            scheme_post="4(1)3(1)2",
            difficulty=difficulty,
        )
        yield from series_of(scan)


def series_of(scan: SimulatedScan) -> list[MovingSeries]:
    """Every slice of both roles of a scan."""
    pixel_mm = scan.scanner.grid.pixel_mm
    found = []
    roles: tuple[tuple[str, RoleEchoes], ...] = (("native", scan.native), ("post", scan.post))
    for role, echoes in roles:
        for index in range(len(scan.levels)):
            ideal = scan.truth.maps[f"{role}/t1_ms_ideal"][index]
            if (
                role == "post"
            ):  # told on native pixels: carried to where the first post-contrast echo shows it
                ideal = carry(ideal, scan.post_to_native_mm[index] / pixel_mm)
            is_told = echoes.phase_fraction[index] == 0
            is_told[0] = False
            found.append(
                MovingSeries(
                    role=role,
                    echoes=echoes.echoes[index],
                    ti_ms=echoes.ti_ms[index],
                    labels=echoes.labels[:, index].transpose(0, 1),
                    moved_px=echoes.displacement_mm[index] / pixel_mm,
                    is_told=is_told,
                    t1_ideal_ms=ideal,
                    pixel_spacing_mm=(pixel_mm, pixel_mm),
                )
            )
    return found


def carry(values: Float[Tensor, "row col"], displacement_px: Float[Tensor, "2 row col"]) -> Tensor:
    """Pull a map with NaN outside its region along a displacement."""
    known = ~values.isnan()
    stacked = torch.stack([values.nan_to_num(0.0), known.to(values.dtype)])[None]
    carried = warp(stacked, displacement_px[None])[0]
    return torch.where(carried[1] > 0.5, carried[0] / carried[1], torch.nan)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one alignment of one series comes to."""

    error_px: tuple[float, ...]
    """Target registration error of each told echo: mean over the myocardium [pixel]."""
    r_squared_mean: float
    """Mean R2 in the myocardium; pixels without a fit count as 0."""
    low_fraction: float
    """Share of myocardial pixels with R2 under 0.95 or no fit, 0-1."""
    t1_error_ms: float
    """Mean T1 of the myocardium minus that of the ideal map [ms]."""
    t1_median_error_ms: float
    """The same of the medians: a few pixels that fit anything move a mean at will [ms]."""
    t1_pixel_error_ms: float
    """Median over the myocardium of a pixel's absolute T1 error [ms]."""


def judge(
    series: MovingSeries, displacement_px: Float[Tensor, "ti 2 row col"], kernel: Kernel = "cubic"
) -> Outcome:
    """Hold an alignment against the truth."""
    within = series.myocardium
    error = target_error_px(series, displacement_px)
    aligned = warp(series.echoes[:, None], displacement_px, kernel)[:, 0].clamp_min(0)
    still = ~displacement_px.flatten(1).any(1)
    aligned[still] = series.echoes[still]
    fit = fit_t1(aligned[:, within], series.ti_ms)
    ideal_ms = series.t1_ideal_ms[within]
    off = fit.t1_ms - ideal_ms
    r_squared = fit.r_squared.nan_to_num(0.0)
    return Outcome(
        error_px=tuple(error[series.is_told].tolist()),
        r_squared_mean=r_squared.mean().item(),
        low_fraction=(r_squared < 0.95).double().mean().item(),
        t1_error_ms=(fit.t1_ms.nanmean() - ideal_ms.nanmean()).item(),
        t1_median_error_ms=(fit.t1_ms.nanmedian() - ideal_ms.nanmedian()).item(),
        t1_pixel_error_ms=off.abs().nanmedian().item(),
    )


def target_error_px(
    series: MovingSeries, displacement_px: Float[Tensor, "ti 2 row col"]
) -> Float[Tensor, " ti"]:
    """Mean distance over the myocardium between what an aligned pixel shows and what it should [pixel]."""
    shown = displacement_px + warp(series.moved_px, displacement_px)
    distance: Tensor = shown.norm(dim=1)
    return distance[:, series.myocardium].mean(1)


@dataclass(frozen=True, slots=True)
class Summary:
    """What an alignment of many series comes to."""

    n_series: int
    error_px: float
    """Median target registration error over echoes [pixel]."""
    error_95_px: float
    """Its 95th percentile [pixel]."""
    halved_fraction: float
    """Of echoes that were more than 2 pixels off, the share whose error is at most half, 0-1."""
    n_far: int
    """Number of these echoes."""
    r_squared_mean: float
    """Mean over series of their mean R2."""
    above_fraction: float
    """Share of series with mean R2 over 0.9, 0-1."""
    low_fraction: float
    """Share of series with more than 10 % of the myocardium under R2 0.95, 0-1."""
    t1_error_ms: float
    """Mean over series of the absolute error of the mean T1 [ms]."""
    t1_median_error_ms: float
    """The same of the median T1 [ms]."""
    t1_median_bias_ms: float
    """Mean over series of the error of the median T1, with its sign [ms]."""
    t1_pixel_error_ms: float
    """Mean over series of the median absolute error of a pixel [ms]."""


def summarize(outcomes: Sequence[Outcome], before: Sequence[Outcome]) -> Summary:
    """Figures of one alignment; ``before`` are the same series without any."""
    error = np.array([value for one in outcomes for value in one.error_px])
    start = np.array([value for one in before for value in one.error_px])
    far = start > 2
    t1 = np.array([one.t1_error_ms for one in outcomes])
    medians = np.array([one.t1_median_error_ms for one in outcomes])
    return Summary(
        n_series=len(outcomes),
        error_px=float(np.median(error)),
        error_95_px=float(np.percentile(error, 95)),
        halved_fraction=float((error[far] <= start[far] / 2).mean()) if far.any() else 1.0,
        n_far=int(far.sum()),
        r_squared_mean=float(np.mean([one.r_squared_mean for one in outcomes])),
        above_fraction=float(np.mean([one.r_squared_mean > 0.9 for one in outcomes])),
        low_fraction=float(np.mean([one.low_fraction > 0.1 for one in outcomes])),
        t1_error_ms=float(np.mean(np.abs(t1))),
        t1_median_error_ms=float(np.mean(np.abs(medians))),
        t1_median_bias_ms=float(np.mean(medians)),
        t1_pixel_error_ms=float(np.mean([one.t1_pixel_error_ms for one in outcomes])),
    )
