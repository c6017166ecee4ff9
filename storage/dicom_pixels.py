"""Decode the pixels of a DICOM file, once for all its frames, to the values the scanner means."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float32
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from storage.dicom_open import open_whole
from storage.dicom_read import Instance, guarded, naming_the_file
from storage.errors import RefusedError

Frames = Float32[np.ndarray, "frame row col"]
"""Pixels of some frames of one file [a.u.]. Functions made for each file name it: its making takes as
long as their work."""

FrameReader = Callable[[Sequence[Sequence[Instance]]], Iterable[Frames | RefusedError]]
"""What `read_files_frames` does; intake may have it done in a process of its own."""

MAX_PIXELS = 64 * 2**20
"""Most pixels of a file, all frames together; a few compressed bytes may promise more than memory holds."""


def read_frames(instances: Sequence[Instance]) -> Float32[np.ndarray, "frame row col"]:
    """Decode a file and rescale the given frames of it to the values the scanner means.

    Compressed pixels (JPEG lossless, JPEG-LS, JPEG 2000, RLE) are decoded by pydicom with pylibjpeg-openjpeg,
    pylibjpeg-rle, python-gdcm or pyjpegls; deflated files are unpacked by pydicom itself.

    Parameters
    ----------
    instances
        Frames of one file, in the order wanted.

    Raises
    ------
    RefusedError
        If the pixel data are missing, cut off, not decodable, no grey values on the header's grid, or not
        finite.
    UnreadableError
        If the machine cannot read the file.
    """
    first = instances[0]

    def read() -> Frames:
        dataset = open_whole(first.path)
        _check_pixel_data(dataset, instances)
        rows, cols = first.shape or (0, 0)
        stored = _stored(dataset).reshape(first.n_frames, rows, cols)
        slopes = np.array([instance.rescale.slope for instance in instances], dtype=np.float32)
        intercepts = np.array([instance.rescale.intercept for instance in instances], dtype=np.float32)
        frames = stored[[instance.frame_index for instance in instances]].astype(np.float32)
        return frames * slopes[:, None, None] + intercepts[:, None, None]

    with naming_the_file(first.source), np.errstate(over="ignore"):
        pixels = guarded(read, first.source, "its pixel data cannot be decoded")
    if not np.all(np.isfinite(pixels)):
        message = f"{first.source}: pixel values are not finite numbers"
        raise RefusedError(message)
    return pixels


def _stored(dataset: pydicom.Dataset) -> np.ndarray[Any, Any]:
    """Give the stored values; of plain files without what pydicom checks and copies on the way."""
    bits = dataset.get("BitsStored")
    is_plain = (
        dataset.get("BitsAllocated") == 16
        and dataset.get("PixelRepresentation") == 0
        and isinstance(bits, int)
        and 0 < bits <= 16
        and dataset.get("PhotometricInterpretation") == "MONOCHROME2"
        and dataset.file_meta.TransferSyntaxUID in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    )
    if not is_plain:
        return dataset.pixel_array
    # Bits that are not stored may hold an overlay.
    return np.frombuffer(dataset.PixelData, "<u2") & np.uint16(2**bits - 1)


def read_files_frames(
    files: Sequence[Sequence[Instance]],
) -> Iterator[Float32[np.ndarray, "frame row col"] | RefusedError]:
    """Decode many files by `read_frames`; a file that is refused gives its error."""
    for instances in files:
        try:
            yield read_frames(instances)
        except RefusedError as error:
            yield error


def _check_pixel_data(dataset: pydicom.Dataset, instances: Sequence[Instance]) -> None:
    first = instances[0]
    source, n_frames = first.source, first.n_frames
    is_classic = "PerFrameFunctionalGroupsSequence" not in dataset
    if (is_classic and n_frames != 1) or dataset.get("SamplesPerPixel") != 1:
        message = f"{source}: {n_frames} frames, expected one frame of grey values, or enhanced MR"
        raise RefusedError(message)
    if "PixelData" not in dataset:
        message = f"{source}: its pixel data are missing or cut off; export it again"
        raise RefusedError(message)
    for rescale in (instance.rescale for instance in instances):
        if not (math.isfinite(rescale.slope) and math.isfinite(rescale.intercept)):
            message = f"{source}: slope or intercept of its {rescale.rule} is no finite number"
            raise RefusedError(message)
    rows, columns = first.shape or (0, 0)
    if not 0 < n_frames * rows * columns <= MAX_PIXELS:
        found = f"{n_frames} frames of {rows} x {columns} pixels"
        message = f"{source}: {found}, expected 1 to {MAX_PIXELS} pixels in all"
        raise RefusedError(message)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    expected = n_frames * rows * columns * int(dataset.BitsAllocated) // 8
    n_bytes = len(dataset.PixelData)
    if n_bytes not in (expected, expected + expected % 2):
        message = f"{source}: {n_bytes} bytes of pixel data, expected {expected}; export it again"
        raise RefusedError(message)
