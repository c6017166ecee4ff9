"""One writer at a time on an object store."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from storage import audit, lease
from storage.errors import BusyError, LeaseLostError
from storage.lease import LEASE_FOLDER, Lease, fence, hold, seems_held, writing
from storage.lock import night_underway
from storage.objects import put, remove, versions
from storage.running import forget_run, marked_running, running_nights
from storage.tables import publish
from tests.storage.drawn_rows import visit_row

if TYPE_CHECKING:
    from upath import UPath

TTL_S = 0.6


@pytest.fixture(autouse=True)
def _short_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "TTL_S", TTL_S)


def _die(held: Lease) -> None:
    """End as a killed process does: without a word."""
    held._ended.set()
    held._thread.join()


def test_a_second_writer_is_refused_while_the_first_lives(objects_place: "UPath") -> None:
    """It is told who is at work; afterwards it is let in, though the first one has been there."""
    first = lease._acquire(objects_place)  # as another process holds it
    try:
        with pytest.raises(BusyError, match=r"another night or writer is at work \(.*process \d+ since"):
            publish(objects_place, visit_row(), {}, "core lab", "nightly")
        assert seems_held(objects_place)
    finally:
        first.end()
    assert not seems_held(objects_place)
    assert publish(objects_place, visit_row(), {}, "core lab", "nightly") == "published"


def test_a_lease_outlives_its_term_while_it_is_renewed(objects_place: "UPath") -> None:
    """A night takes hours."""
    with hold(objects_place):
        time.sleep(2 * TTL_S)
        fence(objects_place)
        with pytest.raises(BusyError):
            lease._acquire(objects_place)


def test_a_dead_writer_is_followed_by_one_and_is_told_so(objects_place: "UPath") -> None:
    """One that only slept finds that it has lost the trial before it writes again."""
    asleep = lease._acquire(objects_place)
    _die(asleep)
    began = time.monotonic()
    with hold(objects_place):
        assert time.monotonic() - began >= TTL_S  # a live one was given its time
        with pytest.raises(LeaseLostError, match="silent for more than"):
            asleep.check()
        fence(objects_place)
        assert (
            len(versions(objects_place / LEASE_FOLDER)) <= 2
        )  # the sleeper's last words, and its follower's
    with hold(objects_place):
        assert len(versions(objects_place / LEASE_FOLDER)) == 1


def test_of_many_followers_one_is_let_in(objects_place: "UPath") -> None:
    """All watch the same dead one."""
    _die(lease._acquire(objects_place))
    barrier = threading.Barrier(4)

    def follow(_: int) -> Lease | None:
        barrier.wait()
        try:
            return lease._acquire(objects_place)
        except BusyError:
            return None

    with ThreadPoolExecutor(4) as pool:
        held = [one for one in pool.map(follow, range(4)) if one is not None]
    for one in held:
        one.end()
    assert len(held) == 1


def test_a_process_holds_a_trial_once_and_writes_under_that(memory_place: "UPath") -> None:
    """A second night in the same process is refused like any other."""
    with night_underway(memory_place):
        with pytest.raises(BusyError, match="this process"), night_underway(memory_place):
            pass
        with writing(memory_place), writing(memory_place):
            fence(memory_place)


def test_a_writer_that_slept_adds_nothing_to_the_audit_log(
    memory_place: "UPath", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that fell asleep when it had read where the log ends."""
    read_lines = audit._lines
    with hold(memory_place):
        audit.append(memory_place, {"event": "one"})
        remove(memory_place / "audit" / "head.json")  # so that the whole log is read first

        def sleep(root: "UPath") -> list[bytes]:
            lines = read_lines(root)
            monkeypatch.setattr(audit, "_lines", read_lines)
            _die(lease._held[str(root)])
            lease._acquire(root).end()
            return lines

        monkeypatch.setattr(audit, "_lines", sleep)
        with pytest.raises(LeaseLostError):
            audit.append(memory_place, {"event": "two"})
    assert [event["event"] for event in audit.read_events(memory_place)] == ["one"]


def test_marks_of_nights_that_died_are_told(objects_place: "UPath") -> None:
    """Whoever holds the trial knows that no other run lives."""
    with marked_running(objects_place, "dead"):
        (objects_place / "running" / "dead").fs.pipe_file(f"{objects_place.path}/running/copy", b"")
    with night_underway(objects_place), marked_running(objects_place, "alive") as dead:
        put(objects_place / "running" / ".probe", b"")  # a night's own, of before it held the trial
        assert running_nights(objects_place) == ["alive", "copy"]
        assert dead == ["copy"]
        forget_run(objects_place, "copy")
        assert running_nights(objects_place) == ["alive"]
    assert running_nights(objects_place) == []
