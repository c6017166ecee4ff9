"""audit/log.jsonl: who did what, why and when; append-only, each line chained to the one before it.

`head.json` beside it says how many lines there are and which is the last, so that lines cut off the end are
missed too. It is written before and after each addition: what a kill leaves between the two is known from
what had been announced, and nothing else is taken for it. The chain has no key: whoever rewrites log, head,
tables and history consistently is found out only by a head that was noted elsewhere, so note it now and then.

A log without a head was begun before there were heads, or its head was removed and lines perhaps with it;
nobody can tell. It goes on with a line that says so, and stays unproven up to there until somebody adopts it.

On an object store, which cannot append, each addition is an object of its own in log/, named by the number of
its first line.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.durable import exclusive_lock, fsync_path, shared_lock, write_durably
from storage.errors import BusyError, TamperedError
from storage.lease import fence, writing
from storage.objects import get, put_new, read_all, versions
from storage.place import Place

if TYPE_CHECKING:
    from upath import UPath

AUDIT_LOG = Path("audit", "log.jsonl")
HEAD_FILE = "head.json"
OBJECTS_FOLDER = "log"

HEAD_MISSING, ADOPTED = "head_missing", "adopted"
"""Events of the log itself: it went on without a head; somebody took it for whole up to there."""

_START = "0" * 64
_FOLDER = AUDIT_LOG.parent.name


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends."""

    n_lines: int
    """Lines of the log."""
    digest: str
    """SHA-256 of the last line, without its end; zeros where there is none."""
    announced: tuple[str, ...] = ()
    """Digests of the lines that are being added."""
    n_unproven: int = 0
    """Lines from the first on after which more may have stood once, for no head was there and nobody has
    adopted them."""


def append(root: Place, *events: dict[str, Any]) -> None:
    """Add events; the time and the digest of the line before each are put in here.

    A line that a kill cut off was never acknowledged and is dropped first. A log that does not end where its
    head says is not mended: the new lines follow from the head, so that `verify` finds the gap for ever. One
    that has no head gets a line first that says so.

    Raises
    ------
    BusyError
        If somebody else writes the trial on an object store, where the lease is taken unless it is held.
    """
    if not events:
        return
    if not isinstance(root, Path):
        with writing(root):
            _append_object(root, events)
        return
    path = root / AUDIT_LOG
    with exclusive_lock(path.parent):
        is_new = not path.exists()
        if is_new and _read_head(path.parent) is None:
            _write_head(path.parent, Head(0, _START))
        with path.open("a+b") as file:
            last = _cut_to_whole_lines(file.fileno())
            if last and not (path.parent / HEAD_FILE).exists():
                head = Head(len(_lines(root)), _digest(last))
                events = ({"event": HEAD_MISSING, "n_lines": head.n_lines}, *events)
            else:
                head = _end(root, last)
            lines = _chained(events, head.digest)
            digests = tuple(map(_digest, lines))
            _write_head(path.parent, Head(head.n_lines, head.digest, digests))
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            fsync_path(path.parent)
        _write_head(path.parent, Head(head.n_lines + len(lines), digests[-1]))


def read_events(root: Place) -> Iterator[dict[str, Any]]:
    """Yield all events, oldest first."""
    for line in _lines(root):
        yield json.loads(line)


def adopt(root: Place, who: str, why: str) -> Head:
    """Put on record that somebody takes the lines for whole that no head vouches for.

    Raises
    ------
    TamperedError
        If the log was changed, or there is nothing to adopt.
    """
    found = verify(root)
    if not found.n_unproven:
        message = f"{AUDIT_LOG}: nothing to adopt, its head vouches for all {found.n_lines} lines"
        raise TamperedError(message)
    append(root, {"event": ADOPTED, "who": who, "why": why, "n_lines": found.n_unproven})
    return verify(root)


def verify(root: Place) -> Head:
    """Check the chain and its end; give where it ends, and whether a head vouches for that.

    Raises
    ------
    TamperedError
        Naming the first line that does not follow from the one before it, or what is amiss with the end.
    """
    folder = root / _FOLDER
    if not folder.is_dir():
        return Head(0, _START)
    with shared_lock(folder) if isinstance(folder, Path) else nullcontext():
        head = _read_head(folder)
        lines = _lines(root)
        while head != (now := _read_head(folder)):  # on an object store somebody may append meanwhile
            head, lines = now, _lines(root)
        has_head = (folder / HEAD_FILE).exists()
    previous, n_unproven = b"", 0
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            chained = event["previous"]
            if event["event"] in (HEAD_MISSING, ADOPTED):
                n_unproven = number - 1 if event["event"] == HEAD_MISSING else 0
        except (ValueError, LookupError, TypeError, RecursionError):
            chained = None
        if chained != _digest(previous):
            message = (
                f"{AUDIT_LOG}, line {number} does not follow from the line before it: the log was changed"
            )
            raise TamperedError(message)
        previous = line
    if lines and not has_head:
        return Head(len(lines), _digest(lines[-1]), n_unproven=len(lines))
    end = None if head is None else _agreed(lines, head)
    if end is None:
        found = "is missing or unreadable" if head is None else f"says otherwise ({head.n_lines} lines)"
        message = f"{AUDIT_LOG} ends with line {len(lines)}, but {HEAD_FILE} {found}: the log was changed"
        raise TamperedError(message)
    return replace(end, n_unproven=n_unproven)


def _end(root: Place, last: bytes) -> Head:
    """Give the end that new lines follow from."""
    head = _read_head(root / _FOLDER) or Head(0, _START)
    if not head.announced and _digest(last) == head.digest:
        return head
    return _agreed(_lines(root), head) or head


def _agreed(lines: list[bytes], head: Head) -> Head | None:
    """Give the log's end where it is the head's, or that plus lines which were announced; else None."""
    n_more = len(lines) - head.n_lines
    if not 0 <= n_more <= len(head.announced):
        return None
    if _digest(lines[head.n_lines - 1] if head.n_lines else b"") != head.digest:
        return None
    if tuple(map(_digest, lines[head.n_lines :])) != head.announced[:n_more]:
        return None
    return Head(len(lines), _digest(lines[-1] if lines else b""))


def _chained(events: tuple[dict[str, Any], ...], previous: str) -> list[bytes]:
    lines: list[bytes] = []
    for event in events:
        line = {**event, "at": datetime.now(UTC).isoformat(), "previous": previous}
        lines.append(json.dumps(line, ensure_ascii=False).encode())
        previous = _digest(lines[-1])
    return lines


def _read_head(folder: Place) -> Head | None:
    """Read the head; None where there is none that can be read."""
    try:
        values = json.loads(_bytes(folder / HEAD_FILE))
        return Head(int(values["n_lines"]), str(values["digest"]), tuple(map(str, values["announced"])))
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _bytes(path: Place) -> bytes:
    return path.read_bytes() if isinstance(path, Path) else get(path)


def _write_head(folder: Place, head: Head) -> None:
    values = {"n_lines": head.n_lines, "digest": head.digest, "announced": head.announced}
    write_durably(folder / HEAD_FILE, json.dumps(values).encode() + b"\n")


def _append_object(root: "UPath", events: tuple[dict[str, Any], ...]) -> None:
    """Add events as one object, by the rules of `append`; to be called by the trial's only writer."""
    folder = root / _FOLDER
    head = _read_head(folder)
    # The whole log is read only after a kill: where nothing was announced, the head says where it ends.
    if head is None or head.announced or not _put_lines(folder, head, head.n_lines, events):
        there = _lines(root)
        if there and not (folder / HEAD_FILE).exists():
            head = Head(len(there), _digest(there[-1]))
            events = ({"event": HEAD_MISSING, "n_lines": head.n_lines}, *events)
        else:
            head = head or Head(0, _START)
            head = _agreed(there, head) or head
        fence(root)  # this process may have been stopped since it read its head
        if not _put_lines(folder, head, len(there), events):
            message = f"{AUDIT_LOG}: somebody else adds to the log at the same time; run again"
            raise BusyError(message)


def _put_lines(folder: "UPath", head: Head, n_there: int, events: tuple[dict[str, Any], ...]) -> bool:
    """Add lines that follow from a head; whether nobody else had put some at this place."""
    lines = _chained(events, head.digest)
    digests = tuple(map(_digest, lines))
    _write_head(folder, Head(head.n_lines, head.digest, digests))
    place = folder / OBJECTS_FOLDER / f"{n_there + 1:09d}.jsonl"
    if not put_new(place, b"".join(line + b"\n" for line in lines)):
        return False
    _write_head(folder, Head(head.n_lines + len(lines), digests[-1]))
    return True


def _lines(root: Place) -> list[bytes]:
    """Whole lines of the log."""
    if not isinstance(root, Path):
        folder = root / _FOLDER / OBJECTS_FOLDER
        parts = read_all(folder, sorted(versions(folder)))
        return b"".join(parts[name] for name in sorted(parts)).split(b"\n")[:-1]
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
