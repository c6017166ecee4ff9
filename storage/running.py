"""Which nights of a trial are at work, and which died without a word.

Each holds a lock on a file of its own. The system frees the lock of a process that ends, however it ends; on
a shared file system that holds across machines where it has locks across machines.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storage.leftovers import STARTING_SUFFIX, new_held_file

RUNNING_FOLDER = "running"


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
def marked_running(root: Path, run_id: str) -> Iterator[list[str]]:
    """Mark a run as alive for as long as the context lasts.

    Yields
    ------
        Ids of runs that were marked here and died; each is told until `forget_run`.
    """
    mark = mark_running(root, run_id)
    try:
        yield dead_nights(root)
    finally:
        mark.remove()


def running_nights(root: Path) -> list[str]:
    """Ids of the runs that are at work."""
    return [path.name for path in _marks(root / RUNNING_FOLDER) if _is_held(path)]


def dead_nights(root: Path) -> list[str]:
    """Ids of the runs that died without a word."""
    return [path.name for path in _marks(root / RUNNING_FOLDER) if not _is_held(path)]


def forget_run(root: Path, run_id: str) -> None:
    """Remove the mark of a run that died."""
    (root / RUNNING_FOLDER / run_id).unlink(missing_ok=True)


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
