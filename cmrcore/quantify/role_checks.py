"""Checks of one role: its guides, alignment, fit and blood."""

from jaxtyping import Bool
from torch import Tensor

from cmrcore.quantify.blood import BloodT1
from cmrcore.quantify.qc import MASKS_APART_PX, Flag, Place, QcLimits, check_range, raise_flag
from cmrcore.quantify.records import Role, Series
from cmrcore.quantify.regional import RoleMaps, low_fraction, mean
from cmrcore.registration.align import UNALIGNED, SliceAlignment


def check_notes(series: Series, index: int, place: Place) -> list[Flag]:
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


def check_alignment(
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


def check_slice(
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
