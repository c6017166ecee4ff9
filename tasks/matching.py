"""Uploads in incoming, and the planned visits they belong to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from storage.config_uploads import MatchingConfig, UploadsConfig
from storage.digest import canonical_digest
from storage.errors import RefusedError, UploadChangedError
from storage.matching import Mismatch, match_upload
from storage.place import Place
from storage.plan import PlannedVisit, by_subject
from storage.quarantine import upload_records
from storage.upload import Upload, UploadListing, hash_upload, list_uploads, unread_upload

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

    @property
    def upload_id(self) -> str:
        """Identifier of the upload."""
        return f"u-{self.content_digest[:10]}"

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
    judged_by: str | None = None
    """Digest of what decided so; None where it could not be read as an upload."""
    is_old: bool = False
    """Whether quarantine says so already; then it was not read again, and its files are not known."""

    def __str__(self) -> str:
        return f"upload {self.upload.upload_id}: {self.reason}"


@dataclass(frozen=True, slots=True)
class MatchedUploads:
    """Where each upload belongs."""

    taken: dict[VisitKey, tuple[FoundUpload, ...]]
    """Uploads by the visit that takes them."""
    stray: tuple[StrayUpload, ...]
    """Uploads that no visit takes."""
    arriving: tuple[UploadListing, ...]
    """Uploads that are still changing, or may be; a later night reads them."""


def match_uploads(
    root: Place,
    rules: MatchingConfig,
    upload_rules: UploadsConfig,
    planned: tuple[PlannedVisit, ...],
    published: Mapping[VisitKey, Mapping[str, Any]],
    digests: Mapping[str, str],
) -> MatchedUploads:
    """Find the visit of every upload; one that is published or stray and unchanged is not read again.

    Parameters
    ----------
    root
        Folder of the trial.
    rules, upload_rules
        Rules of the trial.
    planned
        Lines of subjects.csv.
    published
        Rows of the table ``visits``.
    digests
        What `matching_digests` gives for the lines as the record has them.
    """
    known = _known_uploads(digests, published)
    judged_by = judgement_digest(digests, rules, upload_rules)
    records = upload_records(root)
    of_subject = by_subject(planned)
    taken: dict[VisitKey, dict[str, FoundUpload]] = {}
    stray: dict[str, StrayUpload] = {}
    arriving: list[UploadListing] = []
    for listing in list_uploads(root, upload_rules):
        if listing.fingerprint in known:
            key, content_digest = known[listing.fingerprint]
            taken.setdefault(key, {})[content_digest] = FoundUpload(listing, content_digest)
            continue
        if listing.unusable_reason is not None:
            entry = unread_upload(listing)
            stray[entry.upload_id] = StrayUpload(entry, listing.unusable_reason)
            continue
        if listing.is_arriving:
            arriving.append(listing)
            continue
        record = records.get((listing.site_name, listing.fingerprint))
        if record is not None and record.judged_by == judged_by:
            entry = replace(
                unread_upload(listing), upload_id=record.upload_id, content_digest=record.content_digest
            )
            stray[entry.upload_id] = StrayUpload(entry, record.reason, record.found, judged_by, is_old=True)
            continue
        try:
            upload = hash_upload(listing)
            match = match_upload(upload, of_subject, rules)
        except UploadChangedError:
            arriving.append(listing)
            continue
        except RefusedError as error:
            entry = unread_upload(listing)
            stray[entry.upload_id] = StrayUpload(entry, error.reason)
            continue
        if isinstance(match, Mismatch):
            stray[upload.upload_id] = StrayUpload(upload, match.reason, match.found, judged_by)
            continue
        # The same content in two folders is one upload.
        found = FoundUpload(listing, upload.content_digest, upload)
        taken.setdefault((match.subject_id, match.visit_id), {}).setdefault(upload.content_digest, found)
    contents = {digest for found in taken.values() for digest in found}
    return MatchedUploads(
        {key: tuple(found.values()) for key, found in taken.items()},
        # What a visit takes lies under another name once more.
        tuple(one for one in stray.values() if one.upload.content_digest not in contents),
        tuple(arriving),
    )


def matching_digests(rules: MatchingConfig, planned: Iterable[PlannedVisit]) -> dict[str, str]:
    """Digest, by subject, of all that decides where an upload of the subject belongs, besides the upload."""
    fixed = rules.model_dump(mode="json")
    return {
        subject_id: canonical_digest(
            {
                "rules": fixed,
                "visits": [[line.visit_id, str(line.visit_date), line.window_days] for line in lines],
            }
        )
        for subject_id, lines in by_subject(planned).items()
    }


def judgement_digest(digests: Mapping[str, str], rules: MatchingConfig, upload_rules: UploadsConfig) -> str:
    """Digest of all that decides that no planned visit takes an upload, besides the upload."""
    return canonical_digest(
        {
            "code": version("cmrtrials"),
            "matching": dict(digests),
            "rules": rules.model_dump(mode="json"),
            "uploads": upload_rules.model_dump(mode="json", exclude={"stable_minutes", "marker_file"}),
        }
    )


def _known_uploads(
    digests: Mapping[str, str], published: Mapping[VisitKey, Mapping[str, Any]]
) -> dict[str, tuple[VisitKey, str]]:
    """Visit and content digest by fingerprint, as published under the same rules and plan."""
    return {
        fingerprint: (key, content_digest)
        for key, row in published.items()
        if row["matching_digest"] is not None and row["matching_digest"] == digests.get(key[0])
        for fingerprint, content_digest in zip(row["upload_fingerprints"], row["upload_digests"], strict=True)
    }
