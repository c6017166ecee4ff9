"""What a store keeps of its source images' headers: pseudonymous references, and one cleaned header a series.

It lies in ``<role>/source`` of a visit's store, where `[privacy] headers` of trial.toml asks for it; what is
exported as DICOM refers to the source images by it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pydicom
import zarr

from storage.config import PrivacyConfig
from storage.deidentify import clean_header, key_id, pseudonym_key, pseudonymous_uid
from storage.dicom_read import PARSE_ERRORS, naming_the_file
from storage.dicom_series import EchoStack, Role
from storage.errors import RefusedError
from storage.upload import Upload

_SOURCE = "source"
_FRAMES = "PerFrameFunctionalGroupsSequence"
_REFERENCES: list[Any] = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"]


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
    read: dict[tuple[str, int], pydicom.Dataset] = {}
    for source in (source for sources in stack.sources for source in sources):
        place = (source.upload_id, source.file_number)
        if place in read:
            continue
        try:
            with naming_the_file(source):
                read[place] = pydicom.dcmread(
                    paths[place],
                    stop_before_pixels=True,
                    # Only the first header is kept; of the others the references are enough.
                    specific_tags=_REFERENCES if read else None,
                )
        except PARSE_ERRORS as error:
            message = f"{source}: its header cannot be read ({type(error).__name__}); export it again"
            raise RefusedError(message) from None

    def uids(keyword: str) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(
                pseudonymous_uid(str(read[source.upload_id, source.file_number].get(keyword, "")), key)
                for source in sources
            )
            for sources in stack.sources
        )

    first = clean_header(next(iter(read.values())), privacy, key, subject_id)
    if _FRAMES in first:
        del first[_FRAMES]
    return SourceHeader(
        header=first.to_json_dict(),
        sop_class_uids=uids("SOPClassUID"),
        sop_instance_uids=uids("SOPInstanceUID"),
        series_instance_uids=uids("SeriesInstanceUID"),
        study_instance_uid=str(first.get("StudyInstanceUID", "")),
        key_id=key_id(key),
    )


def keep_source_headers(
    store: zarr.Group,
    stacks: Sequence[EchoStack],
    uploads: Sequence[Upload],
    privacy: PrivacyConfig,
    subject_id: str,
) -> None:
    """Keep beside a visit's echoes what the trial's rules keep of their headers.

    Raises
    ------
    ConfigError
        If the rules need a key, and the environment has none.
    RefusedError, UnreadableError
        See `read_source_header`.
    """
    if privacy.headers == "none":
        return
    key = pseudonym_key()
    for stack in stacks:
        source = read_source_header(stack, uploads, privacy, key, subject_id)
        write_source_header(store, stack.role, source)


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
