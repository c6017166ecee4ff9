"""Strangers' bytes, parsed in a child process that has limits: a crash or hang there costs one file.

One child serves a process for as long as it lives; a child that dies is replaced. The child answers in JSON
and raw bytes that are checked here (see `storage.bounded_wire` for why there are no pickles).
"""

import atexit
import errno
import fcntl
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from jaxtyping import Float32

from storage.bounded_wire import (
    adapter,
    pack_instances,
    read_message,
    source_text,
    unpack_frames,
    unpack_guide,
    unpack_instances,
    write_message,
)
from storage.config import NiftiLabels, PrivacyConfig, UploadsConfig
from storage.deidentify import KEY_VARIABLE
from storage.dicom_read import FileSource, Instance
from storage.errors import RefusedError
from storage.guide import Guide
from storage.header_read import FileHeader, HeaderPart
from storage.zipped import MIB, ZipMember

WALL_FACTOR = 10.0
"""Wall time over processor time that a request may take: the machine may be busy."""

UNPACK_MIB_PER_S = 10.0
"""Speed at which a zip file is unpacked at least, hashing included."""

START_S = 120.0
"""Longest time until a child has loaded its libraries; the machine may be busy [s]."""


Value = TypeVar("Value")


class _DeadChildError(Exception):
    """The child ended, or had to be ended, before it answered."""

    def __init__(self, how: str, *, may_pass: bool) -> None:
        super().__init__(how)
        self.how = how
        self.may_pass = may_pass


class BoundedReader:
    """Reads files in a child process. Not for use by two threads at once without waiting for each other.

    Parameters
    ----------
    rules
        Processor time and memory of one request, and limits of zip files.
    module
        What the child runs.
    wall_factor
        Wall time over processor time that a request may take.
    """

    def __init__(
        self,
        rules: UploadsConfig,
        module: str = "storage.bounded_child",
        wall_factor: float = WALL_FACTOR,
    ) -> None:
        self._wall_factor = wall_factor
        self._zip_rules = rules
        self._read_s = rules.read_seconds
        self._memory_bytes = int(rules.read_memory_mib * MIB)
        self._module = module
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self.n_started = 0
        """Children started so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the next request starts another."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None

    def read_identity(self, path: Path, source: FileSource) -> tuple[str, date | None] | None:
        """PatientID and StudyDate of a file; None where it is not DICOM.

        Raises
        ------
        RefusedError
            If it cannot be read within the limits, as do all other methods.
        OSError
            If the machine cannot read it; its text holds no path. So do all other methods.
        """

        def take(text: Any, _: bytearray) -> tuple[str, date | None] | None:  # noqa: ANN401
            identity: tuple[str, date | None] | None = adapter(
                tuple[str, date | None] | None
            ).validate_python(text["identity"])
            return identity

        return self._ask(path, source, {"do": "identity"}, take)

    def read_file(self, path: Path, source: FileSource) -> tuple[Instance, ...] | None:
        """Images of a file, as `storage.dicom_read.read_file`."""
        return self._ask(
            path, source, {"do": "images"}, lambda text, _: unpack_instances(text["images"], path, source)
        )

    def read_frames(self, instances: Sequence[Instance]) -> Float32[np.ndarray, "frame row col"]:
        """Pixels of images of one file, as `storage.dicom_pixels.read_frames`."""
        path, source = instances[0].path, instances[0].source
        expected = (len(instances), *(instances[0].shape or ()))

        def take(text: Any, raw: bytearray) -> Float32[np.ndarray, "frame row col"]:  # noqa: ANN401
            frames = unpack_frames(text["shape"], raw)
            if frames.shape != expected:
                message = f"frames of shape {frames.shape}, expected {expected}"
                raise ValueError(message)
            return frames

        return self._ask(path, source, {"do": "frames", "instances": pack_instances(instances)}, take)

    def read_header(
        self,
        path: Path,
        source: FileSource,
        privacy: PrivacyConfig,
        key: bytes,
        subject_id: str,
        part: HeaderPart,
    ) -> FileHeader:
        """Read and clean a file's header, as `storage.header_read.read_file_header`."""
        request = {
            "do": "header",
            "privacy": privacy.model_dump(mode="json"),
            "key": key.hex(),
            "subject_id": subject_id,
            "part": part,
        }

        def take(text: Any, _: bytearray) -> FileHeader:  # noqa: ANN401
            found: FileHeader = adapter(FileHeader).validate_python(text["header"])
            return found

        return self._ask(path, source, request, take)

    def read_seg(self, path: Path, source: FileSource) -> Guide:
        """Guide of a DICOM segmentation, as `storage.guide.read_seg`."""
        return self._ask(
            path, source, {"do": "seg"}, lambda text, raw: unpack_guide(text["guide"], raw, path, source)
        )

    def read_nifti(self, path: Path, source: FileSource, labels: NiftiLabels) -> Guide:
        """Guide of a NIfTI file, as `storage.guide.read_nifti`."""
        request = {"do": "nifti", "labels": labels.model_dump()}
        return self._ask(
            path, source, request, lambda text, raw: unpack_guide(text["guide"], raw, path, source)
        )

    def list_zip(self, path: Path) -> tuple[ZipMember, ...]:
        """Files of a zip file, as `storage.zipped.list_members`."""
        kind = tuple[ZipMember, ...]
        request = {"do": "list zip", "rules": self._zip_rules.model_dump()}
        return self._ask(path, None, request, lambda text, _: adapter(kind).validate_python(text["members"]))

    def unpack_zip(self, path: Path, members: Sequence[ZipMember], folder: Path) -> None:
        """Unpack a zip file, as `storage.zipped.unpack_members`."""
        total_mib = sum(member.size for member in members) / MIB
        request = {
            "do": "unpack zip",
            "members": adapter(tuple[ZipMember, ...]).dump_python(tuple(members), mode="json"),
            "folder": str(folder),
            "max_file_bytes": int(self._zip_rules.max_file_mib * MIB),
        }
        self._ask(path, None, request, lambda *_: None, more_s=total_mib / UNPACK_MIB_PER_S)

    def _ask(
        self,
        path: Path,
        source: FileSource | None,
        request: dict[str, Any],
        take: Callable[[Any, bytearray], Value],
        more_s: float = 0.0,
    ) -> Value:
        """Ask the child, once more where it died of what may have been the machine's fault."""
        cpu_s = math.ceil(self._read_s + more_s)
        wall_s = math.ceil(self._wall_factor * cpu_s)
        full = {
            **request,
            "path": str(path),
            "source": source_text(source) if source else None,
            "cpu_s": cpu_s,
            "wall_s": wall_s,
        }
        with self._lock:
            for is_last in (False, True):
                try:
                    text, raw = self._exchange(full)
                    break
                except _DeadChildError as death:
                    self.close()
                    if is_last or not death.may_pass:
                        raise RefusedError(_named(source, death.how)) from None
        if "refused" in text:
            raise RefusedError(str(text["refused"]))
        if "unreadable" in text:
            raise OSError(int(text["errno"] or errno.EIO), str(text["unreadable"]))
        try:
            return take(text, raw)
        except (ValueError, LookupError, TypeError):
            raise RefusedError(_named(source, "what its reader says of it does not fit its kind")) from None

    def _exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytearray]:
        child = self._running_child()
        if child.stdin is None or child.stdout is None:
            message = "the child was started without pipes"
            raise RuntimeError(message)
        try:
            write_message(child.stdin, request)
            text, raw = self._receive(child, request["wall_s"])
        except (BrokenPipeError, EOFError, TimeoutError):
            raise self._death(child, request["cpu_s"]) from None
        except (ValueError, UnicodeDecodeError):
            raise _DeadChildError("its reading gave no answer that can be read", may_pass=False) from None
        return adapter(dict[str, Any]).validate_python(text), raw

    def _receive(self, child: subprocess.Popen[bytes], wall_s: float) -> tuple[Any, bytearray]:
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

        return read_message(read, self._memory_bytes)

    def _death(self, child: subprocess.Popen[bytes], cpu_s: int) -> _DeadChildError:
        """Say how the child died; one that still runs has used up its time."""
        try:
            code = child.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            code = -signal.SIGALRM
        if code == -signal.SIGXCPU:
            how = f"reading it takes more than {cpu_s} s of processor time (uploads.read_seconds)"
            return _DeadChildError(how, may_pass=False)
        if code == -signal.SIGALRM:
            factor = self._wall_factor
            how = f"reading it had no end after {factor * cpu_s:g} s ({factor:g} x uploads.read_seconds)"
            return _DeadChildError(how, may_pass=False)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _DeadChildError(f"it crashes its reader ({name}); export it again", may_pass=True)

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self.close()
        if self._child is None:
            self._child = self._start()
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        search_path = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
        # The key goes to the child by its pipe, and only where a header is cleaned.
        environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
        environment |= {"PYTHONPATH": search_path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module, str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what a parser says may quote the file
            cwd="/",
            env=environment,
        )
        self.n_started += 1
        if child.stdout is not None:  # a whole image at once, not 64 KiB a turn
            with suppress(OSError):
                fcntl.fcntl(child.stdout.fileno(), fcntl.F_SETPIPE_SZ, MIB)
        try:
            self._receive(child, START_S)
        except (EOFError, TimeoutError, ValueError):
            child.kill()
            child.wait()
            message = (
                f"the process that reads uploads does not start; try python -m {self._module} 1000000000"
            )
            raise OSError(errno.ECHILD, message) from None
        return child


@cache
def shared_reader(rules: UploadsConfig) -> BoundedReader:
    """Give this process's reader under these rules; its child ends with the process."""
    reader = BoundedReader(rules)
    atexit.register(reader.close)
    return reader


def _named(source: FileSource | None, reason: str) -> str:
    return f"{source}: {reason}" if source else reason
