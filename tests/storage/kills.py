"""Kill an action at each of its steps on the disk, or let one of them fail."""

import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.errors import BrokenOffError

FILE_SYSTEM_EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}
KILLED = -signal.SIGKILL
ENDS = {0: None, 3: "told", 4: "done", 5: "unknown"}
"""How an action ended, by its child's exit code: no step failed, it raised that error, it went on, or it
could not tell."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _run_until(root: Path, action: Callable[[Path], object], end: Callable[[], None], steps: range) -> None:
    """Run in this process, and end it before some changes of, or looks at, files under the root."""
    n_events = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n_events
        if event in FILE_SYSTEM_EVENTS and any(str(argument).startswith(str(root)) for argument in arguments):
            n_events += 1
            if n_events in steps:
                end()

    sys.addaudithook(count)
    end_ = "done"
    try:
        action(root)
    except BrokenOffError:
        end_ = "unknown"
    except OSError as error:
        assert error.errno == errno.EIO  # noqa: PT017 (the parent sees the exit code)
        end_ = "told"
    codes = {name: code for code, name in ENDS.items()}
    os._exit(codes[end_] if n_events >= steps.start else 0)  # not by the exit functions of the parent's tests


def _exit_code(*arguments: object) -> int | None:
    child = multiprocessing.get_context("fork").Process(target=_run_until, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def killed(root: Path, action: Callable[[Path], object], kill_at: int) -> bool:
    """Run an action in a child that is killed at one point; whether the point was reached."""
    code = _exit_code(root, action, _die, range(kill_at, kill_at + 1))
    assert code in {0, KILLED}, code
    return code == KILLED


def failed(root: Path, action: Callable[[Path], object], fail_at: int, n_steps: int) -> str | None:
    """Run an action of which some steps fail; how it ended, see `ENDS`."""
    code = _exit_code(root, action, _fail, range(fail_at, fail_at + n_steps))
    assert code in ENDS, code
    return ENDS[code]
