"""Small DICOM uploads drawn for the tests, and the pieces they are made of."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from storage.config import TrialConfig, load_config
from storage.dicom_read import FileSource, Instance, read_file
from storage.dicom_write import MrHeader, deterministic_uid, write_mr
from storage.geometry import StackGeometry, slice_normal
from storage.upload import Upload, hash_upload, list_uploads

DEMO_CONFIG = Path(__file__).parents[2] / "deploy" / "trials" / "demo.toml"

# Short axis as it is usually shown: columns run to the patient's left and posterior, rows to the left,
# anterior and inferior; the normal points to the base.
ORIENTATION = (0.8, 0.6, 0.0, 0.36, -0.48, -0.8)
SPACING_MM = (1.5, 1.25)
SHAPE = (12, 10)
GAP_MM = 10.0
SCANNED_AT = datetime(2026, 3, 4, 10, 30)

# A whole file header that promises deflated data, and something else after it.
BROKEN_DICOM = b"\0" * 128 + b"DICM" + b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.1.99" + b"Jane Doe"

NOBODY = 65534
"""User without any rights of their own."""

TI_SOURCE = "InversionTime (0018,0082)"

NATIVE_TI_MS = (100.0, 1100.0, 2100.0, 3100.0, 4100.0, 180.0, 1180.0, 2180.0)
POST_TI_MS = (90.0, 890.0, 1690.0, 2490.0, 170.0, 970.0, 1770.0, 250.0, 1050.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSeries:
    """One MOLLI series to write."""

    description: str = "MOLLI native"
    """SeriesDescription."""
    ti_ms: Sequence[float] = NATIVE_TI_MS
    """Inversion times in the order of acquisition [ms]."""
    slice_numbers: Sequence[int] = (0, 1, 2)
    """Slices, counted from the base."""
    component: str = "M"
    """Third value of ImageType."""
    uid_seed: str = ""
    """Sets this series apart from another of the same description."""
    patient_id: str = "S01"
    """PatientID."""
    started_at: datetime = SCANNED_AT
    """Acquisition time of the first image; one second passes between two images."""


NATIVE = DrawnSeries()
POST = DrawnSeries(description="MOLLI post", ti_ms=POST_TI_MS, started_at=SCANNED_AT + timedelta(minutes=20))


def demo_config() -> TrialConfig:
    """Load the configuration of the demo trial."""
    return load_config(DEMO_CONFIG)


def slice_position(number: int) -> tuple[float, float, float]:
    """Position of a slice's first pixel, counted from the base [mm]."""
    x, y, z = (np.array([-20.0, 30.0, 40.0]) - GAP_MM * number * slice_normal(ORIENTATION)).tolist()
    return (x, y, z)


def stack_geometry(n_slices: int = 3) -> StackGeometry:
    """Geometry of the drawn series, base to apex."""
    return StackGeometry(
        tuple(slice_position(number) for number in range(n_slices)), ORIENTATION, SPACING_MM, SHAPE
    )


def image_value(slice_number: int, ti_ms: float) -> int:
    """Pixel value that tells slice and inversion time."""
    return 10_000 * slice_number + int(ti_ms)


def drawn_masks(n_slices: int = 3) -> Bool[np.ndarray, "label slice row col"]:
    """Asymmetric masks of all labels, axes ``label slice row col``, different in each slice."""
    masks = np.zeros((3, n_slices, *SHAPE), dtype=bool)
    for index in range(n_slices):
        masks[0, index, 2:6, 3 : 5 + index] = True
        masks[1, index, 7, 4] = True
        masks[2, index, 9:11, 1:3] = True
    return masks


def write_series(folder: Path, series: DrawnSeries = NATIVE) -> list[Path]:
    """Write a series one file an image, in the order of acquisition; its file names say nothing."""
    paths: list[Path] = []
    series_uid = deterministic_uid(f"{series.description}/{series.component}/{series.uid_seed}")
    moment = series.started_at
    for slice_number in series.slice_numbers:
        for ti_ms in series.ti_ms:
            number = len(paths) + 1
            header = MrHeader(
                patient_id=series.patient_id,
                study_uid=deterministic_uid("study"),
                series_uid=series_uid,
                instance_uid=deterministic_uid(f"{series_uid}/{slice_number}/{number}"),
                series_number=1,
                instance_number=number,
                series_description=series.description,
                acquired_at=moment,
                study_at=series.started_at,
                inversion_time_ms=ti_ms,
                position_mm=slice_position(slice_number),
                orientation=ORIENTATION,
                pixel_spacing_mm=SPACING_MM,
                slice_thickness_mm=8.0,
                field_strength_t=3.0,
                image_type=("ORIGINAL", "PRIMARY", series.component),
            )
            pixels = np.full(SHAPE, image_value(slice_number, ti_ms), dtype=np.uint16)
            pixels[0, 0] = number
            name = deterministic_uid(f"{series_uid}/{number}/name")[-12:]
            paths.append(folder / f"{name}.dcm")
            write_mr(paths[-1], pixels, header)
            moment += timedelta(seconds=1)
    return paths


def write_visit(folder: Path) -> dict[str, list[Path]]:
    """Write a native and a post-contrast series of three slices; give their files in acquisition order."""
    return {"native": write_series(folder, NATIVE), "post": write_series(folder, POST)}


def read_upload(root: Path, name: str = "S01_a") -> Upload:
    """Hash an upload of a trial's incoming/."""
    listings = list_uploads(root, demo_config().uploads)
    return next(hash_upload(listing) for listing in listings if listing.path.name == name)


def pack_damaged(folder: Path, path: Path, *damaged: str) -> None:
    """Pack the files of a folder, and change some packed bytes of those that are named."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in sorted(folder.iterdir()):
            zipped.write(file, file.name)
        starts = [zipped.getinfo(name).header_offset + 100 for name in damaged]
    data = bytearray(path.read_bytes())
    for start in starts:
        data[start : start + 10] = bytes(10)
    path.write_bytes(data)


def read_instances(paths: Sequence[Path]) -> list[Instance]:
    """Read the headers of DICOM files, numbered from 1."""
    found = [read_file(path, source(number)) for number, path in enumerate(paths, 1)]
    return [instance for frames in found for instance in frames or ()]


def source(number: int = 17) -> FileSource:
    """Stand-in for a file of an upload."""
    return FileSource("u-3fa9c1d2e4", number, f"{number:064x}")


def on_slices(series: DrawnSeries, *slice_numbers: int) -> DrawnSeries:
    """Give the series with other slices."""
    return replace(series, slice_numbers=slice_numbers)


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Take away the right to read a file or folder, from the superuser too."""
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)
