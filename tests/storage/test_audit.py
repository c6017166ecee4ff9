"""audit/log.jsonl."""

import hashlib
import json
import multiprocessing
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.audit import AUDIT_LOG, HEAD_FILE, adopt, append, read_events, verify
from storage.errors import TamperedError


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
    assert verify(tmp_path).n_lines == 3


def test_a_trial_without_events_is_whole(tmp_path: Path) -> None:
    """A new trial has no log."""
    assert verify(tmp_path).n_lines == 0
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
    with pytest.raises(TamperedError, match=r"line [23] does not follow"):
        verify(tmp_path)


@pytest.mark.parametrize("n_bytes", [1, 40], ids=str)
def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path, n_bytes: int) -> None:
    """It was never acknowledged; the chain goes on from the last whole line."""
    lines = _write(tmp_path)
    with (tmp_path / AUDIT_LOG).open("ab") as file:
        file.write(lines[0][:n_bytes])
    assert verify(tmp_path).n_lines == 3
    append(tmp_path, {"event": "after"})
    assert [event["event"] for event in read_events(tmp_path)] == ["test", "test", "test", "after"]
    assert verify(tmp_path).n_lines == 4


def test_a_kill_at_any_point_of_an_addition_leaves_a_log_that_is_whole(tmp_path: Path) -> None:
    """Two lines are added at once: none, one or both are there, and nothing looks like tampering."""
    found = set()
    for kill_at in range(1, 40):
        root = tmp_path / str(kill_at)
        _write(root, 2)
        child = multiprocessing.get_context("fork").Process(target=_append_until, args=(root, kill_at))
        child.start()
        child.join()
        found.add(verify(root).n_lines)
        append(root, {"event": "after"})
        last = list(read_events(root))[-1]
        assert (last["event"], verify(root).n_lines) == ("after", len(list(read_events(root))))
        if child.exitcode == 0:
            break
    assert found == {2, 3, 4}


def _append_until(root: Path, kill_at: int) -> None:
    """Add two lines and be killed before the n-th step; bytes go to disk in portions."""
    n_steps = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal n_steps
        if event in {"open", "os.rename"} and any(str(one).startswith(str(root)) for one in arguments):
            n_steps += 1
            if n_steps == kill_at:
                os._exit(1)

    sys.addaudithook(count)
    original = os.fsync

    def after_a_part(descriptor: int) -> None:
        nonlocal n_steps
        n_steps += 1
        if n_steps == kill_at:
            log = root / AUDIT_LOG
            if os.path.samestat(log.stat(), os.fstat(descriptor)):
                os.truncate(log, log.stat().st_size - 10)  # of what was written, this reached the disk
            os._exit(1)
        original(descriptor)

    os.fsync = after_a_part  # type: ignore[assignment]
    append(root, {"event": "test", "number": 2}, {"event": "test", "number": 3})


def test_every_changed_byte_is_found_out(tmp_path: Path) -> None:
    """Of the log and of its head: whichever byte, whatever it stands for."""
    _write(tmp_path, 2)
    for path in (tmp_path / AUDIT_LOG, tmp_path / "audit" / HEAD_FILE):
        data = path.read_bytes()
        is_log = path.name == AUDIT_LOG.name
        for index in range(len(data) - (0 if is_log else 1)):  # the head's line end says nothing
            for other in {data[index] ^ 1, ord("\n")} - {data[index]}:
                path.write_bytes(data[:index] + bytes([other]) + data[index + 1 :])
                if is_log or json.loads(data) != _json_or_none(path):
                    with pytest.raises(TamperedError):
                        verify(tmp_path)
        path.write_bytes(data)
    assert verify(tmp_path).n_lines == 2


def _json_or_none(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


@pytest.mark.parametrize("n_left", [0, 1, 4], ids=str)
def test_lines_cut_off_the_end_are_missed(tmp_path: Path, n_left: int) -> None:
    """The chain alone cannot tell; and what is added afterwards does not heal it."""
    lines = _write(tmp_path, 5)
    (tmp_path / AUDIT_LOG).write_bytes(b"".join(lines[:n_left]))
    with pytest.raises(TamperedError, match=f"ends with line {n_left}, but .* says otherwise .5 lines."):
        verify(tmp_path)
    append(tmp_path, {"event": "after"})
    with pytest.raises(TamperedError, match=f"line {n_left + 1} does not follow"):
        verify(tmp_path)


def test_a_log_without_head_is_neither_whole_nor_changed(tmp_path: Path) -> None:
    """A former version kept none, or it was removed, and lines with it: so until somebody adopts it."""
    lines = _write(tmp_path, 3)
    (tmp_path / "audit" / HEAD_FILE).unlink()
    (tmp_path / AUDIT_LOG).write_bytes(b"".join(lines[:2]))
    assert (verify(tmp_path).n_lines, verify(tmp_path).n_unproven) == (2, 2)
    append(tmp_path, {"event": "after"})
    assert [event["event"] for event in read_events(tmp_path)][2:] == ["head_missing", "after"]
    assert (verify(tmp_path).n_lines, verify(tmp_path).n_unproven) == (4, 2)
    assert adopt(tmp_path, "operator", "as in the back-up").n_unproven == 0
    adopted = list(read_events(tmp_path))[-1]
    assert (adopted["event"], adopted["n_lines"], adopted["why"]) == ("adopted", 2, "as in the back-up")
    with pytest.raises(TamperedError, match="nothing to adopt"):
        adopt(tmp_path, "operator", "again")
    (tmp_path / "audit" / HEAD_FILE).unlink()
    assert verify(tmp_path).n_unproven == 5


def test_a_log_without_head_can_be_adopted_at_once_but_not_mended(tmp_path: Path) -> None:
    """Its chain must hold."""
    lines = _write(tmp_path, 3)
    (tmp_path / "audit" / HEAD_FILE).unlink()
    (tmp_path / AUDIT_LOG).write_bytes(lines[0] + lines[2])
    with pytest.raises(TamperedError, match="line 2 does not follow"):
        adopt(tmp_path, "operator", "no")
    (tmp_path / AUDIT_LOG).write_bytes(b"".join(lines))
    assert (adopt(tmp_path, "operator", "yes").n_lines, verify(tmp_path).n_unproven) == (5, 0)


@pytest.mark.parametrize("removed", ["log", "all"])
def test_a_removed_log_is_missed_for_ever(tmp_path: Path, removed: str) -> None:
    """Nothing that is added heals it; only where log and head are both gone nobody knows of them."""
    _write(tmp_path)
    (tmp_path / AUDIT_LOG).unlink()
    if removed == "all":
        (tmp_path / "audit" / HEAD_FILE).unlink()
    for _ in range(2):
        with pytest.raises(TamperedError):
            verify(tmp_path)
        append(tmp_path, {"event": "after"})
        if removed == "all":
            break


def test_a_forged_line_at_the_end_is_found_out(tmp_path: Path) -> None:
    """It follows well, but nobody announced it."""
    lines = _write(tmp_path)
    forged = json.loads(lines[-1]) | {"previous": hashlib.sha256(lines[-1][:-1]).hexdigest()}
    (tmp_path / AUDIT_LOG).write_bytes(b"".join(lines) + json.dumps(forged).encode() + b"\n")
    with pytest.raises(TamperedError, match="ends with line 4"):
        verify(tmp_path)


def test_long_lines_are_chained_too(tmp_path: Path) -> None:
    """The last line is looked for from the end of the file, however long it is."""
    for length in (10_000, 1, 5_000):
        append(tmp_path, {"event": "x" * length, "text": "a\nb"})
    assert verify(tmp_path).n_lines == 3


def test_an_event_cannot_forge_the_chain(tmp_path: Path) -> None:
    """Time and chain are the log's own."""
    append(tmp_path, {"event": "test", "previous": "forged", "at": "yesterday"})
    append(tmp_path, {"event": "test"})
    assert verify(tmp_path).n_lines == 2


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
    assert verify(tmp_path).n_lines == 40


def test_a_line_is_json(tmp_path: Path) -> None:
    """Any tool can read the log."""
    (line,) = _write(tmp_path, 1)
    assert set(json.loads(line)) == {"event", "number", "at", "previous"}
