"""Read and clean one source file's header: what is asked of the bounded child, and its answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydicom

from storage.config_uploads import PrivacyConfig
from storage.deidentify import clean_header
from storage.dicom_read import FileSource, guarded, naming_the_file

HeaderPart = Literal["all", "references"]

_FRAMES = "PerFrameFunctionalGroupsSequence"
_REFERENCES = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


@dataclass(frozen=True, slots=True)
class FileHeader:
    """Cleaned header of one file."""

    sop_class_uid: str
    """SOPClassUID."""
    sop_instance_uid: str
    """Pseudonymous SOPInstanceUID."""
    series_instance_uid: str
    """Pseudonymous SeriesInstanceUID."""
    study_instance_uid: str
    """Pseudonymous StudyInstanceUID."""
    header: dict[str, Any] | None
    """In the JSON model of DICOM, without the groups of single frames; None where it was not asked for."""


def read_file_header(
    path: Path, source: FileSource, privacy: PrivacyConfig, key: bytes, subject_id: str, part: HeaderPart
) -> FileHeader:
    """Read one file's header and clean it.

    Parameters
    ----------
    path, source
        The file and its stand-in.
    privacy, key, subject_id
        See `storage.deidentify.clean_header`.
    part
        Whether the header is given, or only what refers to the file.

    Raises
    ------
    RefusedError
        If the header cannot be read.
    UnreadableError
        If the machine cannot read the file.
    """
    wanted: list[Any] | None = list(_REFERENCES) if part == "references" else None

    def read() -> FileHeader:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
        header = clean_header(dataset, privacy, key, subject_id)
        header.pop(_FRAMES, None)
        sop_class, sop_instance, series, study = (str(header.get(keyword, "")) for keyword in _REFERENCES)
        whole = header.to_json_dict() if part == "all" else None
        return FileHeader(sop_class, sop_instance, series, study, whole)

    with naming_the_file(source):
        return guarded(read, source, "its header cannot be read")
