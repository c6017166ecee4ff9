"""Read DICOM headers: one record per image, that is per frame; units are settled here, nowhere else."""

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import (
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    SegmentationStorage,
)
from pydicom.valuerep import DA, DT, TM

from storage.config_intake import SpinLockRule
from storage.dialect_values import (
    Scopes,
    first_value,
    numbers_of,
    read_component_code,
    read_rescale,
    read_times,
)
from storage.dicom_dialect import Rescale, TimeValue, Vendor, vendor_of
from storage.dicom_open import open_header
from storage.errors import RefusedError, UnreadableError, os_reason
from storage.geometry import Vector

Component = Literal["magnitude", "phase", "real", "imaginary", "other"]
Content = Literal["acquired", "motion corrected", "map", "other"]
InstanceKind = Literal["mr", "seg", "other"]

Value = TypeVar("Value")

_PREAMBLE_LENGTH = 128
_MAX_NAMED_FILES = 3
_MOMENT = re.compile(r"\d{12}(\d{2}(\.\d{1,6})?)?([+-]\d{4})?")
_ENHANCED = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_KINDS: dict[str, InstanceKind] = {
    MRImageStorage: "mr",
    **dict.fromkeys(_ENHANCED, "mr"),
    SegmentationStorage: "seg",
}
_COMPONENTS: dict[str, Component] = {
    "M": "magnitude",
    "MAGNITUDE": "magnitude",
    "M_FFE": "magnitude",
    "M_SE": "magnitude",
    "M_IR": "magnitude",
    "P": "phase",
    "PHASE": "phase",
    "PHASE MAP": "phase",
    "R": "real",
    "REAL": "real",
    "I": "imaginary",
    "IMAGINARY": "imaginary",
}
_MAP_TOKEN = re.compile(
    r"(T1|T2|T2_?STAR|T1RHO|R1|R2|ECV|PD)[ _]?MAP|MYOMAPS_.*|FITPARAMS|T[12]SD|PSIR|MAGIR|ECV"
)
_MAP_NAME = re.compile(r"(?i)(_MOCO_T[12]\b|[ _-]T[12][ _-]?MAP$|^T[12][ _-]?MAP$|FITPARAMS)")
_MOCO_NAME = re.compile(r"(?i)(^|[ _-])MOCO($|[ _-])")
# pydicom's log quotes the values it stumbles over, which may be a patient's.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

# What pydicom raises on broken files; an OSError is the machine's fault, not the file's, and passes through.
PARSE_ERRORS = (
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class FileSource:
    """Stands for a file outside of incoming/ and quarantine/."""

    upload_id: str
    """Upload the file came in."""
    file_number: int
    """Number of the file in the upload, from 1."""
    sha256: str
    """Digest of the file's bytes."""

    def __str__(self) -> str:
        return f"upload {self.upload_id}, file {self.file_number}"


def describe_files(sources: Iterable[FileSource]) -> str:
    """Count files and name the first few, so that somebody can look them up."""
    ordered = sorted(sources, key=lambda source: (source.upload_id, source.file_number))
    more = ", ..." if len(ordered) > _MAX_NAMED_FILES else ""
    named = ", ".join(map(str, ordered[:_MAX_NAMED_FILES]))
    return f"{len(ordered)} file{'s' if len(ordered) > 1 else ''}: {named}{more}"


@dataclass(frozen=True, slots=True)
class Instance:
    """Header of one frame of a file; None where it does not say. Never stored: it holds identifiers."""

    source: FileSource
    """Which file."""
    path: Path = field(repr=False)
    """Where it lies in incoming/."""
    kind: InstanceKind
    """MR image, classic or enhanced, segmentation, or anything else."""
    frame_index: int
    """Which frame of the file, from 0."""
    n_frames: int
    """Frames in the file."""
    sop_instance_uid: str = field(repr=False)
    """Identifier of the instance, the same in all its frames."""
    series_instance_uid: str = field(repr=False)
    """Identifier of its series."""
    series_number: int | None
    """SeriesNumber."""
    patient_id: str = field(repr=False)
    """PatientID, empty where absent."""
    study_date: date | None
    """StudyDate."""
    acquired_at: datetime | None
    """Start of the acquisition, else of the series, else of the study; scanner's local time."""
    contrast_at: datetime | None
    """Start of the contrast bolus, scanner's local time."""
    series_description: str = field(repr=False)
    """SeriesDescription, empty where absent."""
    protocol_name: str = field(repr=False)
    """ProtocolName, empty where absent."""
    image_type: tuple[str, ...]
    """ImageType, of the frame where the file is enhanced."""
    component: Component
    """Part of the complex image."""
    content: Content
    """As acquired, or what the scanner made of it."""
    acquisition_number: int
    """AcquisitionNumber, 0 where absent."""
    instance_number: int
    """InstanceNumber, 0 where absent."""
    shape: tuple[int, int] | None
    """Rows, columns."""
    position_mm: Vector | None
    """Centre of the first pixel, LPS [mm]."""
    orientation: tuple[float, ...] | None
    """Directions of growing col, then of growing row."""
    pixel_spacing_mm: tuple[float, float] | None
    """Distance between rows, between columns [mm]."""
    slice_thickness_mm: float | None
    """Thickness of the slice [mm]."""
    times: tuple[TimeValue, ...]
    """What may be its inversion, preparation, spin-lock and trigger time, decided on for a whole slice."""
    rescale: Rescale
    """From stored values to those the scanner means."""
    field_strength_t: float | None
    """Field strength [T]."""
    vendor: Vendor
    """Whose dialect the header is read in."""
    manufacturer: str
    """Manufacturer, empty where absent."""
    scanner_model: str
    """ManufacturerModelName, empty where absent."""
    burned_in_annotation: bool
    """Whether the file says that text is burned into its pixels."""


@contextmanager
def naming_the_file(source: FileSource) -> Iterator[None]:
    """Turn the machine's errors, whose texts hold a path, into one that names upload and file number."""
    try:
        yield
    except OSError as error:
        message = f"{source} cannot be read: {os_reason(error)}"
        raise UnreadableError(message) from None


def is_dicom(path: Path) -> bool:
    """Whether the file has the DICOM prefix."""
    with path.open("rb") as file:
        return file.read(_PREAMBLE_LENGTH + 4)[_PREAMBLE_LENGTH:] == b"DICM"


def read_file(
    path: Path, source: FileSource, spin_lock: Sequence[SpinLockRule] = ()
) -> tuple[Instance, ...] | None:
    """Read a file's header, one record per frame; None where it is not DICOM.

    Parameters
    ----------
    path, source
        The file and its stand-in.
    spin_lock
        Where the trial says that spin-lock times stand.

    Raises
    ------
    RefusedError
        If it is DICOM whose header cannot be read.
    """
    if not is_dicom(path):
        return None

    def read() -> tuple[Instance, ...]:
        return tuple(_instances(open_header(path), path, source, spin_lock))

    return guarded(read, source, "its header cannot be read")


def read_identity(path: Path, source: FileSource) -> tuple[str, date | None]:
    """PatientID and StudyDate of a DICOM file, faster than `read_file`."""
    tags = ["SpecificCharacterSet", "PatientID", "StudyDate"]

    def read() -> tuple[str, date | None]:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        return _text([dataset], "PatientID"), _date([dataset], "StudyDate")

    return guarded(read, source, "its header cannot be read")


def guarded(read: Callable[[], Value], source: FileSource, problem: str) -> Value:
    """Read without pydicom's warnings on harmless faults; refuse the file on any other.

    Raises
    ------
    RefusedError
        With the problem and the kind of error, never its text, which may quote the file.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return read()
    except RefusedError:
        raise
    except PARSE_ERRORS as error:
        message = f"{source}: {problem} ({type(error).__name__}); export it again"
        raise RefusedError(message) from None


def _instances(
    dataset: pydicom.FileDataset, path: Path, source: FileSource, spin_lock: Sequence[SpinLockRule]
) -> Iterator[Instance]:
    is_index = dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    sop_class = _text([dataset], "SOPClassUID")
    if not is_index and not (sop_class and _text([dataset], "SOPInstanceUID")):
        message = f"{source}: its header has no SOPClassUID or no SOPInstanceUID; export it again"
        raise RefusedError(message)
    n_frames = int(_number([dataset], "NumberOfFrames") or 1)
    if sop_class not in _ENHANCED:
        yield _instance([dataset], path, source, (0, n_frames), spin_lock)
        return
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if len(groups) != n_frames:
        message = f"{source}: {n_frames} frames, but functional groups of {len(groups)}; export it again"
        raise RefusedError(message)
    shared = [_flat(group) for group in dataset.get("SharedFunctionalGroupsSequence") or ()]
    for index, group in enumerate(groups):
        yield _instance([_flat(group), *shared, dataset], path, source, (index, n_frames), spin_lock)


def _flat(group: pydicom.Dataset) -> pydicom.Dataset:
    """Put the attributes of a frame's functional groups side by side, and its private elements with them."""
    flat = pydicom.Dataset()
    for element in group:
        if element.VR == "SQ" and not element.tag.is_private:
            for item in element.value[:1]:
                flat.update(item)
        flat.add(element)  # of some attributes the sequence itself is asked for
    return flat


def _instance(
    scopes: Scopes,
    path: Path,
    source: FileSource,
    place: tuple[int, int],
    spin_lock: Sequence[SpinLockRule],
) -> Instance:
    """Read one frame; its place is its index and how many there are."""
    position = _numbers(scopes, "ImagePositionPatient", 3)
    spacing = _numbers(scopes, "PixelSpacing", 2)
    shape = _numbers(scopes, "Rows", 1) + _numbers(scopes, "Columns", 1)
    manufacturer = _text(scopes, "Manufacturer")
    vendor = vendor_of(manufacturer)
    image_type = _image_type(scopes)
    description = _text(scopes, "SeriesDescription")
    series_number = _number(scopes, "SeriesNumber")
    return Instance(
        source=source,
        path=path,
        kind=_KINDS.get(_text(scopes, "SOPClassUID"), "other"),
        frame_index=place[0],
        n_frames=place[1],
        sop_instance_uid=_text(scopes, "SOPInstanceUID"),
        series_instance_uid=_text(scopes, "SeriesInstanceUID"),
        series_number=None if series_number is None else int(series_number),
        patient_id=_text(scopes, "PatientID"),
        study_date=_date(scopes, "StudyDate"),
        acquired_at=_acquired_at(scopes),
        contrast_at=_moment_of(scopes, "ContrastBolusStartTime"),
        series_description=description,
        protocol_name=_text(scopes, "ProtocolName"),
        image_type=image_type,
        component=_component(scopes, image_type, vendor),
        content=_content(image_type, description),
        acquisition_number=int(_number(scopes, "AcquisitionNumber") or 0),
        instance_number=int(_number(scopes, "InstanceNumber") or 0),
        shape=(int(shape[0]), int(shape[1])) if len(shape) == 2 else None,
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=_numbers(scopes, "ImageOrientationPatient", 6) or None,
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        slice_thickness_mm=_number(scopes, "SliceThickness"),
        times=read_times(scopes, vendor, spin_lock),
        rescale=read_rescale(scopes, vendor),
        field_strength_t=_number(scopes, "MagneticFieldStrength"),
        vendor=vendor,
        manufacturer=manufacturer,
        scanner_model=_text(scopes, "ManufacturerModelName"),
        burned_in_annotation=_text(scopes, "BurnedInAnnotation").upper() == "YES",
    )


def _text(scopes: Scopes, keyword: str) -> str:
    value = first_value(scopes, keyword)
    return "" if value is None else str(value).strip()


def _numbers(scopes: Scopes, keyword: str, count: int) -> tuple[float, ...]:
    """Give the attribute's finite numbers, or nothing where there are not so many."""
    numbers = numbers_of(first_value(scopes, keyword))
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else ()


def _number(scopes: Scopes, keyword: str) -> float | None:
    numbers = _numbers(scopes, keyword, 1)
    return numbers[0] if numbers else None


def _date(scopes: Scopes, keyword: str) -> date | None:
    try:
        day = DA(first_value(scopes, keyword))
    except (TypeError, ValueError):
        return None
    return None if day is None else date(day.year, day.month, day.day)


def _acquired_at(scopes: Scopes) -> datetime | None:
    for keyword in ("FrameAcquisitionDateTime", "AcquisitionDateTime"):
        written = _text(scopes, keyword)
        if _MOMENT.fullmatch(
            written
        ):  # DICOM allows less, and pydicom makes the first of January of a mere year
            with suppress(ValueError):
                moment = DT(written)
                return datetime.combine(moment.date(), moment.time())
    moments = (
        _moment_of(scopes, f"{event}Time", f"{event}Date") for event in ("Acquisition", "Series", "Study")
    )
    return next((moment for moment in moments if moment is not None), None)


def _moment_of(scopes: Scopes, time_keyword: str, date_keyword: str = "StudyDate") -> datetime | None:
    day = _date(scopes, date_keyword)
    with suppress(TypeError, ValueError):
        time_of_day = TM(first_value(scopes, time_keyword))
        if day is not None and time_of_day is not None:
            return datetime.combine(day, time_of_day)
    return None


def _image_type(scopes: Scopes) -> tuple[str, ...]:
    value = first_value(scopes, "FrameType") or first_value(scopes, "ImageType")
    items: Sequence[Any] = value if isinstance(value, MultiValue | list) else [value or ""]
    return tuple(str(item).strip() for item in items)


def _component(scopes: Scopes, image_type: Sequence[str], vendor: Vendor) -> Component:
    """Part of the complex image, from ComplexImageComponent, GE's own number or the values of ImageType."""
    own = read_component_code(scopes, vendor) or ""
    candidates = [_text(scopes, "ComplexImageComponent"), own, *image_type[2:]]
    known = (_COMPONENTS[value.upper()] for value in candidates if value.upper() in _COMPONENTS)
    return next(known, "other")


def _content(image_type: Sequence[str], description: str) -> Content:
    """Tell scanner-made maps and motion-corrected copies apart: by ImageType first, by the name second."""
    tokens = [value.upper() for value in image_type[2:]]
    is_derived = image_type[0].upper() == "DERIVED"
    if any(_MAP_TOKEN.fullmatch(token) for token in tokens) or (is_derived and {"T1", "T2"} & set(tokens)):
        return "map"
    if "MOCO" in tokens:
        return "motion corrected"
    if len(image_type) > 1 and image_type[1].upper() == "SECONDARY":
        return "other"
    if _MAP_NAME.search(description):
        return "map"
    return "motion corrected" if _MOCO_NAME.search(description) else "acquired"
