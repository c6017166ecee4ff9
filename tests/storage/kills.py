"""Kill an action at each of its steps on the disk, or let one of them fail."""

import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE_SYSTEM_EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}
KILLED = -signal.SIGKILL
TOLD, UNTOLD = 3, 4
"""Exit codes of a child in which a step failed: the action raised that error, or went on."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _run_until(root: Path, action: Callable[[Path], object], end: Callable[[], None], at: int) -> None:
    """Run in this process, and end it before its n-th change of, or look at, a file under the root."""
    n_events = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n_events
        if event in FILE_SYSTEM_EVENTS and any(str(argument).startswith(str(root)) for argument in arguments):
            n_events += 1
            if n_events == at:
                end()

    sys.addaudithook(count)
    code = 0
    try:
        action(root)
    except OSError as error:
        assert error.errno == errno.EIO  # noqa: PT017 (the parent sees the exit code)
        code = TOLD
    os._exit(code if n_events < at or code else UNTOLD)  # not by the exit functions of the parent's tests


def _exit_code(*arguments: object) -> int | None:
    child = multiprocessing.get_context("fork").Process(target=_run_until, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def killed(root: Path, action: Callable[[Path], object], kill_at: int) -> bool:
    """Run an action in a child that is killed at one point; whether the point was reached."""
    code = _exit_code(root, action, _die, kill_at)
    assert code in {0, KILLED}, code
    return code == KILLED


def failed(root: Path, action: Callable[[Path], object], fail_at: int) -> bool | None:
    """Run an action of which one step fails; whether it told so, None where the point was not reached."""
    code = _exit_code(root, action, _fail, fail_at)
    assert code in {0, TOLD, UNTOLD}, code
    return {0: None, TOLD: True, UNTOLD: False}[code]
