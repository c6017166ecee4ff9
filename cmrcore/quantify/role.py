"""Everything that one role of a scan, native or post-contrast, says by itself."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from cmrcore.quantify.aha import Orientation, aha_segments, stack_orientations
from cmrcore.quantify.blood import blood_t1, erode_mask
from cmrcore.quantify.overlap import dice, displacement_mm
from cmrcore.quantify.qc import MASKS_APART_PX, Flag, Place, QcLimits, check_range, raise_flag
from cmrcore.quantify.records import QuantifySettings, Role, Row, Series
from cmrcore.quantify.regional import RoleMaps, low_fraction, mean, plausible_t1
from cmrcore.registration.align import UNALIGNED, SliceAlignment, align_slice
from cmrcore.relaxation import FitStatus, T1Fit, fit_t1
from cmrcore.segmentation.check import check_guide, complete_guide


@dataclass(frozen=True, slots=True)
class BloodT1:
    """Blood T1 of one slice."""

    t1_ms: float
    """T1 of the mean blood signal [ms]."""
    t1_sd_ms: float
    """Its standard deviation from the fit [ms]."""
    r_squared: float
    """R2 of the fit's magnitudes."""
    n_pixels: int
    """Pixels of the eroded pool on the reference echo."""


@dataclass(frozen=True, slots=True)
class RoleMeasurement:
    """Maps, blood and flags of one role."""

    series: Series
    """What was measured on."""
    fit: T1Fit
    """Maps of the whole images, ``[slice, row, col]``."""
    maps: RoleMaps
    """Maps with the myocardium they are read in."""
    blood: tuple[BloodT1 | None, ...]
    """Blood T1 of each slice; None without a pool or where its fit failed."""
    flags: tuple[Flag, ...]
    """What is doubtful, slice by slice."""
    reference_masks: Bool[Tensor, "label slice row col"]
    """Myocardium, blood pool and RV on the reference echo of each slice, on which the maps lie."""
    alignment: tuple[SliceAlignment, ...]
    """How the echoes of each slice were aligned before the fit."""


def measure_role(role: Role, series: Series, settings: QuantifySettings) -> RoleMeasurement:
    """Align and fit a series and read myocardium, blood and AHA segments from it."""
    masks, flags = _usable_masks(role, series)
    first = _on_reference(masks, series)
    alignment = _align(series, masks, settings)
    flags += _check_alignment(role, series, first[0], alignment)
    fit = _fit_slices(series, alignment, settings.t1_model)
    orientations = stack_orientations(first[0], first[2], series.anterior, series.pixel_spacing_mm)
    if bool(first[0].any()) and not any(orientations):
        flags.append(raise_flag("no_orientation", "no slice shows the RV", Place(role)))
    maps = RoleMaps(
        t1_ms=plausible_t1(fit.t1_ms),
        r_squared=fit.r_squared,
        myocardium=first[0],
        segments=_segments(first[0], orientations, series),
    )
    blood = tuple(
        _slice_blood(
            series,
            one,
            masks[1, index] if settings.align.method == "none" else first[1, index],
            index,
            settings,
        )
        for index, one in enumerate(alignment)
    )
    for index in range(len(blood)):
        if bool(first[0, index].any()):
            flags += _check_slice(role, series.levels[index], index, maps, blood[index], settings.qc)
    return RoleMeasurement(
        series=series,
        fit=fit,
        maps=maps,
        blood=blood,
        flags=tuple(flags),
        reference_masks=first,
        alignment=alignment,
    )


def echo_rows(role: Role, measured: RoleMeasurement) -> list[Row]:
    """Rows of the table ``echoes``: how each echo's mask agrees with the guide, and how it was aligned."""
    series = measured.series
    rows: list[Row] = []
    for index, level in enumerate(series.levels):
        for echo in range(series.ti_ms.shape[1]):
            row: Row = {
                "role": role,
                "slice_index": index,
                "level": level,
                "echo_index": echo,
                "acquisition_index": int(series.acquisition_index[index, echo]),
                "ti_ms": series.ti_ms[index, echo].item(),
            }
            row |= _mask_columns(series, index, echo) | _guide_columns(series, index)
            rows.append(row | _alignment_columns(measured.alignment[index], echo))
    return rows


def _guide_columns(series: Series, index: int) -> Row:
    """Where the guide of a slice came from; None without a guide."""
    if series.guide is None or not bool(series.guide[0, index].any()):
        return dict.fromkeys(("reference_echo_index", "guide_origin", "guide_score"))
    note = series.guide_notes[index] if series.guide_notes else None
    return {
        "reference_echo_index": int(series.reference()[index]),
        "guide_origin": None if note is None else note.origin,
        "guide_score": None if note is None else note.score,
    }


def _mask_columns(series: Series, index: int, echo: int) -> Row:
    """Agreement, contrast and size of one echo's masks; None without masks."""
    columns = ("dice_guide", "displacement_mm", "contrast", "confidence", "n_pixels_myocardium")
    row: Row = dict.fromkeys(columns)
    if series.masks is None or not bool(series.masks[:, index].any()):
        return row
    myocardium, blood_pool, _ = series.masks[:, index, echo]
    row["n_pixels_myocardium"] = int(myocardium.sum())
    if series.guide is not None and bool(series.guide[0, index].any()):
        guide = series.guide[0, index]
        row["dice_guide"] = dice(myocardium, guide)
        row["displacement_mm"] = displacement_mm(myocardium, guide, series.pixel_spacing_mm)
    image = series.echoes[index, echo]
    muscle, pool = mean(image, myocardium), mean(image, blood_pool)
    if muscle is not None and pool is not None and pool + muscle > 0:
        row["contrast"] = (pool - muscle) / (pool + muscle)
    if series.confidence is not None:
        row["confidence"] = series.confidence[index, echo].item()
    return row


def _alignment_columns(alignment: SliceAlignment, echo: int) -> Row:
    """How one echo was aligned."""
    return {
        "alignment": alignment.states[echo],
        "aligned_mm": alignment.way_mm[echo],
        "turn_deg": alignment.turn_deg[echo],
        "turn_from": alignment.turn_from[echo],
        "scale": alignment.scale[echo],
        "jacobian_min": alignment.jacobian_min[echo],
    }


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


def _check_alignment(
    role: Role,
    series: Series,
    myocardium: Bool[Tensor, "slice row col"],
    alignment: tuple[SliceAlignment, ...],
) -> list[Flag]:
    """Flag slices in which echoes may have moved and were left where they are.

    Where most masks lie together but apart from the reference's, the one that everything is read in may be
    wrong.
    """
    flags = []
    for index, one in enumerate(alignment):
        place = Place(role, index, series.levels[index])
        if not bool(myocardium[index].any()):
            continue
        left = {state: one.states.count(state) for state in UNALIGNED if state in one.states}
        if left:
            what = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in left.items())
            message = f"{sum(left.values())} of {len(one.states)} echoes could not be aligned: {what}"
            flags.append(
                raise_flag("echoes_unaligned", message, place, value=float(sum(left.values())), threshold=0.0)
            )
        if one.reference_apart_px > MASKS_APART_PX:
            message = (
                f"the mask of reference echo {int(series.reference()[index])} lies "
                f"{one.reference_apart_px:.1f} pixels off those of most other echoes, "
                f"expected at most {MASKS_APART_PX:g}: look at it"
            )
            value = one.reference_apart_px
            flags.append(raise_flag("masks_disagree", message, place, value=value, threshold=MASKS_APART_PX))
    return flags


def _usable_masks(role: Role, series: Series) -> tuple[Bool[Tensor, "label slice ti row col"], list[Flag]]:
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
                flags += _note_flags(series, index, place)
                if not bool(_on_reference(masks, series)[0, index].any()):
                    message = "no myocardium on the reference echo"
                    flags.append(raise_flag("mask_missing", message, place))
        elif not bool(masks[0, index].any()):
            flags.append(raise_flag("guide_missing", "no guiding mask", place))
    return masks, flags


def _note_flags(series: Series, index: int, place: Place) -> list[Flag]:
    """Flag what the checks of a slice's guide found."""
    note = series.guide_notes[index] if series.guide_notes else None
    if note is None:
        return []
    on_echo = f"guide of the {note.origin} on echo {int(series.reference()[index])}"
    flags = []
    if note.rejected:
        message = f"{on_echo}, after {len(note.rejected)} with higher scores that failed: {note.rejected[0]}"
        flags.append(raise_flag("guide_fell_back", message, place))
    if note.findings:
        message = f"{on_echo} (score {note.score:.2f}): {'; '.join(note.findings)}"
        flags.append(raise_flag("guide_doubtful", message, place, value=note.score))
    return flags


def _on_reference(
    masks: Bool[Tensor, "label slice ti row col"], series: Series
) -> Bool[Tensor, "label slice row col"]:
    """Masks on the reference echo of each slice."""
    echo = series.reference().to(masks.device)
    return masks[:, torch.arange(len(echo), device=masks.device), echo]


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
    index: int,
    settings: QuantifySettings,
) -> BloodT1 | None:
    """Blood T1 of one slice from the eroded pool: the reference's, or each echo's if a trial aligns none."""
    pools = pool if pool.ndim == 3 else pool[None]
    eroded = torch.stack(
        [erode_mask(mask, settings.blood_erosion_mm, series.pixel_spacing_mm) for mask in pools]
    ).expand(len(alignment.echoes), -1, -1)
    fit = blood_t1(alignment.echoes, eroded, series.ti_ms[index], model=settings.t1_model)
    if fit is None or int(fit.status) != FitStatus.OK:
        return None
    return BloodT1(
        t1_ms=fit.t1_ms.item(),
        t1_sd_ms=fit.t1_sd_ms.item(),
        r_squared=fit.r_squared.item(),
        n_pixels=int(eroded[int(series.reference()[index])].sum()),
    )


def _check_slice(
    role: Role, level: str, index: int, maps: RoleMaps, blood: BloodT1 | None, limits: QcLimits
) -> list[Flag]:
    """Check fit and plausibility of one slice that has a myocardium."""
    place = Place(role, index, level)
    r_squared, t1_ms, inside = maps.r_squared[index], maps.t1_ms[index], maps.myocardium[index]
    flags = []
    r_squared_mean = mean(r_squared, inside)
    if r_squared_mean is not None and r_squared_mean < limits.r_squared_mean_min:
        threshold = limits.r_squared_mean_min
        message = f"mean R2 {r_squared_mean:.3f}, expected at least {threshold:g}"
        flags.append(raise_flag("r_squared_mean", message, place, value=r_squared_mean, threshold=threshold))
    low = low_fraction(r_squared, inside, limits.r_squared_pixel_min)
    if low is not None and low > limits.r_squared_low_fraction_max:
        threshold = limits.r_squared_low_fraction_max
        message = (
            f"{low:.1%} of myocardial pixels have R2 under {limits.r_squared_pixel_min:g} or no fit, "
            f"expected at most {threshold:.0%}"
        )
        flags.append(raise_flag("r_squared_pixels", message, place, value=low, threshold=threshold))
    if role == "native":
        t1_limits = (limits.t1_native_min_ms, limits.t1_native_max_ms)
        blood_limits = (limits.blood_t1_native_min_ms, limits.blood_t1_native_max_ms)
    else:
        t1_limits = (limits.t1_post_min_ms, limits.t1_post_max_ms)
        blood_limits = (limits.blood_t1_post_min_ms, limits.blood_t1_post_max_ms)
    flags += check_range(f"t1_{role}_implausible", "mean T1 [ms]", mean(t1_ms, inside), t1_limits, place)
    if blood is None:
        flags.append(raise_flag("blood_missing", "no blood T1 in this slice, so no ECV", place))
    else:
        flags += check_range("blood_t1_implausible", "blood T1 [ms]", blood.t1_ms, blood_limits, place)
    return flags
