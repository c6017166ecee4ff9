"""From single images to echo stacks: which series is which, which slice, which inversion time.

Nothing is taken from file names or from the order of files. A frame is known by its position along the slice
normal and by its inversion time; vendors scramble everything else.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from storage.config import IntakeConfig, SeriesRule, n_images
from storage.dicom_read import TI_SOURCE, FileSource, Instance, read_pixels
from storage.errors import RefusedError, RefusedFile
from storage.geometry import (
    UNIT_TOLERANCE,
    Level,
    StackGeometry,
    Vector,
    anterior_direction,
    base_to_apex,
    col_direction,
    is_orthonormal,
    levels,
    positions_along_normal,
    row_direction,
)

Role = Literal["native", "post"]
ROLES: tuple[Role, Role] = ("native", "post")


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
    study_date: date | None
    """Study date of the images."""
    refused_files: tuple[RefusedFile, ...]
    """Files that are left out, each with its reason."""
    n_other_series: int
    """Series, counted per image component, that no rule asks for."""


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """One usable image of a role; what an `Instance` may lack is there."""

    instance: Instance
    """Its header."""
    ti_ms: float
    """Inversion time [ms]."""
    ti_source: str
    """Attribute that it was read from."""
    position_mm: Vector
    """Centre of the first pixel, LPS [mm]."""
    orientation: tuple[float, ...]
    """Directions of growing col, then of growing row."""
    pixel_spacing_mm: tuple[float, float]
    """Distance between rows, between columns [mm]."""
    pixels: Float32[np.ndarray, "row col"]
    """Magnitudes [a.u.]."""


def assemble(instances: Iterable[Instance], intake: IntakeConfig) -> IntakeResult:
    """Group a visit's images into the native and the post-contrast echo stack.

    A file that is unusable by itself is left out and named in `IntakeResult.refused_files`; the visit goes on
    if what remains is complete.

    Raises
    ------
    RefusedError
        If there is no native series, or a series is incomplete, contradictory or there twice; its ``files``
        are those that were left out.
    """
    refused: list[RefusedFile] = []
    frames: dict[Role, list[_Frame]] = {"native": [], "post": []}
    others: set[tuple[str, str]] = set()
    seen: dict[str, Instance] = {}
    for instance in sorted(instances, key=lambda one: (one.source.upload_id, one.source.file_number)):
        if instance.kind == "seg":
            continue
        try:
            role = _role(instance, intake)
            if role is None:
                if instance.series_instance_uid:  # a DICOMDIR is of no series
                    others.add((instance.series_instance_uid, instance.component))
                continue
            frame = _read_frame(instance, intake)
        except RefusedError as error:
            refused.append(_refused_file(instance, error.reason))
            continue
        first = seen.setdefault(instance.sop_instance_uid, instance)
        if first is instance:
            frames[role].append(frame)
        elif first.source.sha256 != instance.source.sha256:
            reason = f"has the SOPInstanceUID of {first.source} but other content; the first stands"
            refused.append(_refused_file(instance, reason))
    try:
        return _assemble_roles(frames, intake, tuple(refused), len(others))
    except RefusedError as error:
        raise RefusedError(error.reason, tuple(refused)) from None


def _assemble_roles(
    frames: dict[Role, list[_Frame]], intake: IntakeConfig, refused: tuple[RefusedFile, ...], n_others: int
) -> IntakeResult:
    if not frames["native"]:
        message = (
            f"no native series: no usable magnitude image has a SeriesDescription that fits "
            f"intake.native.description; {n_others} other series found"
        )
        raise RefusedError(message)
    images = [frame.instance for role in ROLES for frame in frames[role]]
    dates = sorted({image.study_date for image in images if image.study_date is not None})
    if len(dates) > 1:
        found = ", ".join(map(str, dates))
        message = f"the series are of several study dates ({found}), expected one visit"
        raise RefusedError(message)
    uids = {role: frozenset(frame.instance.series_instance_uid for frame in frames[role]) for role in ROLES}
    return IntakeResult(
        native=_build_stack("native", frames["native"], intake.native, intake),
        post=_build_stack("post", frames["post"], intake.post, intake) if frames["post"] else None,
        series_uids=uids,
        study_date=dates[0] if dates else None,
        refused_files=refused,
        n_other_series=n_others,
    )


def _role(instance: Instance, intake: IntakeConfig) -> Role | None:
    if instance.component != "magnitude":
        return None
    rules: dict[Role, SeriesRule] = {"native": intake.native, "post": intake.post}
    fitting = [role for role in ROLES if re.search(rules[role].description, instance.series_description)]
    if len(fitting) > 1:
        message = "its SeriesDescription fits intake.native and intake.post; make the two rules exclusive"
        raise RefusedError(message)
    return fitting[0] if fitting else None


def _read_frame(instance: Instance, intake: IntakeConfig) -> _Frame:
    if instance.kind != "mr":
        message = "is no classic single-frame MR image; export classic MR Image Storage"
        raise RefusedError(message)
    limit = intake.inversion_time_max_ms
    if instance.ti_ms is None or instance.ti_source is None or not 0 < instance.ti_ms <= limit:
        found = "no inversion time" if instance.ti_ms is None else f"inversion time {instance.ti_ms:g} ms"
        message = f"{found} in {TI_SOURCE}, expected more than 0 and at most {limit:g} ms"
        raise RefusedError(message)
    position, orientation, spacing = instance.position_mm, instance.orientation, instance.pixel_spacing_mm
    if position is None or orientation is None or spacing is None or not is_orthonormal(orientation):
        message = "its position, orientation or pixel spacing is missing or no geometry"
        raise RefusedError(message)
    pixels = read_pixels(instance)
    return _Frame(instance, instance.ti_ms, instance.ti_source, position, orientation, spacing, pixels)


def _refused_file(instance: Instance, reason: str) -> RefusedFile:
    source = instance.source
    reason = reason.removeprefix(f"{source}: ")
    return RefusedFile(source.upload_id, source.file_number, reason, instance.path, source.sha256)


def _build_stack(role: Role, frames: Sequence[_Frame], rule: SeriesRule, intake: IntakeConfig) -> EchoStack:
    _check_one_grid(role, frames)
    slices = _split_slices(frames, intake.position_tolerance_mm)
    if intake.slices and len(slices) != intake.slices:
        message = f"{role}: {len(slices)} slices, expected {intake.slices}"
        raise RefusedError(message)
    scheme = _scheme(role, slices, rule)
    _check_one_place(role, slices, intake.position_tolerance_mm)
    first = frames[0]
    days = [frame.instance.study_date for frame in frames if frame.instance.study_date is not None]
    moments = [frame.instance.acquired_at for frame in frames if frame.instance.acquired_at is not None]
    return EchoStack(
        role=role,
        echoes=np.stack([np.stack([frame.pixels for frame in echoes]) for echoes in slices]),
        ti_ms=np.array([[frame.ti_ms for frame in echoes] for echoes in slices]),
        acquisition_index=np.array([_acquisition_index(echoes) for echoes in slices]),
        ti_source=tuple(tuple(frame.ti_source for frame in echoes) for echoes in slices),
        sources=tuple(tuple(frame.instance.source for frame in echoes) for echoes in slices),
        positions_mm=tuple(echoes[0].position_mm for echoes in slices),
        orientation=first.orientation,
        pixel_spacing_mm=first.pixel_spacing_mm,
        slice_thickness_mm=first.instance.slice_thickness_mm,
        levels=levels(len(slices)),
        anterior=anterior_direction(first.orientation),
        scheme=scheme,
        acquired_at=min(moments, default=None),
        study_date=min(days, default=None),
        field_strength_t=first.instance.field_strength_t,
        manufacturer=first.instance.manufacturer,
        scanner_model=first.instance.scanner_model,
    )


def _check_one_grid(role: Role, frames: Sequence[_Frame]) -> None:
    first = frames[0]
    spacing_mm, orientation = first.pixel_spacing_mm, first.orientation
    for frame in frames:
        same = {
            "pixel grid": frame.pixels.shape == first.pixels.shape,
            "pixel spacing": np.allclose(frame.pixel_spacing_mm, spacing_mm, rtol=UNIT_TOLERANCE, atol=0),
            "orientation": np.allclose(frame.orientation, orientation, rtol=0, atol=UNIT_TOLERANCE),
        }
        different = " and ".join(name for name, is_same in same.items() if not is_same)
        if different:
            one, other = first.instance.source, frame.instance.source
            message = f"{role}: {different} of {other} differs from that of {one}, expected one grid"
            raise RefusedError(message)


def _split_slices(frames: Sequence[_Frame], tolerance_mm: float) -> list[list[_Frame]]:
    """Group frames by position along the normal, base to apex; each slice sorted by inversion time."""
    orientation = frames[0].orientation
    along_normal = positions_along_normal([frame.position_mm for frame in frames], orientation)
    slices: list[list[_Frame]] = []
    starts: list[float] = []
    for index in np.argsort(along_normal, kind="stable"):
        if not starts or along_normal[index] - starts[-1] > tolerance_mm:
            starts.append(float(along_normal[index]))
            slices.append([])
        slices[-1].append(frames[index])
    order = base_to_apex(starts, orientation)
    return [sorted(slices[index], key=lambda frame: frame.ti_ms) for index in order]


def _check_one_place(role: Role, slices: Sequence[Sequence[_Frame]], tolerance_mm: float) -> None:
    """Refuse a slice whose images are shifted in the plane: their pixels are not the same tissue."""
    for number, echoes in enumerate(slices, 1):
        orientation = echoes[0].orientation
        axes = np.stack([row_direction(orientation), col_direction(orientation)], axis=1)
        in_plane_mm = np.array([frame.position_mm for frame in echoes]) @ axes
        apart_mm = np.linalg.norm(in_plane_mm[:, None] - in_plane_mm, axis=-1)
        one, other = divmod(int(np.argmax(apart_mm)), len(echoes))
        if apart_mm[one, other] > tolerance_mm:
            message = (
                f"{role}: slice {number} has images {apart_mm[one, other]:.1f} mm apart in the plane "
                f"({echoes[one].instance.source}, {echoes[other].instance.source}), "
                f"expected at most {tolerance_mm:g} mm"
            )
            raise RefusedError(message)


def _scheme(role: Role, slices: Sequence[Sequence[_Frame]], rule: SeriesRule) -> str:
    """Find the one scheme that fits the number of images of every slice."""
    schemes = {n_images(scheme): scheme for scheme in rule.schemes}
    expected = " or ".join(f"{count} ({scheme})" for count, scheme in schemes.items())
    for number, echoes in enumerate(slices, 1):
        n_series = len({frame.instance.series_instance_uid for frame in echoes})
        if n_series > 1:
            message = f"{role}: slice {number} is in {n_series} series, expected one; remove the repeated one"
            raise RefusedError(message)
        times = [frame.ti_ms for frame in echoes]
        repeated = sorted({ti_ms for ti_ms in times if times.count(ti_ms) > 1})
        if repeated:
            found = ", ".join(f"{ti_ms:g}" for ti_ms in repeated)
            message = f"{role}: slice {number} has more than one image at inversion time {found} ms"
            raise RefusedError(message)
        if len(times) not in schemes:
            message = f"{role}: slice {number} has {len(times)} inversion times, expected {expected}"
            raise RefusedError(message)
    counts = [len(echoes) for echoes in slices]
    if len(set(counts)) > 1:
        message = f"{role}: the slices have {counts} inversion times, expected the same number in each"
        raise RefusedError(message)
    return schemes[counts[0]]


def _acquisition_index(echoes: Sequence[_Frame]) -> list[int]:
    """Place of each echo of a slice in the order of acquisition."""

    def moment(frame: _Frame) -> tuple[datetime, int, int]:
        instance = frame.instance
        return (instance.acquired_at or datetime.min, instance.acquisition_number, instance.instance_number)

    order = sorted(range(len(echoes)), key=lambda index: moment(echoes[index]))
    return [order.index(index) for index in range(len(echoes))]
