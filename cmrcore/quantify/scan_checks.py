"""Checks of a scan as a whole, and of its two roles against each other."""

import datetime
from collections.abc import Sequence

from cmrcore.quantify.both_roles import level_of
from cmrcore.quantify.qc import Flag, Place, QcLimits, check_hematocrit, check_range, raise_flag
from cmrcore.quantify.quality import SliceQuality
from cmrcore.quantify.records import Hematocrit, QuantifySettings, Role, Series
from cmrcore.quantify.regional import mean
from cmrcore.quantify.role import RoleMeasurement
from cmrcore.registration.align import UNALIGNED
from cmrcore.registration.post import PostAlignment


def check_scan(
    roles: dict[Role, RoleMeasurement | None],
    hematocrit: Hematocrit | None,
    scan_time: datetime.datetime | None,
    scan_date: datetime.date | None,
    settings: QuantifySettings,
) -> list[Flag]:
    """Check what concerns the whole scan."""
    flags = []
    native = roles["native"]
    if native is None or mean(native.maps.t1_ms, native.maps.myocardium) is None:
        flags.append(raise_flag("nothing_measured", "no native T1 in the myocardium of any slice"))
    if roles["post"] is None:
        flags.append(raise_flag("post_missing", "no post-contrast series, so no ECV"))
    for role, one in roles.items():
        field_t = None if one is None else one.series.field_strength_t
        if field_t is not None and settings.qc.tissue(field_t) is None:
            message = (
                f"{field_t:g} T: limits of T1 are known at 1.5 and 3 T alone, so T1 was held against none"
            )
            flags.append(raise_flag("field_strength_without_limits", message, Place(role), value=field_t))
    if hematocrit is None:
        flags.append(raise_flag("hematocrit_missing", "no hematocrit, so no ECV"))
    else:
        flags += check_hematocrit(
            hematocrit.fraction,
            hematocrit.measured_on,
            hematocrit.measured_at,
            scan_time,
            scan_date,
            settings.hematocrit,
        )
    return flags


def check_post(
    roles: dict[Role, RoleMeasurement | None], onto: dict[int, PostAlignment], settings: QuantifySettings
) -> list[Flag]:
    """Flag slices whose post-contrast myocardium does not come to lie on the native one, or may not."""
    flags = []
    apart_max_px = settings.qc.masks_apart_max_px
    for index, one in onto.items():
        if not all(role is not None and bool(role.maps.myocardium[index].any()) for role in roles.values()):
            continue
        place = Place(slice_index=index, level=level_of(roles, index))
        if one.dice is not None and one.dice < settings.align.post_dice_min:
            threshold = settings.align.post_dice_min
            message = (
                f"native and aligned post-contrast myocardium have a Dice coefficient of {one.dice:.2f}, "
                f"expected at least {threshold:g}: no ECV here"
            )
            flags.append(raise_flag("post_misaligned", message, place, value=one.dice, threshold=threshold))
        elif one.refused_px > apart_max_px:
            message = (
                f"post-contrast masks lie {one.refused_px:.1f} pixels off the native ones, which the images "
                f"contradict, expected at most {apart_max_px:g}: look at both masks"
            )
            flags.append(
                raise_flag("post_unaligned", message, place, value=one.refused_px, threshold=apart_max_px)
            )
        elif one.state in UNALIGNED:
            message = f"post-contrast masks could not be aligned to the native ones: {one.state}"
            flags.append(raise_flag("post_unaligned", message.replace("_", " "), place))
    return flags


def check_contrast(
    roles: dict[Role, RoleMeasurement | None], matched: Sequence[int], settings: QuantifySettings
) -> list[Flag]:
    """Check that contrast was there, at its time, and that both roles count time by the same heart."""
    native, post = roles["native"], roles["post"]
    if post is None:
        return []
    limits, of_post = settings.qc, Place("post")
    window = (limits.post_minutes_min, limits.post_minutes_max)
    minutes = post.series.minutes_since_contrast
    flags = check_range("contrast_timing", "time after the bolus", minutes, window, of_post)
    if native is None:
        return flags
    before_ms, after_ms = (_beat_ms(one.series) for one in (native, post))
    if before_ms is not None and after_ms is not None:
        apart = abs(after_ms / before_ms - 1)
        name = f"beat of {after_ms:.0f} ms after contrast, {before_ms:.0f} ms before: off by"
        flags += check_range("beats_differ", name, apart, (None, limits.beats_apart_max_fraction), of_post)
    return flags + check_uptake(native.quality, post.quality, post.series.levels, matched, limits)


def check_uptake(
    native: Sequence[SliceQuality | None],
    post: Sequence[SliceQuality | None],
    levels: Sequence[str],
    matched: Sequence[int],
    limits: QcLimits,
) -> list[Flag]:
    """Check that T1 fell after contrast, in myocardium or blood; one alone may be wrong for other reasons."""
    flags: list[Flag] = []
    for index in matched:
        before, after = native[index], post[index]
        if before is None or after is None:
            continue
        pairs = {
            "T1 of the myocardium": (after.t1_ms, before.t1_ms),
            "T1 of blood": (after.blood_t1_ms, before.blood_t1_ms),
        }
        ratios = {name: now / then for name, (now, then) in pairs.items() if now is not None and then}
        if ratios:
            name = min(ratios, key=lambda one: ratios[one])
            place, limit = Place("post", index, levels[index]), (None, limits.post_over_native_max)
            flags += check_range("contrast_missing", f"{name} over the native", ratios[name], limit, place)
    return flags


def _beat_ms(series: Series) -> float | None:
    """Beat by the inversion times [ms]: the median step between images acquired one after the other."""
    order = series.acquisition_index.argsort(1)
    steps = series.ti_ms.gather(1, order).diff(dim=1)
    # A step back is a new inversion.
    steps = steps[steps > 0]
    return steps.median().item() if len(steps) else None
