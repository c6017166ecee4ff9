"""Publications on an object store, killed and read at each of their requests."""

import itertools
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from storage import audit, lease
from storage.errors import BusyError
from storage.objects import files_under
from storage.place import relative_name
from storage.record import verify_record
from storage.schema import TABLES
from storage.tables import publish, read_tables, recover
from tests.storage.drawn_rows import visit_row
from tests.storage.object_steps import at_each_request, failed_at_request, killed_at_request
from tests.storage.test_object_store import FIRST, FIRST_ROWS, SECOND, SECOND_ROWS

if TYPE_CHECKING:
    from upath import UPath

NAMES = ("visits", "scans", "slices", "flags")
OLD = {"visits": [FIRST], "slices": [], **FIRST_ROWS}
NEW = {"visits": [SECOND], "flags": [], **SECOND_ROWS}


def _publish_first(root: "UPath") -> None:
    publish(root, FIRST, FIRST_ROWS, "core lab", "nightly")


def _publish_second(root: "UPath") -> str:
    return publish(root, SECOND, SECOND_ROWS, "J. Doe", "rerun")


def _read(root: "UPath") -> dict[str, Any]:
    return {name: table.to_pylist() for name, table in read_tables(root, NAMES).items()}


def _contents(root: "UPath") -> dict[str, Any]:
    """All files of tables/ and history/, and the audit log without its times."""
    found: dict[str, Any] = {
        relative_name(path, root): path.read_bytes()
        for folder in ("tables", "history")
        for path in files_under(root / folder)
    }
    found["audit"] = [
        {key: value for key, value in event.items() if key not in {"at", "previous"}}
        for event in audit.read_events(root)
    ]
    return found


def _copied(root: "UPath") -> "UPath":
    """Give a copy of a trial beside it."""
    copy = root.parent / secrets.token_hex(6)
    for path in files_under(root):
        (copy / relative_name(path, root)).fs.pipe_file(
            f"{copy.path}/{relative_name(path, root)}", path.read_bytes()
        )
    return copy


@pytest.fixture
def _dead_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a lease that nobody renews for a dead one without the wait, which has tests of its own."""
    monkeypatch.setattr(lease, "_is_alive", lambda *_: False)


def _kill_points(root: "UPath", every: int) -> Iterator[tuple[int, "UPath"]]:
    """Kill a publication at every n-th request, each time in a copy of the trial, until it has no more."""
    for kill_at in range(1, 500, every):
        copy = _copied(root)
        if not killed_at_request(kill_at, _publish_second, copy):
            return
        yield kill_at, copy


def _check_killed(copy: "UPath", undisturbed: dict[str, Any]) -> bool:
    """Check what a killed publication left, and that it can be gone on with; whether it had happened."""
    left = _read(copy)
    assert left in (OLD, NEW)
    recover(copy)
    assert _read(copy) == left
    assert not [path for path in files_under(copy / "tables") if ".staging" in str(path)]
    assert verify_record(copy).interrupted == ()
    assert _publish_second(copy) == ("unchanged" if left == NEW else "published")
    assert _contents(copy) == undisturbed
    return left == NEW


@pytest.mark.usefixtures("_dead_at_once")
@pytest.mark.parametrize(
    ("objects_place", "every"),
    [pytest.param("memory", 2, id="memory"), pytest.param("s3", 7, id="s3", marks=pytest.mark.slow)],
    indirect=["objects_place"],
)
def test_a_killed_publication_is_whole_or_never_happened(objects_place: "UPath", every: int) -> None:
    """For readers at once, whatever request it was killed at, and for good when the next writer has begun."""
    _publish_first(objects_place)
    whole = _copied(objects_place)
    _publish_second(whole)
    undisturbed = _contents(whole)
    happened = [_check_killed(copy, undisturbed) for _, copy in _kill_points(objects_place, every)]
    assert len(happened) * every > 20
    assert happened == sorted(happened)  # from one moment on
    assert {False, True} == set(happened)


@pytest.mark.usefixtures("_dead_at_once")
def test_a_recovery_can_be_killed_too(memory_place: "UPath") -> None:
    """Each of its steps can be repeated."""
    _publish_first(memory_place)
    whole = _copied(memory_place)
    _publish_second(whole)
    undisturbed = _contents(whole)
    killed = [copy for _, copy in _kill_points(memory_place, 16)]
    n_kills = 0
    for copy in killed:
        before = _read(copy)
        for kill_at in range(1, 100, 9):
            if not killed_at_request(kill_at, recover, copy):
                break
            n_kills += 1
            assert _read(copy) == before
        _check_killed(copy, undisturbed)
    assert n_kills > 6


def test_readers_see_the_old_or_the_new_result_at_each_request_of_a_writer(memory_place: "UPath") -> None:
    """And never the old one after the new one."""
    _publish_first(memory_place)
    seen = []
    with at_each_request(lambda _: seen.append(_read(memory_place))):
        _publish_second(memory_place)
    assert len(seen) > 20
    assert [one in (OLD, NEW) for one in seen] == [True] * len(seen)
    is_new = [one == NEW for one in seen]
    assert is_new == sorted(is_new)
    assert set(is_new) == {False, True}


def test_a_reader_sees_a_whole_result_though_others_are_published_at_each_request(
    memory_place: "UPath",
) -> None:
    """It reads again what has changed."""
    _publish_first(memory_place)
    for publish_at in range(1, 100):
        copy = _copied(memory_place)
        if not _read_with_news(copy, publish_at):
            break
    assert publish_at > len(NAMES)


def _read_with_news(root: "UPath", publish_at: int) -> bool:
    """Read while another publishes at the n-th request; whether that was reached."""
    reached = []

    def step(number: int) -> None:
        if number == publish_at:
            reached.append(number)
            _publish_second(root)

    with at_each_request(step):
        assert _read(root) in (OLD, NEW)
    return bool(reached)


@pytest.mark.parametrize("objects_place", ["s3"], indirect=True)
def test_a_publication_makes_few_requests(objects_place: "UPath") -> None:
    """Each one takes the store's latency; what replaces a result makes the most of them."""
    _publish_first(objects_place)
    numbers: list[int] = []
    with lease.hold(objects_place), at_each_request(numbers.append):
        _publish_second(objects_place)
    assert 60 < len(numbers) <= 80


def test_an_error_of_the_store_is_told_only_if_nothing_happened(memory_place: "UPath") -> None:
    """Whatever request it hits, if the next ones are answered."""
    _publish_first(memory_place)
    before, whole = _contents(memory_place), _copied(memory_place)
    _publish_second(whole)
    after, outcomes = _contents(whole), []
    for fail_at in itertools.count(1):
        copy = _copied(memory_place)
        with lease.hold(copy):
            is_told = failed_at_request(fail_at, _publish_second, copy)
        if is_told is None:
            break
        assert _contents(copy) == (before if is_told else after), fail_at
        outcomes.append(is_told)
    assert {False, True} == set(outcomes)


def test_two_nights_never_publish_at_once(objects_place: "UPath", monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused and writes nothing."""
    monkeypatch.setattr(lease, "TTL_S", 1.0)
    with lease.hold(objects_place):
        _publish_first(objects_place)
        before = _contents(objects_place)
        other = lease._held.pop(str(objects_place))  # another process knows nothing of it
        try:
            with pytest.raises(BusyError, match="another night or writer is at work"):
                _publish_second(objects_place)
        finally:
            lease._held[str(objects_place)] = other
        assert _contents(objects_place) == before


def test_the_audit_log_loses_no_line_that_was_acknowledged(memory_place: "UPath") -> None:
    """Wherever a writer was killed; and it says nothing that was not to be said."""
    n_told = 0
    with lease.hold(memory_place):
        for number in range(1, 60):
            event = {"event": "told", "number": number}
            kill_at = number // 2 if number % 2 else 10_000
            if not killed_at_request(kill_at, audit.append, memory_place, event):
                n_told += 1
                assert list(audit.read_events(memory_place))[-1]["number"] == number
            audit.verify(memory_place)
    numbers = [event["number"] for event in audit.read_events(memory_place)]
    assert numbers == sorted(set(numbers))
    assert 29 <= n_told < len(numbers) < 59


@pytest.mark.parametrize("name", TABLES)
def test_each_table_stands_with_its_columns(memory_place: "UPath", name: str) -> None:
    """From the first publication on, so that whoever reads a folder finds them."""
    publish(memory_place, visit_row(), {}, "core lab", "nightly")
    assert (memory_place / "tables" / name / "+columns.parquet").exists()
