"""A child process that answers requests in their order, within limits; one that dies is replaced.

See `storage.bounded_wire` for why its answers are no pickles.
"""

import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

from storage.bounded_wire import read_message, write_message
from storage.deidentify import KEY_VARIABLE
from storage.zipped import MIB

START_S = 120.0
"""Longest time until a child has loaded its libraries; the machine may be busy [s]."""

Answer = tuple[dict[str, Any], bytearray]


class DeadChildError(Exception):
    """The child ended, or had to be ended, before it answered."""

    def __init__(self, how: str, *, may_pass: bool) -> None:
        super().__init__(how)
        self.how = how
        """What to tell of it."""
        self.may_pass = may_pass
        """Whether it may have been the machine's fault."""


class ChildProcess:
    """A child and the pipes to it; it is started with the first requests.

    Parameters
    ----------
    module
        What it runs.
    memory_bytes
        Memory of one request, and most raw bytes of one answer.
    wall_factor
        Wall time over processor time that a request may take.
    """

    def __init__(self, module: str, memory_bytes: int, wall_factor: float) -> None:
        self._module = module
        self._memory_bytes = memory_bytes
        self._wall_factor = wall_factor
        self._child: subprocess.Popen[bytes] | None = None
        self._lifeline = -1  # the end of a pipe that goes with this process, and the child with it
        self.n_started = 0
        """Children started so far."""

    def close(self) -> None:
        """End the child; the next request starts another."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            os.close(self._lifeline)
            self._child = None

    def exchange(self, requests: Sequence[dict[str, Any]]) -> Generator[Answer, None, None]:
        """Send requests, each with its ``cpu_s`` and ``wall_s``, and give the answers as they come.

        Raises
        ------
        DeadChildError
            Where the next answer would be, if the child ended instead.
        OSError
            If no child can be started.
        """
        child = self._running_child()
        if child.stdin is None:
            message = "the child was started without pipes"
            raise RuntimeError(message)
        current = requests[0]
        try:
            # All at once, before it writes the first answer: two that both write wait for ever.
            write_message(child.stdin, requests)
            for current in requests:
                text, raw = self._receive(child, current["wall_s"])
                yield text, raw
        except (BrokenPipeError, EOFError, TimeoutError):
            death = self._death(child, current["cpu_s"])
            self.close()
            raise death from None
        except ValueError:
            self.close()
            raise DeadChildError("its reading gave no answer that can be read", may_pass=False) from None
        except BaseException:  # answers that nobody takes must not meet the next question
            self.close()
            raise

    def _receive(self, child: subprocess.Popen[bytes], wall_s: float) -> Answer:
        if child.stdout is None:
            raise EOFError
        descriptor = child.stdout.fileno()
        deadline = time.monotonic() + wall_s

        def read(size: int) -> bytearray:
            data = bytearray(size)
            rest = memoryview(data)
            while rest:
                ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TimeoutError
                n_read = os.readv(descriptor, [rest])
                if not n_read:
                    raise EOFError
                rest = rest[n_read:]
            return data

        text, raw = read_message(read, self._memory_bytes)
        if not isinstance(text, dict):
            message = f"an answer that is a {type(text).__name__}, expected a table"
            raise ValueError(message)  # noqa: TRY004  (it is what a child says that is wrong)
        return text, raw

    def _death(self, child: subprocess.Popen[bytes], cpu_s: int) -> DeadChildError:
        """Say how the child died; one that still runs has used up its time."""
        try:
            code = child.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            code = -signal.SIGALRM
        if code == -signal.SIGXCPU:
            how = f"reading it takes more than {cpu_s} s of processor time (uploads.read_seconds)"
            return DeadChildError(how, may_pass=False)
        if code == -signal.SIGALRM:
            factor = self._wall_factor
            how = f"reading it had no end after {factor * cpu_s:g} s ({factor:g} x uploads.read_seconds)"
            return DeadChildError(how, may_pass=False)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return DeadChildError(f"it crashes its reader ({name}); export it again", may_pass=True)

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self.close()
        return self._start() if self._child is None else self._child

    def _start(self) -> subprocess.Popen[bytes]:
        search_path = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
        # The key goes to the child by its pipe, and only where a header is cleaned.
        environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
        environment |= {"PYTHONPATH": search_path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        childs_end, lifeline = os.pipe()
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, str(self._memory_bytes), str(childs_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what a parser says may quote the file
                cwd="/",
                env=environment,
                pass_fds=(childs_end,),
            )
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(childs_end)
        self._child, self._lifeline = child, lifeline
        self.n_started += 1
        if child.stdout is not None:  # a whole image at once, not 64 KiB a turn
            with suppress(OSError):
                fcntl.fcntl(child.stdout.fileno(), fcntl.F_SETPIPE_SZ, MIB)
        try:
            self._receive(child, START_S)
        except (EOFError, TimeoutError, ValueError):
            self.close()
            message = (
                f"the process that reads uploads does not start; try python -m {self._module} 1000000000"
            )
            raise OSError(errno.ECHILD, message) from None
        return child
