"""audit/log.jsonl: who did what, why and when; append-only, each line chained to the one before it."""

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.durable import exclusive_lock, fsync_path
from storage.errors import StorageError

AUDIT_LOG = Path("audit", "log.jsonl")

_START = "0" * 64


def append(root: Path, event: dict[str, Any]) -> None:
    """Add one event; the time and the digest of the line before it are put in here.

    A line that a kill cut off was never acknowledged and is dropped first.
    """
    path = root / AUDIT_LOG
    with exclusive_lock(path.parent):
        is_new = not path.exists()
        with path.open("a+b") as file:
            last = _cut_to_whole_lines(file.fileno())
            line = {**event, "at": datetime.now(UTC).isoformat(), "previous": _digest(last)}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            fsync_path(path.parent)


def read_events(root: Path) -> Iterator[dict[str, Any]]:
    """Yield all events, oldest first."""
    for line in _lines(root):
        yield json.loads(line)


def verify(root: Path) -> int:
    """Check the chain and count its lines.

    Raises
    ------
    StorageError
        Naming the first line that does not follow from the one before it.
    """
    previous, number = b"", 0
    for number, line in enumerate(_lines(root), 1):
        try:
            chained = json.loads(line)["previous"]
        except (ValueError, LookupError, TypeError):
            chained = None
        if chained != _digest(previous):
            message = (
                f"{AUDIT_LOG}, line {number} does not follow from the line before it: the log was changed"
            )
            raise StorageError(message)
        previous = line
    return number


def _lines(root: Path) -> list[bytes]:
    """Whole lines of the log."""
    path = root / AUDIT_LOG
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest() if line else _START


def _cut_to_whole_lines(descriptor: int) -> bytes:
    """Drop an unfinished last line from an open file; give the last whole one, empty where there is none."""
    size = os.fstat(descriptor).st_size
    length = 4096
    while True:
        start = max(0, size - length)
        tail = os.pread(descriptor, size - start, start)
        whole = tail[: tail.rfind(b"\n") + 1]
        begin = whole.rfind(b"\n", 0, -1) + 1
        if start == 0 or begin > 0:
            if len(whole) < len(tail):
                os.ftruncate(descriptor, start + len(whole))
            return whole[begin:-1]
        length *= 2
