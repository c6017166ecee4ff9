"""Zarr stores in a folder: begun as links to an earlier one, moved into place whole."""

import errno
import os
import shutil
from pathlib import Path

from storage.durable import fsync_path, fsync_paths


def relative_files(folder: Path) -> set[str]:
    """Name all files of a store."""
    return {
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    }


def take_along(earlier: Path, temporary: Path) -> None:
    """Begin a store, in an empty folder, as a copy of an earlier one, as hard links where the disk can."""
    shutil.copytree(earlier, temporary, copy_function=_link_or_copy, dirs_exist_ok=True)


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


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)
