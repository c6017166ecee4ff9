"""Uploads: the folders and zip files of incoming/, whether they have arrived, and what is in them."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from storage.config_uploads import UploadsConfig
from storage.digest import canonical_digest, file_digest
from storage.errors import ConfigError, RefusedError, UploadChangedError, os_reason
from storage.place import Place
from storage.unpacked import unpacking_folder
from storage.upload_entry import (
    Entry,
    is_as_listed,
    look_at,
    named_files,
    printable,
    without_common_folders,
    without_marker,
)
from storage.zipped import MIB, unpacked_name

INCOMING = "incoming"
INCOMING_VARIABLE = "CMR_INCOMING"
"""Environment variable with the folder of the uploads of a trial that has a URL."""
ZIP_SUFFIX = ".zip"

_CHANGED = "the upload changed while it was read; it is read again once it is complete"
_NS_PER_MINUTE = 60 * 10**9


@dataclass(frozen=True, slots=True)
class UploadListing:
    """One entry of incoming/, as a listing shows it; no file is opened."""

    path: Path = field(repr=False)
    """Folder, zip file (or stray file) in incoming/; its name is the site's and goes nowhere else."""
    fingerprint: str
    """Digest over the entry's name, and relative path, size and modification time of each file."""
    unusable_reason: str | None
    """Why the entry cannot be an upload; None where it can."""
    is_arriving: bool
    """Whether it is no upload yet: it changed of late, and nothing says that it is complete."""
    changed_ns: int
    """When a file or folder of it last came or changed, in ns since 1970; 0 where that is not known."""
    rules: UploadsConfig = field(repr=False)
    """Rules it was listed under."""

    @property
    def site_name(self) -> str:
        """What the site calls it; for quarantine only."""
        return printable(self.path.name)


@dataclass(frozen=True, slots=True)
class UploadFile:
    """One file of an upload."""

    number: int
    """Number by sorted relative path, from 1; stands for the file's name."""
    path: Path = field(repr=False)
    """Where it can be read: in incoming/, or, while its zip file is open, where it is unpacked."""
    site_path: str = field(repr=False)
    """What the site calls it, from incoming/ on; for quarantine only."""
    size: int
    """Size [bytes]."""
    sha256: str
    """Digest of the bytes."""
    is_damaged: bool = False
    """Whether it could not be unpacked whole; what there is of it is not to be read."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload whose bytes have been read."""

    upload_id: str
    """``u-`` and the first ten digits of the content digest; stands for the folder's name."""
    content_digest: str
    """Digest over relative path and bytes of each file, the same for a folder and a sound zip file of it.

    The upload's own name does not enter, nor that of a folder that holds all else.
    """
    fingerprint: str
    """Digest of the listing the upload was read from."""
    path: Path = field(repr=False)
    """The folder or zip file in incoming/."""
    files: tuple[UploadFile, ...]
    """Files in the order of their numbers."""
    changed_ns: int
    """When it last changed, in ns since 1970."""
    rules: UploadsConfig = field(repr=False)
    """Rules it was read under."""

    @property
    def name(self) -> str:
        """Name of the folder, or of the zip file without its ending; the site's."""
        return self.path.name[: -len(ZIP_SUFFIX)] if _is_zip(self.path) else self.path.name


def incoming_folder(root: Place) -> Path:
    """Give the folder that sites upload to: ``incoming/``, or where `INCOMING_VARIABLE` says for a URL.

    It is a folder for a trial with a URL too: DICOM is read, and zip files unpacked, by child processes.

    Raises
    ------
    ConfigError
        If the trial has a URL and the environment names no folder.
    """
    if isinstance(root, Path):
        return root / INCOMING
    folder = os.environ.get(INCOMING_VARIABLE)
    if not folder:
        message = (
            f"{root} is on an object store, but uploads are read from a folder: set {INCOMING_VARIABLE} to "
            "one that the night and all workers reach by the same path"
        )
        raise ConfigError(message)
    return Path(folder).resolve()


def list_uploads(root: Place, rules: UploadsConfig) -> tuple[UploadListing, ...]:
    """List incoming/ by name, without opening a file or following a symbolic link.

    Names that begin with a dot are passed over: transfer tools use them until a copy is complete. An entry
    that cannot be read says so in its own listing and does not keep the others from theirs.
    """
    incoming = incoming_folder(root)
    if not incoming.is_dir():
        return ()
    names = sorted(name for name in os.listdir(incoming) if not name.startswith("."))  # noqa: PTH208
    markers = {_marker_name(name, rules) for name in names if name.lower().endswith(ZIP_SUFFIX)}
    return tuple(list_upload(incoming / name, rules) for name in names if name not in markers)


def list_upload(path: Path, rules: UploadsConfig) -> UploadListing:
    """List one entry of incoming/; whatever is wrong with it is said in the listing."""
    try:
        entry = look_at(path)
    except (FileNotFoundError, NotADirectoryError):  # gone, or another kind of entry, since its name was read
        return UploadListing(path, _nameless_fingerprint(path, "arriving"), None, True, 0, rules)
    except OSError as error:
        reason = f"cannot be read: {os_reason(error)}"
        return UploadListing(path, _nameless_fingerprint(path, reason), reason, False, 0, rules)
    has_arrived = _has_arrived(path, entry, rules)
    return UploadListing(
        path=path,
        fingerprint=entry.fingerprint(),
        unusable_reason=_unusable_reason(path, entry, rules) if has_arrived else None,
        is_arriving=not has_arrived,
        changed_ns=entry.changed_ns,
        rules=rules,
    )


def hash_upload(listing: UploadListing) -> Upload:
    """Read an upload's bytes and give it its identity.

    Raises
    ------
    RefusedError
        If the entry is unusable, a file of it cannot be read, or its zip file must not be unpacked.
    UploadChangedError
        If it is still arriving, or has changed since it was listed.
    """
    if listing.unusable_reason is not None:
        raise RefusedError(listing.unusable_reason)
    if listing.is_arriving:
        raise UploadChangedError(_CHANGED)
    with ExitStack() as stack:
        if _is_zip(listing.path):
            unpacked = stack.enter_context(_unpacked(listing.path, listing.fingerprint, listing.rules))
        else:
            unpacked = _Unpacked(_folder_files(listing.path), frozenset())
        named = without_marker(unpacked.named, listing.rules.marker_file)
        files = tuple(
            _hash_file(number, name, path, listing, is_damaged=name in unpacked.damaged)
            for number, (name, path) in enumerate(named, 1)
        )
    if not is_as_listed(listing.path, listing.fingerprint):
        raise UploadChangedError(_CHANGED)
    names = without_common_folders([name for name, _ in named])
    digest = canonical_digest(
        [
            [name, file.sha256, *(["damaged"] if file.is_damaged else [])]
            for name, file in zip(names, files, strict=True)
        ]
    )
    return Upload(
        upload_id=f"u-{digest[:10]}",
        content_digest=digest,
        fingerprint=listing.fingerprint,
        path=listing.path,
        files=files,
        changed_ns=listing.changed_ns,
        rules=listing.rules,
    )


def unread_upload(listing: UploadListing) -> Upload:
    """Name an entry of incoming/ that cannot be read as an upload."""
    digest = listing.fingerprint
    return Upload(f"u-{digest[:10]}", digest, digest, listing.path, (), listing.changed_ns, listing.rules)


@contextmanager
def open_upload(upload: Upload) -> Iterator[Upload]:
    """Give the upload with files that can be read; a zip file is unpacked for the time of the context.

    Raises
    ------
    RefusedError
        If the zip file must not be unpacked.
    UploadChangedError
        If it has changed since it was read.
    """
    if not _is_zip(upload.path):
        yield upload
        return
    with _unpacked(upload.path, upload.fingerprint, upload.rules) as unpacked:
        paths = dict(unpacked.named)
        prefix = f"{printable(upload.path.name)}/"
        names = [file.site_path.removeprefix(prefix) for file in upload.files]
        known_damaged = {name for name, file in zip(names, upload.files, strict=True) if file.is_damaged}
        if not paths.keys() >= set(names) or known_damaged != unpacked.damaged & set(names):
            raise UploadChangedError(_CHANGED)
        files = tuple(replace(file, path=paths[name]) for file, name in zip(upload.files, names, strict=True))
        yield replace(upload, files=files)


def is_unchanged(upload: Upload) -> bool:
    """Whether the upload still lists as it did when it was read; False where it is gone."""
    return is_as_listed(upload.path, upload.fingerprint)


def reading_error(
    error: OSError, number: int, folder: Path, fingerprint: str
) -> RefusedError | UploadChangedError:
    """Give the error of an unreadable file, changed or refused; its text names no path."""
    if isinstance(error, FileNotFoundError) or not is_as_listed(folder, fingerprint):
        return UploadChangedError(_CHANGED)
    return RefusedError(f"file {number} cannot be read: {os_reason(error)}")


def _has_arrived(path: Path, entry: Entry, rules: UploadsConfig) -> bool:
    if rules.stable_minutes == 0:
        return True
    if rules.marker_file:
        if entry.is_folder and any(name == rules.marker_file for name, _ in entry.files):
            return True
        if not entry.is_folder and path.with_name(_marker_name(path.name, rules)).is_file():
            return True
    return time.time_ns() - entry.changed_ns >= rules.stable_minutes * _NS_PER_MINUTE


def _marker_name(zip_name: str, rules: UploadsConfig) -> str:
    """Name of the file beside a zip file that says it is complete; no file's where there is no such rule."""
    return f"{zip_name}.{rules.marker_file}" if rules.marker_file else ""


def _unusable_reason(path: Path, entry: Entry, rules: UploadsConfig) -> str | None:
    irregular = sum(not stat.S_ISREG(status.st_mode) for _, status in entry.files)
    sizes = [status.st_size for _, status in entry.files]
    if not entry.is_folder and (irregular or not _is_zip(path)):
        return "is no folder and no zip file: put the files of one visit into a folder of its own"
    if irregular:
        return f"holds {irregular} symbolic links or special files; copy the files themselves"
    if not any(name != rules.marker_file for name, _ in entry.files):
        return "holds no files"
    if len(sizes) > rules.max_files:
        return f"holds {len(sizes)} files, uploads.max_files allows {rules.max_files}"
    if entry.is_folder and max(sizes) > rules.max_file_mib * MIB:
        return (
            f"holds a file of {max(sizes) / MIB:.0f} MiB, uploads.max_file_mib allows {rules.max_file_mib:g}"
        )
    if sum(sizes) > rules.max_total_mib * MIB:
        return f"holds {sum(sizes) / MIB:.0f} MiB, uploads.max_total_mib allows {rules.max_total_mib:g}"
    return None


def _folder_files(folder: Path) -> list[tuple[str, Path]]:
    try:
        return named_files(folder)
    except OSError:  # it could be walked when it was listed
        raise UploadChangedError(_CHANGED) from None


@dataclass(frozen=True, slots=True)
class _Unpacked:
    """Files of an upload that can be read."""

    named: list[tuple[str, Path]]
    """Name and place of each, sorted by name."""
    damaged: frozenset[str]
    """Names of those that could not be unpacked whole."""


@contextmanager
def _unpacked(path: Path, fingerprint: str, rules: UploadsConfig) -> Iterator[_Unpacked]:
    """Unpack a zip file for the time of the context."""
    from storage.bounded import shared_reader  # pydicom takes a third of a second

    reader = shared_reader(rules)
    with unpacking_folder() as folder:
        try:
            members = reader.list_zip(path)
            damaged = reader.unpack_zip(path, members, folder)
        except (RefusedError, OSError) as error:
            if not is_as_listed(path, fingerprint):
                raise UploadChangedError(_CHANGED) from None
            if isinstance(error, OSError):
                raise RefusedError(f"cannot be read: {os_reason(error)}") from None
            raise
        names = [printable(member.name) for member in members]
        places = [folder / unpacked_name(number, member.name) for number, member in enumerate(members, 1)]
        yield _Unpacked(
            list(zip(names, places, strict=True)), frozenset(names[number - 1] for number in damaged)
        )


def _hash_file(number: int, name: str, path: Path, listing: UploadListing, *, is_damaged: bool) -> UploadFile:
    site_path = f"{printable(listing.path.name)}/{name}"
    is_zip = _is_zip(listing.path)
    try:
        size, digest = path.stat().st_size, file_digest(path)
    except OSError as error:
        raise reading_error(error, number, listing.path, listing.fingerprint) from None
    # What is unpacked is gone when the upload is handed on.
    return UploadFile(number, listing.path if is_zip else path, site_path, size, digest, is_damaged)


def _is_zip(path: Path) -> bool:
    """Whether an upload is a zip file; a folder may have such a name, too."""
    return path.name.lower().endswith(ZIP_SUFFIX) and not path.is_dir()


def _nameless_fingerprint(path: Path, what: str) -> str:
    """Fingerprint of an entry whose files could not be listed; no listing of files has the same."""
    return canonical_digest([printable(path.name), what])
