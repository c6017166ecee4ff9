"""arrays/<subject>/<visit>/<digest>.zarr: written once, whole or not at all; a stage adds to an earlier one.

A chunk is one slice with all its echoes; an array without pixels is one chunk. Floating arrays have NaN where
nothing was written, never zero.

On an object store a store is written in a local folder first, and then uploaded; its `zarr.json` is put last,
and without it nothing is there (`storage.array_objects`).
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Any, overload

import numpy as np
import zarr
import zarr.codecs

from storage import array_folders, array_objects
from storage.dicom_read import FileSource
from storage.dicom_series import EchoStack
from storage.digest import canonical_digest, file_digest
from storage.errors import AlreadyWrittenError, NotStoredError, StorageError
from storage.leftovers import new_held_folder, temporary_sibling
from storage.place import Place
from storage.series_rules import ROLES, Role
from storage.unpacked import unpacking_folder

ARRAYS = "arrays"

_COMPRESSION_LEVEL = 1
_STACK_ATTRIBUTES = (
    "role",
    "ti_source",
    "orientation",
    "pixel_spacing_mm",
    "slice_thickness_mm",
    "levels",
    "anterior",
    "scheme",
    "field_strength_t",
    "manufacturer",
    "scanner_model",
    "repeats",
)


@overload
def store_path(root: Path, subject_id: str, visit_id: str, digest: str) -> Path: ...
@overload
def store_path(root: Place, subject_id: str, visit_id: str, digest: str) -> Place: ...
def store_path(root: Place, subject_id: str, visit_id: str, digest: str) -> Place:
    """Give the place of a result's arrays."""
    return root / ARRAYS / subject_id / visit_id / f"{digest}.zarr"


def store_exists(root: Place, subject_id: str, visit_id: str, digest: str) -> bool:
    """Whether a result's arrays have been written."""
    return _is_whole(store_path(root, subject_id, visit_id, digest))


def open_store(root: Place, subject_id: str, visit_id: str, digest: str) -> zarr.Group:
    """Open a result's arrays for reading.

    Raises
    ------
    NotStoredError
        If there are none.
    """
    path = store_path(root, subject_id, visit_id, digest)
    if not _is_whole(path):
        message = (
            f"subject {subject_id}, visit {visit_id}: no arrays of result {digest}; run or rerun the visit"
        )
        raise NotStoredError(message)
    return zarr.open_group(path if isinstance(path, Path) else array_objects.reader(path), mode="r")


@contextmanager
def write_store(
    root: Place,
    subject_id: str,
    visit_id: str,
    digest: str,
    extends: str | None = None,
    source: Place | None = None,
) -> Iterator[zarr.Group]:
    """Write a result's arrays; they appear under their digest when the block ends without an error.

    A stage adds to the earlier one and may change what is there, but takes nothing away.

    Parameters
    ----------
    root, subject_id, visit_id
        Where.
    digest
        Digest of the stage's inputs; a store of this name with the same bytes is left as it is.
    extends
        Digest of an earlier stage whose arrays are taken along, as hard links where the disk can.
    source
        Root that has the earlier stage; None for ``root``.

    Raises
    ------
    AlreadyWrittenError
        If there is a store of this name with other bytes.
    NotStoredError
        If the earlier stage's arrays are not there.
    StorageError
        If files that the store began with are gone when the block ends.
    """
    final = store_path(root, subject_id, visit_id, digest)
    with ExitStack() as held:
        if isinstance(final, Path):
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_sibling(final)
            held.enter_context(new_held_folder(temporary))
        else:
            temporary = held.enter_context(unpacking_folder())
        if extends is None:
            group = zarr.create_group(temporary)
        else:
            earlier = store_path(source or root, subject_id, visit_id, extends)
            if not _is_whole(earlier):
                message = f"subject {subject_id}, visit {visit_id}: no arrays of stage {extends} to build on"
                raise NotStoredError(message)
            # Zarr replaces a file by a new one and never writes into it, so the earlier stage stays as it is.
            if isinstance(earlier, Path):
                array_folders.take_along(earlier, temporary)
            else:
                array_objects.download(earlier, temporary)
            group = zarr.open_group(temporary, mode="r+")
        began_with = array_folders.relative_files(temporary)
        yield group
        missing = began_with - array_folders.relative_files(temporary)
        if missing:
            message = (
                f"subject {subject_id}, visit {visit_id}: {len(missing)} of {len(began_with)} files are gone "
                f"from the store that is being written, {min(missing)} among them; run the visit again"
            )
            raise StorageError(message)
        _publish(temporary, final)


def link_store(source: Place, root: Place, subject_id: str, visit_id: str, digest: str) -> None:
    """Take a result's arrays over from the root ``source``, as hard links where the disk can.

    Raises
    ------
    NotStoredError
        If the source has none.
    """
    with write_store(root, subject_id, visit_id, digest, extends=digest, source=source):
        pass


def write_array(
    group: zarr.Group,
    name: str,
    array: np.ndarray[Any, Any],
    units: str,
    axes: str,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write one array with its units and axes.

    Parameters
    ----------
    group
        Group to write into.
    name
        Name, which may hold groups, as in ``"native/t1_ms"``.
    array
        Values.
    units
        Unit of the values; ``"1"`` for fractions, counts and masks.
    axes
        Names of the axes, as in ``"slice row col"``.
    notes
        What else shall be known about the array, as JSON values.

    Raises
    ------
    StorageError
        If the axes do not fit the array.
    """
    names = axes.split()
    if len(names) != array.ndim:
        message = f"array {name} has {array.ndim} axes, but {len(names)} are named: {axes}"
        raise StorageError(message)
    has_pixels = "row" in names
    chunks = [
        1 if axis == "slice" and has_pixels else max(size, 1)
        for axis, size in zip(names, array.shape, strict=True)
    ]
    parent, _, last = name.rpartition("/")
    (group.require_group(parent) if parent else group).create_array(
        last,
        data=np.ascontiguousarray(array),
        chunks=tuple(chunks),
        # Chunks beside each other, not each in folders of its own: every folder is one more to force to disk.
        chunk_key_encoding={"name": "default", "separator": "."},
        compressors=zarr.codecs.ZstdCodec(level=_COMPRESSION_LEVEL),
        fill_value=np.nan if array.dtype.kind == "f" else 0,
        dimension_names=names,
        attributes={"units": units, **(notes or {})},
    )


def read_array(group: zarr.Group, name: str) -> np.ndarray[Any, Any] | None:
    """Read a whole array; None where there is none."""
    array = group.get(name)
    return np.asarray(array[...]) if isinstance(array, zarr.Array) else None


def read_notes(group: zarr.Group, name: str) -> dict[str, Any]:
    """Read what was noted about an array, its units among it; empty where there is no array."""
    array = group.get(name)
    return dict(array.attrs) if isinstance(array, zarr.Array) else {}


def stored_roles(group: zarr.Group) -> tuple[Role, ...]:
    """Roles whose echoes a store holds."""
    return tuple(role for role in ROLES if f"{role}/echoes" in group)


def write_stack(group: zarr.Group, stack: EchoStack) -> None:
    """Write an echo stack under its role."""
    attributes: dict[str, Any] = {name: getattr(stack, name) for name in _STACK_ATTRIBUTES}
    attributes["acquired_at"] = None if stack.acquired_at is None else stack.acquired_at.isoformat()
    attributes["study_date"] = None if stack.study_date is None else stack.study_date.isoformat()
    attributes["sources"] = [[asdict(source) for source in sources] for sources in stack.sources]
    # All at once: `attrs` would write the metadata anew for each of them.
    own = group.require_group(stack.role).update_attributes(attributes)
    write_array(own, "echoes", stack.echoes, "a.u.", "slice ti row col")
    write_array(own, "ti_ms", stack.ti_ms, "ms", "slice ti")
    write_array(own, "acquisition_index", stack.acquisition_index, "1", "slice ti")
    write_array(own, "positions_mm", np.array(stack.positions_mm), "mm", "slice lps")


def read_stack(group: zarr.Group, role: Role) -> EchoStack:
    """Read the echo stack of a role.

    Raises
    ------
    NotStoredError
        If the store has none.
    """
    if role not in stored_roles(group):
        message = f"the store has no {role} echoes; see stored_roles"
        raise NotStoredError(message)

    def read(name: str) -> np.ndarray[Any, Any]:
        return np.asarray(group[f"{role}/{name}"][...])  # type: ignore[index]

    attributes: dict[str, Any] = dict(group[role].attrs)
    acquired_at = attributes.pop("acquired_at")
    study_date = attributes.pop("study_date")
    sources = attributes.pop("sources")
    ti_source = attributes.pop("ti_source")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()
    }
    return EchoStack(
        **values,
        echoes=read("echoes"),
        ti_ms=read("ti_ms"),
        acquisition_index=read("acquisition_index"),
        positions_mm=tuple((x, y, z) for x, y, z in read("positions_mm").tolist()),
        acquired_at=None if acquired_at is None else datetime.fromisoformat(acquired_at),
        study_date=None if study_date is None else date.fromisoformat(study_date),
        sources=tuple(tuple(FileSource(**source) for source in row) for row in sources),
        ti_source=tuple(map(tuple, ti_source)),
    )


def slice_digests(group: zarr.Group, role: Role, slice_index: int) -> tuple[str, str]:
    """SHA-256 of a slice's images and masks, and that of its guide, whatever else a store holds."""

    def digest(slice_axes: Mapping[str, int]) -> str:
        hashed = hashlib.sha256()
        for name, axis in slice_axes.items():
            array = group.get(f"{role}/{name}")
            if isinstance(array, zarr.Array):
                values = np.asarray(array[:, slice_index] if axis else array[slice_index])
                hashed.update(f"{name} {values.dtype.str} {values.shape};".encode())
                hashed.update(np.ascontiguousarray(values).tobytes())
        return hashed.hexdigest()

    return digest({"echoes": 0, "ti_ms": 0, "masks": 1, "reference_echo": 0}), digest({"guide": 1})


def content_digest(path: Place) -> str:
    """SHA-256 over the relative path and bytes of every file in a folder."""
    if not isinstance(path, Path):
        return canonical_digest([[name, digest] for name, digest in array_objects.digests(path)])
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return canonical_digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])


def _is_whole(path: Place) -> bool:
    return path.is_dir() if isinstance(path, Path) else array_objects.is_whole(path)


def _publish(temporary: Path, final: Place) -> None:
    """Put a finished store into place, unless the same stands there."""
    if isinstance(final, Path):
        is_new = array_folders.move_into_place(temporary, final)
    else:
        is_new = array_objects.upload(temporary, final)
    if not is_new and content_digest(temporary) != content_digest(final):
        message = f"{final.stem} already holds other arrays; raise the stage's result version"
        raise AlreadyWrittenError(message)
