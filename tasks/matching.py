"""Uploads in incoming, and the planned visits they belong to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.config import MatchingConfig
from storage.digest import canonical_digest
from storage.plan import PlannedVisit
from storage.upload import Mismatch, Upload, UploadListing, hash_upload, list_uploads, match_upload

VisitKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FoundUpload:
    """An upload that a visit takes; its files are read only when they are needed."""

    listing: UploadListing
    """Names, sizes and times of its files."""
    content_digest: str
    """Digest of its content."""

    def load(self) -> Upload:
        """Read the upload's files."""
        return hash_upload(self.listing)


@dataclass(frozen=True, slots=True)
class MatchedUploads:
    """Where each upload belongs."""

    taken: dict[VisitKey, tuple[FoundUpload, ...]]
    """Uploads by the visit that takes them."""
    refused: dict[VisitKey, str]
    """Visits whose upload contradicts itself or the plan, with the reason."""
    unmatched: tuple[str, ...]
    """One line for each upload that no visit takes."""


def match_uploads(
    root: Path,
    rules: MatchingConfig,
    planned: tuple[PlannedVisit, ...],
    published: Mapping[VisitKey, Mapping[str, Any]],
) -> MatchedUploads:
    """Find the visit of every upload; one that is published and unchanged is not read again."""
    known = _known_uploads(rules, planned, published)
    taken: dict[VisitKey, dict[str, FoundUpload]] = {}
    refused: dict[VisitKey, str] = {}
    unmatched: list[str] = []
    for listing in list_uploads(root):
        if listing.fingerprint in known:
            key, content_digest = known[listing.fingerprint]
            taken.setdefault(key, {})[content_digest] = FoundUpload(listing, content_digest)
            continue
        if listing.unusable_reason is not None:
            unmatched.append(f"an entry of incoming: {listing.unusable_reason}")
            continue
        upload = hash_upload(listing)
        match = match_upload(upload, planned, rules)
        if not isinstance(match, Mismatch):
            key = (match.subject_id, match.visit_id)
            # The same content in two folders is one upload.
            taken.setdefault(key, {}).setdefault(
                upload.content_digest, FoundUpload(listing, upload.content_digest)
            )
        elif match.subject_id is not None and match.visit_id is not None:
            refused[match.subject_id, match.visit_id] = f"upload {upload.upload_id}: {match.reason}"
        else:
            unmatched.append(f"upload {upload.upload_id}: {match.reason}")
    return MatchedUploads(
        {key: tuple(found.values()) for key, found in taken.items()}, refused, tuple(unmatched)
    )


def matching_digest(rules: MatchingConfig, planned: Iterable[PlannedVisit], subject_id: str) -> str:
    """Digest of all that decides which visit of a subject an upload belongs to, besides the upload."""
    return canonical_digest(
        {
            "rules": rules.model_dump(mode="json"),
            "visits": [
                [line.visit_id, str(line.visit_date), line.window_days]
                for line in planned
                if line.subject_id == subject_id
            ],
        }
    )


def _known_uploads(
    rules: MatchingConfig,
    planned: tuple[PlannedVisit, ...],
    published: Mapping[VisitKey, Mapping[str, Any]],
) -> dict[str, tuple[VisitKey, str]]:
    """Visit and content digest by fingerprint, as published under the same rules and plan."""
    digests = {line.subject_id: "" for line in planned}
    digests = {subject_id: matching_digest(rules, planned, subject_id) for subject_id in digests}
    return {
        fingerprint: (key, content_digest)
        for key, row in published.items()
        if row["matching_digest"] is not None and row["matching_digest"] == digests.get(key[0])
        for fingerprint, content_digest in zip(row["upload_fingerprints"], row["upload_digests"], strict=True)
    }
