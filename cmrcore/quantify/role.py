"""Everything that one role of a scan, native or post-contrast, says by itself."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cmrcore.quantify.aha import Orientation, aha_segments, stack_orientations
from cmrcore.quantify.blood import BloodT1, blood_pixels, blood_t1, erode_mask
from cmrcore.quantify.landmarks import usable_insertions
from cmrcore.quantify.qc import Flag, Place, raise_flag
from cmrcore.quantify.quality import SliceQuality, measure_quality
from cmrcore.quantify.records import QuantifySettings, Role, Series
from cmrcore.quantify.regional import RoleMaps, plausible_t1
from cmrcore.quantify.role_checks import check_alignment, check_notes, check_quality
from cmrcore.quantify.wall import erode_walls
from cmrcore.registration.align import SliceAlignment, align_slice
from cmrcore.relaxation import FitStatus, T1Fit, fit_t1
from cmrcore.segmentation.check import check_guide, complete_guide


@dataclass(frozen=True, slots=True)
class RoleMeasurement:
    """Maps, blood and flags of one role."""

    series: Series
    """What was measured on."""
    fit: T1Fit
    """Maps of the whole images, ``[slice, row, col]``."""
    maps: RoleMaps
    """Maps with the myocardium they are read in, away from its borders."""
    segments: UInt8[Tensor, "slice row col"]
    """AHA segment of each pixel of the whole myocardium, 0 elsewhere."""
    blood: tuple[BloodT1 | None, ...]
    """Blood T1 of each slice; None without a pool or where its fit failed."""
    flags: tuple[Flag, ...]
    """What is doubtful, slice by slice."""
    reference_masks: Bool[Tensor, "label slice row col"]
    """Myocardium, blood pool and RV on the reference echo of each slice, on which the maps lie."""
    alignment: tuple[SliceAlignment, ...]
    """How the echoes of each slice were aligned before the fit."""
    quality: tuple[SliceQuality | None, ...]
    """What the checks read of each slice; None without a myocardium."""


def measure_role(role: Role, series: Series, settings: QuantifySettings) -> RoleMeasurement:
    """Align and fit a series and read myocardium, blood and AHA segments from it."""
    masks, flags = _usable_masks(role, series, settings.qc.guide_overlap_min)
    first = _on_reference(masks, series)
    alignment = _align(series, masks, settings)
    flags += check_alignment(role, series, first[0], alignment)
    fit = _fit_slices(series, alignment, settings.t1_model)
    drawn = _as_drawn(first, series)
    points, off_heart = usable_insertions(role, series, first[0], settings.qc.landmark_off_max_mm)
    flags += off_heart
    orientations = stack_orientations(drawn[0], drawn[2], series.anterior, series.pixel_spacing_mm, points)
    if bool(first[0].any()) and not any(orientations):
        flags.append(raise_flag("no_orientation", "no slice shows the RV", Place(role)))
    segments = _segments(first[0], orientations, series)
    inner = erode_walls(first[0], first[1], settings.myocardium_erosion_mm, series.pixel_spacing_mm)
    maps = RoleMaps(
        t1_ms=plausible_t1(fit.t1_ms),
        t1_sd_ms=fit.t1_sd_ms,
        r_squared=fit.r_squared,
        myocardium=inner,
        segments=segments * inner,
    )
    blood = tuple(
        _slice_blood(
            series,
            one,
            masks[1, index] if settings.align.method == "none" else first[1, index],
            maps.t1_ms[index],
            index,
            settings,
        )
        for index, one in enumerate(alignment)
    )
    quality = measure_quality(series, maps, fit, first, masks, alignment, blood, settings)
    flags += check_quality(role, quality, series.levels, series.field_strength_t, settings.qc)
    return RoleMeasurement(
        series=series,
        fit=fit,
        maps=maps,
        segments=segments,
        blood=blood,
        flags=tuple(flags),
        reference_masks=first,
        alignment=alignment,
        quality=quality,
    )


def _align(
    series: Series, masks: Bool[Tensor, "label slice ti row col"], settings: QuantifySettings
) -> tuple[SliceAlignment, ...]:
    """Align the echoes of every slice onto its reference echo."""
    return tuple(
        align_slice(
            echoes=series.echoes[index],
            ti_ms=series.ti_ms[index],
            masks=masks[:, index].to(series.echoes.dtype),
            reference=int(series.reference()[index]),
            pixel_spacing_mm=series.pixel_spacing_mm,
            model=settings.t1_model,
            settings=settings.align,
            r_squared_low=settings.qc.r_squared_pixel_min,
        )
        for index in range(len(series.echoes))
    )


def _usable_masks(
    role: Role, series: Series, overlap_min: float
) -> tuple[Bool[Tensor, "label slice ti row col"], list[Flag]]:
    """Masks on every echo, emptied in slices whose guide is not plausible, and why a slice has none."""
    n_slices, n_ti, n_rows, n_cols = series.echoes.shape
    if series.masks is None:
        masks = torch.zeros(3, n_slices, n_ti, n_rows, n_cols, dtype=torch.bool, device=series.echoes.device)
    else:
        masks = series.masks.clone()
    flags = []
    for index, level in enumerate(series.levels):
        place = Place(role, index, level)
        guide = None if series.guide is None else series.guide[:, index]
        if guide is not None and bool(guide.any()):
            reasons = check_guide(complete_guide(guide))
            if reasons:
                masks[:, index] = False
                message = f"guide not used: {'; '.join(reasons)}"
                flags.append(raise_flag("guide_implausible", message, place))
            else:
                flags += check_notes(series, index, place, overlap_min)
                if not bool(_on_reference(masks, series)[0, index].any()):
                    message = "no myocardium on the reference echo"
                    flags.append(raise_flag("mask_missing", message, place))
        elif not bool(masks[0, index].any()):
            flags.append(raise_flag("guide_missing", "no guiding mask", place))
    return masks, flags


def _on_reference(
    masks: Bool[Tensor, "label slice ti row col"], series: Series
) -> Bool[Tensor, "label slice row col"]:
    """Masks on the reference echo of each slice."""
    echo = series.reference().to(masks.device)
    return masks[:, torch.arange(len(echo), device=masks.device), echo]


def _as_drawn(
    first: Bool[Tensor, "label slice row col"], series: Series
) -> Bool[Tensor, "label slice row col"]:
    """Masks that orient the AHA segments: where a reader drew myocardium and RV, these, else what was found.

    A reader moves the insertion points by drawing where the RV meets the LV.
    """
    if series.guide is None:
        return first
    masks = first.clone()
    for index, note in enumerate(series.guide_notes):
        drawn = series.guide[:, index]
        is_drawn = note is not None and note.origin == "reader" and bool(drawn[0].any() and drawn[2].any())
        if is_drawn and bool(first[0, index].any()):
            masks[:, index] = drawn
    return masks


def _fit_slices(series: Series, alignment: tuple[SliceAlignment, ...], model: str) -> T1Fit:
    """Fit of every pixel of the aligned echoes, slice by slice as their inversion times differ."""
    fits = [
        fit_t1(one.echoes, ti_ms, model=model) for one, ti_ms in zip(alignment, series.ti_ms, strict=True)
    ]
    return T1Fit(
        **{map_.name: torch.stack([getattr(fit, map_.name) for fit in fits]) for map_ in fields(T1Fit)}
    )


def _segments(
    myocardium: Bool[Tensor, "slice row col"], orientations: list[Orientation | None], series: Series
) -> UInt8[Tensor, "slice row col"]:
    """AHA segments of every slice, 0 where there is no orientation."""
    segments = torch.zeros(myocardium.shape, dtype=torch.uint8, device=myocardium.device)
    for index, (muscle, orientation) in enumerate(zip(myocardium, orientations, strict=True)):
        if orientation is not None and bool(muscle.any()):
            segments[index] = aha_segments(muscle, orientation, series.levels[index], series.pixel_spacing_mm)
    return segments


def _slice_blood(
    series: Series,
    alignment: SliceAlignment,
    pool: Bool[Tensor, "*ti row col"],
    t1_ms: Float[Tensor, "row col"],
    index: int,
    settings: QuantifySettings,
) -> BloodT1 | None:
    """Blood T1 of one slice from the eroded pool: the reference's, or each echo's if a trial aligns none.

    Pools of single echoes do not lie on the same pixels, so papillary muscle cannot be told there.
    """
    pools = pool if pool.ndim == 3 else pool[None]
    eroded = torch.stack(
        [erode_mask(mask, settings.blood_erosion_mm, series.pixel_spacing_mm) for mask in pools]
    ).expand(len(alignment.echoes), -1, -1)
    if pool.ndim == 2:
        eroded = blood_pixels(t1_ms, eroded[0]).expand_as(eroded)
    found = blood_t1(alignment.echoes, eroded, series.ti_ms[index], model=settings.t1_model)
    if found is None or int(found.fit.status) != FitStatus.OK:
        return None
    return BloodT1(
        t1_ms=found.fit.t1_ms.item(),
        t1_sd_ms=found.fit.t1_sd_ms.item(),
        r_squared=found.fit.r_squared.item(),
        n_pixels=int(eroded[int(series.reference()[index])].sum()),
        n_left_out=len(found.left_out),
    )
