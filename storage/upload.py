"""Uploads: the top-level folders of incoming/, what is in them, and the planned visit they belong to."""

import hashlib
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from storage.config import MatchingConfig
from storage.digest import canonical_digest, file_digest
from storage.errors import RefusedError
from storage.plan import PlannedVisit

INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class UploadListing:
    """One entry of incoming/, as a listing shows it; no file is opened."""

    path: Path
    """Folder (or stray file) in incoming/; its name is the site's and goes nowhere else."""
    fingerprint: str
    """Digest over relative path, size and modification time of each file."""
    n_files: int
    """Files in the folder."""
    unusable_reason: str | None
    """Why the entry cannot be an upload; None where it can."""


@dataclass(frozen=True, slots=True)
class UploadFile:
    """One file of an upload."""

    number: int
    """Number by sorted relative path, from 1; stands for the file's name."""
    path: Path
    """Where the file lies in incoming/."""
    size: int
    """Size [bytes]."""
    sha256: str
    """Digest of the bytes."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload whose bytes have been read."""

    upload_id: str
    """``u-`` and the first ten digits of the content digest; stands for the folder's name."""
    content_digest: str
    """Digest over relative path and bytes of each file; the folder's own name does not enter."""
    fingerprint: str
    """Digest of the listing the upload was read from."""
    path: Path
    """The folder in incoming/."""
    files: tuple[UploadFile, ...]
    """Files in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class Match:
    """The planned visit an upload belongs to."""

    subject_id: str
    """Planned subject."""
    visit_id: str
    """Planned visit."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why an upload belongs to no planned visit."""

    reason: str
    """What was found, without the site's names."""
    subject_id: str | None
    """Planned subject, where at least that is certain."""
    visit_id: str | None
    """Planned visit, where at least that is certain."""


def list_uploads(root: Path) -> tuple[UploadListing, ...]:
    """List incoming/ by name, without opening a file or following a symbolic link.

    Names that begin with a dot are passed over: transfer tools use them until a copy is complete.
    """
    incoming = root / INCOMING
    if not incoming.is_dir():
        return ()
    paths = sorted(path for path in incoming.iterdir() if not path.name.startswith("."))
    return tuple(_list_upload(path) for path in paths)


def hash_upload(listing: UploadListing) -> Upload:
    """Read an upload's bytes and give it its identity.

    Raises
    ------
    RefusedError
        If the entry is unusable, or has changed since it was listed.
    """
    if listing.unusable_reason is not None:
        raise RefusedError(listing.unusable_reason)
    try:
        paths = sorted(_walk(listing.path), key=lambda path: _relative(path, listing.path))
        files = tuple(
            UploadFile(number, path, path.stat().st_size, file_digest(path))
            for number, path in enumerate(paths, 1)
        )
        unchanged = _list_upload(listing.path).fingerprint == listing.fingerprint
    except FileNotFoundError:
        unchanged = False
    if not unchanged:
        message = "the upload changed while it was read; it is read again once it is complete"
        raise RefusedError(message)
    digest = canonical_digest([[_relative(file.path, listing.path), file.sha256] for file in files])
    return Upload(f"u-{digest[:10]}", digest, listing.fingerprint, listing.path, files)


def match_upload(upload: Upload, plan: Sequence[PlannedVisit], matching: MatchingConfig) -> Match | Mismatch:
    """Find the planned visit of an upload: subject by the sources that `matching` names, visit by study date.

    All named sources must agree; anything else is a `Mismatch`, never a guess.
    """
    identity = _first_identity(upload, needs_patient_id="patient_id" in matching.subject_from)
    if identity is None:
        return Mismatch("no DICOM file with PatientID and StudyDate was found", None, None)
    patient_id, study_date = identity
    named: dict[str, str] = {"folder": _folder_subject(upload.path.name, matching), "patient_id": patient_id}
    titles = {"folder": "folder", "patient_id": "PatientID"}
    planned = {visit.subject_id for visit in plan}
    unknown = [titles[source] for source in matching.subject_from if named[source] not in planned]
    if unknown:
        return Mismatch(
            f"{' and '.join(unknown)}: no planned subject; check subjects.csv and the upload", None, None
        )
    subjects = {named[source] for source in matching.subject_from}
    if len(subjects) > 1:
        return Mismatch("folder gives a planned subject, PatientID gives another one", None, None)
    return _match_visit(subjects.pop(), study_date, plan)


def _list_upload(path: Path) -> UploadListing:
    if path.is_symlink() or not path.is_dir():
        no_folder = "is no folder: put the files of one visit into a folder of its own, unpacked"
        return UploadListing(path, _fingerprint([path], path.parent), 1, no_folder)
    files = list(_walk(path))
    irregular = sum(not stat.S_ISREG(file.lstat().st_mode) for file in files)
    reason = "holds no files" if not files else None
    if irregular:
        reason = f"holds {irregular} symbolic links or special files; copy the files themselves"
    return UploadListing(path, _fingerprint(files, path), len(files), reason)


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _relative(path: Path, folder: Path) -> str:
    # Names that are no UTF-8 reach Python as surrogates; they are kept apart but made printable.
    return path.relative_to(folder).as_posix().encode(errors="backslashreplace").decode()


def _fingerprint(files: Sequence[Path], folder: Path) -> str:
    digest = hashlib.sha256()
    for name, path in sorted((_relative(path, folder), path) for path in files):
        status = path.lstat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _first_identity(upload: Upload, *, needs_patient_id: bool) -> tuple[str, date] | None:
    from storage.dicom_read import FileSource, is_dicom, read_identity  # pydicom takes a third of a second

    for file in upload.files:
        if not is_dicom(file.path):
            continue
        try:
            source = FileSource(upload.upload_id, file.number, file.sha256)
            patient_id, study_date = read_identity(file.path, source)
        except RefusedError:
            continue  # intake reads every file again and refuses this one with its reason
        if study_date is not None and (patient_id or not needs_patient_id):
            return patient_id, study_date
    return None


def _folder_subject(name: str, matching: MatchingConfig) -> str:
    """Give the subject a folder's name holds, empty where it holds none."""
    found = re.fullmatch(matching.folder_pattern, name) if matching.folder_pattern else None
    return str(found["subject"] or "") if found else ""


def _match_visit(subject_id: str, study_date: date, plan: Sequence[PlannedVisit]) -> Match | Mismatch:
    visits = [visit for visit in plan if visit.subject_id == subject_id]
    covering = [visit for visit in visits if visit.covers(study_date)]
    if len(covering) == 1:
        return Match(subject_id, covering[0].visit_id)
    if covering:
        names = ", ".join(visit.visit_id for visit in covering)
        return Mismatch(
            f"study date {study_date} lies in the windows of several visits: {names}", subject_id, None
        )
    windows = ", ".join(f"{visit.visit_id} {visit.visit_date} +- {visit.window_days} d" for visit in visits)
    return Mismatch(f"study date {study_date} lies in no planned window: {windows}", subject_id, None)
