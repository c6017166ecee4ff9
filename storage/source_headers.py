"""What a store keeps of its source images' headers: pseudonymous references, and one cleaned header a series.

It lies in ``<role>/source`` of a visit's store, where `[privacy] headers` of trial.toml asks for it; what is
exported as DICOM refers to the source images by it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pydicom
import zarr

from storage.config import PrivacyConfig
from storage.deidentify import clean_header, key_id, needed_key
from storage.dicom_read import PARSE_ERRORS, FileSource, naming_the_file
from storage.dicom_series import EchoStack
from storage.errors import RefusedError
from storage.series_rules import Role
from storage.upload import Upload

_SOURCE = "source"
_FRAMES = "PerFrameFunctionalGroupsSequence"
_REFERENCES = {
    "SOPClassUID": "sop_class_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "StudyInstanceUID": "study_instance_uid",
}


@dataclass(frozen=True, slots=True)
class SourceHeader:
    """Where a role's echoes come from, without a name of the site."""

    header: dict[str, Any]
    """Cleaned header of the file of the first echo of the first slice, in the JSON model of DICOM; without
    the groups of single frames. Read it with ``pydicom.Dataset.from_json``."""
    sop_class_uids: tuple[tuple[str, ...], ...]
    """SOPClassUID of each echo's file, by slice and echo as in the stack."""
    sop_instance_uids: tuple[tuple[str, ...], ...]
    """Pseudonymous SOPInstanceUID of each echo's file."""
    series_instance_uids: tuple[tuple[str, ...], ...]
    """Pseudonymous SeriesInstanceUID of each echo's file; slices may be series of their own."""
    study_instance_uid: str
    """Pseudonymous StudyInstanceUID of the first file."""
    key_id: str
    """Name of the key the pseudonyms were made with."""


def read_source_header(
    stack: EchoStack, uploads: Sequence[Upload], privacy: PrivacyConfig, key: bytes, subject_id: str
) -> SourceHeader:
    """Read and clean what a stack's files say of themselves.

    Parameters
    ----------
    stack
        Echoes as they were read from the files.
    uploads
        The uploads they came in.
    privacy, key, subject_id
        See `storage.deidentify.clean_header`.

    Raises
    ------
    RefusedError
        If a header cannot be read any more.
    UnreadableError
        If the machine cannot read a file.
    """
    paths = {(upload.upload_id, file.number): file.path for upload in uploads for file in upload.files}
    read: dict[tuple[str, int], dict[str, Any]] = {}
    for source in (source for sources in stack.sources for source in sources):
        place = (source.upload_id, source.file_number)
        if place not in read:
            # Only the first header is kept; of the others the references are enough.
            read[place] = read_file_header(
                paths[place], source, privacy, key, subject_id, part="references" if read else "all"
            )

    def uids(name: str) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(str(read[source.upload_id, source.file_number][name]) for source in sources)
            for sources in stack.sources
        )

    first = next(iter(read.values()))
    return SourceHeader(
        header=first["header"],
        sop_class_uids=uids("sop_class_uid"),
        sop_instance_uids=uids("sop_instance_uid"),
        series_instance_uids=uids("series_instance_uid"),
        study_instance_uid=first["study_instance_uid"],
        key_id=key_id(key),
    )


def read_file_header(
    path: Path,
    source: FileSource,
    privacy: PrivacyConfig,
    key: bytes,
    subject_id: str,
    part: Literal["all", "references"],
) -> dict[str, Any]:
    """Read one file's header and clean it; the answer is JSON.

    Raises
    ------
    RefusedError
        If the header cannot be read.
    UnreadableError
        If the machine cannot read the file.
    """
    wanted: list[Any] | None = list(_REFERENCES) if part == "references" else None
    try:
        with naming_the_file(source), warnings.catch_warnings(action="ignore"):
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
            header = clean_header(dataset, privacy, key, subject_id)
            header.pop(_FRAMES, None)
            references = {name: str(header.get(keyword, "")) for keyword, name in _REFERENCES.items()}
            return {**references, "header": header.to_json_dict() if part == "all" else None}
    except PARSE_ERRORS as error:
        message = f"{source}: its header cannot be read ({type(error).__name__}); export it again"
        raise RefusedError(message) from None  # the parser's text may quote the file


def read_source_headers(
    stacks: Sequence[EchoStack], uploads: Sequence[Upload], privacy: PrivacyConfig, subject_id: str
) -> dict[Role, SourceHeader]:
    """Read what the trial's rules keep of the headers of a visit's files; nothing where they keep none.

    Raises
    ------
    ConfigError
        If the rules need a key, and the environment has none.
    RefusedError, UnreadableError
        See `read_source_header`.
    """
    key = needed_key(privacy)
    if key is None:
        return {}
    return {stack.role: read_source_header(stack, uploads, privacy, key, subject_id) for stack in stacks}


def write_source_header(store: zarr.Group, role: Role, source: SourceHeader) -> None:
    """Keep a role's source beside its echoes."""
    store.require_group(f"{role}/{_SOURCE}").attrs.update(asdict(source))


def stored_source_header(store: zarr.Group, role: Role) -> SourceHeader | None:
    """Give a role's source; None where the trial's rules kept none."""
    group = store.get(f"{role}/{_SOURCE}")
    if not isinstance(group, zarr.Group):
        return None
    values: dict[str, Any] = dict(group.attrs)
    nested = {name: tuple(map(tuple, value)) for name, value in values.items() if isinstance(value, list)}
    return SourceHeader(**{**values, **nested})
