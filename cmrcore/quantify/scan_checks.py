"""Checks of a scan as a whole, and of its two roles against each other."""

import datetime

from cmrcore.quantify.both_roles import level_of
from cmrcore.quantify.qc import MASKS_APART_PX, Flag, Place, check_hematocrit, raise_flag
from cmrcore.quantify.records import Hematocrit, QuantifySettings, Role
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
        elif one.refused_px > MASKS_APART_PX:
            message = (
                f"post-contrast masks lie {one.refused_px:.1f} pixels off the native ones, which the images "
                f"contradict, expected at most {MASKS_APART_PX:g}: look at both masks"
            )
            flags.append(
                raise_flag("post_unaligned", message, place, value=one.refused_px, threshold=MASKS_APART_PX)
            )
        elif one.state in UNALIGNED:
            message = f"post-contrast masks could not be aligned to the native ones: {one.state}"
            flags.append(raise_flag("post_unaligned", message.replace("_", " "), place))
    return flags
