"""Kill an action at each of its steps on the disk."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE_SYSTEM_EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}
KILLED = -signal.SIGKILL


def _run_until(root: Path, action: Callable[[Path], object], kill_at: int) -> None:
    """Run in this process and kill it before its n-th change of, or look at, a file under the root."""
    n_events = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n_events
        if event in FILE_SYSTEM_EVENTS and any(str(argument).startswith(str(root)) for argument in arguments):
            n_events += 1
            if n_events == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    action(root)
    os._exit(0)  # not by the exit functions of what other tests have started in the parent


def killed(root: Path, action: Callable[[Path], object], kill_at: int) -> bool:
    """Run an action in a child that is killed at one point; whether the point was reached."""
    child = multiprocessing.get_context("fork").Process(target=_run_until, args=(root, action, kill_at))
    child.start()
    child.join()
    assert child.exitcode in {0, KILLED}, child.exitcode
    return child.exitcode == KILLED
