"""Zip files from sites: looked through before anything is unpacked, and unpacked under names of our own."""

import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from storage.config_uploads import UploadsConfig
from storage.errors import RefusedError

MIB = 2**20

ARCHIVE_SUFFIXES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".iso")
"""Endings of files that hold files."""

NIFTI_SUFFIXES = (".nii.gz", ".nii")

_MAC_FOLDER = "__MACOSX"
_ENCRYPTED = 0x1
_MAX_RATIO_FREE_BYTES = 10 * MIB
_READ_BYTES = MIB
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, LookupError)
_SEND_AGAIN = "make the zip file again, or send the folder"

DAMAGED_MEMBER = f"is damaged in the zip file; {_SEND_AGAIN}"
"""Why a file that could not be unpacked whole is refused."""


@dataclass(frozen=True, slots=True)
class ZipMember:
    """One file in a zip file."""

    index: int
    """Place in the zip file's own list."""
    name: str = field(repr=False)
    """Relative path with slashes, as the site wrote it."""
    size: int
    """Size that the zip file states [bytes]."""


def is_archive(name: str) -> bool:
    """Whether a file's name says that it holds other files."""
    lower = name.lower()
    return lower.endswith(ARCHIVE_SUFFIXES) and not lower.endswith(NIFTI_SUFFIXES)


def list_members(path: Path, rules: UploadsConfig) -> tuple[ZipMember, ...]:
    """List the files of a zip file by name, after checking that it may be unpacked; nothing is unpacked.

    Folders, and the doubles that a Mac adds, are no files.

    Raises
    ------
    RefusedError
        Naming what was found and the limit: not a zip file, cut off, encrypted, with links, with paths that
        lead out of it, or larger than `rules` allow. An archive in it is a file like any other, never opened.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except _BROKEN:
        message = f"is no zip file, or is cut off; {_SEND_AGAIN}"
        raise RefusedError(message) from None
    if len(infos) > rules.max_files:
        message = f"the zip file has {len(infos)} members, uploads.max_files allows {rules.max_files}"
        raise RefusedError(message)
    _check_kinds(infos)
    members = [
        ZipMember(index, str(PurePosixPath(_slashed(info))), info.file_size)
        for index, info in enumerate(infos)
        if not info.is_dir() and _MAC_FOLDER not in PurePosixPath(_slashed(info)).parts
    ]
    _check_sizes(infos, path.stat().st_size, rules)
    doubles = sum(count > 1 for count in Counter(member.name for member in members).values())
    if doubles:
        message = f"the zip file has {doubles} names more than once; {_SEND_AGAIN}"
        raise RefusedError(message)
    if not members:
        message = "the zip file holds no files"
        raise RefusedError(message)
    return tuple(sorted(members, key=lambda member: member.name))


def unpack_members(path: Path, members: Sequence[ZipMember], folder: Path) -> frozenset[int]:
    """Write each member as the file that `unpacked_name` gives, in the order of `members`.

    Returns
    -------
        Numbers, from 1, of the members that are damaged or not of the size that the zip file states; their
        files hold what could be unpacked.

    Raises
    ------
    RefusedError
        If that is all of them.
    """
    damaged: set[int] = set()
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        for number, member in enumerate(members, 1):
            size = 0
            with (folder / unpacked_name(number, member.name)).open("xb") as file:
                try:
                    with archive.open(infos[member.index]) as packed:
                        while size <= member.size and (block := packed.read(_READ_BYTES)):
                            size += len(block)
                            file.write(block[: member.size - size + len(block)])
                except (*_BROKEN, RuntimeError):
                    size = -1
            if size != member.size:
                damaged.add(number)
    if len(damaged) == len(members):
        message = f"all {len(members)} files in the zip file are damaged; {_SEND_AGAIN}"
        raise RefusedError(message)
    return frozenset(damaged)


def unpacked_name(number: int, name: str) -> str:
    """Name under which a member is unpacked: its number, with the ending that tells a NIfTI file."""
    ending = next((suffix for suffix in NIFTI_SUFFIXES if name.lower().endswith(suffix)), "")
    return f"{number}{ending}"


def _slashed(info: zipfile.ZipInfo) -> str:
    # Some Windows tools write backslashes; a name that is no UTF-8 must still be printable.
    return info.filename.replace("\\", "/").encode(errors="backslashreplace").decode()


def _check_kinds(infos: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse what no transfer of images needs."""
    found = {
        "encrypted members": sum(bool(info.flag_bits & _ENCRYPTED) for info in infos),
        "links or special files": sum(_is_special(info) for info in infos),
        "paths that lead out of it": sum(_leads_out(info) for info in infos),
        "members in a compression other than deflate": sum(
            info.compress_type not in _METHODS for info in infos
        ),
    }
    wrong = [f"{count} {what}" for what, count in found.items() if count]
    if wrong:
        message = f"the zip file has {', '.join(wrong)}, expected none; send plain files in one zip file"
        raise RefusedError(message)


def _check_sizes(infos: Sequence[zipfile.ZipInfo], packed_bytes: int, rules: UploadsConfig) -> None:
    largest = max((info.file_size for info in infos), default=0)
    total = sum(info.file_size for info in infos)
    ratio = total / max(packed_bytes, 1)
    if largest > rules.max_file_mib * MIB:
        message = (
            f"the zip file has a member of {largest / MIB:.0f} MiB unpacked, "
            f"uploads.max_file_mib allows {rules.max_file_mib:g}"
        )
        raise RefusedError(message)
    if total > rules.max_total_mib * MIB:
        message = (
            f"the zip file has {total / MIB:.0f} MiB unpacked, uploads.max_total_mib allows "
            f"{rules.max_total_mib:g}"
        )
        raise RefusedError(message)
    if ratio > rules.max_ratio and total > _MAX_RATIO_FREE_BYTES:
        message = (
            f"the zip file unpacks to {ratio:.0f} times its size, uploads.max_ratio allows "
            f"{rules.max_ratio:g}"
        )
        raise RefusedError(message)
    if sum(info.compress_size for info in infos) > packed_bytes:
        message = f"the zip file's members overlap; {_SEND_AGAIN}"
        raise RefusedError(message)


def _is_special(info: zipfile.ZipInfo) -> bool:
    mode = info.external_attr >> 16
    return stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)


def _leads_out(info: zipfile.ZipInfo) -> bool:
    name = _slashed(info)
    parts = name.split("/")
    return name.startswith("/") or ".." in parts or not parts[0] or ":" in parts[0] or "\0" in name
