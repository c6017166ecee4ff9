"""T2 and T1rho series: not fitted, but listed with the preparation times that their headers state.

A protocol can so be verified at every site before anybody relies on it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from storage.config_intake import IntakeConfig
from storage.dicom_dialect import (
    DIALECTS,
    Quantity,
    Source,
    choose_times,
    describe_candidates,
    spin_lock_sources,
)
from storage.dicom_read import Instance
from storage.geometry import is_orthonormal, split_orientations, split_slices
from storage.series_rules import PREPARED, PreparedKind

PREPARATION_MAX_MS = 1000.0
"""Longest preparation or spin-lock time that is believed [ms]; the longest in use are below 200 ms."""

_QUANTITIES: dict[PreparedKind, tuple[Quantity, str]] = {
    "t2": ("t2_preparation", "T2 preparation"),
    "t1rho": ("spin_lock", "spin-lock time"),
}


@dataclass(frozen=True, slots=True)
class PreparedSlice:
    """Images of one slice, each with its preparation time."""

    times_ms: tuple[float | None, ...]
    """T2-preparation or spin-lock time of each image, ascending [ms]; None, last, where it states none."""
    source: str | None
    """Attribute that they were read from; None where none varies over the slice."""
    found: str
    """What the attributes hold, where none gives the times."""


@dataclass(frozen=True, slots=True)
class PreparedSeries:
    """All images of one kind."""

    kind: PreparedKind
    """T2 or T1rho."""
    n_series: int
    """Series they are in."""
    slices: tuple[PreparedSlice, ...]
    """Slices, of each orientation from base to apex; images without geometry last."""

    def __str__(self) -> str:
        texts = [self._describe(one) for one in self.slices]
        series = "1 series" if self.n_series == 1 else f"{self.n_series} series"
        alike = Counter(texts)  # in the order of the slices
        parts = [f"{count} slice{'s' if count > 1 else ''} x {text}" for text, count in alike.items()]
        return f"{self.kind} {series}: {'; '.join(parts)}"

    def _describe(self, one: PreparedSlice) -> str:
        name = _QUANTITIES[self.kind][1]
        images = "1 image" if len(one.times_ms) == 1 else f"{len(one.times_ms)} images"
        if one.source is None:
            return f"{images} without a {name} that varies ({one.found})"
        times = ", ".join("none" if ms is None else f"{ms:g}" for ms in one.times_ms)
        return f"{images}, {name} {times} ms from {one.source}"


def find_prepared(
    images: dict[PreparedKind, tuple[Instance, ...]], intake: IntakeConfig
) -> tuple[PreparedSeries, ...]:
    """Find the preparation time of each image of the T2 and T1rho series that a rule names.

    As with inversion times, the attribute that is believed is the first of the vendor's, or of the trial's
    own (`intake.spin_lock`), that is plausible and varies over the images of a slice, of all series of the
    kind together: some protocols give every time a series.
    """
    return tuple(_series(kind, images[kind], intake) for kind in PREPARED if images[kind])


def _series(kind: PreparedKind, images: Sequence[Instance], intake: IntakeConfig) -> PreparedSeries:
    once = list({(image.sop_instance_uid, image.frame_index): image for image in images}.values())
    slices = [
        _slice(kind, [once[number] for number in of_slice], intake) for of_slice in _places(once, intake)
    ]
    return PreparedSeries(kind, len({image.series_instance_uid for image in once}), tuple(slices))


def _places(images: Sequence[Instance], intake: IntakeConfig) -> list[list[int]]:
    """Numbers of the images of each slice."""
    placed = [
        (number, image.position_mm, image.orientation)
        for number, image in enumerate(images)
        if image.position_mm and image.orientation and is_orthonormal(image.orientation)
    ]
    slices: list[list[int]] = []
    for of_orientation in split_orientations([orientation for _, _, orientation in placed]):
        parallel = [placed[index] for index in of_orientation]
        positions = [position for _, position, _ in parallel]
        of_slices = split_slices(positions, parallel[0][2], intake.position_tolerance_mm)
        slices += [[parallel[index][0] for index in of_slice] for of_slice in of_slices]
    nowhere = sorted(set(range(len(images))) - {number for number, _, _ in placed})
    return [*slices, nowhere] if nowhere else slices


def _slice(kind: PreparedKind, images: Sequence[Instance], intake: IntakeConfig) -> PreparedSlice:
    quantity, _ = _QUANTITIES[kind]
    sources = _sources(kind, images[0], intake)
    candidates = [image.times for image in images]
    source, times = choose_times(candidates, quantity, sources, PREPARATION_MAX_MS)
    found = ""
    if source is None:
        found = describe_candidates(candidates, quantity, sources) or "intake.spin_lock names no source"
    ascending = sorted(times, key=lambda ms: float("inf") if ms is None else ms)
    return PreparedSlice(tuple(ascending), source, found)


def _sources(kind: PreparedKind, image: Instance, intake: IntakeConfig) -> tuple[Source, ...]:
    if kind == "t2":
        return DIALECTS[image.vendor].times["t2_preparation"]
    return spin_lock_sources(intake.spin_lock)
