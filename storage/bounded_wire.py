"""What a parent and its bounded child say to each other: one JSON text and raw bytes, never a pickle.

The child has parsed a stranger's bytes and may be theirs by now. Unpickling its answer would hand the parent
over too; text that must fit the fields of a record, and arrays whose sizes must fit their bytes, do not.
"""

import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import TypeAdapter

from storage.dicom_read import FileSource, Instance
from storage.guide import Guide, GuidePlane

HEAD = struct.Struct(">IQ")
"""Lengths of the text and of the raw bytes that follow it."""

MAX_TEXT_BYTES = 64 * 2**20
"""Longest text that a parent takes."""


@dataclass(frozen=True, slots=True)
class PlaneRecord:
    """A guide's plane without its mask."""

    label: Literal["myocardium", "blood_pool", "rv"]
    """Label of the plane."""
    shape: tuple[int, int]
    """Rows, columns of the mask."""
    position_mm: tuple[float, float, float]
    """Centre of the first pixel, LPS [mm]."""
    orientation: tuple[float, float, float, float, float, float]
    """Directions of growing col, then of growing row."""
    pixel_spacing_mm: tuple[float, float]
    """Distance between rows, between columns [mm]."""


@dataclass(frozen=True, slots=True)
class GuideRecord:
    """A guide without its masks."""

    planes: tuple[PlaneRecord, ...]
    """Planes in the order of their masks."""
    series_uids: frozenset[str]
    """Series the file says it was drawn on."""


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401  (any type that pydantic knows)
    """Give the checker of a type's values, made once."""
    return TypeAdapter(kind)


def write_message(
    stream: IO[bytes],
    text: Any,  # noqa: ANN401  (any JSON value)
    raw: bytes | memoryview = b"",
) -> None:
    """Send a JSON value and raw bytes."""
    data = json.dumps(text).encode()
    stream.write(HEAD.pack(len(data), len(raw)) + data)
    stream.write(raw)
    stream.flush()


def read_message(read: Callable[[int], bytearray], max_raw_bytes: int) -> tuple[Any, bytearray]:
    """Receive what `write_message` sent.

    Parameters
    ----------
    read
        Gives as many bytes as it is asked for, or raises.
    max_raw_bytes
        Most raw bytes that are taken.

    Raises
    ------
    ValueError
        If it is larger than allowed, or no JSON.
    """
    n_text, n_raw = HEAD.unpack(read(HEAD.size))
    if n_text > MAX_TEXT_BYTES or n_raw > max_raw_bytes:
        message = f"an answer of {n_text} and {n_raw} bytes, expected at most {max_raw_bytes}"
        raise ValueError(message)
    return json.loads(read(n_text)), read(n_raw)


def pack_instances(instances: Sequence[Instance] | None) -> Any:  # noqa: ANN401  (any JSON value)
    """JSON value of a file's images but for path and source, which the parent knows better."""
    if instances is None:
        return None
    return [
        adapter(Instance).dump_python(instance, mode="json", exclude={"path", "source"})
        for instance in instances
    ]


def unpack_instances(text: Any, path: Path, source: FileSource) -> tuple[Instance, ...] | None:  # noqa: ANN401
    """Images of a file from their JSON value.

    Raises
    ------
    ValueError
        If a field is missing or of another type.
    """
    if text is None:
        return None
    known = {"path": path, "source": source}
    found: tuple[Instance, ...] = adapter(tuple[Instance, ...]).validate_python(
        [{**fields, **known} for fields in text]
    )
    return found


def pack_guide(guide: Guide) -> tuple[Any, bytes]:
    """JSON value and masks of a guide."""
    planes = [
        {
            "label": plane.label,
            "shape": plane.mask.shape,
            "position_mm": plane.position_mm.tolist(),
            "orientation": plane.orientation.tolist(),
            "pixel_spacing_mm": plane.pixel_spacing_mm,
        }
        for plane in guide.planes
    ]
    raw = b"".join(np.packbits(plane.mask).tobytes() for plane in guide.planes)
    return {"planes": planes, "series_uids": sorted(guide.series_uids)}, raw


def unpack_guide(text: Any, raw: bytearray, path: Path, source: FileSource) -> Guide:  # noqa: ANN401
    """Guide from its JSON value and masks.

    Raises
    ------
    ValueError
        If a field is missing or of another type, or the masks do not have their planes' sizes.
    """
    record: GuideRecord = adapter(GuideRecord).validate_python(text)
    planes: list[GuidePlane] = []
    start = 0
    for plane in record.planes:
        n_pixels = math.prod(plane.shape)
        end = start + (n_pixels + 7) // 8
        if min(plane.shape) < 1 or end > len(raw):
            message = f"a mask of {plane.shape[0]} x {plane.shape[1]} pixels without its bytes"
            raise ValueError(message)
        bits = np.unpackbits(np.frombuffer(raw, np.uint8, end - start, start), count=n_pixels)
        start = end
        planes.append(
            GuidePlane(
                label=plane.label,
                mask=bits.astype(bool).reshape(plane.shape),
                position_mm=np.array(plane.position_mm, dtype=np.float64),
                orientation=np.array(plane.orientation, dtype=np.float64),
                pixel_spacing_mm=plane.pixel_spacing_mm,
            )
        )
    return Guide(source, path, tuple(planes), record.series_uids)


def unpack_frames(text: Any, raw: bytearray) -> Float32[np.ndarray, "frame row col"]:  # noqa: ANN401
    """Frames of a file from their shape and values.

    Raises
    ------
    ValueError
        If there are more or fewer values than the shape says.
    """
    shape: tuple[int, int, int] = adapter(tuple[int, int, int]).validate_python(text)
    if min(shape) < 1:
        message = f"frames of shape {shape}, expected no negative size"
        raise ValueError(message)
    return np.frombuffer(raw, np.float32).reshape(shape)


def source_text(source: FileSource) -> dict[str, Any]:
    """JSON value of a file's stand-in."""
    return {
        "upload_id": source.upload_id,
        "file_number": source.file_number,
        "sha256": source.sha256,
    }
