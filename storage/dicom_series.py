"""From single images to echo stacks: which series is which, which slice, which inversion time.

Nothing is taken from file names or from the order of files. A frame is known by its position along the slice
normal and by its inversion time; vendors scramble everything else. Which attribute holds the time is decided
for all images of a slice together, and a slice that was acquired more than once is taken from one acquisition
(`storage.acquisition`), of the orientation that makes up a complete stack (`storage.slices`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np
from jaxtyping import Float32, Float64, Int64

from storage.acquisition import Echo, Frame, refused_file
from storage.config_intake import IntakeConfig, SeriesRule
from storage.dicom_dialect import DIALECTS
from storage.dicom_pixels import FrameReader, read_files_frames
from storage.dicom_read import FileSource, Instance, describe_files
from storage.errors import RefusedError, RefusedFile
from storage.geometry import (
    Level,
    StackGeometry,
    Vector,
    anterior_direction,
    is_orthonormal,
    levels,
)
from storage.prepared_series import PreparedSeries, find_prepared
from storage.series_rules import ROLES, Role, SortedSeries, sort_series
from storage.slices import choose_slices

TRIGGER_DELAY_MAX_MS = 5000.0
"""Longest delay after an R wave that is believed [ms]."""

_Place = tuple[Vector, tuple[float, ...], tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class EchoStack:
    """All echoes of one role of a scan: slices from base to apex, echoes by inversion time in each slice."""

    role: Role
    """Native or post-contrast."""
    echoes: Float32[np.ndarray, "slice ti row col"]
    """Magnitude images [a.u.]."""
    ti_ms: Float64[np.ndarray, "slice ti"]
    """Inversion times, ascending [ms]."""
    acquisition_index: Int64[np.ndarray, "slice ti"]
    """Place of each echo in the order of acquisition; 0 is the one a guide is drawn on."""
    ti_source: tuple[tuple[str, ...], ...]
    """Attribute that each inversion time was read from."""
    sources: tuple[tuple[FileSource, ...], ...]
    """File of each echo, by slice and inversion time."""
    positions_mm: tuple[Vector, ...]
    """Centre of the first pixel of each slice, LPS [mm]."""
    orientation: tuple[float, ...]
    """Directions of growing col, then of growing row."""
    pixel_spacing_mm: tuple[float, float]
    """Distance between rows, between columns [mm]."""
    slice_thickness_mm: float | None
    """Thickness of a slice [mm]."""
    levels: tuple[Level, ...]
    """Level of each slice."""
    anterior: tuple[float, float]
    """Image direction (row, col) of the patient's anterior and superior."""
    scheme: str
    """Acquisition scheme."""
    acquired_at: datetime | None
    """Start of the first acquisition, scanner's local time."""
    study_date: date | None
    """Study date, which may be known where the time is not."""
    field_strength_t: float | None
    """Field strength [T]."""
    manufacturer: str
    """Manufacturer of the scanner."""
    scanner_model: str
    """Model of the scanner."""
    repeats: tuple[str, ...]
    """Acquisitions of a slice that were not taken, each with the reason."""

    @property
    def geometry(self) -> StackGeometry:
        """The planes of the stack."""
        rows, cols = self.echoes.shape[2:]
        return StackGeometry(self.positions_mm, self.orientation, self.pixel_spacing_mm, (rows, cols))


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """What a visit's images amount to."""

    native: EchoStack
    """Native series."""
    post: EchoStack | None
    """Post-contrast series; None where none was uploaded."""
    series_uids: dict[Role, frozenset[str]] = field(repr=False)
    """Identifiers of the series each stack was made of; never stored."""
    trigger_ms: dict[Role, tuple[float, float]]
    """Shortest and longest delay after the R wave, the cardiac phase, where all echoes state it [ms]."""
    study_date: date | None
    """Study date of the images."""
    refused_files: tuple[RefusedFile, ...]
    """Files that are left out, each with its reason."""
    prepared: tuple[PreparedSeries, ...]
    """T2 and T1rho series, which are listed and not quantified."""
    n_other_series: int
    """Series, counted per image component, that are neither native nor post-contrast."""


def assemble(
    instances: Iterable[Instance], intake: IntakeConfig, read_frames: FrameReader = read_files_frames
) -> IntakeResult:
    """Group a visit's images into the native and the post-contrast echo stack.

    A file that is unusable by itself is left out and named in `IntakeResult.refused_files`; the visit goes on
    if what remains is complete.

    Parameters
    ----------
    instances
        Frames of all files; an upload that comes first here stands where two contradict each other.
    intake
        Rules of the trial.
    read_frames
        Reads the pixels of some frames of each of many files.

    Raises
    ------
    RefusedError
        If there is no native series, a series fits more than one rule, is incomplete or contradictory; its
        ``files`` are those that were left out.
    """
    images = tuple(instances)
    arrival: dict[str, int] = {}
    for image in images:
        arrival.setdefault(image.source.upload_id, len(arrival))

    def place(source: FileSource) -> tuple[int, int]:
        return (arrival[source.upload_id], source.file_number)

    ordered = sorted(images, key=lambda one: (*place(one.source), one.frame_index))
    series = sort_series(ordered, intake)
    frames, refused = _read_files(series, read_frames, place)
    try:
        return _assemble_roles(frames, series, intake, refused)
    except RefusedError as error:
        raise RefusedError(error.reason, (*refused, *error.files)) from None


def _read_files(
    series: SortedSeries, read_frames: FrameReader, place: Callable[[FileSource], tuple[int, int]]
) -> tuple[dict[Role, list[Frame]], tuple[RefusedFile, ...]]:
    """Read the pixels of every file once; a file that cannot be used is refused whole."""
    files: dict[FileSource, list[tuple[Role, Instance]]] = defaultdict(list)
    for role in ROLES:
        for instance in series.by_role[role]:
            files[instance.source].append((role, instance))
    order = sorted(files, key=place)
    places: dict[FileSource, list[_Place] | RefusedError] = {}
    for source in order:
        try:
            places[source] = _places([image for _, image in files[source]])
        except RefusedError as error:
            places[source] = error
    sound = [source for source in order if not isinstance(places[source], RefusedError)]
    pixels = dict(
        zip(sound, read_frames([[image for _, image in files[source]] for source in sound]), strict=True)
    )
    refused: list[RefusedFile] = []
    frames: dict[Role, list[Frame]] = {"native": [], "post": []}
    seen: dict[str, FileSource] = {}
    for source in order:
        first_image = files[source][0][1]
        of_file, arrays = places[source], pixels.get(source, ())
        if isinstance(of_file, RefusedError):
            refused.append(refused_file(first_image, of_file.reason))
            continue
        if isinstance(arrays, RefusedError):
            refused.append(refused_file(first_image, arrays.reason))
            continue
        first = seen.setdefault(first_image.sop_instance_uid, source)
        if first is source:
            for (role, image), where, array in zip(files[source], of_file, arrays, strict=True):
                frames[role].append(Frame(image, *where, array))
        elif first.sha256 != source.sha256:
            reason = (
                f"has the SOPInstanceUID of {first} but other content; the first stands until the wrong one "
                f"of the two is taken out of incoming/ (to send one again changes nothing)"
            )
            refused.append(refused_file(first_image, reason, "choose"))
    return frames, tuple(refused)


def _places(images: Sequence[Instance]) -> list[_Place]:
    """Give position, orientation and pixel spacing of each frame of a file."""
    if images[0].kind != "mr":
        message = "is no MR image; export MR Image Storage or Enhanced MR Image Storage"
        raise RefusedError(message)
    places: list[_Place] = []
    for image in images:
        position, orientation, spacing = image.position_mm, image.orientation, image.pixel_spacing_mm
        if position is None or orientation is None or spacing is None or not is_orthonormal(orientation):
            which = f"frame {image.frame_index + 1}: " if image.n_frames > 1 else ""
            message = f"{which}its position, orientation or pixel spacing is missing or no geometry"
            raise RefusedError(message)
        places.append((position, orientation, spacing))
    return places


def _assemble_roles(
    frames: dict[Role, list[Frame]],
    series: SortedSeries,
    intake: IntakeConfig,
    refused: tuple[RefusedFile, ...],
) -> IntakeResult:
    if not frames["native"]:
        aside = f"; set aside: {series.set_aside['native']}" if series.set_aside["native"] else ""
        message = (
            f"no native series: no usable magnitude image, as acquired, fits the rules of intake.native "
            f"(description and others); {series.n_other} other series found{aside}; send the magnitude "
            f"images as acquired, or check the rules"
        )
        raise RefusedError(message)
    images = [frame.instance for role in ROLES for frame in frames[role]]
    files: dict[date, set[FileSource]] = defaultdict(set)
    for image in images:
        if image.study_date is not None:
            files[image.study_date].add(image.source)
    dates = sorted(files)
    if len(dates) > 1:
        found = "; ".join(
            f"{f'{(day - dates[0]).days} d later' if day > dates[0] else 'the first'} in "
            f"{describe_files(files[day])}"
            for day in dates
        )
        message = f"the series are of several study dates ({found}), expected one visit"
        raise RefusedError(message)
    uids = {role: frozenset(frame.instance.series_instance_uid for frame in frames[role]) for role in ROLES}
    stacks: dict[Role, EchoStack] = {}
    for role, rule in ((ROLES[0], intake.native), (ROLES[1], intake.post)):
        if frames[role]:
            stacks[role], without_time = _build_stack(role, frames[role], rule, intake)
            refused = (*refused, *without_time)
    return IntakeResult(
        native=stacks["native"],
        post=stacks.get("post"),
        series_uids=uids,
        trigger_ms={
            role: delays
            for role, stack in stacks.items()
            if (delays := _trigger_delays(frames[role], stack)) is not None
        },
        study_date=dates[0] if dates else None,
        refused_files=refused,
        prepared=find_prepared(series.prepared, intake),
        n_other_series=series.n_other,
    )


def _trigger_delays(frames: Sequence[Frame], stack: EchoStack) -> tuple[float, float] | None:
    """Give the range of the trigger times; an attribute that holds the inversion times holds no delay."""
    taken = {source for sources in stack.sources for source in sources}
    inversion = {name for names in stack.ti_source for name in names}
    images = [frame.instance for frame in frames if frame.instance.source in taken]
    for source in DIALECTS[images[0].vendor].times["trigger_time"]:
        delays = [
            value.ms
            for image in images
            for value in image.times
            if (value.quantity, value.source) == ("trigger_time", source.name)
            and 0 < value.ms <= TRIGGER_DELAY_MAX_MS
        ]
        if source.name not in inversion and len(delays) == len(images):
            return min(delays), max(delays)
    return None


def _build_stack(
    role: Role, frames: Sequence[Frame], rule: SeriesRule, intake: IntakeConfig
) -> tuple[EchoStack, tuple[RefusedFile, ...]]:
    chosen = choose_slices(role, frames, rule, intake)
    slices = chosen.slices
    first = slices[0][0].frame
    all_echoes = [echo.frame.instance for echoes in slices for echo in echoes]
    days = [image.study_date for image in all_echoes if image.study_date is not None]
    moments = [image.acquired_at for image in all_echoes if image.acquired_at is not None]
    stack = EchoStack(
        role=role,
        echoes=np.array([[echo.frame.pixels for echo in echoes] for echoes in slices]),
        ti_ms=np.array([[echo.ti_ms for echo in echoes] for echoes in slices]),
        acquisition_index=np.array([_acquisition_index(echoes) for echoes in slices]),
        ti_source=tuple(tuple(echo.ti_source for echo in echoes) for echoes in slices),
        sources=tuple(tuple(echo.frame.instance.source for echo in echoes) for echoes in slices),
        positions_mm=tuple(echoes[0].frame.position_mm for echoes in slices),
        orientation=first.orientation,
        pixel_spacing_mm=first.pixel_spacing_mm,
        slice_thickness_mm=first.instance.slice_thickness_mm,
        levels=levels(len(slices)),
        anterior=anterior_direction(first.orientation),
        scheme=chosen.scheme,
        acquired_at=min(moments, default=None),
        study_date=min(days, default=None),
        field_strength_t=first.instance.field_strength_t,
        manufacturer=first.instance.manufacturer,
        scanner_model=first.instance.scanner_model,
        repeats=chosen.repeats,
    )
    return stack, chosen.refused


def _acquisition_index(echoes: Sequence[Echo]) -> list[int]:
    """Place of each echo of a slice in the order of acquisition."""

    def moment(echo: Echo) -> tuple[datetime, int, int, int]:
        image = echo.frame.instance
        started = image.acquired_at or datetime.min
        return (started, image.acquisition_number, image.instance_number, image.frame_index)

    order = sorted(range(len(echoes)), key=lambda index: moment(echoes[index]))
    return [order.index(index) for index in range(len(echoes))]
