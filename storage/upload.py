"""Uploads: the top-level folders of incoming/, and what is in them."""

import hashlib
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.digest import canonical_digest, file_digest
from storage.errors import RefusedError, UploadChangedError, os_reason

INCOMING = "incoming"

_CHANGED = "the upload changed while it was read; it is read again once it is complete"


@dataclass(frozen=True, slots=True)
class UploadListing:
    """One entry of incoming/, as a listing shows it; no file is opened."""

    path: Path = field(repr=False)
    """Folder (or stray file) in incoming/; its name is the site's and goes nowhere else."""
    fingerprint: str
    """Digest over relative path, size and modification time of each file."""
    unusable_reason: str | None
    """Why the entry cannot be an upload; None where it can."""
    is_arriving: bool
    """Whether it changed while it was listed; then it is no upload yet, and its fingerprint is of no file."""


@dataclass(frozen=True, slots=True)
class UploadFile:
    """One file of an upload."""

    number: int
    """Number by sorted relative path, from 1; stands for the file's name."""
    path: Path = field(repr=False)
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
    path: Path = field(repr=False)
    """The folder in incoming/."""
    files: tuple[UploadFile, ...]
    """Files in the order of their numbers."""


def list_uploads(root: Path) -> tuple[UploadListing, ...]:
    """List incoming/ by name, without opening a file or following a symbolic link.

    Names that begin with a dot are passed over: transfer tools use them until a copy is complete. An entry
    that cannot be read says so in its own listing and does not keep the others from theirs.
    """
    incoming = root / INCOMING
    if not incoming.is_dir():
        return ()
    paths = sorted(path for path in incoming.iterdir() if not path.name.startswith("."))
    return tuple(list_upload(path) for path in paths)


def list_upload(path: Path) -> UploadListing:
    """List one entry of incoming/; whatever is wrong with it is said in the listing."""
    try:
        return _list_entry(path)
    except (FileNotFoundError, NotADirectoryError):  # gone, or another kind of entry, since its name was read
        return UploadListing(path, _nameless_fingerprint(path, "arriving"), None, is_arriving=True)
    except OSError as error:
        reason = f"cannot be read: {os_reason(error)}"
        return UploadListing(path, _nameless_fingerprint(path, reason), reason, is_arriving=False)


def hash_upload(listing: UploadListing) -> Upload:
    """Read an upload's bytes and give it its identity.

    Raises
    ------
    RefusedError
        If the entry is unusable, or a file of it cannot be read.
    UploadChangedError
        If it is still arriving, or has changed since it was listed.
    """
    if listing.unusable_reason is not None:
        raise RefusedError(listing.unusable_reason)
    if listing.is_arriving:
        raise UploadChangedError(_CHANGED)
    try:
        paths = sorted(_walk(listing.path), key=lambda path: _relative(path, listing.path))
    except OSError:  # it could be walked when it was listed
        raise UploadChangedError(_CHANGED) from None
    files = tuple(_hash_file(number, path, listing) for number, path in enumerate(paths, 1))
    if not _is_as_listed(listing.path, listing.fingerprint):
        raise UploadChangedError(_CHANGED)
    digest = canonical_digest([[_relative(file.path, listing.path), file.sha256] for file in files])
    return Upload(f"u-{digest[:10]}", digest, listing.fingerprint, listing.path, files)


def is_unchanged(upload: Upload) -> bool:
    """Whether the folder still lists as it did when the upload was read; False where it is gone."""
    return _is_as_listed(upload.path, upload.fingerprint)


def reading_error(
    error: OSError, number: int, folder: Path, fingerprint: str
) -> RefusedError | UploadChangedError:
    """Give the error of an unreadable file, changed or refused; its text names no path."""
    if isinstance(error, FileNotFoundError) or not _is_as_listed(folder, fingerprint):
        return UploadChangedError(_CHANGED)
    return RefusedError(f"file {number} cannot be read: {os_reason(error)}")


def _list_entry(path: Path) -> UploadListing:
    if not stat.S_ISDIR(path.lstat().st_mode):
        no_folder = "is no folder: put the files of one visit into a folder of its own, unpacked"
        return UploadListing(path, _fingerprint([path], path.parent), no_folder, is_arriving=False)
    files = list(_walk(path))
    irregular = sum(not stat.S_ISREG(file.lstat().st_mode) for file in files)
    reason: str | None = None
    if not files:
        reason = "holds no files"
    if irregular:
        reason = f"holds {irregular} symbolic links or special files; copy the files themselves"
    return UploadListing(path, _fingerprint(files, path), reason, is_arriving=False)


def _is_as_listed(path: Path, fingerprint: str) -> bool:
    listing = list_upload(path)
    return listing.unusable_reason is None and listing.fingerprint == fingerprint and not listing.is_arriving


def _hash_file(number: int, path: Path, listing: UploadListing) -> UploadFile:
    try:
        return UploadFile(number, path, path.stat().st_size, file_digest(path))
    except OSError as error:
        raise reading_error(error, number, listing.path, listing.fingerprint) from None


def _walk(folder: Path) -> Iterator[Path]:
    """Give all that is no folder, at any depth; a path may hold more folders than Python nests calls."""
    folders = [folder]
    while folders:
        for path in folders.pop().iterdir():
            if stat.S_ISDIR(path.lstat().st_mode):
                folders.append(path)
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


def _nameless_fingerprint(path: Path, what: str) -> str:
    """Fingerprint of an entry whose files could not be listed; no listing of files has the same."""
    return canonical_digest([_relative(path, path.parent), what])
