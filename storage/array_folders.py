"""Zarr stores in a folder: begun as links to an earlier one, moved into place whole."""

import errno
import os
import shutil
import time
from pathlib import Path

from storage.durable import fsync_path, fsync_paths

TEMPORARY_SUFFIX = ".tmp"
"""Ending of a store that is being written."""


def relative_files(folder: Path) -> set[str]:
    """Name all files of a store."""
    return {
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    }


def take_along(earlier: Path, temporary: Path) -> None:
    """Begin a store as a copy of an earlier one, as hard links where the disk can."""
    shutil.copytree(earlier, temporary, copy_function=_link_or_copy)


def move_into_place(temporary: Path, final: Path) -> bool:
    """Give a finished store its name; False where a store has it."""
    found = [(Path(folder), names) for folder, _, names in os.walk(temporary)]
    fsync_paths([folder / name for folder, names in found for name in names])
    fsync_paths([folder for folder, _ in found])
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    fsync_path(final.parent)
    return True


def remove_stale(arrays: Path, older_than_s: float) -> int:
    """Remove temporary stores that are too old to be at work; give the number found."""
    n_stale = 0
    for path in arrays.glob(f"*/*/.*{TEMPORARY_SUFFIX}"):
        try:
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        if age_s > older_than_s:
            n_stale += 1
            shutil.rmtree(path, ignore_errors=True)
    return n_stale


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)
