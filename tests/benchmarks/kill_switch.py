"""A process counts its steps on the disk, and dies by SIGKILL before a chosen one."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

ORDER = "CMRTRIALS_KILL_ORDER"
"""Environment variable: file that holds the number of the step at which the worker dies that finds it."""

_CHANGES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Switch:
    """Counts the changes below a folder in this process; there is one, for a hook cannot be removed."""

    def __init__(self) -> None:
        self.n_steps = 0
        self._root: str | None = None
        self._kill_at = 0
        self._lock = threading.Lock()

    def arm(self, root: Path, kill_at: int) -> None:
        """Count from here on, and die before the step ``kill_at``; 0 to count only."""
        if self._root is None:
            sys.addaudithook(self._count)
        self._root, self._kill_at, self.n_steps = str(root), kill_at, 0

    def _count(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if not flags & _WRITES:
                return
        elif event not in _CHANGES:
            return
        if self._root is None or not any(str(one).startswith(self._root) for one in arguments[:2]):
            return
        with self._lock:
            self.n_steps += 1
            if self.n_steps == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


switch = Switch()


def obey_order(root: Path) -> None:
    """Take the order to die, where there is one and no other worker took it."""
    order = Path(os.environ.get(ORDER, "/nonexistent"))
    mine = order.with_suffix(f".{os.getpid()}")
    try:
        order.rename(mine)
    except OSError:
        return
    switch.arm(root, int(mine.read_text()))
