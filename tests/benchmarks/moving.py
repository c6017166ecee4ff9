"""Slices of the digital trial whose motion is known, and how well an alignment of them does."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.phantom import RoleEchoes, SimulatedScan, simulate_scan
from cmrcore.phantom.difficulty import Difficulty
from cmrcore.phantom.truth import BLOOD_EROSION_MM
from cmrcore.quantify import ecv_map, erode_mask
from cmrcore.registration.warp import chain, inverse, pixel_positions, sample, warp
from cmrcore.relaxation import fit_t1

SEED = 7_100_000
"""Of the subjects; no training draws them."""


@dataclass(frozen=True, slots=True)
class MovingSeries:
    """Echoes of one slice by inversion time, as the night has them, told from the pixels of one of them."""

    role: str
    """``native`` or ``post``."""
    echoes: Float[Tensor, "ti row col"]
    """Magnitudes [a.u.]."""
    ti_ms: Float[Tensor, " ti"]
    """Inversion times [ms]."""
    labels: Bool[Tensor, "ti label row col"]
    """True masks of each echo."""
    reference: int
    """Echo that stays."""
    moved_px: Float[Tensor, "ti 2 row col"]
    """Point of the reference echo that each pixel shows, minus the pixel (row, col) [pixel]."""
    in_beat: Bool[Tensor, " ti"]
    """Echoes at the right moment of the beat: only their motion is told by the displacement."""
    t1_ideal_ms: Float[Tensor, "row col"]
    """T1 without noise and motion on the pixels of the reference echo, NaN outside the heart [ms]."""
    pixel_spacing_mm: tuple[float, float]
    """Distance of rows and columns [mm]."""

    @property
    def myocardium(self) -> Bool[Tensor, "row col"]:
        """True myocardium of the reference echo."""
        return self.labels[self.reference, 0]

    @property
    def is_told(self) -> Bool[Tensor, " ti"]:
        """Echoes other than the reference whose motion is known."""
        told = self.in_beat & self.in_beat[self.reference]
        told[self.reference] = False
        return told

    def onto(self, reference: int) -> "MovingSeries":
        """Tell the same series from the pixels of another echo."""
        here = self.moved_px[reference]
        return replace(
            self,
            reference=reference,
            moved_px=chain(inverse(here[None]).expand_as(self.moved_px), self.moved_px),
            t1_ideal_ms=carry(self.t1_ideal_ms, here),
        )


@dataclass(frozen=True, slots=True)
class MovingSlice:
    """Both series of one slice, and what its ECV should be."""

    native: MovingSeries
    post: MovingSeries
    post_to_native_px: Float[Tensor, "2 row col"]
    """Point of the native reference echo that each pixel of the post-contrast one shows, minus it [pixel]."""
    ecv_ideal: Float[Tensor, "row col"]
    """ECV without noise and motion on native pixels, NaN outside the myocardium, 0-1."""
    hematocrit_fraction: float
    """Hematocrit, 0-1."""

    def onto(self, native: int, post: int) -> "MovingSlice":
        """Tell the same slice from the pixels of other echoes."""
        here, there = self.native.moved_px[native], self.post.moved_px[post]
        to_first = chain(self.post_to_native_px[None], there[None])
        return replace(
            self,
            native=self.native.onto(native),
            post=self.post.onto(post),
            post_to_native_px=chain(inverse(here[None]), to_first)[0],
            ecv_ideal=carry(self.ecv_ideal, here),
        )


def moving_slices(difficulty: Difficulty, index: int) -> Iterator[MovingSlice]:
    """Three slices of a scan, told from the first echo of each role."""
    scan = simulate_scan(
        SEED,
        index,
        0,
        scheme_native=("5(3)3", "3(3)3(3)5")[index % 2],
        scheme_post="4(1)3(1)2",
        difficulty=difficulty,
    )
    pixel_mm = scan.scanner.grid.pixel_mm
    for level in range(len(scan.levels)):
        to_native_px = scan.post_to_native_mm[level] / pixel_mm
        ideal = {role: scan.truth.maps[f"{role}/t1_ms_ideal"][level] for role in ("native", "post")}
        # The truth of both is told on native pixels.
        ideal["post"] = carry(ideal["post"], to_native_px)
        yield MovingSlice(
            native=_series(scan, "native", scan.native, level, ideal["native"]),
            post=_series(scan, "post", scan.post, level, ideal["post"]),
            post_to_native_px=to_native_px,
            ecv_ideal=scan.truth.maps["ecv_fraction_ideal"][level],
            hematocrit_fraction=scan.hematocrit_fraction,
        )


def _series(
    scan: SimulatedScan, role: str, echoes: RoleEchoes, level: int, ideal: Float[Tensor, "row col"]
) -> MovingSeries:
    """One role of one slice, told from the echo that was acquired first."""
    pixel_mm = scan.scanner.grid.pixel_mm
    order = echoes.ti_ms[level].argsort(stable=True)
    return MovingSeries(
        role=role,
        echoes=echoes.echoes[level][order],
        ti_ms=echoes.ti_ms[level][order],
        labels=echoes.labels[:, level].transpose(0, 1)[order],
        reference=int(order.argmin()),
        moved_px=echoes.displacement_mm[level][order] / pixel_mm,
        in_beat=(echoes.phase_fraction[level] == 0)[order],
        t1_ideal_ms=ideal,
        pixel_spacing_mm=(pixel_mm, pixel_mm),
    )


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
    t1_median_error_ms: float
    """Median T1 of the myocardium minus that of the ideal map [ms]; a mean is moved at will by a pixel whose
    fit ran away."""
    t1_pixel_error_ms: float
    """Median over the myocardium of a pixel's absolute T1 error [ms]."""
    t1_ms: Float[Tensor, " pixel"]
    """T1 of the myocardium [ms]."""


def judge(series: MovingSeries, displacement_px: Float[Tensor, "ti 2 row col"]) -> Outcome:
    """Hold an alignment against the truth."""
    within = series.myocardium
    error = target_error_px(series, displacement_px)
    fit = fit_t1(shown_at(series.echoes, displacement_px, within), series.ti_ms)
    ideal_ms = series.t1_ideal_ms[within]
    r_squared = fit.r_squared.nan_to_num(0.0)
    return Outcome(
        error_px=tuple(error[series.is_told].tolist()),
        r_squared_mean=r_squared.mean().item(),
        low_fraction=(r_squared < 0.95).double().mean().item(),
        t1_median_error_ms=(fit.t1_ms.nanmedian() - ideal_ms.nanmedian()).item(),
        t1_pixel_error_ms=(fit.t1_ms - ideal_ms).abs().nanmedian().item(),
        t1_ms=fit.t1_ms,
    )


def shown_at(
    echoes: Float[Tensor, "ti row col"],
    displacement_px: Float[Tensor, "ti 2 row col"],
    within: Bool[Tensor, "row col"],
) -> Float[Tensor, "ti pixel"]:
    """Aligned echoes in a region; as `resample`, but only there."""
    shape = (echoes.shape[1], echoes.shape[2])
    at_px = (pixel_positions(shape) + displacement_px)[:, :, within]
    pulled = sample(echoes[:, None], at_px[..., None], "cubic")[:, 0, :, 0].clamp_min(0)
    moves = displacement_px.flatten(1).any(1)
    return torch.where(moves[:, None], pulled, echoes[:, within])


def target_error_px(
    series: MovingSeries, displacement_px: Float[Tensor, "ti 2 row col"]
) -> Float[Tensor, " ti"]:
    """Mean distance over the myocardium between what an aligned pixel shows and what it should [pixel]."""
    shown = displacement_px + warp(series.moved_px, displacement_px)
    distance: Tensor = shown.norm(dim=1)
    return distance[:, series.myocardium].mean(1)


def ecv_errors(
    one: MovingSlice,
    native_px: Float[Tensor, "ti 2 row col"],
    post_px: Float[Tensor, "ti 2 row col"],
    onto_px: Float[Tensor, "2 row col"],
) -> tuple[float, float]:
    """Error of the mean ECV, and the median absolute error of a pixel's, as fractions.

    Read where the true native myocardium and the true post-contrast one, brought onto it, overlap; blood in
    the true pools of both reference echoes, eroded, so that only the alignment differs.

    Parameters
    ----------
    one
        The slice.
    native_px, post_px
        Displacement that pulls each echo onto the reference echo of its role [pixel].
    onto_px
        Displacement that pulls the post-contrast reference echo onto the native one [pixel].
    """
    blood_ms = []
    for series, field in ((one.native, native_px), (one.post, post_px)):
        pool = erode_mask(series.labels[series.reference, 1], BLOOD_EROSION_MM, series.pixel_spacing_mm)
        blood = shown_at(series.echoes, field, pool).mean(1, dtype=torch.float64)
        blood_ms.append(fit_t1(blood, series.ti_ms).t1_ms.item() if bool(pool.any()) else float("nan"))
    carried = warp(one.post.myocardium.float()[None, None], onto_px[None])[0, 0] > 0.5
    shared = one.native.myocardium & carried
    both = chain(post_px, onto_px.expand_as(post_px))
    t1_native_ms = fit_t1(shown_at(one.native.echoes, native_px, shared), one.native.ti_ms).t1_ms
    t1_post_ms = fit_t1(shown_at(one.post.echoes, both, shared), one.post.ti_ms).t1_ms
    ecv = ecv_map(t1_native_ms, t1_post_ms, blood_ms[0], blood_ms[1], one.hematocrit_fraction)
    ideal = one.ecv_ideal[one.native.myocardium].nanmean()
    pixel = (ecv - one.ecv_ideal[shared]).abs().nanmedian()
    return (ecv.nanmean() - ideal).item(), pixel.item()
