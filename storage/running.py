"""Which nights of a trial are at work, and which died without a word.

Each holds a lock on a file of its own. The system frees the lock of a process that ends, however it ends; on
a shared file system that holds across machines where it has locks across machines. On an object store the
night holds `storage.lease` from before it is marked until after, so marks of other runs are dead.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage.lease import seems_held
from storage.leftovers import STARTING_SUFFIX, new_held_file
from storage.objects import put, remove, versions
from storage.place import Place

if TYPE_CHECKING:
    from upath import UPath

RUNNING_FOLDER = "running"

_own: set[str] = set()
"""Runs of this process on object stores."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What says that a run is alive, until it is removed or the process ends."""

    path: Path
    """The file."""
    descriptor: int
    """Holds its lock."""

    def remove(self) -> None:
        """Say that the run has ended, and that whoever has to know was told."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_ino == os.fstat(self.descriptor).st_ino:  # not that of a retry
                self.path.unlink()
        os.close(self.descriptor)


def mark_running(root: Path, run_id: str) -> Mark:
    """Mark a run as alive."""
    folder = root / RUNNING_FOLDER
    folder.mkdir(exist_ok=True)
    mark = folder / run_id
    # Locked before it has its name, so that nobody takes it for a dead one in between.
    starting = folder / f"{run_id}{STARTING_SUFFIX}"
    starting.unlink(missing_ok=True)  # a run that is tried again may have been killed here
    descriptor = new_held_file(starting)
    starting.rename(mark)
    return Mark(mark, descriptor)


@contextmanager
def marked_running(root: Place, run_id: str) -> Iterator[list[str]]:
    """Mark a run as alive for as long as the context lasts.

    Yields
    ------
        Ids of runs that were marked here and died; each is told until `forget_run`.
    """
    if not isinstance(root, Path):
        _own.add(run_id)
        put(root / RUNNING_FOLDER / run_id, b"")
        try:
            yield dead_nights(root)
        finally:
            remove(root / RUNNING_FOLDER / run_id)
            _own.discard(run_id)
        return
    mark = mark_running(root, run_id)
    try:
        yield dead_nights(root)
    finally:
        mark.remove()


def running_nights(root: Place) -> list[str]:
    """Ids of the runs that are at work; on an object store those that seem to be, see `seems_held`."""
    if not isinstance(root, Path):
        return _mark_objects(root) if seems_held(root) else []
    return [path.name for path in _marks(root / RUNNING_FOLDER) if _is_held(path)]


def dead_nights(root: Place) -> list[str]:
    """Ids of the runs that died without a word; on an object store only who holds its lease may ask."""
    if not isinstance(root, Path):
        return [run_id for run_id in _mark_objects(root) if run_id not in _own]
    return [path.name for path in _marks(root / RUNNING_FOLDER) if not _is_held(path)]


def forget_run(root: Place, run_id: str) -> None:
    """Remove the mark of a run that died."""
    remove(root / RUNNING_FOLDER / run_id)


def _mark_objects(root: "UPath") -> list[str]:
    names = versions(root / RUNNING_FOLDER)
    return sorted(name for name in names if "/" not in name and not name.startswith("."))


def _marks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix != STARTING_SUFFIX)


def _is_held(path: Path) -> bool:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False
