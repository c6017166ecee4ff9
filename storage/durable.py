"""Files that survive a kill or a power cut: whole or not at all, in a known order, one writer at a time."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from storage.leftovers import new_held_file, temporary_sibling
from storage.objects import put
from storage.place import Place

FSYNC_THREADS = 8
"""Files that the disk is asked to write at once."""


def fsync_path(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_paths(paths: Sequence[Path]) -> None:
    """Force many files or folders to disk; asked for together, the disk writes most of them in one go."""
    with ThreadPoolExecutor(FSYNC_THREADS) as pool:
        for _ in pool.map(fsync_path, paths):
            pass


def write_durably(path: Place, data: bytes) -> None:
    """Write a whole file: temporary sibling, fsync, rename, fsync of the folder. Replaces what is there.

    On an object store it is one object, which is put whole or not at all.
    """
    if not isinstance(path, Path):
        put(path, data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        with os.fdopen(new_held_file(temporary), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)  # while it is held, or it could be taken for left behind
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


@contextmanager
def exclusive_lock(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the folder alone among processes and threads; the lock goes with the process that holds it.

    Raises
    ------
    BlockingIOError
        If another holds it, and nobody shall wait for that.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def shared_lock(directory: Path) -> Iterator[None]:
    """Keep writers out of an existing folder while reading it."""
    with _locked(directory, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(directory: Path, operation: int) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)
