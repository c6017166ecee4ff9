"""What every store of a trial does: a folder, memory, and S3 on loopback."""

import io
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from storage import audit
from storage.array_objects import remove_unfinished
from storage.arrays import (
    content_digest,
    link_store,
    open_store,
    read_array,
    store_exists,
    store_path,
    write_array,
    write_store,
)
from storage.errors import AlreadyWrittenError, ConfigError, NotStoredError, TamperedError
from storage.history import former_rows
from storage.objects import files_under, remove
from storage.place import Place, relative_name
from storage.quarantine import upload_records
from storage.record import verify_record
from storage.reviews import read_reviews, record_review, was_recorded
from storage.schema import TABLES
from storage.tables import publish, read_table, recover
from storage.upload import incoming_folder
from tests.storage.drawn_rows import row, visit_row
from tests.storage.object_steps import killed_at_request

if TYPE_CHECKING:
    from upath import UPath

VISIT = ("S01", "V1")
FIRST = visit_row()
FIRST_ROWS = {"scans": [row("scans")], "flags": [row("flags"), row("flags", code="other")]}
SECOND = visit_row(result_digest="digest-2", published_at=FIRST["published_at"] + timedelta(days=1))
SECOND_ROWS = {
    "scans": [row("scans", result_digest="digest-2", ecv_fraction=0.3)],
    "slices": [row("slices", result_digest="digest-2")],
}
VALUES = np.arange(24, dtype=np.float32).reshape(3, 2, 4)


def _publish_first(root: Place) -> None:
    publish(root, FIRST, FIRST_ROWS, "core lab", "nightly")


def _publish_second(root: Place) -> None:
    publish(root, SECOND, SECOND_ROWS, "J. Doe", "rerun")


def _names(root: Place, folder: str) -> list[str]:
    names = [relative_name(path, root / folder) for path in files_under(root / folder)]
    return [name for name in names if "+columns" not in name]


def _write(root: Place, digest: str = "a", values: np.ndarray = VALUES) -> None:
    with write_store(root, *VISIT, digest) as group:
        write_array(group, "native/t1_ms", values, "ms", "slice row col")


def _read(root: Place, digest: str, name: str = "native/t1_ms") -> np.ndarray:
    values = read_array(open_store(root, *VISIT, digest), name)
    assert values is not None
    return values


def test_a_publication_can_be_read(place: Place) -> None:
    """With our reader, and with pandas on the table's folder."""
    _publish_first(place)
    publish(place, visit_row(subject_id="S02"), {}, "core lab", "nightly")
    assert read_table(place, "visits").to_pylist() == [FIRST, visit_row(subject_id="S02")]
    assert read_table(place, "flags", "S01").num_rows == 2
    assert read_table(place, "flags", "S02").num_rows == 0
    frame = pd.read_parquet(str(place / "tables" / "scans"))
    assert frame["site_id"].tolist() == ["01"]


@pytest.mark.parametrize("name", ["visits", "scans"])
def test_an_empty_trial_has_tables_with_all_columns(place: Place, name: str) -> None:
    """A query on a new trial gives no rows, not an error."""
    table = read_table(place, name)
    assert (table.num_rows, table.column_names) == (0, [column.name for column in TABLES[name]])
    assert recover(place) == ()
    assert audit.verify(place).n_lines == 0
    assert upload_records(place) == {}


def test_what_is_replaced_moves_to_history(place: Place) -> None:
    """With who and why, and the record proves it; a table without rows any more has no file."""
    _publish_first(place)
    _publish_second(place)
    assert _names(place, "tables") == [
        "scans/S01/V1.parquet",
        "slices/S01/V1.parquet",
        "visits/S01/V1.parquet",
    ]
    assert _names(place, "history/S01/V1/1") == [
        "flags.parquet",
        "scans.parquet",
        "superseded.json",
        "visits.parquet",
    ]
    assert former_rows(place, "visits") == {VISIT: [[FIRST]]}
    assert [event["event"] for event in audit.read_events(place)][-2:] == ["superseded", "published"]
    found = verify_record(place)
    assert (found.n_visits, found.n_former, found.interrupted) == (1, 1, ())


def test_a_result_is_withdrawn_into_history(place: Place) -> None:
    """A visit that is refused now has its state, and no result."""
    _publish_first(place)
    refused = visit_row(state="refused", reason="other day", result_digest=None)
    publish(place, refused, {}, "core lab", "nightly")
    assert read_table(place, "visits")["state"].to_pylist() == ["refused"]
    assert read_table(place, "scans").num_rows == 0
    assert _names(place, "tables") == ["visits/S01/V1.parquet"]
    assert former_rows(place, "scans") == {VISIT: [FIRST_ROWS["scans"]]}


def test_publishing_the_same_again_changes_nothing(place: Place) -> None:
    """Not even the audit log."""
    _publish_first(place)
    before = audit.verify(place)
    again = visit_row(device="cuda", run_id="other", published_at=SECOND["published_at"])
    assert publish(place, again, FIRST_ROWS, "core lab", "nightly") == "unchanged"
    assert audit.verify(place) == before
    assert read_table(place, "visits").to_pylist() == [FIRST]


def test_reviews_are_recorded(place: Place) -> None:
    """Once, and the former one is kept."""
    first = row("reviews", decision="exclude", file_digest="file-1", slice_digest="seen")
    assert record_review(place, [first]) == "recorded"
    assert record_review(place, [first]) == "unchanged"
    later = first | {"file_digest": "file-2", "decided_at": first["decided_at"] + timedelta(days=1)}
    assert record_review(place, [later]) == "recorded"
    assert was_recorded(place, VISIT, "file-1")
    assert [one.slice_digest for one in read_reviews(place)[VISIT]] == ["seen"]
    assert verify_record(place).n_reviews == 2


def test_the_audit_log_finds_what_was_changed(place: Place) -> None:
    """Lines that were edited, or cut off the end, or a file that was."""
    _publish_first(place)
    _publish_second(place)
    log = [path for path in files_under(place / "audit") if path.name.endswith(".jsonl")]
    data = [path.read_bytes() for path in log]
    for changed in (data[-1].replace(b"rerun", b"nihil"), data[-1][: data[-1][:-1].rfind(b"\n") + 1]):
        log[-1].write_bytes(changed)
        with pytest.raises(TamperedError, match="the log was changed"):
            verify_record(place)
    log[-1].write_bytes(data[-1])
    verify_record(place)
    scans = place / "tables" / "scans" / "S01" / "V1.parquet"
    frame = pd.read_parquet(io.BytesIO(scans.read_bytes()))
    sink = io.BytesIO()
    frame.assign(ecv_fraction=0.5).to_parquet(sink)
    scans.write_bytes(sink.getvalue())
    with pytest.raises(TamperedError, match=r"tables/scans/S01/V1.parquet was changed"):
        verify_record(place)


def test_a_log_that_lost_its_head_goes_on_and_can_be_adopted(place: Place) -> None:
    """Nobody can tell whether lines were cut off before."""
    audit.append(place, {"event": "one"}, {"event": "two"})
    remove(place / "audit" / "head.json")
    audit.append(place, {"event": "three"})
    assert audit.verify(place).n_unproven == 2
    assert audit.adopt(place, "J. Doe", "restored").n_unproven == 0
    assert [event["event"] for event in audit.read_events(place)] == [
        "one",
        "two",
        "head_missing",
        "three",
        "adopted",
    ]


def test_arrays_come_back_and_a_stage_adds_to_the_earlier_one(place: Place, tmp_path: Path) -> None:
    """The earlier one stays as it is, and bytes are the same on every store."""
    _write(place)
    _write(tmp_path / "elsewhere")
    digest = content_digest(store_path(tmp_path / "elsewhere", *VISIT, "a"))
    assert content_digest(store_path(place, *VISIT, "a")) == digest
    with write_store(place, *VISIT, "b", extends="a") as group:
        write_array(group, "native/r2", VALUES / 2, "1", "slice row col")
    np.testing.assert_array_equal(_read(place, "b"), VALUES)
    np.testing.assert_array_equal(_read(place, "b", "native/r2"), VALUES / 2)
    assert read_array(open_store(place, *VISIT, "a"), "native/r2") is None
    assert content_digest(store_path(place, *VISIT, "a")) == digest
    link_store(place, place / "whatif" / "x", *VISIT, "b")
    assert store_exists(place / "whatif" / "x", *VISIT, "b")


def test_arrays_are_written_once(place: Place) -> None:
    """The same again is fine, others are an error; a block that fails writes nothing."""
    _write(place)
    _write(place)
    with pytest.raises(AlreadyWrittenError, match="other arrays"):
        _write(place, values=VALUES + 1)
    np.testing.assert_array_equal(_read(place, "a"), VALUES)
    with pytest.raises(ZeroDivisionError), write_store(place, *VISIT, "b") as group:
        write_array(group, "native/t1_ms", VALUES / (1 // 0), "ms", "slice row col")
    with pytest.raises(NotStoredError, match="no arrays of result b"):
        open_store(place, *VISIT, "b")
    with (
        pytest.raises(NotStoredError, match="no arrays of stage b"),
        write_store(place, *VISIT, "c", extends="b"),
    ):
        pass


def test_an_upload_that_was_killed_is_not_there(objects_place: "UPath") -> None:
    """Wherever it was killed; it is written again, or removed when it is old."""
    n_left, n_kept = 0, 0
    for kill_at in range(1, 100):
        digest = f"{kill_at}"
        if not killed_at_request(kill_at, _write, objects_place, digest):
            break
        assert not store_exists(objects_place, *VISIT, digest)
        is_left = bool(files_under(store_path(objects_place, *VISIT, digest)))
        n_left += is_left
        # Which request leaves something differs: several are under way at once.
        if is_left and n_left % 2:
            n_kept += 1
        else:
            _write(objects_place, digest)
            np.testing.assert_array_equal(_read(objects_place, digest), VALUES)
    assert n_kept
    assert remove_unfinished(objects_place / "arrays") == 0
    assert remove_unfinished(objects_place / "arrays", -10.0) == n_kept
    left = {name.split("/")[2] for name in _names(objects_place, "arrays")}
    assert all(store_exists(objects_place, *VISIT, name.removesuffix(".zarr")) for name in left)


def test_uploads_of_a_url_are_in_a_folder_that_the_environment_names(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A trial in a folder has its own."""
    monkeypatch.delenv("CMR_INCOMING", raising=False)
    if place == tmp_path:
        assert incoming_folder(place) == tmp_path / "incoming"
        return
    with pytest.raises(ConfigError, match="set CMR_INCOMING to one that the night and all workers reach"):
        incoming_folder(place)
    monkeypatch.setenv("CMR_INCOMING", str(tmp_path / "uploads"))
    assert incoming_folder(place) == tmp_path / "uploads"
