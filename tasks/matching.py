"""Uploads in incoming, and the planned visits they belong to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.config import MatchingConfig
from storage.digest import canonical_digest
from storage.errors import RefusedError, UploadChangedError
from storage.matching import Mismatch, match_upload
from storage.plan import PlannedVisit
from storage.upload import Upload, UploadListing, hash_upload, list_uploads

VisitKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FoundUpload:
    """An upload that a visit takes; its files are read only when they are needed."""

    listing: UploadListing
    """Names, sizes and times of its files."""
    content_digest: str
    """Digest of its content."""
    upload: Upload | None = None
    """The upload, where it has been read already."""

    def load(self) -> Upload:
        """Give the upload with its files.

        Raises
        ------
        UploadChangedError
            When it changes while it is read.
        """
        return self.upload or hash_upload(self.listing)


@dataclass(frozen=True, slots=True)
class StrayUpload:
    """An upload that no planned visit takes, or an entry of incoming that is no upload."""

    upload: Upload
    """The upload; without files where it could not be read as one."""
    reason: str
    """Why no visit takes it."""
    found: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the site wrote and did not agree; for quarantine/ only."""

    def __str__(self) -> str:
        return f"upload {self.upload.upload_id}: {self.reason}"


@dataclass(frozen=True, slots=True)
class MatchedUploads:
    """Where each upload belongs."""

    taken: dict[VisitKey, tuple[FoundUpload, ...]]
    """Uploads by the visit that takes them."""
    stray: tuple[StrayUpload, ...]
    """Uploads that no visit takes."""
    n_arriving: int
    """Uploads that changed while they were read; the next night reads them again."""


def match_uploads(
    root: Path,
    rules: MatchingConfig,
    planned: tuple[PlannedVisit, ...],
    published: Mapping[VisitKey, Mapping[str, Any]],
) -> MatchedUploads:
    """Find the visit of every upload; one that is published and unchanged is not read again."""
    known = _known_uploads(rules, planned, published)
    taken: dict[VisitKey, dict[str, FoundUpload]] = {}
    stray: dict[str, StrayUpload] = {}
    n_arriving = 0
    for listing in list_uploads(root):
        if listing.fingerprint in known:
            key, content_digest = known[listing.fingerprint]
            taken.setdefault(key, {})[content_digest] = FoundUpload(listing, content_digest)
            continue
        if listing.unusable_reason is not None:
            entry = _unread(listing)
            stray[entry.upload_id] = StrayUpload(entry, listing.unusable_reason)
            continue
        if listing.is_arriving:
            n_arriving += 1
            continue
        try:
            upload = hash_upload(listing)
            match = match_upload(upload, planned, rules)
        except UploadChangedError:
            n_arriving += 1
            continue
        except RefusedError as error:
            entry = _unread(listing)
            stray[entry.upload_id] = StrayUpload(entry, error.reason)
            continue
        if isinstance(match, Mismatch):
            stray[upload.upload_id] = StrayUpload(upload, match.reason, match.found)
            continue
        # The same content in two folders is one upload.
        found = FoundUpload(listing, upload.content_digest, upload)
        taken.setdefault((match.subject_id, match.visit_id), {}).setdefault(upload.content_digest, found)
    return MatchedUploads(
        {key: tuple(found.values()) for key, found in taken.items()}, tuple(stray.values()), n_arriving
    )


def matching_digests(rules: MatchingConfig, planned: Iterable[PlannedVisit]) -> dict[str, str]:
    """Digest, by subject, of all that decides where an upload of the subject belongs, besides the upload."""
    visits: dict[str, list[list[str | int]]] = {}
    for line in planned:
        dates: list[str | int] = [line.visit_id, str(line.visit_date), line.window_days]
        visits.setdefault(line.subject_id, []).append(dates)
    fixed = rules.model_dump(mode="json")
    return {
        subject_id: canonical_digest({"rules": fixed, "visits": dates})
        for subject_id, dates in visits.items()
    }


def _unread(listing: UploadListing) -> Upload:
    """Name an entry of incoming that cannot be read as an upload."""
    return Upload(f"u-{listing.fingerprint[:10]}", listing.fingerprint, listing.fingerprint, listing.path, ())


def _known_uploads(
    rules: MatchingConfig,
    planned: tuple[PlannedVisit, ...],
    published: Mapping[VisitKey, Mapping[str, Any]],
) -> dict[str, tuple[VisitKey, str]]:
    """Visit and content digest by fingerprint, as published under the same rules and plan."""
    digests = matching_digests(rules, planned)
    return {
        fingerprint: (key, content_digest)
        for key, row in published.items()
        if row["matching_digest"] is not None and row["matching_digest"] == digests.get(key[0])
        for fingerprint, content_digest in zip(row["upload_fingerprints"], row["upload_digests"], strict=True)
    }
