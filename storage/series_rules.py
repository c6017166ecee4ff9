"""Which series is which: the rules of trial.toml against what the headers say.

Phase images, scanner-made maps and motion-corrected copies are set aside before any rule is looked at: they
bear the name of the series they were made of.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from storage.config_intake import IntakeConfig, SeriesMatch
from storage.dicom_read import Instance
from storage.errors import RefusedError

Role = Literal["native", "post"]
ROLES: tuple[Role, Role] = ("native", "post")
PreparedKind = Literal["t2", "t1rho"]
PREPARED: tuple[PreparedKind, PreparedKind] = ("t2", "t1rho")
"""Kinds of series that are told apart by a preparation time, and not quantified."""


@dataclass(frozen=True, slots=True)
class SortedSeries:
    """A visit's images by role."""

    by_role: dict[Role, tuple[Instance, ...]]
    """Images of each role, as acquired."""
    prepared: dict[PreparedKind, tuple[Instance, ...]]
    """Images of the kinds in `PREPARED` that a rule recognises, as acquired."""
    n_other: int
    """Series, counted per image component and kind of content, that are of neither role."""
    set_aside: dict[Role, str]
    """What would be of a role but is not used, in words; empty where there is nothing."""


def sort_series(instances: Sequence[Instance], intake: IntakeConfig) -> SortedSeries:
    """Give each series its role.

    Raises
    ------
    RefusedError
        If a series fits more than one rule; all such series are named by number, size, time and rules.
    """
    rules: dict[str, SeriesMatch] = {"native": intake.native, "post": intake.post}
    rules |= {str(name): rule for name, rule in intake.other.items()}
    parts: dict[tuple[str, str, str], list[Instance]] = defaultdict(list)
    for instance in instances:
        if instance.kind != "seg" and instance.series_instance_uid:  # a DICOMDIR is of no series
            parts[instance.series_instance_uid, instance.component, instance.content].append(instance)
    usable = [part for part in parts.values() if _is_usable(part[0])]
    named = [
        part for part in usable if any(_fits_names(part[0], intake_rule) for intake_rule in rules.values())
    ]
    first_at = min(filter(None, map(_started_at, named)), default=None)
    contrast_at = min(
        (instance.contrast_at for instance in instances if instance.contrast_at is not None), default=None
    )
    fits = [
        [name for name, rule in rules.items() if _fits(part, rule, first_at, contrast_at)] for part in usable
    ]
    ambiguous = [
        f"{describe_series(part)} fits {' and '.join(names)}"
        for part, names in zip(usable, fits, strict=True)
        if len(names) > 1
    ]
    if ambiguous:
        message = f"{'; '.join(ambiguous)}; make the rules in [intake] exclusive"
        raise RefusedError(message)

    def of_kind(name: str) -> tuple[Instance, ...]:
        return tuple(one for part, names in zip(usable, fits, strict=True) if names == [name] for one in part)

    n_of_roles = sum(names == [role] for names in fits for role in ROLES)
    unknown_time = {
        role: _unmet_time(
            [part for part in named if _fits_names(part[0], rules[role])], rules[role], contrast_at
        )
        for role in ROLES
    }
    copies = {role: _copies(parts, rules[role]) for role in ROLES}
    return SortedSeries(
        by_role={role: of_kind(role) for role in ROLES},
        prepared={kind: of_kind(kind) for kind in PREPARED},
        n_other=len(parts) - n_of_roles,
        set_aside={role: "; ".join(filter(None, (copies[role], unknown_time[role]))) for role in ROLES},
    )


def describe_series(images: Sequence[Instance]) -> str:
    """Name a series by facts that identify nobody: its number, how many images, and when."""
    number = images[0].series_number
    started_at = _started_at(images)
    when = "at an unknown time" if started_at is None else f"{started_at:%H:%M}"
    name = "a series without number" if number is None else f"series {number}"
    return f"{name} ({len(images)} images, {when})"


def _is_usable(image: Instance) -> bool:
    return image.component == "magnitude" and image.content == "acquired"


def _started_at(images: Sequence[Instance]) -> datetime | None:
    return min((image.acquired_at for image in images if image.acquired_at is not None), default=None)


def _fits_names(image: Instance, rule: SeriesMatch) -> bool:
    patterns = (
        (rule.description, image.series_description),
        (rule.protocol, image.protocol_name),
        (rule.image_type, "\\".join(image.image_type)),
    )
    return all(re.search(pattern, text) for pattern, text in patterns)


def _fits(
    images: Sequence[Instance], rule: SeriesMatch, first_at: datetime | None, contrast_at: datetime | None
) -> bool:
    if not _fits_names(images[0], rule):
        return False
    started_at = _started_at(images)
    for minutes, zero in ((rule.minutes_since_first, first_at), (rule.minutes_since_contrast, contrast_at)):
        if not minutes:
            continue
        if started_at is None or zero is None:
            return False
        if not minutes[0] <= (started_at - zero).total_seconds() / 60 <= minutes[1]:
            return False
    return True


def _unmet_time(parts: Sequence[Sequence[Instance]], rule: SeriesMatch, contrast_at: datetime | None) -> str:
    """Say that a rule asks for a time that no header holds."""
    if parts and rule.minutes_since_contrast and contrast_at is None:
        return "the rule asks for minutes since contrast, but no image states ContrastBolusStartTime"
    return ""


def _copies(parts: Mapping[tuple[str, str, str], Sequence[Instance]], rule: SeriesMatch) -> str:
    """Count what fits a rule by its names, but is no magnitude or was made from other images."""
    found: dict[str, int] = defaultdict(int)
    for part in parts.values():
        image = part[0]
        if not _is_usable(image) and _fits_names(image, rule):
            found[image.component if image.content == "acquired" else image.content] += 1
    return ", ".join(f"{count} series of {kind} images" for kind, count in sorted(found.items()))
