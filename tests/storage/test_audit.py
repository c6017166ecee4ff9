"""audit/log.jsonl."""

import json
import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.audit import AUDIT_LOG, append, read_events, verify
from storage.errors import StorageError


def _write(root: Path, n_events: int = 3) -> list[bytes]:
    for number in range(n_events):
        append(root, {"event": "test", "number": number})
    return (root / AUDIT_LOG).read_bytes().splitlines(keepends=True)


def test_events_are_kept_in_order(tmp_path: Path) -> None:
    """With the time at which they were written."""
    _write(tmp_path)
    events = list(read_events(tmp_path))
    assert [event["number"] for event in events] == [0, 1, 2]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(events[0]["at"])).total_seconds()) < 60
    assert verify(tmp_path) == 3


def test_a_trial_without_events_is_whole(tmp_path: Path) -> None:
    """A new trial has no log."""
    assert verify(tmp_path) == 0
    assert list(read_events(tmp_path)) == []


@pytest.mark.parametrize("tampering", ["edited", "removed", "swapped", "inserted", "no-json"])
def test_a_changed_log_is_found_out(tmp_path: Path, tampering: str) -> None:
    """Any change but to the last line breaks the chain at a line that is named."""
    lines = _write(tmp_path, 5)
    if tampering == "edited":
        lines[1] = lines[1].replace(b'"number": 1', b'"number": 7')
    elif tampering == "removed":
        del lines[2]
    elif tampering == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    elif tampering == "inserted":
        lines.insert(2, lines[1])
    else:
        lines[2] = b"[]\n"
    (tmp_path / AUDIT_LOG).write_bytes(b"".join(lines))
    with pytest.raises(StorageError, match=r"line [23] does not follow"):
        verify(tmp_path)


@pytest.mark.parametrize("n_bytes", [1, 40], ids=str)
def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path, n_bytes: int) -> None:
    """It was never acknowledged; the chain goes on from the last whole line."""
    lines = _write(tmp_path)
    (tmp_path / AUDIT_LOG).write_bytes(b"".join(lines)[:-n_bytes])
    assert verify(tmp_path) == 2
    append(tmp_path, {"event": "after"})
    assert [event["event"] for event in read_events(tmp_path)] == ["test", "test", "after"]
    assert verify(tmp_path) == 3


def test_long_lines_are_chained_too(tmp_path: Path) -> None:
    """The last line is looked for from the end of the file, however long it is."""
    for length in (10_000, 1, 5_000):
        append(tmp_path, {"event": "x" * length, "text": "a\nb"})
    assert verify(tmp_path) == 3


def test_an_event_cannot_forge_the_chain(tmp_path: Path) -> None:
    """Time and chain are the log's own."""
    append(tmp_path, {"event": "test", "previous": "forged", "at": "yesterday"})
    append(tmp_path, {"event": "test"})
    assert verify(tmp_path) == 2


def _append_some(root: Path, writer: int) -> None:
    for number in range(20):
        append(root, {"event": "test", "writer": writer, "number": number})


def test_two_writers_share_one_chain(tmp_path: Path) -> None:
    """A rerun by hand during the night."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_some, args=(tmp_path, writer)) for writer in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert verify(tmp_path) == 40


def test_a_line_is_json(tmp_path: Path) -> None:
    """Any tool can read the log."""
    (line,) = _write(tmp_path, 1)
    assert set(json.loads(line)) == {"event", "number", "at", "previous"}
