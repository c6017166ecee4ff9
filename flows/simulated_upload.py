"""The upload of one simulated visit: its images in scrambled order, and what goes wrong with them."""

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float32

from cmrcore.phantom import RoleEchoes, SimulatedScan
from flows.simulated_visit import SimulatedVisit
from storage.config import CONFIG_FILE, load_config
from storage.dicom_write import MrHeader, deterministic_uid, write_guide_nifti, write_guide_seg, write_mr
from storage.geometry import StackGeometry, Vector, slice_normal
from storage.series_rules import ROLES, Role
from storage.vendor_write import SCANNERS, Flavor, MrImage, write_series

POST_DELAY = timedelta(minutes=15)
CONTRAST_DELAY = timedelta(minutes=2)
CUT_OFF_BYTES = 5000
ELSEWHERE_MM = 5.0

_LARGEST_VALUE = 4000.0
"""What twelve bits hold, with a margin."""
_NO_SEG: tuple[Flavor, ...] = ("siemens-xa", "philips-enhanced")
"""Flavors whose files hold several slices; a segmentation is written on images of one slice each."""
_NAMES = 10_000


def write_upload(root: Path, visit: SimulatedVisit, scan: SimulatedScan, seed: int) -> None:
    """Write the images, guiding masks and faults of a visit into incoming/.

    Parameters
    ----------
    root
        The trial.
    visit, scan
        What is particular about the visit, and what the scanner saw.
    seed
        Seed of the trial.
    """
    folder = root / visit.folder
    paths = _scrambled_names(folder, visit, scan, seed)
    geometry = StackGeometry(
        positions_mm=tuple((x, y, z) for x, y, z in scan.geometry.positions_mm.tolist()),
        orientation=scan.geometry.orientation,
        pixel_spacing_mm=scan.geometry.pixel_spacing_mm,
        shape=(scan.labels.shape[-2], scan.labels.shape[-1]),
    )
    header = _study_header(visit, scan, geometry, seed)
    largest = max(float(echoes.echoes.max()) for echoes in (scan.native, scan.post))
    scale = min(1.0, _LARGEST_VALUE / largest)
    localizer = np.rint(scan.native.echoes[0, -1].numpy() * np.float32(scale)).astype(np.uint16)
    write_mr(next(paths), localizer, header)
    first_images: dict[Role, list[Path]] = {}
    for role, echoes, number, delay in zip(
        ROLES, (scan.native, scan.post), (2, 3), (timedelta(0), POST_DELAY), strict=True
    ):
        series_header = replace(
            header,
            series_uid=deterministic_uid(f"{seed}/{visit.subject_id}/{visit.visit_id}/{number}"),
            series_number=number,
            series_description=f"MOLLI {echoes.scheme} SAX {role}",
            acquired_at=visit.scanned_at + delay,
            contrast_at=visit.scanned_at + CONTRAST_DELAY if role == "post" else None,
        )
        images = _images(echoes, _positions(visit, geometry, role), series_header, scale)
        first_images[role] = _write_role(paths, images, role, visit)
    if visit.guide_format is not None and "no_guide" not in visit.faults:
        _write_guides(root, visit, scan, geometry, first_images)
    if "duplicate_upload" in visit.faults:
        shutil.copytree(folder, folder.with_name(f"{folder.name}_again"))
    if "zip" in visit.faults:
        _zip(folder)


def _scrambled_names(folder: Path, visit: SimulatedVisit, scan: SimulatedScan, seed: int) -> Iterator[Path]:
    """Give names in an order that says nothing; first as many as there are images, then more."""
    n_images = 1 + sum(echoes.ti_ms.numel() for echoes in (scan.native, scan.post))
    rng = np.random.default_rng([seed, visit.subject_index, visit.visit_index, 1])
    for number in [*rng.permutation(n_images), *range(n_images, _NAMES)]:
        yield folder / f"IM{number:04d}.dcm"


def _study_header(visit: SimulatedVisit, scan: SimulatedScan, geometry: StackGeometry, seed: int) -> MrHeader:
    """Header of the localizer, from which the others are made."""
    study = f"{seed}/{visit.subject_id}/{visit.visit_id}"
    return MrHeader(
        patient_id=visit.subject_id,
        study_uid=deterministic_uid(study),
        series_uid=deterministic_uid(f"{study}/1"),
        instance_uid=deterministic_uid(f"{study}/1/0"),
        series_number=1,
        instance_number=1,
        series_description="localizer",
        acquired_at=visit.scanned_at - timedelta(minutes=5),
        study_at=visit.scanned_at - timedelta(minutes=10),
        inversion_time_ms=None,
        position_mm=geometry.positions_mm[0],
        orientation=geometry.orientation,
        pixel_spacing_mm=geometry.pixel_spacing_mm,
        slice_thickness_mm=scan.geometry.slice_thickness_mm,
        field_strength_t=scan.field_strength_t,
        manufacturer=SCANNERS[visit.flavor][0],
        scanner_model=SCANNERS[visit.flavor][1],
    )


def _positions(visit: SimulatedVisit, geometry: StackGeometry, role: Role) -> tuple[Vector, ...]:
    """Where a role's slices lie."""
    if role == "native" or "post_elsewhere" not in visit.faults:
        return geometry.positions_mm
    shift = ELSEWHERE_MM * slice_normal(geometry.orientation)
    moved = (np.asarray(geometry.positions_mm) + shift).tolist()
    return tuple((x, y, z) for x, y, z in moved)


def _images(
    echoes: RoleEchoes, positions_mm: tuple[Vector, ...], header: MrHeader, scale: float
) -> list[MrImage]:
    """Give the images of one role in the order of acquisition."""
    images: list[MrImage] = []
    for slice_index, (frames, times, position) in enumerate(
        zip(echoes.echoes, echoes.ti_ms, positions_mm, strict=True)
    ):
        for index, (frame, ti_ms) in enumerate(zip(frames, times.tolist(), strict=True)):
            number = slice_index * len(frames) + index + 1
            frame_header = replace(
                header,
                instance_uid=deterministic_uid(f"{header.series_uid}/{number}"),
                instance_number=number,
                acquired_at=header.acquired_at + timedelta(seconds=20 * slice_index + index),
                inversion_time_ms=ti_ms,
                position_mm=position,
            )
            pixels: Float32[np.ndarray, "row col"] = frame.numpy() * np.float32(scale)
            images.append(MrImage(frame_header, pixels))
    return images


def _write_role(
    paths: Iterator[Path], images: list[MrImage], role: Role, visit: SimulatedVisit
) -> list[Path]:
    """Write one role as the scanner does, with what goes wrong in it; give the first file of each slice."""
    n_images = sum(image.header.position_mm == images[0].header.position_mm for image in images)
    if role == "native" and "repeated_slice" in visit.faults:
        attempt = [_attempted(image) for image in images[n_images : 2 * n_images - 3]]
        write_series(paths, attempt, visit.flavor, visit.syntax)
    sent = list(images)
    if role == "native" and "repeated_time" in visit.faults:
        first = sent[n_images].header
        again = sent[n_images + 1]
        sent[n_images + 1] = MrImage(
            replace(again.header, inversion_time_ms=first.inversion_time_ms), again.pixels
        )
    if role == "native" and "missing_echo" in visit.faults:
        del sent[n_images + 2]
    written = write_series(paths, sent, visit.flavor, visit.syntax)
    if role == "native" and "same_uid" in visit.faults:
        _copy_under_one_uid(written[0], next(paths))
    if role == "native" and "broken_file" in visit.faults:
        cut = written[min(n_images + 2, len(written) - 1)]
        cut.write_bytes(cut.read_bytes()[:-CUT_OFF_BYTES])
    by_slice: dict[Vector, Path] = {}
    for image, path in zip(sent, written, strict=True):
        by_slice.setdefault(image.header.position_mm, path)
    return list(by_slice.values())


def _attempted(image: MrImage) -> MrImage:
    """Put an image into an earlier series of the same name that was broken off."""
    series_uid = deterministic_uid(f"{image.header.series_uid}/attempt")
    header = replace(
        image.header,
        series_uid=series_uid,
        series_number=image.header.series_number + 50,
        instance_uid=deterministic_uid(f"{series_uid}/{image.header.instance_number}"),
        acquired_at=image.header.acquired_at - timedelta(minutes=2),
    )
    return MrImage(header, image.pixels)


def _copy_under_one_uid(path: Path, copy: Path) -> None:
    """Send a file twice, the second time with another header but the same SOPInstanceUID."""
    dataset = pydicom.dcmread(path)
    dataset.StationName = "REEXPORT"
    dataset.save_as(copy)


def _write_guides(
    root: Path,
    visit: SimulatedVisit,
    scan: SimulatedScan,
    geometry: StackGeometry,
    first_images: Mapping[Role, list[Path]],
) -> None:
    """Write a reader's masks of the first echo: a DICOM SEG for each role, or one NIfTI file for both."""
    folder = root / visit.folder
    if visit.guide_format == "nifti" or visit.flavor in _NO_SEG:
        values = load_config(root / CONFIG_FILE).intake.guide.nifti_labels.model_dump()
        write_guide_nifti(folder / "guide.nii.gz", scan.labels.numpy(), geometry, values)
        return
    first_labels = {"native": scan.native.labels[:, :, 0].numpy(), "post": scan.post.labels[:, :, 0].numpy()}
    for role, images in first_images.items():
        masks = first_labels[role]
        if visit.flavor == "siemens-ve":  # a series a slice, so a segmentation a slice
            for index, image in enumerate(images):
                name = f"guide_{role}_{index + 1}"
                of_slice = masks[:, index : index + 1]
                write_guide_seg(folder / f"{name}.dcm", of_slice, [image], f"{visit.folder}/{name}")
        else:
            write_guide_seg(folder / f"guide_{role}.dcm", masks, images, f"{visit.folder}/guide/{role}")


def _zip(folder: Path) -> None:
    """Put a folder into a zip file beside it; the same folder gives the same bytes."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            entry = zipfile.ZipInfo(
                f"{folder.name}/{path.relative_to(folder).as_posix()}", (2026, 1, 1, 0, 0, 0)
            )
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    shutil.rmtree(folder)
