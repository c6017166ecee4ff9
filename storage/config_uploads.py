"""[matching], [privacy], [uploads] of trial.toml: what comes in, whose it is, and what of it is kept."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from storage.config_values import Pattern, Positive, Section


class MatchingConfig(Section):
    """Which upload belongs to which planned visit."""

    subject_from: Annotated[tuple[Literal["folder", "patient_id"], ...], Field(min_length=1)]
    """Sources of the subject; all that are named must agree."""
    folder_pattern: Pattern | None = None
    """The whole name of an upload's folder; its group ``subject`` is the subject."""
    patient_id_pattern: Pattern | None = None
    """The whole PatientID; its group ``subject`` is the subject."""

    @model_validator(mode="after")
    def _check_patterns(self) -> Self:
        for source in self.subject_from:
            key = f"{source}_pattern"
            if "(?P<subject>" not in (getattr(self, key) or ""):
                message = f"{key} needs a group (?P<subject>...) because subject_from names {source!r}"
                raise ValueError(message)
        return self


class PrivateElement(Section):
    """A private element that stays in cleaned headers."""

    creator: Annotated[str, Field(min_length=1, max_length=64)]
    """Private creator, as the scanner writes it."""
    element: Annotated[str, Field(pattern=r"^\([0-9a-fA-F]{3}[13579bdfBDF],xx[0-9a-fA-F]{2}\)$")]
    """Group and element within the creator's block, as in ``(2005,xx72)``."""


class PrivacyConfig(Section):
    """What of the DICOM headers is kept; what is measured is read before anything is cleaned."""

    headers: Literal["none", "basic"]
    """``none``: no header is stored; ``basic``: headers cleaned by the basic profile of DICOM PS3.15."""
    dates: Literal["keep", "shift"]
    """``shift``: all dates in arrays, tables and history move by one secret number of days a subject."""
    keep_private: tuple[PrivateElement, ...]
    """Private elements that stay in cleaned headers; they are not looked into."""


class UploadsConfig(Section):
    """When an upload counts as arrived, and how much it may ask of us."""

    stable_minutes: Annotated[float, Field(ge=0)]
    """Time without a change after which an upload counts as arrived [min]; 0: at once; inf: never by time."""
    marker_file: Annotated[str, Field(pattern=r"^[^/\\]*$")]
    """File that says an upload is complete; empty for none."""
    max_files: Annotated[int, Field(gt=0)]
    """Files of one upload."""
    max_file_mib: Positive
    """Size of one file [MiB]."""
    max_total_mib: Positive
    """Size of all files of one upload, unpacked [MiB]."""
    max_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    """Unpacked size of a zip file over its own size."""
    read_seconds: Positive
    """Processor time for reading one file [s]."""
    read_memory_mib: Positive
    """Memory for reading one file [MiB]."""

    @model_validator(mode="after")
    def _check_arrival(self) -> Self:
        if self.marker_file and not self.stable_minutes:
            message = (
                "marker_file is never waited for while stable_minutes is 0; set the longest wait, or inf"
            )
            raise ValueError(message)
        if not self.marker_file and math.isinf(self.stable_minutes):
            message = "stable_minutes = inf needs a marker_file, or no upload ever arrives"
            raise ValueError(message)
        return self
