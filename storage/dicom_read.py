"""Read DICOM files: one header record per instance, and its pixels; units are settled here, nowhere else."""

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pydicom
from jaxtyping import Float32
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import MediaStorageDirectoryStorage, MRImageStorage, SegmentationStorage
from pydicom.valuerep import DA, DT, TM

from storage.errors import RefusedError, UnreadableError, os_reason
from storage.geometry import Vector

Component = Literal["magnitude", "phase", "other"]
InstanceKind = Literal["mr", "seg", "other"]

Value = TypeVar("Value")

TI_SOURCE = "InversionTime (0018,0082)"

_PREAMBLE_LENGTH = 128
_MOMENT = re.compile(r"\d{12}(\d{2}(\.\d{1,6})?)?([+-]\d{4})?")
_KINDS: dict[str, InstanceKind] = {MRImageStorage: "mr", SegmentationStorage: "seg"}
_COMPONENTS: dict[str, Component] = {
    "M": "magnitude",
    "MAGNITUDE": "magnitude",
    "P": "phase",
    "PHASE": "phase",
}
# pydicom's log quotes the values it stumbles over, which may be a patient's.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

# What pydicom raises on broken files; an OSError is the machine's fault, not the file's, and passes through.
PARSE_ERRORS = (
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
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


@dataclass(frozen=True, slots=True)
class Instance:
    """Header of one DICOM file; None where the file does not say. Never stored: it holds identifiers."""

    source: FileSource
    """Which file."""
    path: Path = field(repr=False)
    """Where it lies in incoming/."""
    kind: InstanceKind
    """Classic MR image, segmentation, or anything else."""
    sop_instance_uid: str = field(repr=False)
    """Identifier of the instance."""
    series_instance_uid: str = field(repr=False)
    """Identifier of its series."""
    patient_id: str = field(repr=False)
    """PatientID, empty where absent."""
    study_date: date | None
    """StudyDate."""
    acquired_at: datetime | None
    """Start of the acquisition, else of the series, else of the study; scanner's local time."""
    series_description: str
    """SeriesDescription, empty where absent."""
    component: Component
    """Part of the complex image."""
    acquisition_number: int
    """AcquisitionNumber, 0 where absent."""
    instance_number: int
    """InstanceNumber, 0 where absent."""
    n_frames: int
    """Frames in the file."""
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
    ti_ms: float | None
    """Inversion time [ms], as written; its range is checked in `dicom_series`."""
    ti_source: str | None
    """Attribute the inversion time was read from."""
    field_strength_t: float | None
    """Field strength [T]."""
    manufacturer: str
    """Manufacturer, empty where absent."""
    scanner_model: str
    """ManufacturerModelName, empty where absent."""


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


def read_instance(path: Path, source: FileSource) -> Instance | None:
    """Read a file's header; None where it is not DICOM.

    Raises
    ------
    RefusedError
        If it is DICOM whose header cannot be read.
    """
    if not is_dicom(path):
        return None

    def read() -> Instance:
        return _parse(pydicom.dcmread(path, stop_before_pixels=True), path, source)

    return _guarded(read, source, "its header cannot be read")


def read_identity(path: Path, source: FileSource) -> tuple[str, date | None]:
    """PatientID and StudyDate of a DICOM file, faster than `read_instance`."""
    tags = ["SpecificCharacterSet", "PatientID", "StudyDate"]

    def read() -> tuple[str, date | None]:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        return _text(dataset, "PatientID"), _date(dataset, "StudyDate")

    return _guarded(read, source, "its header cannot be read")


def read_pixels(instance: Instance) -> Float32[np.ndarray, "row col"]:
    """Read an image, rescaled to the values the scanner means.

    Raises
    ------
    RefusedError
        If the pixel data are missing, cut off, not decodable, not one frame of grey values, or not finite.
    UnreadableError
        If the machine cannot read the file.
    """

    def read() -> Float32[np.ndarray, "row col"]:
        dataset = pydicom.dcmread(instance.path)
        _check_pixel_data(dataset, instance)
        slope = _rescale(dataset, "RescaleSlope", 1.0, instance.source)
        intercept = _rescale(dataset, "RescaleIntercept", 0.0, instance.source)
        return dataset.pixel_array.astype(np.float32) * np.float32(slope) + np.float32(intercept)

    with naming_the_file(instance.source):
        pixels = _guarded(read, instance.source, "its pixel data cannot be decoded")
    if pixels.shape != instance.shape or not np.all(np.isfinite(pixels)):
        message = f"{instance.source}: pixel values are not finite numbers on a grid of {instance.shape}"
        raise RefusedError(message)
    return pixels


def _check_pixel_data(dataset: pydicom.Dataset, instance: Instance) -> None:
    if instance.n_frames != 1 or _number(dataset, "SamplesPerPixel") != 1:
        message = f"{instance.source}: {instance.n_frames} frames, expected one frame of grey values"
        raise RefusedError(message)
    if "PixelData" not in dataset:
        message = f"{instance.source}: its pixel data are missing or cut off; export it again"
        raise RefusedError(message)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    rows, columns = instance.shape or (0, 0)
    expected = rows * columns * int(dataset.BitsAllocated) // 8
    found = len(dataset.PixelData)
    if found not in (expected, expected + expected % 2):
        message = f"{instance.source}: {found} bytes of pixel data, expected {expected}; export it again"
        raise RefusedError(message)


def _guarded(read: Callable[[], Value], source: FileSource, problem: str) -> Value:
    """Read without pydicom's warnings on harmless faults; refuse the file on any other."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return read()
    except RefusedError:
        raise
    except PARSE_ERRORS as error:
        message = f"{source}: {problem} ({type(error).__name__}); export it again"
        raise RefusedError(message) from None  # the parser's text may quote the file


def _parse(dataset: pydicom.FileDataset, path: Path, source: FileSource) -> Instance:
    is_index = dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    if not is_index and not (_text(dataset, "SOPClassUID") and _text(dataset, "SOPInstanceUID")):
        message = f"{source}: its header has no SOPClassUID or no SOPInstanceUID; export it again"
        raise RefusedError(message)
    shape = _numbers(dataset, "Rows", 1) + _numbers(dataset, "Columns", 1)
    position = _numbers(dataset, "ImagePositionPatient", 3)
    spacing = _numbers(dataset, "PixelSpacing", 2)
    ti_ms = _number(dataset, "InversionTime")
    return Instance(
        source=source,
        path=path,
        kind=_KINDS.get(_text(dataset, "SOPClassUID"), "other"),
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        series_instance_uid=_text(dataset, "SeriesInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        study_date=_date(dataset, "StudyDate"),
        acquired_at=_acquired_at(dataset),
        series_description=_text(dataset, "SeriesDescription"),
        component=_component(dataset),
        acquisition_number=int(_number(dataset, "AcquisitionNumber") or 0),
        instance_number=int(_number(dataset, "InstanceNumber") or 0),
        n_frames=int(_number(dataset, "NumberOfFrames") or 1),
        shape=(int(shape[0]), int(shape[1])) if len(shape) == 2 else None,
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=_numbers(dataset, "ImageOrientationPatient", 6) or None,
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        slice_thickness_mm=_number(dataset, "SliceThickness"),
        ti_ms=ti_ms,
        ti_source=None if ti_ms is None else TI_SOURCE,
        field_strength_t=_number(dataset, "MagneticFieldStrength"),
        manufacturer=_text(dataset, "Manufacturer"),
        scanner_model=_text(dataset, "ManufacturerModelName"),
    )


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def _numbers(dataset: pydicom.Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """Give the attribute's finite numbers, or nothing where there are not so many."""
    value: Any = dataset.get(keyword)
    if value is None or value == "":
        return ()
    numbers = tuple(float(item) for item in (value if isinstance(value, MultiValue) else [value]))
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else ()


def _number(dataset: pydicom.Dataset, keyword: str) -> float | None:
    numbers = _numbers(dataset, keyword, 1)
    return numbers[0] if numbers else None


def _rescale(dataset: pydicom.Dataset, keyword: str, absent: float, source: FileSource) -> float:
    """Give a rescale value, which may be absent but not wrong."""
    number = _number(dataset, keyword)
    if number is None and dataset.get(keyword) not in (None, ""):
        message = f"{source}: {keyword} is no finite number"
        raise RefusedError(message)
    return absent if number is None else number


def _date(dataset: pydicom.Dataset, keyword: str) -> date | None:
    try:
        day = DA(dataset.get(keyword))
    except (TypeError, ValueError):
        return None
    return None if day is None else date(day.year, day.month, day.day)


def _acquired_at(dataset: pydicom.Dataset) -> datetime | None:
    written = _text(dataset, "AcquisitionDateTime")
    if _MOMENT.fullmatch(written):  # DICOM allows less, and pydicom makes the first of January of a mere year
        with suppress(ValueError):
            moment = DT(written)
            return datetime.combine(moment.date(), moment.time())
    for event in ("Acquisition", "Series", "Study"):
        day = _date(dataset, f"{event}Date")
        with suppress(TypeError, ValueError):
            time_of_day = TM(dataset.get(f"{event}Time"))
            if day is not None and time_of_day is not None:
                return datetime.combine(day, time_of_day)
    return None


def _component(dataset: pydicom.Dataset) -> Component:
    """Magnitude or phase, from ComplexImageComponent or the free values of ImageType."""
    values = dataset.get("ImageType")
    image_type = list(values) if isinstance(values, MultiValue) else []
    candidates = [_text(dataset, "ComplexImageComponent"), *image_type[2:]]
    known = (_COMPONENTS[value.upper()] for value in candidates if value.upper() in _COMPONENTS)
    return next(known, "other")
