"""The process in which strangers' bytes are parsed: one request after another, each within limits.

It is started by `storage.bounded`, has no file of its own to write, and ends with its parent.
"""

import errno
import fcntl
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydantic import TypeAdapter

from storage.bounded_wire import HEAD, adapter, pack_guide, pack_instances, write_message
from storage.config_intake import NiftiLabels, SpinLockRule
from storage.config_uploads import PrivacyConfig, UploadsConfig
from storage.dicom_dialect import Rescale
from storage.dicom_open import keep_files
from storage.dicom_pixels import WantedFrames, decode_frames
from storage.dicom_read import FileSource, is_dicom, read_file, read_identity
from storage.errors import RefusedError, UnreadableError, os_reason
from storage.guide import read_nifti, read_seg
from storage.header_read import read_file_header
from storage.zipped import MIB, ZipMember, list_members, unpack_members

Answer = tuple[Any, bytes | memoryview]
Handler = Callable[[dict[str, Any]], Answer]

MAX_OPEN_FILES = 64

KEPT_BYTES = 128 * MIB
"""Memory for files between their header and their pixels, beyond what one file may take."""

WRONG_LENGTH_RATIO = 50
"""A file that asks for so many times its own size promises what it does not hold."""

# Parsers raise OSError, too: without a number of the system's, or after an absurd offset.
_PARSERS_OWN = (None, errno.EINVAL)


def main() -> None:
    """Answer requests until the parent is gone."""
    requests, answers = _take_over_pipes()
    memory_bytes, lifeline = map(int, sys.argv[1:3])
    _end_with(lifeline)
    _limit_memory(memory_bytes + KEPT_BYTES)
    keep_files(KEPT_BYTES)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    write_message(answers, {"ready": True})
    while head := requests.read(HEAD.size):
        for request in json.loads(requests.read(HEAD.unpack(head)[0])):
            with _Limits(request):
                answer = _answer(request, memory_bytes)
            write_message(answers, *answer)


def _answer(request: dict[str, Any], memory_bytes: int) -> Answer:
    try:
        return HANDLERS[request["do"]](request)
    except RefusedError as error:
        return {"refused": error.reason}, b""
    except MemoryError:
        return {"refused": _named(request, _too_much_memory(Path(request["path"]), memory_bytes))}, b""
    except OSError as error:
        first = error.__context__ if isinstance(error, UnreadableError) else error
        if isinstance(first, OSError) and first.errno not in _PARSERS_OWN:
            return {"unreadable": os_reason(first), "errno": first.errno}, b""
        return {"refused": _named(request, "it is broken (OSError); export it again")}, b""
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 (the border; decoders in Rust panic so)
        how = f"it cannot be read ({type(error).__name__}); export it again"
        return {"refused": _named(request, how)}, b""


def _too_much_memory(path: Path, memory_bytes: int) -> str:
    n_bytes = path.stat().st_size
    if n_bytes < memory_bytes / WRONG_LENGTH_RATIO:
        return f"a length in it is wrong: it has {n_bytes} bytes and promises far more; export it again"
    return f"reading it takes more than {memory_bytes / MIB:.0f} MiB of memory (uploads.read_memory_mib)"


class _Limits:
    """Processor and wall time of one request; where they end, the system ends this process."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._cpu_s: int = request["cpu_s"]
        self._wall_s: int = request["wall_s"]
        self._file_bytes: int = request.get("max_file_bytes", 0)

    def __enter__(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        limit = int(used.ru_utime + used.ru_stime) + 1 + self._cpu_s
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._file_bytes, resource.RLIM_INFINITY))
        signal.alarm(self._wall_s)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)


def _named(request: dict[str, Any], reason: str) -> str:
    return f"{_source(request)}: {reason}" if request["source"] else reason


def _source(request: dict[str, Any]) -> FileSource:
    return FileSource(**request["source"])


def _read_identity(request: dict[str, Any]) -> Answer:
    path = Path(request["path"])
    if not is_dicom(path):
        return {"identity": None}, b""
    patient_id, study_date = read_identity(path, _source(request))
    return {"identity": [patient_id, None if study_date is None else study_date.isoformat()]}, b""


def _read_images(request: dict[str, Any]) -> Answer:
    rules = adapter(tuple[SpinLockRule, ...]).validate_python(request["spin_lock"])
    return {"images": pack_instances(read_file(Path(request["path"]), _source(request), rules))}, b""


def _read_frames(request: dict[str, Any]) -> Answer:
    wanted = WantedFrames(
        path=Path(request["path"]),
        source=_source(request),
        shape=tuple(request["shape"]),
        n_frames=request["n_frames"],
        indices=tuple(request["indices"]),
        rescales=tuple(Rescale(*rescale) for rescale in request["rescales"]),
    )
    frames = np.ascontiguousarray(decode_frames(wanted))
    return {"shape": frames.shape}, frames.data.cast("B")


def _read_header(request: dict[str, Any]) -> Answer:
    header = read_file_header(
        Path(request["path"]),
        _source(request),
        PrivacyConfig.model_validate_json(json.dumps(request["privacy"])),
        bytes.fromhex(request["key"]),
        request["subject_id"],
        request["part"],
    )
    return {"header": asdict(header)}, b""


def _read_seg(request: dict[str, Any]) -> Answer:
    text, raw = pack_guide(read_seg(Path(request["path"]), _source(request)))
    return {"guide": text}, raw


def _read_nifti(request: dict[str, Any]) -> Answer:
    labels = NiftiLabels.model_validate(request["labels"])
    text, raw = pack_guide(read_nifti(Path(request["path"]), _source(request), labels))
    return {"guide": text}, raw


def _list_zip(request: dict[str, Any]) -> Answer:
    rules = UploadsConfig.model_validate(request["rules"])
    members = list_members(Path(request["path"]), rules)
    return {"members": TypeAdapter(tuple[ZipMember, ...]).dump_python(members, mode="json")}, b""


def _unpack_zip(request: dict[str, Any]) -> Answer:
    members: tuple[ZipMember, ...] = adapter(tuple[ZipMember, ...]).validate_python(request["members"])
    damaged = unpack_members(Path(request["path"]), members, Path(request["folder"]))
    return {"damaged": sorted(damaged)}, b""


HANDLERS: dict[str, Handler] = {
    "identity": _read_identity,
    "images": _read_images,
    "frames": _read_frames,
    "header": _read_header,
    "seg": _read_seg,
    "nifti": _read_nifti,
    "list zip": _list_zip,
    "unpack zip": _unpack_zip,
}
"""What the parent may ask for."""


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the two pipes for requests and answers; what a library prints goes nowhere."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return requests, answers


def _end_with(lifeline: int) -> None:
    """End this process, by SIGIO, when the other end of a pipe closes, whatever is going on here.

    That end is held by the parent alone. A thread that waits for it could not act while a decoder holds the
    interpreter, and the kernel's own death signal comes when the thread ends that started the child.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _limit_memory(memory_bytes: int) -> None:
    """Allow so much on top of what the libraries have mapped."""
    mapped_pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = mapped_pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
