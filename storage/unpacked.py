"""Temporary folders for what is unpacked: outside of the trial, nobody else's to read, gone after use."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "cmrtrials-unpacked-"


@contextmanager
def unpacking_folder() -> Iterator[Path]:
    """Give an empty folder for the time of the context; what a killed process left is removed first."""
    remove_leftovers()
    folder, descriptor = _locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(descriptor)


def _locked_folder() -> tuple[Path, int]:
    """Make a folder and lock it; another process may take it for a leftover before it is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def remove_leftovers() -> None:
    """Remove the folders whose process is gone: the lock on a folder goes with its process."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # removed by another process just now, or another user's
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
