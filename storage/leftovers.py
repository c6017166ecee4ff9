"""Temporary files and folders below a trial's root: held by a lock while somebody writes, else left behind.

The system frees the lock of a process that ends, however it ends, so what a kill left is known at once, by
whatever clock. A folder is held by a file beside it: on a network disk the lock of a folder is known on its
own machine only, that of a file on all.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
STARTING_SUFFIX = ".starting"
"""End of the name of a mark in running/ that is being made, see `storage.running`."""

_PLACES = (
    *(f"arrays/*/*/.*{TEMPORARY_SUFFIX}", f"audit/.*{TEMPORARY_SUFFIX}", f"tables/*/.*{TEMPORARY_SUFFIX}"),
    *(f"reports/.*{TEMPORARY_SUFFIX}", f"reports/*/.*{TEMPORARY_SUFFIX}"),
    *(f"quarantine/*/.*{TEMPORARY_SUFFIX}", f"quarantine/*/*/.*{TEMPORARY_SUFFIX}"),
    f"running/*{STARTING_SUFFIX}",
)
"""Where nights write; what is staged in tables/, locks and exports have ways of their own."""


def temporary_sibling(path: Path) -> Path:
    """Give a name beside a file or folder that nobody else uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def new_held_file(path: Path) -> int:
    """Make a file that counts as being written until its descriptor is closed, and open it for that."""
    while True:
        descriptor = -1
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return descriptor
        except BaseException:
            if descriptor >= 0:
                os.close(descriptor)
            raise
        os.close(descriptor)  # taken for a leftover between its making and its lock


@contextmanager
def new_held_folder(path: Path) -> Iterator[None]:
    """Make a folder that counts as being written as long as the context lasts, and remove it after that."""
    holder = _holder(path)
    descriptor = new_held_file(holder)
    try:
        path.mkdir()
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
        holder.unlink(missing_ok=True)
        os.close(descriptor)


def remove_leftovers(root: Path) -> int:
    """Remove what killed writers left behind, and give how much it was; what somebody holds stays.

    Another night may remove the same at the same time.
    """
    places = [root, *(root / "whatif").glob("*")]
    return sum(_remove(path) for place in places for pattern in _PLACES for path in place.glob(pattern))


def _holder(folder: Path) -> Path:
    return folder.with_name(f"{folder.name.removesuffix(TEMPORARY_SUFFIX)}.held{TEMPORARY_SUFFIX}")


def _remove(path: Path) -> bool:
    """Remove what nobody holds; whether it was removed."""
    if path.is_dir() and not path.is_symlink():
        holder = _holder(path)
        if holder.exists() and not _remove(holder):
            return False
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    with suppress(OSError):  # held, a link, or removed by another just now
        # For writing: a network disk gives no exclusive lock else.
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)
        return True
    return False
