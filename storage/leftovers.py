"""Temporary files and folders below a trial's root: held by a lock while somebody writes, else left behind.

The system frees the lock of a process that ends, however it ends, so what a kill left is known at once, by
whatever clock. On a network disk the lock on a folder is known on its own machine only: there, remove nothing
while another run is at work (`storage.running`, whose marks are files).
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
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
    return _new_held(path, lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


@contextmanager
def new_held_folder(path: Path) -> Iterator[None]:
    """Make a folder that counts as being written as long as the context lasts, and remove it after that."""

    def make() -> int:
        path.mkdir()
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    descriptor = _new_held(path, make)
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def remove_leftovers(root: Path) -> int:
    """Remove what killed writers left behind, and give how much it was; what somebody holds stays.

    Another night may remove the same at the same time.
    """
    places = [root, *(root / "whatif").glob("*")]
    return sum(_remove(path) for place in places for pattern in _PLACES for path in place.glob(pattern))


def _new_held(path: Path, make: Callable[[], int]) -> int:
    while True:
        descriptor = -1
        try:
            descriptor = make()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return descriptor
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise
        except BaseException:
            if descriptor >= 0:
                os.close(descriptor)
            raise
        # Taken for a leftover between its making and its lock.
        if descriptor >= 0:
            os.close(descriptor)


def _remove(path: Path) -> bool:
    """Remove what nobody holds; whether it was removed."""
    with suppress(OSError):  # held, or removed by another just now
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(descriptor)
        return True
    return False
