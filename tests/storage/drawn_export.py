"""A visit to export: images drawn as DICOM and taken in, a store of maps that say which pixel is which."""

import shutil
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
import zarr
from jaxtyping import Bool, Float64
from pydicom import Dataset

from storage.arrays import open_store, store_path, write_array, write_stack, write_store
from storage.config_uploads import PrivacyConfig
from storage.dicom_series import EchoStack
from storage.dicom_write import MrHeader, deterministic_uid, write_mr
from storage.export_visit import ExportedVisit
from storage.geometry import Vector, slice_normal
from storage.intake import intake_visit
from storage.source_headers import read_source_headers, write_source_header
from tests.storage.drawn_uploads import (
    NATIVE_TI_MS,
    ORIENTATION,
    POST_TI_MS,
    SCANNED_AT,
    SHAPE,
    SPACING_MM,
    demo_config,
    drawn_masks,
    read_upload,
)

KEY = bytes(range(32))
KEPT = PrivacyConfig(headers="basic", dates="keep", keep_private=())

ORIENTATIONS: dict[str, tuple[float, ...]] = {
    "oblique": ORIENTATION,
    "mirrored": (-0.8, -0.6, 0.0, 0.36, -0.48, -0.8),
    "turned": (0.36, -0.48, -0.8, 0.8, 0.6, 0.0),
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
}
"""Ways that slices may lie."""

DIGEST, SEGMENT_DIGEST = "d" * 64, "e" * 64

VISIT = ExportedVisit(
    trial_id="demo",
    subject_id="S01",
    visit_id="V1",
    site_id="01",
    visit_date=date(2026, 3, 1),
    result_digest=DIGEST,
    segment_digest=SEGMENT_DIGEST,
    state="flagged",
    qc_verdict="review",
    qc_reasons=("center_jumps",),
    code_version="0.1.0",
    scan={"t1_native_ms": 1011.5, "ecv_fraction": None, "scan_datetime": datetime(2026, 3, 4, 10, 30)},
)

LEFT_OUT: dict[str, Any] = {
    "slices": [
        {"used_native": True, "used_post": True, "used_ecv": True},
        {"used_native": False, "used_post": True, "used_ecv": False},
        {"used_native": True, "used_post": False, "used_ecv": False},
    ],
    "flags": [
        {"code": "reader_excluded", "severity": "fail", "role": "native", "slice_index": 1},
        {"code": "center_jumps", "severity": "review", "role": "native", "slice_index": 0},
        {"code": "fit_failed", "severity": "fail", "role": "post", "slice_index": 2},
    ],
}
"""Rows of a result whose means leave out a native and a post-contrast slice."""

SETTINGS: dict[str, str | float] = {
    "method": "guided",
    "alpha": 0.25,
    "base": "",
    "guided": f"sha256:{'a' * 64}",
}


@dataclass(frozen=True)
class DrawnVisit:
    """What there is to export, and where it came from."""

    root: Path
    """Root of a trial, with incoming/ and arrays/."""
    images: dict[str, list[Dataset]]
    """Source images of each role."""
    store: zarr.Group
    """The result."""


class DrawnVisits:
    """Visits that are drawn when a test first asks for them; none of the tests changes one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drawn: dict[tuple[str, str, bool], DrawnVisit] = {}

    def __call__(
        self,
        name: str = "oblique",
        spacing: Literal["even", "uneven", "sheared"] = "even",
        *,
        keep_headers: bool = False,
    ) -> DrawnVisit:
        """Give the visit with an orientation, with slices that lie so, for a trial that keeps headers."""
        key = (name, spacing, keep_headers)
        if key not in self._drawn:
            root = self._folder / f"{name}-{spacing}-{keep_headers}"
            places = positions(ORIENTATIONS[name], spacing)
            self._drawn[key] = draw_visit(root, ORIENTATIONS[name], places, keep_headers=keep_headers)
        return self._drawn[key]


def positions(orientation: tuple[float, ...], spacing: str) -> list[Vector]:
    """Positions of slices that are evenly spaced along their normal, or not, or shifted within it [mm]."""
    first, normal = np.array([-20.0, 30.0, 40.0]), slice_normal(orientation)
    last_mm = -23.0 if spacing == "uneven" else -20.0
    shift_mm = 4.0 if spacing == "sheared" else 0.0
    return [
        tuple(first + offset_mm * normal + index * shift_mm * np.asarray(orientation[:3]))
        for index, offset_mm in enumerate((0.0, -10.0, last_mm))
    ]


def pixel_value(slice_number: int, row: int, col: int) -> int:
    """Value that no other pixel of a series has."""
    return 1000 * (slice_number + 1) + 20 * row + col


def draw_visit(
    root: Path, orientation: tuple[float, ...], places: list[Vector], *, keep_headers: bool
) -> DrawnVisit:
    """Draw a native and a post-contrast series, take them in and store maps that copy their first echo.

    The first pixel of each slice has no value in any map; the last slice has no masks.
    """
    folder = root / "incoming" / "S01_a"
    for role, ti_ms, minutes in (("native", NATIVE_TI_MS, 0), ("post", POST_TI_MS, 20)):
        _draw_series(folder, role, ti_ms, SCANNED_AT + timedelta(minutes=minutes), orientation, places)
    upload = read_upload(root)
    found = intake_visit([upload], demo_config().intake)
    assert found.post is not None
    stacks = {"native": found.native, "post": found.post}
    headers = read_source_headers(list(stacks.values()), [upload], KEPT, KEY, "S01") if keep_headers else {}
    with write_store(root, "S01", "V1", DIGEST) as store:
        for role, stack in stacks.items():
            write_stack(store, stack)
            _write_arrays(store, role, stack)
        for role, header in headers.items():
            write_source_header(store, role, header)
        ecv = _map_of(stacks["native"]) / np.float32(10_000)
        write_array(store, "ecv_fraction", ecv, "1", "slice row col")
        store.attrs["rows"] = {"flags": []}
        store.attrs.update({"segmentation": SETTINGS})
    images: dict[str, list[Dataset]] = {"native": [], "post": []}
    for path in sorted(folder.glob("*.dcm")):
        image = pydicom.dcmread(path)
        images["native" if "native" in image.SeriesDescription else "post"].append(image)
    return DrawnVisit(root, images, open_store(root, "S01", "V1", DIGEST))


def writable_copy(visit: DrawnVisit, folder: Path) -> Any:  # noqa: ANN401  (its arrays are changed by name)
    """Copy a drawn store, to change it."""
    copy = shutil.copytree(store_path(visit.root, "S01", "V1", DIGEST), folder / "copy.zarr")
    return zarr.open_group(copy, mode="r+")


def stored_masks() -> Bool[np.ndarray, "label slice row col"]:
    """Masks on the reference echo of each slice."""
    masks = drawn_masks()
    masks[:, 2] = False
    return masks


def source_places(images: list[Dataset]) -> dict[int, Float64[np.ndarray, " 3"]]:
    """Where each pixel lies in the patient, LPS [mm], by its value, as its own DICOM header says."""
    places = {}
    for image in images:
        spacing = np.asarray(image.PixelSpacing, dtype=np.float64)
        along = np.asarray(image.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
        first = np.asarray(image.ImagePositionPatient, dtype=np.float64)
        for (row, col), value in np.ndenumerate(image.pixel_array):
            places[int(value)] = first + col * spacing[1] * along[0] + row * spacing[0] * along[1]
    return places


def original_names(visit: DrawnVisit) -> set[str]:
    """UIDs and texts of the source images that must be nowhere else."""
    names = {"MOLLI native", "MOLLI post"}
    for image in (one for images in visit.images.values() for one in images):
        names |= {
            str(image[keyword].value)
            for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
        }
    return names


def _draw_series(
    folder: Path,
    role: str,
    ti_ms: tuple[float, ...],
    started_at: datetime,
    orientation: tuple[float, ...],
    places: list[Vector],
) -> None:
    number = 0
    rows, cols = np.indices(SHAPE)
    for slice_number, place in enumerate(places):
        for time in ti_ms:
            number += 1
            header = MrHeader(
                patient_id="S01",
                study_uid=deterministic_uid("study"),
                series_uid=deterministic_uid(role),
                instance_uid=deterministic_uid(f"{role}/{number}"),
                series_number=1,
                instance_number=number,
                series_description=f"MOLLI {role}",
                acquired_at=started_at + timedelta(seconds=number),
                study_at=SCANNED_AT,
                inversion_time_ms=time,
                position_mm=place,
                orientation=orientation,
                pixel_spacing_mm=SPACING_MM,
                slice_thickness_mm=8.0,
                field_strength_t=3.0,
            )
            values = pixel_value(slice_number, rows, cols)  # type: ignore[arg-type]
            write_mr(folder / f"{role}{number:03}.dcm", np.asarray(values, dtype=np.uint16), header)


def _map_of(stack: EchoStack) -> np.ndarray[Any, Any]:
    values = stack.echoes[:, 0].astype(np.float32)
    values[:, 0, 0] = np.nan
    return values


def _write_arrays(store: zarr.Group, role: str, stack: EchoStack) -> None:
    n_slices, n_ti, n_rows, n_cols = stack.echoes.shape
    reference = np.arange(n_slices)
    masks = np.zeros((3, n_slices, n_ti, n_rows, n_cols), dtype=bool)
    masks[:, reference, reference] = stored_masks()
    guides = {"guides": [{"origin": "reader"}, {"origin": "model"}, None]}
    values = _map_of(stack)
    write_array(store, f"{role}/t1_ms", values, "ms", "slice row col")
    write_array(store, f"{role}/r_squared", values / np.float32(5000), "1", "slice row col")
    write_array(store, f"{role}/masks", masks, "1", "label slice ti row col")
    write_array(store, f"{role}/reference_echo", reference, "1", "slice")
    write_array(store, f"{role}/guide", stored_masks(), "1", "label slice row col", guides)
