"""What a store keeps of its source images' headers: pseudonymous references, and one cleaned header a series.

It lies in ``<role>/source`` of a visit's store, where `[privacy] headers` of trial.toml asks for it; what is
exported as DICOM refers to the source images by it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import zarr

from storage.bounded import shared_reader
from storage.config_uploads import PrivacyConfig
from storage.deidentify import key_id
from storage.dicom_read import naming_the_file
from storage.dicom_series import EchoStack
from storage.header_read import FileHeader
from storage.series_rules import Role
from storage.upload import Upload

_SOURCE = "source"


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
    """Read and clean what a stack's files say of themselves, in the child process with limits.

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
    files = {(upload.upload_id, file.number): file.path for upload in uploads for file in upload.files}
    readers = {upload.upload_id: shared_reader(upload.rules) for upload in uploads}
    read: dict[tuple[str, int], FileHeader] = {}
    for source in (source for sources in stack.sources for source in sources):
        place = (source.upload_id, source.file_number)
        if place not in read:
            with naming_the_file(source):
                # Only the first header is kept; of the others the references are enough.
                read[place] = readers[source.upload_id].read_header(
                    files[place], source, privacy, key, subject_id, part="references" if read else "all"
                )

    def uids(name: str) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(str(getattr(read[source.upload_id, source.file_number], name)) for source in sources)
            for sources in stack.sources
        )

    first = next(iter(read.values()))
    return SourceHeader(
        header=first.header or {},
        sop_class_uids=uids("sop_class_uid"),
        sop_instance_uids=uids("sop_instance_uid"),
        series_instance_uids=uids("series_instance_uid"),
        study_instance_uid=first.study_instance_uid,
        key_id=key_id(key),
    )


def read_source_headers(
    stacks: Sequence[EchoStack],
    uploads: Sequence[Upload],
    privacy: PrivacyConfig,
    key: bytes | None,
    subject_id: str,
) -> dict[Role, SourceHeader]:
    """Read what the trial's rules keep of the headers of a visit's files; nothing where they keep none.

    Raises
    ------
    RefusedError, UnreadableError
        See `read_source_header`.
    """
    if privacy.headers == "none" or key is None:
        return {}
    return {stack.role: read_source_header(stack, uploads, privacy, key, subject_id) for stack in stacks}


def write_source_header(store: zarr.Group, role: Role, source: SourceHeader) -> None:
    """Keep a role's source beside its echoes."""
    store.require_group(f"{role}/{_SOURCE}").update_attributes(asdict(source))


def stored_source_header(store: zarr.Group, role: Role) -> SourceHeader | None:
    """Give a role's source; None where the trial's rules kept none."""
    group = store.get(f"{role}/{_SOURCE}")
    if not isinstance(group, zarr.Group):
        return None
    values: dict[str, Any] = dict(group.attrs)
    nested = {name: tuple(map(tuple, value)) for name, value in values.items() if isinstance(value, list)}
    return SourceHeader(**{**values, **nested})
