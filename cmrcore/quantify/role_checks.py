"""Checks of one role: its guides, alignment, fit and blood."""

from collections.abc import Sequence

from jaxtyping import Bool
from torch import Tensor

from cmrcore.quantify.qc import Flag, Place, QcLimits, check_range, raise_flag
from cmrcore.quantify.quality import SliceQuality
from cmrcore.quantify.records import Role, Series
from cmrcore.registration.align import UNALIGNED, SliceAlignment

READ_CODES = frozenset(
    {
        "mask_no_ring",
        "wall_implausible",
        "area_jumps",
        "center_jumps",
        "masks_leave_guide",
        "masks_disagree",
        "mask_off_others",
        "wall_like_blood",
        "wall_off_heart",
        "motion_remains",
        "r_squared_mean",
        "r_squared_pixels",
        "fit_poor",
        "fit_failed",
        "inversion_implausible",
        "t1_native_implausible",
        "t1_post_implausible",
        "t1_scattered",
        "t1_apart",
        "blood_missing",
        "blood_t1_implausible",
        "blood_fit_poor",
        "blood_scattered",
        "blood_small",
        "blood_apart",
        "wall_not_below_blood",
    }
)
"""Codes of `check_quality`."""


def check_notes(series: Series, index: int, place: Place, overlap_min: float) -> list[Flag]:
    """Flag what the checks of a slice's guide found."""
    note = series.guide_notes[index] if series.guide_notes else None
    if note is None:
        return []
    on_echo = f"guide of the {note.origin} on echo {int(series.reference()[index])}"
    flags = []
    if note.rejected and note.reader_replaced:
        message = f"the mask that a reader drew cannot be used, {on_echo} is instead; {note.rejected[0]}"
        flags.append(raise_flag("reader_guide_replaced", message, place))
    elif note.rejected:
        message = f"{on_echo}, after {len(note.rejected)} with higher scores that failed: {note.rejected[0]}"
        flags.append(raise_flag("guide_fell_back", message, place))
    if note.not_carried is not None:
        message = f"{on_echo}; that of the baseline is not used: {note.not_carried}"
        flags.append(raise_flag("guide_not_carried", message, place))
    name = f"{on_echo}: overlap with what the network finds"
    flags += check_range("guide_off_heart", name, note.overlap, (overlap_min, None), place)
    if note.findings:
        message = f"{on_echo} (score {note.score:.2f}): {'; '.join(note.findings)}"
        flags.append(raise_flag("guide_doubtful", message, place, value=note.score))
    return flags


def check_alignment(
    role: Role,
    series: Series,
    myocardium: Bool[Tensor, "slice row col"],
    alignment: tuple[SliceAlignment, ...],
) -> list[Flag]:
    """Flag slices in which echoes may have moved and were left where they are."""
    flags = []
    for index, one in enumerate(alignment):
        left = {state: one.states.count(state) for state in UNALIGNED if state in one.states}
        if left and bool(myocardium[index].any()):
            what = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in left.items())
            n_left = sum(left.values())
            message = f"{n_left} of {len(one.states)} echoes could not be aligned: {what}"
            place = Place(role, index, series.levels[index])
            flags.append(raise_flag("echoes_unaligned", message, place, value=float(n_left), threshold=0.0))
    return flags


def check_quality(
    role: Role,
    quality: Sequence[SliceQuality | None],
    levels: Sequence[str],
    field_strength_t: float | None,
    limits: QcLimits,
) -> list[Flag]:
    """Hold the readings of every slice against their limits."""
    tissue = limits.tissue(field_strength_t)
    is_native = role == "native"
    t1_limits: tuple[float | None, float | None] = (None, None)
    blood_limits = t1_limits
    if tissue is not None and is_native:
        t1_limits = (tissue.t1_native_min_ms, tissue.t1_native_max_ms)
        blood_limits = (tissue.blood_t1_native_min_ms, tissue.blood_t1_native_max_ms)
    elif tissue is not None:
        t1_limits = (tissue.t1_post_min_ms, tissue.t1_post_max_ms)
        blood_limits = (tissue.blood_t1_post_min_ms, tissue.blood_t1_post_max_ms)
    flags: list[Flag] = []
    for index, one in enumerate(quality):
        if one is None:
            continue
        ranges: list[tuple[str, str, float | None, float | None, float | None]] = [
            ("mask_no_ring", "defects of the ring", one.ring_defects, None, 0.0),
            ("wall_implausible", "mean wall", one.wall_mm, limits.wall_min_mm, limits.wall_max_mm),
            ("area_jumps", "ratio of areas", one.area_ratio, None, limits.area_ratio_max),
            ("center_jumps", "center off by", one.center_off_mm, None, limits.center_off_max_mm),
            ("masks_leave_guide", "median Dice with the guide", one.guide_dice, limits.guide_dice_min, None),
            *(
                (code, "reference mask off most others by", one.masks_apart_px, None, top)
                for code, top in (
                    ("masks_disagree", limits.masks_apart_max_px),
                    ("mask_off_others", limits.masks_apart_fail_px),
                )
            ),
            ("wall_like_blood", "separation", one.separation, limits.separation_min, None),
            ("wall_off_heart", "separation", one.separation, limits.separation_fail_min, None),
            (
                "motion_remains",
                "lower quartile of aligned Dice",
                one.aligned_dice,
                limits.aligned_dice_min,
                None,
            ),
            ("r_squared_mean", "mean R2", one.r_squared_mean, limits.r_squared_mean_min, None),
            *(
                (
                    code,
                    f"share of pixels without R2 of {limits.r_squared_pixel_min:g}",
                    one.low_fraction,
                    None,
                    top,
                )
                for code, top in (
                    ("r_squared_pixels", limits.r_squared_low_fraction_max),
                    ("fit_poor", limits.fit_poor_fraction_max),
                    ("fit_failed", limits.fit_failed_fraction_max),
                )
            ),
            (
                "inversion_implausible",
                "median B / A",
                one.amplitude_ratio,
                limits.amplitude_ratio_min,
                limits.amplitude_ratio_max,
            ),
            (f"t1_{role}_implausible", "mean T1", one.t1_ms, *t1_limits),
            ("t1_scattered", "scatter of T1", one.t1_spread_fraction, None, limits.t1_spread_max_fraction),
            (
                "t1_apart",
                "T1 off that of the other slices by",
                one.t1_apart_fraction,
                None,
                limits.t1_apart_max_fraction,
            ),
            ("blood_t1_implausible", "blood T1", one.blood_t1_ms, *blood_limits),
            ("blood_fit_poor", "R2 of blood", one.blood_r_squared, limits.blood_r_squared_min, None),
            (
                "blood_scattered",
                "scatter of blood T1",
                one.blood_spread_fraction,
                None,
                limits.blood_spread_max_fraction,
            ),
            ("blood_small", "pixels of blood", one.blood_n_pixels, limits.blood_pixels_min, None),
            (
                "blood_apart",
                "blood T1 off that of the other slices by",
                one.blood_apart_fraction,
                None,
                limits.blood_apart_max_fraction,
            ),
        ]
        if is_native:
            bounds = (limits.t1_over_blood_min, limits.t1_over_blood_max)
            ranges.append(("wall_not_below_blood", "T1 over that of blood", one.t1_over_blood, *bounds))
        place = Place(role, index, levels[index])
        for code, name, value, low, high in ranges:
            flags += check_range(code, name, value, (low, high), place)
        if one.blood_t1_ms is None:
            flags.append(raise_flag("blood_missing", "no blood T1 in this slice, so no ECV", place))
    return flags
