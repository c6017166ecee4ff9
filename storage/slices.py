"""The slices of one role: grouped by place, one acquisition of each, all on one grid.

An operator who sees that a stack or a slice was planned askew acquires it again along other directions. The
images of each orientation are looked at by themselves; the ones that make up a complete stack are taken, and
the others kept in the upload and named.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from storage.acquisition import (
    GRID,
    Echo,
    Frame,
    choose_acquisition,
    grid_difference,
    split_acquisitions,
)
from storage.config_intake import IntakeConfig, SeriesRule
from storage.errors import RefusedError, RefusedFile
from storage.geometry import slice_normal, split_orientations, split_slices
from storage.schemes import describe_schemes, image_counts, scheme_of
from storage.series_rules import Role, describe_series

MAX_REPEAT_TURN_DEG = 30.0
"""Two complete stacks whose normals differ by more are two views, not one that was repeated [degrees]."""


@dataclass(frozen=True, slots=True, eq=False)
class ChosenSlices:
    """What is taken of a role's images."""

    slices: tuple[tuple[Echo, ...], ...]
    """Echoes of each slice, from base to apex, by inversion time."""
    scheme: str
    """Acquisition scheme of all slices."""
    repeats: tuple[str, ...]
    """What was not taken, each with the reason."""
    refused: tuple[RefusedFile, ...]
    """Images without an inversion time where the others of their acquisition have one."""


def choose_slices(
    role: Role, frames: Sequence[Frame], rule: SeriesRule, intake: IntakeConfig
) -> ChosenSlices:
    """Take one acquisition of each slice, of the one orientation that has a complete stack.

    Where several orientations have one, the last is taken, if all have as many slices and are turned by no
    more than `MAX_REPEAT_TURN_DEG`; else they are different views, and nobody can tell which one is meant.

    Raises
    ------
    RefusedError
        If no stack is complete, or it cannot be told which of several is the one.
    """
    orientations = split_orientations([frame.orientation for frame in frames])
    if len(orientations) == 1:
        return _choose_along(role, frames, rule, intake)
    groups = [[frames[number] for number in numbers] for numbers in orientations]
    mixed = f"{role}: {grid_difference(groups[1][0], groups[0][0], ('orientation',))}"
    if intake.repeats == "refuse":
        message = f'{mixed} (intake.repeats = "refuse")'
        raise RefusedError(message)
    complete: dict[int, ChosenSlices] = {}
    problems: dict[int, str] = {}
    refused: tuple[RefusedFile, ...] = ()
    for number, group in enumerate(groups):
        try:
            complete[number] = _choose_along(role, group, rule, intake)
            refused += complete[number].refused
        except RefusedError as error:
            problems[number] = error.reason.removeprefix(f"{role}: ")
            refused += error.files
    if not complete:
        message = f"{mixed}; no orientation has a complete stack: {'; '.join(problems.values())}"
        raise RefusedError(message, refused)
    if not _are_repeats(list(complete.values())):
        found = "; ".join(_describe(groups[number]) for number in complete)
        message = f"{mixed}, and each has a complete stack: {found}; make the rules in [intake] exclusive"
        raise RefusedError(message, refused)
    taken = max(complete, key=lambda number: _moment(groups[number]))
    others = [
        f"{role}: {_describe(group)} of another orientation, which was not taken: it "
        + (f"is no complete stack: {problems[number]}" if number in problems else "came before another one")
        for number, group in enumerate(groups)
        if number != taken
    ]
    chosen = complete[taken]
    return ChosenSlices(chosen.slices, chosen.scheme, (*chosen.repeats, *others), refused)


def _choose_along(
    role: Role, frames: Sequence[Frame], rule: SeriesRule, intake: IntakeConfig
) -> ChosenSlices:
    """Choose among images of one orientation."""
    positions = [frame.position_mm for frame in frames]
    numbers = split_slices(positions, frames[0].orientation, intake.position_tolerance_mm)
    slices = [[frames[number] for number in of_slice] for of_slice in numbers]
    if intake.slices and len(slices) != intake.slices:
        counts = ", ".join(str(len(of_slice)) for of_slice in slices)
        message = (
            f"{role}: {len(slices)} slices, expected {intake.slices} (images from base to apex: {counts})"
        )
        raise RefusedError(message)
    acquisitions = [split_acquisitions(of_slice, rule, intake) for of_slice in slices]
    refused = tuple(file for of_slice in acquisitions for one in of_slice for file in one.refused)
    chosen: list[tuple[Echo, ...]] = []
    repeats: list[str] = []
    for number, of_slice in enumerate(acquisitions, 1):
        try:
            taken, others = choose_acquisition(of_slice, intake)
        except RefusedError as error:
            raise RefusedError(f"{role}: slice {number} {error.reason}", refused) from None
        chosen.append(taken.echoes)
        repeats += [f"{role}: slice {number} {other}" for other in others]
    scheme = _scheme(role, chosen, rule)
    first = chosen[0][0].frame
    for echoes in chosen:
        different = grid_difference(echoes[0].frame, first, GRID)
        if different:
            raise RefusedError(f"{role}: {different}")
    return ChosenSlices(tuple(chosen), scheme, tuple(repeats), refused)


def _scheme(role: Role, slices: Sequence[Sequence[Echo]], rule: SeriesRule) -> str:
    """Find the one scheme that fits the number of images of every slice."""
    counts = [len(echoes) for echoes in slices]
    if len(set(counts)) > 1:
        message = f"{role}: the slices have {counts} inversion times, expected the same number in each"
        if any(set(counts) <= set(image_counts(scheme)) for scheme in rule.schemes):
            message += "; in a scheme in seconds it follows the heart rate, which one stack cannot hold yet"
        raise RefusedError(message)
    scheme = scheme_of(counts[0], rule.schemes)
    if scheme is None:  # a complete acquisition has one
        message = f"{role}: {counts[0]} inversion times, expected {describe_schemes(rule.schemes)}"
        raise RefusedError(message)
    return scheme


def _are_repeats(stacks: Sequence[ChosenSlices]) -> bool:
    """Whether one of several stacks may stand for all: as many slices, along nearly the same normal."""
    normals = np.array([slice_normal(stack.slices[0][0].frame.orientation) for stack in stacks])
    least_cosine = np.abs(normals @ normals.T).min()
    same_count = len({len(stack.slices) for stack in stacks}) == 1
    return same_count and bool(least_cosine >= np.cos(np.radians(MAX_REPEAT_TURN_DEG)))


def _describe(frames: Sequence[Frame]) -> str:
    """Name the series that images are of."""
    by_series = defaultdict(list)
    for frame in frames:
        by_series[frame.instance.series_instance_uid].append(frame.instance)
    return " and ".join(map(describe_series, by_series.values()))


def _moment(frames: Sequence[Frame]) -> tuple[datetime, int]:
    images = [frame.instance for frame in frames]
    started = min((image.acquired_at for image in images if image.acquired_at), default=datetime.min)
    return (started, min(image.series_number or 0 for image in images))
