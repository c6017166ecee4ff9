"""Series as the vendors' scanners write them, for the digital trial and the tests.

What is known of each flavor, and from where, stands beside the reader's table in `storage.dicom_dialect`.
Values that no reader looks at are plausible, not copied from any scanner.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from jaxtyping import Float32, UInt16
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from storage.dicom_dialect import (
    CREATOR_GE,
    CREATOR_PHILIPS_FRAME,
    CREATOR_PHILIPS_SCALE,
    CREATOR_PHILIPS_TI,
    CREATOR_SIEMENS_FRAME,
)
from storage.dicom_write import MrHeader, classic_dataset, decimal, deterministic_uid, save
from storage.enhanced_write import enhanced_dataset, item
from storage.errors import StorageError

Flavor = Literal["phantom", "siemens-ve", "siemens-xa", "philips", "philips-enhanced", "ge"]
Syntax = Literal["explicit", "deflated", "jpeg-lossless", "jpeg-ls", "jpeg-2000", "rle"]

SYNTAXES: dict[Syntax, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "jpeg-lossless": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
    "rle": RLELossless,
}
"""Transfer syntaxes that a file can be written in."""

PHILIPS_NONE = 1.7976931348623157e308
"""What Philips writes where there is no value."""

SCANNERS: dict[Flavor, tuple[str, str, str]] = {
    "phantom": ("cmrtrials", "digital phantom", "cmrtrials"),
    "siemens-ve": ("SIEMENS", "Prisma", "syngo MR E11"),
    "siemens-xa": ("Siemens Healthineers", "MAGNETOM Vida", "syngo MR XA30"),
    "philips": ("Philips Medical Systems", "Ingenia", "5.3.1"),
    "philips-enhanced": ("Philips", "Ingenia Elition X", "5.6.1"),
    "ge": ("GE MEDICAL SYSTEMS", "SIGNA Premier", "29\\LX\\MR Software release:RX29.1"),
}
"""Manufacturer, model and software of each flavor's scanner."""

TRIGGER_TIME_MS = 532.5
"""Delay after the R wave, the same in every image."""

_MAP_MS = 1000.0
"""A stand-in for the scanner's own map: flat, so that it tells the pipeline nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class MrImage:
    """One image to write."""

    header: MrHeader
    """Its header."""
    pixels: Float32[np.ndarray, "row col"]
    """Magnitudes [a.u.]."""


def write_series(
    paths: Iterator[Path], images: Sequence[MrImage], flavor: Flavor, syntax: Syntax = "explicit"
) -> list[Path]:
    """Write the images of one role, with the copies and maps that the scanner adds.

    Parameters
    ----------
    paths
        Where each file goes; as many are taken as are needed.
    images
        Images in the order of acquisition, all slices; their series UIDs are the scanner's own choice.
    flavor
        How the scanner writes.
    syntax
        How the files are encoded.

    Returns
    -------
        File of each image; the same one where the series is one file.
    """
    make: dict[Flavor, Callable[[Sequence[MrImage]], list[tuple[FileDataset, list[int]]]]] = {
        "phantom": _phantom,
        "siemens-ve": _siemens_ve,
        "siemens-xa": _siemens_xa,
        "philips": _philips,
        "philips-enhanced": _philips_enhanced,
        "ge": _ge,
    }
    written: dict[int, Path] = {}
    for dataset, numbers in make[flavor]([_of_scanner(image, flavor) for image in images]):
        path = next(paths)
        encode(dataset, syntax)
        save(path, dataset)
        written |= dict.fromkeys(numbers, path)
    return [written[number] for number in range(len(images))]


def n_files(n_slices: int, n_images: int, flavor: Flavor) -> int:
    """Count the files that `write_series` makes of ``n_slices`` slices of ``n_images`` images each."""
    counts: dict[Flavor, int] = {
        "phantom": n_slices * n_images,
        "siemens-ve": n_slices * (2 * n_images + 1),
        "siemens-xa": 1,
        "philips": n_slices * (n_images + 1),
        "philips-enhanced": 1,
        "ge": n_slices * n_images,
    }
    return counts[flavor]


def encode(dataset: FileDataset, syntax: Syntax) -> None:
    """Encode a file's pixels, or all of it, in another transfer syntax; nothing is lost."""
    uid = SYNTAXES[syntax]
    if syntax == "jpeg-lossless":
        _encode_jpeg_lossless(dataset)
    elif uid.is_compressed:
        dataset.compress(uid, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = uid


def _encode_jpeg_lossless(dataset: FileDataset) -> None:
    """Encode by GDCM, through a file: pydicom has no encoder for it."""
    import gdcm  # only for this syntax

    with tempfile.TemporaryDirectory() as folder:
        plain, coded = Path(folder) / "plain.dcm", Path(folder) / "coded.dcm"
        save(plain, dataset)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(plain))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(coded))
        is_done = reader.Read()
        if is_done:
            change.SetInput(reader.GetImage())
            is_done = change.Change()
        if is_done:
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            is_done = writer.Write()
        if not is_done:
            message = "GDCM could not encode an image as JPEG lossless"
            raise StorageError(message)
        dataset["PixelData"] = pydicom.dcmread(coded)["PixelData"]


def _of_scanner(image: MrImage, flavor: Flavor) -> MrImage:
    manufacturer, model, software = SCANNERS[flavor]
    header = replace(image.header, manufacturer=manufacturer, scanner_model=model, software_version=software)
    return MrImage(header, image.pixels)


Made = list[tuple[FileDataset, list[int]]]
"""Files in the order they are written, each with the numbers of the images in it."""


def _phantom(images: Sequence[MrImage]) -> Made:
    """Write one plain image a file, one series a role."""
    made = (classic_dataset(image.header, _stored(image.pixels, 16), 16) for image in images)
    return [(dataset, [number]) for number, dataset in enumerate(made)]


def _siemens_ve(images: Sequence[MrImage]) -> Made:
    """Write a series a slice, then its motion-corrected copy, then the map: three series a slice."""
    made: Made = []
    for place, of_slice in enumerate(_by_place(images)):
        for kind, tokens, suffix, offset in (
            ("acquired", ("ORIGINAL", "PRIMARY", "M", "DIS2D"), "", 0),
            ("copy", ("DERIVED", "PRIMARY", "M", "DIS2D", "MOCO"), "_MOCO", 1),
            ("map", ("DERIVED", "PRIMARY", "T1_MAP", "DIS2D"), "_MOCO_T1", 2),
        ):
            for index, number in enumerate(of_slice[:1] if kind == "map" else of_slice):
                image = images[number]
                header = _in_series(image.header, f"{place}{kind}", 3 * place + offset, index + 1)
                header = replace(
                    header,
                    series_description=image.header.series_description + suffix,
                    protocol_name=image.header.series_description,
                    image_type=tokens,
                    trigger_time_ms=TRIGGER_TIME_MS,
                    inversion_time_ms=None if kind == "map" else header.inversion_time_ms,
                )
                pixels = {"acquired": image.pixels, "copy": np.roll(image.pixels, 1, axis=1)}
                values = pixels.get(kind, np.full_like(image.pixels, _MAP_MS))
                dataset = classic_dataset(header, _stored(values, 12), 12)
                if kind != "map":
                    dataset.ImageComments = f"TIeff {decimal(image.header.inversion_time_ms or 0)} ms"
                made.append((dataset, [number] if kind == "acquired" else []))
    return made


def _siemens_xa(images: Sequence[MrImage]) -> Made:
    """Write all slices as frames of one file, in an order of its own, the time in the private group too."""
    order = np.random.default_rng(len(images)).permutation(len(images)).tolist()
    headers = [
        replace(
            images[number].header,
            image_type=("ORIGINAL", "PRIMARY", "T1", "NONE"),
            trigger_time_ms=TRIGGER_TIME_MS,
        )
        for number in order
    ]
    pixels = np.stack([_stored(images[number].pixels, 12) for number in order])
    dataset = enhanced_dataset(headers, pixels, 12)
    for header, groups in zip(headers, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        inner = Dataset()
        _add_private(inner, 0x00211189, CREATOR_SIEMENS_FRAME, "FD", header.inversion_time_ms)
        _add_private(groups, 0x002111FE, CREATOR_SIEMENS_FRAME, "SQ", [inner])
    return [(dataset, order)]


def _philips(images: Sequence[MrImage]) -> Made:
    """Write one series with the map in it; the time is private, and every image has a scale of its own."""
    made: Made = []
    for number, image in enumerate(images):
        header = replace(
            image.header,
            image_type=("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"),
            inversion_time_ms=None,
            trigger_time_ms=TRIGGER_TIME_MS,
            protocol_name=image.header.series_description,
        )
        scale = float(np.float32(0.5 + 0.05 * (number % 7)))
        dataset = classic_dataset(header, _stored(image.pixels * np.float32(scale), 12), 12)
        dataset.RescaleSlope = decimal(1.7 + 0.1 * (number % 5))
        dataset.RescaleIntercept = "0"
        dataset.RescaleType = "normalized"
        dataset.ScanningSequence = ["GR", "IR"]
        _add_private(dataset, 0x2005100E, CREATOR_PHILIPS_SCALE, "FL", scale)
        _add_private(dataset, 0x20051572, CREATOR_PHILIPS_TI, "FL", image.header.inversion_time_ms)
        made.append((dataset, [number]))
    for place, of_slice in enumerate(_by_place(images)):
        first = images[of_slice[0]]
        header = replace(
            first.header,
            instance_uid=deterministic_uid(f"{first.header.series_uid}/map/{place}"),
            instance_number=len(images) + place + 1,
            image_type=("ORIGINAL", "PRIMARY", "T1 MAP", "T1", "UNSPECIFIED"),
            inversion_time_ms=None,
            trigger_time_ms=TRIGGER_TIME_MS,
        )
        made.append((classic_dataset(header, _stored(np.full_like(first.pixels, _MAP_MS), 12), 12), []))
    return made


def _philips_enhanced(images: Sequence[MrImage]) -> Made:
    """Write one file: times in (0018,9079) before 1.797e308, meant values by real-world mappings."""
    headers = [
        replace(
            image.header, image_type=("ORIGINAL", "PRIMARY", "M_FFE", "M"), trigger_time_ms=TRIGGER_TIME_MS
        )
        for image in images
    ]
    slopes = [2.0 + 0.1 * (number % 7) for number in range(len(images))]
    stored = [
        _stored(image.pixels / np.float32(slope), 12) for image, slope in zip(images, slopes, strict=True)
    ]
    dataset = enhanced_dataset(headers, np.stack(stored), 12)
    dataset.InversionTime = "0"
    for groups, slope in zip(dataset.PerFrameFunctionalGroupsSequence, slopes, strict=True):
        modifier = groups.MRModifierSequence[0]
        modifier.InversionTimes = [modifier.InversionTimes, PHILIPS_NONE]
        groups.PixelValueTransformationSequence[0].RescaleSlope = decimal(slope * 1.5)
        groups.RealWorldValueMappingSequence = [
            item(
                RealWorldValueFirstValueMapped=0,
                RealWorldValueLastValueMapped=4095,
                RealWorldValueIntercept=0.0,
                RealWorldValueSlope=slope,
                LUTExplanation="signal",
                LUTLabel="Philips",
                MeasurementUnitsCodeSequence=[
                    item(CodeValue="1", CodingSchemeDesignator="UCUM", CodeMeaning="no units")
                ],
            )
        ]
        frame = Dataset()
        _add_private(frame, 0x20051572, CREATOR_PHILIPS_TI, "FL", modifier.InversionTimes[0])
        _add_private(groups, 0x2005140F, CREATOR_PHILIPS_FRAME, "SQ", [frame])
    return [(dataset, list(range(len(images))))]


def _ge(images: Sequence[MrImage]) -> Made:
    """Write one classic series, an assumption; ImageType says OTHER, and a private number the component."""
    made: Made = []
    for number, image in enumerate(images):
        header = replace(
            image.header, image_type=("ORIGINAL", "PRIMARY", "OTHER"), trigger_time_ms=TRIGGER_TIME_MS
        )
        dataset = classic_dataset(header, _stored(image.pixels, 16), 16)
        _add_private(dataset, 0x0043102F, CREATOR_GE, "SS", 0)
        made.append((dataset, [number]))
    return made


def _by_place(images: Sequence[MrImage]) -> list[list[int]]:
    """Numbers of the images of each slice, in the order of acquisition."""
    places: dict[tuple[float, float, float], list[int]] = {}
    for number, image in enumerate(images):
        places.setdefault(image.header.position_mm, []).append(number)
    return list(places.values())


def _in_series(header: MrHeader, name: str, number: int, instance_number: int) -> MrHeader:
    """Put an image into a series of its own beside the one it was given."""
    series_uid = deterministic_uid(f"{header.series_uid}/{name}")
    return replace(
        header,
        series_uid=series_uid,
        series_number=10 * header.series_number + number,
        instance_uid=deterministic_uid(f"{series_uid}/{instance_number}"),
        instance_number=instance_number,
    )


def _stored(pixels: Float32[np.ndarray, "row col"], bits: int) -> UInt16[np.ndarray, "row col"]:
    """Round to the integers that DICOM stores."""
    stored: UInt16[np.ndarray, "row col"] = np.clip(np.rint(pixels), 0, 2**bits - 1).astype(np.uint16)
    return stored


def _add_private(dataset: Dataset, tag: int, creator: str, vr: str, value: object) -> None:
    """Add a private element where the vendor's scanners have it."""
    group, element = tag >> 16, tag & 0xFFFF
    dataset.add_new((group, element >> 8), "LO", creator)
    dataset.add_new((group, element), vr, value)
