"""Which nights of a trial are at work, and which died without a word.

Each holds a lock on a file of its own. The system frees the lock of a process that ends, however it ends; on
a shared file system that holds across machines where it has locks across machines. On an object store the
night holds `storage.lease`, and marks of other runs are dead.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storage.lease import seems_held
from storage.objects import put, remove, versions
from storage.place import Place

if TYPE_CHECKING:
    from upath import UPath

RUNNING_FOLDER = "running"
_STARTING = ".starting"


@contextmanager
def marked_running(root: Place, run_id: str) -> Iterator[list[str]]:
    """Mark a run as alive for as long as the context lasts.

    Yields
    ------
        Ids of runs that were marked here and died; each is told until `forget_run`.
    """
    if not isinstance(root, Path):
        put(root / RUNNING_FOLDER / run_id, b"")
        try:
            yield [name for name in _mark_objects(root) if name != run_id]
        finally:
            remove(root / RUNNING_FOLDER / run_id)
        return
    folder = root / RUNNING_FOLDER
    mark = folder / run_id
    folder.mkdir(exist_ok=True)
    # Locked before it has its name, so that nobody takes it for a dead one in between.
    starting = folder / f"{run_id}{_STARTING}"
    with starting.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        starting.rename(mark)
        try:
            yield dead_nights(root)
        finally:
            mark.unlink(missing_ok=True)


def running_nights(root: Place) -> list[str]:
    """Ids of the runs that are at work; on an object store those that seem to be, see `seems_held`."""
    if not isinstance(root, Path):
        return _mark_objects(root) if seems_held(root) else []
    return [path.name for path in _marks(root / RUNNING_FOLDER) if _is_held(path)]


def dead_nights(root: Path) -> list[str]:
    """Ids of the runs that died without a word."""
    return [path.name for path in _marks(root / RUNNING_FOLDER) if not _is_held(path)]


def forget_run(root: Place, run_id: str) -> None:
    """Remove the mark of a run that died."""
    remove(root / RUNNING_FOLDER / run_id)


def _mark_objects(root: "UPath") -> list[str]:
    return sorted(name for name in versions(root / RUNNING_FOLDER) if "/" not in name)


def _marks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix != _STARTING)


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
