"""UIDs of what is exported as DICOM, and of the source images it refers to; none of them is a site's own.

Where the store has cleaned headers, these are the pseudonyms in them (`storage.source_headers`), which only
the trial's key leads back from. Else they are made of digests: whoever has the source image can find its
reference, and nobody else.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import zarr
from pydicom import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from storage.dicom_series import EchoStack
from storage.digest import canonical_digest
from storage.export_visit import ExportedVisit
from storage.source_headers import SourceHeader, stored_source_header


@dataclass(frozen=True, slots=True)
class SourceReference:
    """A source image."""

    sop_class_uid: str
    """Kind of image."""
    sop_instance_uid: str
    """Name of the image."""
    series_uid: str
    """Name of its series."""


@dataclass(frozen=True, slots=True)
class SeriesSources:
    """Where a role's maps come from."""

    study_uid: str
    """StudyInstanceUID."""
    study_time: str
    """StudyTime; empty where no header was kept."""
    frame_of_reference_uid: str
    """FrameOfReferenceUID."""
    references: tuple[tuple[SourceReference, ...], ...]
    """Source images of each slice, each once."""
    naming: str
    """How the source images are named, in at most 64 letters."""


def derived_uid(*parts: str) -> str:
    """Give the UID below ``2.25.`` that follows from some texts."""
    digest = sha256(canonical_digest(list(parts)).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def series_sources(store: zarr.Group, stack: EchoStack, visit: ExportedVisit) -> SeriesSources:
    """Name the source images of a series as far as the trial's privacy rules let them be named."""
    header = stored_source_header(store, stack.role)
    return _derived(stack, visit) if header is None else _pseudonymous(header, stack, visit)


def _pseudonymous(header: SourceHeader, stack: EchoStack, visit: ExportedVisit) -> SeriesSources:
    kept = Dataset.from_json(header.header)
    fallback = _derived(stack, visit)
    return SeriesSources(
        study_uid=header.study_instance_uid,
        study_time=str(kept.get("StudyTime") or ""),
        frame_of_reference_uid=str(kept.get("FrameOfReferenceUID") or fallback.frame_of_reference_uid),
        references=tuple(
            _unique([SourceReference(*names) for names in zip(*of_slice, strict=True)])
            for of_slice in zip(
                header.sop_class_uids, header.sop_instance_uids, header.series_instance_uids, strict=True
            )
        ),
        naming="references: keyed pseudonyms of the source images' UIDs",
    )


def _derived(stack: EchoStack, visit: ExportedVisit) -> SeriesSources:
    digests = [source.sha256 for sources in stack.sources for source in sources]
    n_echoes = Counter(digests)
    ids = (visit.trial_id, visit.subject_id, visit.visit_id)
    series_uid = derived_uid("series", *ids, stack.role, *sorted(n_echoes))
    return SeriesSources(
        study_uid=derived_uid("study", *ids),
        study_time="",
        # Native and post-contrast slices are matched by their positions, so they share one system.
        frame_of_reference_uid=derived_uid("frame of reference", *ids),
        references=tuple(
            _unique(
                [
                    SourceReference(
                        # A file with several echoes can only be an enhanced one.
                        EnhancedMRImageStorage if n_echoes[source.sha256] > 1 else MRImageStorage,
                        derived_uid("image", source.sha256),
                        series_uid,
                    )
                    for source in sources
                ]
            )
            for sources in stack.sources
        ),
        naming="references: UIDs made of the SHA-256 of the source files",
    )


def _unique(references: Sequence[SourceReference]) -> tuple[SourceReference, ...]:
    return tuple(dict.fromkeys(references))
