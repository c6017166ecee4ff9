"""Decode the pixels of a DICOM file, once for all its frames, to the values the scanner means."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float32
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from storage.dialect_values import first_value
from storage.dicom_dialect import Rescale
from storage.dicom_open import open_whole
from storage.dicom_read import FileSource, Instance, guarded, naming_the_file
from storage.errors import RefusedError

Frames = Float32[np.ndarray, "frame row col"]
"""Pixels of some frames of one file [a.u.]. Functions made for each file name it: its making takes as
long as their work."""

FrameReader = Callable[[Sequence[Sequence[Instance]]], Iterable[Frames | RefusedError]]
"""What `read_files_frames` does; intake may have it done in a process of its own."""

MAX_PIXELS = 64 * 2**20
"""Most pixels of a file, all frames together; a few compressed bytes may promise more than memory holds."""


@dataclass(frozen=True, slots=True)
class WantedFrames:
    """Frames of one file, and what its header says of them."""

    path: Path = field(repr=False)
    """The file."""
    source: FileSource
    """Its stand-in."""
    shape: tuple[int, int]
    """Rows, columns; zeros where the header does not say."""
    n_frames: int
    """Frames in the file."""
    indices: tuple[int, ...]
    """Which frames, from 0, in the order wanted."""
    rescales: tuple[Rescale, ...]
    """From stored values to those the scanner means, of each of them."""


def wanted_frames(instances: Sequence[Instance]) -> WantedFrames:
    """Say what is needed of the headers of some frames of one file to decode them."""
    first = instances[0]
    return WantedFrames(
        path=first.path,
        source=first.source,
        shape=first.shape or (0, 0),
        n_frames=first.n_frames,
        indices=tuple(instance.frame_index for instance in instances),
        rescales=tuple(instance.rescale for instance in instances),
    )


def read_frames(instances: Sequence[Instance]) -> Float32[np.ndarray, "frame row col"]:
    """Decode a file as `decode_frames`, by the headers of the frames that are wanted."""
    return decode_frames(wanted_frames(instances))


def decode_frames(wanted: WantedFrames) -> Float32[np.ndarray, "frame row col"]:
    """Decode a file and rescale the given frames of it to the values the scanner means.

    Compressed pixels (JPEG lossless, JPEG-LS, JPEG 2000, RLE) are decoded by pydicom with pylibjpeg-openjpeg,
    pylibjpeg-rle, python-gdcm or pyjpegls; deflated files are unpacked by pydicom itself.

    Raises
    ------
    RefusedError
        If the pixel data are missing, cut off, not decodable, no grey values on the header's grid, or not
        finite.
    UnreadableError
        If the machine cannot read the file.
    """

    def read() -> Frames:
        dataset = open_whole(wanted.path)
        _check_pixel_data(dataset, wanted)
        stored = _stored(dataset).reshape(wanted.n_frames, *wanted.shape)
        slopes = np.array([rescale.slope for rescale in wanted.rescales], dtype=np.float32)
        intercepts = np.array([rescale.intercept for rescale in wanted.rescales], dtype=np.float32)
        frames = stored[list(wanted.indices)].astype(np.float32)
        frames *= slopes[:, None, None]
        frames += intercepts[:, None, None]
        return frames

    with naming_the_file(wanted.source), np.errstate(over="ignore"):
        pixels = guarded(read, wanted.source, "its pixel data cannot be decoded")
    if not np.all(np.isfinite(pixels)):
        message = f"{wanted.source}: pixel values are not finite numbers"
        raise RefusedError(message)
    return pixels


def _stored(dataset: pydicom.Dataset) -> np.ndarray[Any, Any]:
    """Give the stored values; of plain files without what pydicom checks and copies on the way."""
    bits = _value(dataset, "BitsStored")
    is_plain = (
        _value(dataset, "BitsAllocated") == 16
        and _value(dataset, "PixelRepresentation") == 0
        and isinstance(bits, int)
        and 0 < bits <= 16
        and _value(dataset, "PhotometricInterpretation") == "MONOCHROME2"
        and dataset.file_meta.TransferSyntaxUID in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    )
    if not is_plain:
        return dataset.pixel_array
    # Bits that are not stored may hold an overlay.
    return np.frombuffer(_value(dataset, "PixelData"), "<u2") & np.uint16(2**bits - 1)


def _value(dataset: pydicom.Dataset, keyword: str) -> Any:  # noqa: ANN401
    return first_value((dataset,), keyword)


def read_files_frames(
    files: Sequence[Sequence[Instance]],
) -> Iterator[Float32[np.ndarray, "frame row col"] | RefusedError]:
    """Decode many files by `read_frames`; a file that is refused gives its error."""
    for instances in files:
        try:
            yield read_frames(instances)
        except RefusedError as error:
            yield error


def _check_pixel_data(dataset: pydicom.Dataset, wanted: WantedFrames) -> None:
    source, n_frames = wanted.source, wanted.n_frames
    is_classic = "PerFrameFunctionalGroupsSequence" not in dataset
    if (is_classic and n_frames != 1) or _value(dataset, "SamplesPerPixel") != 1:
        message = f"{source}: {n_frames} frames, expected one frame of grey values, or enhanced MR"
        raise RefusedError(message)
    if "PixelData" not in dataset:
        message = f"{source}: its pixel data are missing or cut off; export it again"
        raise RefusedError(message)
    for rescale in wanted.rescales:
        if not (math.isfinite(rescale.slope) and math.isfinite(rescale.intercept)):
            message = f"{source}: slope or intercept of its {rescale.rule} is no finite number"
            raise RefusedError(message)
    rows, columns = wanted.shape
    if not 0 < n_frames * rows * columns <= MAX_PIXELS:
        found = f"{n_frames} frames of {rows} x {columns} pixels"
        message = f"{source}: {found}, expected 1 to {MAX_PIXELS} pixels in all"
        raise RefusedError(message)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    expected = n_frames * rows * columns * int(_value(dataset, "BitsAllocated")) // 8
    n_bytes = len(_value(dataset, "PixelData") or b"")
    if n_bytes not in (expected, expected + expected % 2):
        message = f"{source}: {n_bytes} bytes of pixel data, expected {expected}; export it again"
        raise RefusedError(message)
