"""Series of every vendor's flavor, drawn for the tests."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pydicom

from storage.dicom_write import MrHeader, deterministic_uid
from storage.vendor_write import Flavor, MrImage, Syntax, write_series
from tests.storage.drawn_uploads import (
    NATIVE,
    ORIENTATION,
    SHAPE,
    SPACING_MM,
    DrawnSeries,
    slice_position,
)


def drawn_value(slice_number: int, ti_ms: float) -> float:
    """Pixel value that tells slice and inversion time and fits 12 bits."""
    return 700.0 * slice_number + ti_ms / 10


def drawn_images(series: DrawnSeries = NATIVE, shape: tuple[int, int] = SHAPE) -> list[MrImage]:
    """Give the images of a series in the order of acquisition."""
    images: list[MrImage] = []
    uid = deterministic_uid(f"{series.description}/{series.uid_seed}")
    for slice_number in series.slice_numbers:
        for ti_ms in series.ti_ms:
            number = len(images) + 1
            header = MrHeader(
                patient_id=series.patient_id,
                study_uid=deterministic_uid("study"),
                series_uid=uid,
                instance_uid=deterministic_uid(f"{uid}/{number}"),
                series_number=2,
                instance_number=number,
                series_description=series.description,
                acquired_at=series.started_at + timedelta(seconds=number),
                study_at=series.started_at,
                inversion_time_ms=ti_ms,
                position_mm=slice_position(slice_number),
                orientation=ORIENTATION,
                pixel_spacing_mm=SPACING_MM,
                slice_thickness_mm=8.0,
                field_strength_t=3.0,
            )
            pixels = np.full(shape, drawn_value(slice_number, ti_ms), dtype=np.float32)
            pixels[0, 0] = number
            images.append(MrImage(header, pixels))
    return images


def write_flavor(
    folder: Path,
    flavor: Flavor,
    series: DrawnSeries = NATIVE,
    syntax: Syntax = "explicit",
    shape: tuple[int, int] = SHAPE,
) -> list[Path]:
    """Write a series as a vendor does; give all its files, copies and maps too."""
    names = (folder / f"{deterministic_uid(series.description)[-8:]}-{n}.dcm" for n in itertools.count())
    before = set(folder.glob("*")) if folder.exists() else set()
    write_series(names, drawn_images(series, shape), flavor, syntax)
    return sorted(set(folder.glob("*")) - before)


def change_all(paths: list[Path], change: Callable[[pydicom.Dataset], None]) -> list[Path]:
    """Change every file of a series."""
    for path in paths:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)
    return paths
