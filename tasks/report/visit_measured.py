"""What was measured in a visit: curves, bull's-eyes, distributions and alignment, slice by slice."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from cmrcore.quantify.aha import AHA_NAMES
from cmrcore.quantify.regions import regional_values, segment_region
from storage.config_quantify import QuantifyConfig
from tasks.report.visit_arrays import MYOCARDIUM, Array, SliceArrays, VisitArrays
from tasks.report.visit_bullseye import bullseye
from tasks.report.visit_charts import curve_style, displacement_chart, histogram_chart, recovery_chart
from tasks.report.visit_colors import ECV, R_SQUARED, ColorScale
from tasks.report.visit_curves import Curve, blood_curve, segment_curves
from tasks.report.visit_films import Film
from tasks.report.visit_words import ROLE_NAMES

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """Fitted curves of one slice and role."""

    title: str
    """Which slice and role."""
    chart: Markup
    """The curves with their residuals."""
    legend: tuple[tuple[str, str, str, str], ...]
    """Name, color, stroke and T1 of each curve."""
    note: str
    """What is missing, and why."""


@dataclass(frozen=True, slots=True)
class Bullseye:
    """A quantity over the AHA segments."""

    title: str
    """The quantity with its unit."""
    picture: Markup
    """The bull's-eye."""
    scale: ColorScale
    """Its colors."""
    is_blinded: bool
    """Whether it is shown only after the decision."""


@dataclass(frozen=True, slots=True)
class SegmentLine:
    """The numbers of one AHA segment."""

    number: int
    """Number of the segment."""
    name: str
    """Its name."""
    t1_native: str
    """Mean native T1 [ms]."""
    ecv: str
    """Mean ECV [%]."""
    r_squared: str
    """Mean R2 of the native fits."""


@dataclass(frozen=True, slots=True)
class AlignmentLine:
    """What alignment did to one slice of one role."""

    title: str
    """Which slice and role."""
    method: str
    """How it was aligned."""
    r_squared: str
    """Mean R2 before and after."""
    low_fraction: str
    """Share of badly fitted pixels before and after."""
    chart: Markup
    """Displacement of every echo before and after."""


def curve_panels(
    visit: VisitArrays, echoes: Mapping[tuple[str, int], torch.Tensor], config: QuantifyConfig
) -> tuple[CurvePanel, ...]:
    """Curves of blood and of every segment, of each slice and role that has masks."""
    panels = []
    for index in range(visit.n_slices):
        for role, slices in visit.slices.items():
            if index >= len(slices) or not slices[index].has_masks:
                continue
            one = slices[index]
            found = [blood_curve(one, echoes[role, index], config)]
            on_native, note = _on_native(visit, one, echoes[role, index])
            if on_native is not None:
                found += segment_curves(one.ti_ms, on_native, _read_segments(visit, index, config), config)
            curves = [curve for curve in found if curve is not None]
            if not curves:
                continue
            title = f"{one.level} slice {index}, {ROLE_NAMES[role]}"
            chart = recovery_chart(curves, f"Fitted curves: {title}")
            panels.append(CurvePanel(title, chart, _legend(one.level, curves), note))
    return tuple(panels)


def _on_native(
    visit: VisitArrays, one: SliceArrays, aligned: torch.Tensor
) -> tuple[torch.Tensor | None, str]:
    """Bring echoes onto the native pixels, on which the segments lie; None, and why, where that cannot be."""
    if one.role == "native":
        return aligned, ""
    onto = None if visit.onto_native_px is None else visit.onto_native_px[one.index]
    if onto is None or not np.isfinite(onto).all():
        return None, "blood alone: the slice does not lie on the pixels of the native one"
    return (one.aligned_echoes(onto) if onto.any() else aligned), ""


def _read_segments(visit: VisitArrays, index: int, config: QuantifyConfig) -> Array:
    native = visit.slices["native"][index]
    read: Array = visit.segments[index] * native.read_myocardium(config.myocardium_erosion_mm)
    return read


def _legend(level: str, curves: Iterable[Curve]) -> tuple[tuple[str, str, str, str], ...]:
    return tuple(
        (curve.name.removeprefix(f"{level} "), *curve_style(curve), f"{curve.t1_ms:.0f} ms")
        for curve in curves
    )


def bullseyes(
    scan: Row, slices: Sequence[Row], segments: Sequence[Row], t1: ColorScale
) -> tuple[tuple[Bullseye, ...], tuple[SegmentLine, ...]]:
    """Bull's-eyes of native T1, ECV and R2, and the same numbers as a table."""
    values = regional_values(scan, slices, segments)
    means: dict[str, dict[int, float]] = {"t1": {}, "ecv": {}, "r_squared": {}}
    for number in AHA_NAMES:
        of_segment = values.get(segment_region(number), {})
        here = [row for row in segments if row["aha_segment"] == number]
        for name, value in (
            ("t1", of_segment.get("t1_native_ms")),
            ("ecv", of_segment.get("ecv_fraction")),
            ("r_squared", _weighted_mean(here, "r_squared_native_mean", "n_pixels_read_native")),
        ):
            if value is not None:
                means[name][number] = value
    kinds = (
        ("native T1 [ms]", "t1", t1, False),
        ("ECV [%]", "ecv", ECV, True),
        ("R² of the native fits", "r_squared", R_SQUARED, False),
    )
    pictures = tuple(
        Bullseye(title, bullseye(means[name], scale, title), scale, is_blinded)
        for title, name, scale, is_blinded in kinds
        if means[name]
    )
    lines = tuple(
        SegmentLine(
            number,
            AHA_NAMES[number],
            t1.text(means["t1"].get(number)),
            ECV.text(means["ecv"].get(number)),
            R_SQUARED.text(means["r_squared"].get(number)),
        )
        for number in AHA_NAMES
    )
    return pictures, lines


def _weighted_mean(rows: Iterable[Row], name: str, count: str) -> float | None:
    weighted = [(row[name], row[count] or 1) for row in rows if row[name] is not None]
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if weighted else None


def distributions(visit: VisitArrays, erosion_mm: float) -> list[tuple[Markup, bool]]:
    """Histograms of T1 of each role and of ECV over the pixels that are read; whether each is blinded."""
    charts = []
    for role, slices in visit.slices.items():
        values = [(_name(one), _finite(one.t1_ms[one.read_myocardium(erosion_mm)])) for one in slices]
        name = f"{ROLE_NAMES[role]} T1 [ms]"
        charts.append((values, name, False))
    if visit.ecv_fraction is not None:
        values = [
            (_name(one), 100 * _finite(ecv[one.read_myocardium(erosion_mm)]))
            for one, ecv in zip(visit.slices["native"], visit.ecv_fraction, strict=False)
        ]
        charts.append((values, "ECV [%]", True))
    drawn = []
    for values, name, is_blinded in charts:
        shown = [(slice_name, one) for slice_name, one in values if one.size]
        if shown:
            drawn.append((histogram_chart(shown, name, f"Distribution of {name}"), is_blinded))
    return drawn


def _name(one: SliceArrays) -> str:
    return f"{one.level} {one.index}"


def _finite(values: Array) -> Array:
    return np.asarray(values[np.isfinite(values)])


def alignment_lines(
    visit: VisitArrays, films: Iterable[Film], slices: Sequence[Row], r_squared_low: float
) -> tuple[AlignmentLine, ...]:
    """Say what alignment did to each slice of each role that has masks.

    R2 is told over the whole myocardium, pixels without a fit as 0, as rows tell it of the echoes before
    alignment; the means of the rows themselves are read away from the borders.

    Parameters
    ----------
    visit
        Maps and masks.
    films
        Displacements.
    slices
        Rows of ``slices`` of the visit.
    r_squared_low
        R2 under which a pixel counts as badly fitted.
    """
    of_slice = {row["slice_index"]: row for row in slices}
    lines = []
    for film in films:
        row = of_slice.get(film.index)
        one = visit.slices[film.role][film.index]
        if row is None or not one.has_masks:
            continue
        after = np.nan_to_num(one.r_squared[one.reference_masks[MYOCARDIUM]])
        title, role = f"{film.level} slice {film.index}, {ROLE_NAMES[film.role]}", film.role
        lines.append(
            AlignmentLine(
                title=title,
                method=row[f"alignment_{role}"] or "-",
                r_squared=_before_after(row[f"r_squared_{role}_unaligned_mean"], float(after.mean()), 1.0, 3),
                low_fraction=_before_after(
                    row[f"r_squared_{role}_unaligned_low_fraction"],
                    float((after < r_squared_low).mean()),
                    100.0,
                    1,
                ),
                chart=displacement_chart(
                    film.before_mm, film.after_mm, f"Distance of each echo from the reference: {title}"
                ),
            )
        )
    return tuple(lines)


def _before_after(before: float | None, after: float, factor: float, decimals: int) -> str:
    known = "-" if before is None else f"{factor * before:.{decimals}f}"
    return f"{known} → {factor * after:.{decimals}f}"
