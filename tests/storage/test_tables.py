"""Publication of tables, and what kills may do to it."""

import itertools
import json
import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from storage import audit
from storage.errors import StorageError
from storage.record import verify_record
from storage.schema import TABLES
from storage.staging import Recovery
from storage.tables import publish, read_table, recover
from tests.storage.drawn_rows import row, visit_row
from tests.storage.kills import failed, killed

FIRST = visit_row()
FIRST_ROWS = {"scans": [row("scans")], "flags": [row("flags"), row("flags", code="other")]}
SECOND = visit_row(result_digest="digest-2", published_at=FIRST["published_at"] + timedelta(days=1))
SECOND_ROWS = {
    "scans": [row("scans", result_digest="digest-2", ecv_fraction=0.3)],
    "slices": [row("slices", result_digest="digest-2")],
}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _publish_first(root: Path) -> None:
    publish(root, FIRST, FIRST_ROWS, "core lab", "nightly")


def _publish_second(root: Path) -> None:
    publish(root, SECOND, SECOND_ROWS, "J. Doe", "rerun")


def _contents(root: Path) -> dict[str, Any]:
    """All files of tables/ and history/, and the audit log without its times."""
    folders = [root / "tables", root / "history"]
    found: dict[str, Any] = {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for folder in folders
        for path in folder.rglob("*")
    }
    found["audit"] = [
        {key: value for key, value in event.items() if key not in {"at", "previous"}}
        for event in audit.read_events(root)
    ]
    return found


def _inodes(root: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in root.rglob("*")}


def test_a_publication_can_be_read(tmp_path: Path) -> None:
    """With our reader and, as promised, with pandas on the table's folder."""
    assert publish(tmp_path, FIRST, FIRST_ROWS, "core lab", "nightly") == "published"
    assert read_table(tmp_path, "visits").to_pylist() == [FIRST]
    assert read_table(tmp_path, "flags").num_rows == 2
    frame = pd.read_parquet(tmp_path / "tables" / "scans")
    assert frame["site_id"].tolist() == ["01"]


@pytest.mark.parametrize(
    ("name", "column"),
    [("scans", "qc_reasons"), ("slices", "used_native"), ("longitudinal", "protocol_deviations")],
)
def test_a_file_of_before_a_column_came_is_read(tmp_path: Path, name: str, column: str) -> None:
    """Its rows have no value there."""
    publish(tmp_path, FIRST, {"scans": [row("scans")], name: [row(name)]}, "core lab", "nightly")
    path = tmp_path / "tables" / name / "S01" / "V1.parquet"
    pq.write_table(pq.ParquetFile(path).read().drop_columns([column]), path)
    assert read_table(tmp_path, name)[column].to_pylist() == [None]


def test_tables_are_sorted_by_subject_and_visit(tmp_path: Path) -> None:
    """The order in which visits finish means nothing."""
    for subject_id, visit_id in (("S02", "V1"), ("S01", "V2"), ("S01", "V1")):
        publish(tmp_path, visit_row(subject_id=subject_id, visit_id=visit_id), {}, "core lab", "nightly")
    table = read_table(tmp_path, "visits")
    assert table["subject_id"].to_pylist() == ["S01", "S01", "S02"]
    assert table["visit_id"].to_pylist() == ["V1", "V2", "V1"]


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_has_all_its_columns(tmp_path: Path, name: str) -> None:
    """A query on a new trial gives no rows, not an error."""
    table = read_table(tmp_path, name)
    assert (table.num_rows, table.column_names) == (0, [column.name for column in TABLES[name]])


def test_publishing_the_same_again_changes_no_file(tmp_path: Path) -> None:
    """Device, run, timings and date say how a result came about, not what it is."""
    _publish_first(tmp_path)
    before = _inodes(tmp_path)
    again = visit_row(
        device="cuda", seconds_intake=9.0, run_id="other", published_at=datetime(2027, 1, 1, tzinfo=UTC)
    )
    assert publish(tmp_path, again, FIRST_ROWS, "core lab", "nightly") == "unchanged"
    assert _inodes(tmp_path) == before


@pytest.mark.parametrize(
    "values", [{"state": "flagged"}, {"reason": "other"}, {"upload_ids": []}, {"code_version": "2"}], ids=str
)
def test_any_other_change_is_published(tmp_path: Path, values: dict[str, Any]) -> None:
    """A new reason is news too."""
    _publish_first(tmp_path)
    assert publish(tmp_path, visit_row(**values), FIRST_ROWS, "core lab", "nightly") == "published"


def test_what_is_replaced_moves_to_history(tmp_path: Path) -> None:
    """With who, why, when and by what it was superseded; nothing obscures an earlier value."""
    _publish_first(tmp_path)
    former = (tmp_path / "tables/scans/S01/V1.parquet").read_bytes()
    _publish_second(tmp_path)
    folder = tmp_path / "history/S01/V1/1"
    assert _names(folder) == [
        "flags.parquet",
        "scans.parquet",
        "superseded.json",
        "visits.parquet",
    ]
    assert (folder / "scans.parquet").read_bytes() == former
    assert json.loads((folder / "superseded.json").read_text()) == {
        "who": "J. Doe",
        "why": "rerun",
        "when": "2026-03-06T01:00:00+00:00",
        "superseded_by": {"result_digest": "digest-2", "state": "done"},
    }


def test_history_is_numbered(tmp_path: Path) -> None:
    """Every earlier state can be told from the next."""
    for number in range(11):
        publish(tmp_path, visit_row(reason=str(number)), {}, "core lab", "nightly")
    assert sorted(map(int, _names(tmp_path / "history/S01/V1"))) == list(range(1, 11))


def test_a_table_without_rows_has_no_file(tmp_path: Path) -> None:
    """Flags that are gone must not linger."""
    _publish_first(tmp_path)
    _publish_second(tmp_path)
    assert not (tmp_path / "tables/flags/S01/V1.parquet").exists()
    assert (tmp_path / "tables/slices/S01/V1.parquet").exists()


def test_a_failed_visit_keeps_no_result(tmp_path: Path) -> None:
    """Its former rows are history; the row in visits says why."""
    _publish_first(tmp_path)
    publish(
        tmp_path, visit_row(state="failed", result_digest=None, reason="error"), {}, "core lab", "nightly"
    )
    assert read_table(tmp_path, "scans").num_rows == 0
    assert read_table(tmp_path, "visits")["state"].to_pylist() == ["failed"]


def test_every_publication_is_logged_once(tmp_path: Path) -> None:
    """Who, why, what; and the chain holds."""
    _publish_first(tmp_path)
    _publish_first(tmp_path)
    _publish_second(tmp_path)
    logged = list(audit.read_events(tmp_path))
    events = [event for event in logged if event["event"] == "published"]
    assert [(event["who"], event["result_digest"], event["history_number"]) for event in events] == [
        ("core lab", "digest-1", None),
        ("J. Doe", "digest-2", 1),
    ]
    assert [event["event"] for event in logged] == ["accepted", "published", "superseded", "published"]
    assert (logged[0]["upload_id"], logged[0]["who"]) == ("u-3fa9c1d2e4", "core lab")
    assert (logged[2]["result_digest"], logged[2]["why"]) == ("digest-1", "rerun")
    assert audit.verify(tmp_path).n_lines == 4


def test_an_upload_is_accepted_or_refused_once(tmp_path: Path) -> None:
    """A line when it is settled, and one when the verdict changes; a broken intake settles nothing."""
    uploads = {"upload_ids": ["u-1", "u-2"], "upload_digests": ["1", "2"]}
    for state, stage, reason, more in (
        ("failed", "intake", "the worker died", {}),
        ("refused", "intake", "no native series", {}),
        ("refused", "intake", "still no native series", {}),
        ("failed", "quantify", "an error", {}),
        ("done", None, "", {"upload_ids": ["u-2", "u-3"], "upload_digests": ["2", "3"]}),
    ):
        publish(
            tmp_path,
            visit_row(state=state, failed_stage=stage, reason=reason, **{**uploads, **more}),
            {},
            "core lab",
            "nightly",
        )
    settled = [
        (event["event"], event["upload_id"], event.get("reason"))
        for event in audit.read_events(tmp_path)
        if "upload_id" in event
    ]
    assert settled == [
        ("refused", "u-1", "no native series"),
        ("refused", "u-2", "no native series"),
        ("accepted", "u-1", None),
        ("accepted", "u-2", None),
        ("accepted", "u-3", None),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(
            {"scans": [row("scans", subject_id="S02")]}, "column subject_id: a row is not of", id="subject"
        ),
        pytest.param(
            {"scans": [row("scans", result_digest="x")]}, "column result_digest: a row is not", id="digest"
        ),
        pytest.param(
            {"scans": [row("scans", ecv_fraction="x")]}, "table scans: row 0, column ecv_fraction", id="type"
        ),
        pytest.param({"visits": [visit_row()]}, "its row is handed over by itself", id="visits"),
        pytest.param({"scan": [{}]}, "no table 'scan'", id="table"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, rows: dict[str, list[dict[str, Any]]], message: str
) -> None:
    """A half-written publication is worse than none."""
    with pytest.raises(StorageError, match=message):
        publish(tmp_path, visit_row(), rows, "core lab", "nightly")
    assert _names(tmp_path) == []


def _publish_many(root: Path, writer: int) -> None:
    for number in range(10):
        digest = f"{writer}-{number}"
        rows = {"scans": [row("scans", result_digest=digest)]}
        publish(root, visit_row(result_digest=digest), rows, str(writer), "test")


def test_two_nights_at_once_tear_no_row(tmp_path: Path) -> None:
    """One after the other: every former state is in history, and the tables agree."""
    context = multiprocessing.get_context("fork")
    nights = [context.Process(target=_publish_many, args=(tmp_path, writer)) for writer in range(2)]
    for night in nights:
        night.start()
    seen = 0
    while any(night.is_alive() for night in nights):
        visits, scans = read_table(tmp_path, "visits"), read_table(tmp_path, "scans")
        seen += visits.num_rows
        assert visits.num_rows <= 1
        assert scans.num_rows <= 1
    assert seen
    assert verify_record(tmp_path).n_former == 19
    assert len(_names(tmp_path / "history/S01/V1")) == 19
    assert read_table(tmp_path, "scans")["result_digest"] == read_table(tmp_path, "visits")["result_digest"]


@pytest.mark.slow
def test_a_kill_at_any_point_is_made_whole(tmp_path: Path) -> None:
    """Either it happened or it did not, even if the recovery is killed too; repeating it completes it."""
    undisturbed = tmp_path / "undisturbed"
    _publish_first(undisturbed)
    before = _contents(undisturbed)
    _publish_second(undisturbed)
    after = _contents(undisturbed)
    outcomes = []
    for kill_at in itertools.count(1):
        root = tmp_path / str(kill_at)
        _publish_first(root)
        if not killed(root, _publish_second, kill_at):
            break
        digests = set(read_table(root, "visits")["result_digest"].to_pylist())
        assert set(read_table(root, "scans")["result_digest"].to_pylist()) <= digests
        killed(root, recover, 1 + kill_at % 7)
        recover(root)
        assert verify_record(root).n_visits == 1
        assert _contents(root) in (before, after)
        outcomes.append(_contents(root) == after)
        _publish_second(root)
        assert _contents(root) == after
        assert verify_record(root).n_former == 1
    assert outcomes == sorted(outcomes)
    assert {False, True} == set(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize(("n_steps", "ends"), [(1, {"told", "done"}), (4, {"told", "done", "unknown"})])
def test_an_error_of_the_disk_is_told_only_if_nothing_happened(
    tmp_path: Path, n_steps: int, ends: set[str]
) -> None:
    """Whatever steps it hits: who is told so records a failure, which must not take the place of a result."""
    undisturbed = tmp_path / "undisturbed"
    _publish_first(undisturbed)
    before = _contents(undisturbed)
    _publish_second(undisturbed)
    after = _contents(undisturbed)
    seen = set()
    for fail_at in itertools.count(1):
        root = tmp_path / str(fail_at)
        _publish_first(root)
        end = failed(root, _publish_second, fail_at, n_steps)
        if end is None:
            break
        if end == "told":
            assert _contents(root) == before, fail_at
        recover(root)
        assert _contents(root) in {"told": (before,), "done": (after,), "unknown": (before, after)}[end]
        seen.add(end)
    assert seen == ends


@pytest.mark.slow
def test_recovery_says_what_it_did(tmp_path: Path) -> None:
    """The night's log names the visits."""
    _publish_first(tmp_path)
    assert recover(tmp_path) == ()
    actions: set[Recovery] = set()
    for kill_at in itertools.count(1):
        root = tmp_path / str(kill_at)
        if not killed(root, _publish_first, kill_at):
            break
        actions |= set(recover(root))
    assert actions == {Recovery("S01", "V1", "removed"), Recovery("S01", "V1", "rolled forward")}


def test_a_new_trial_has_nothing_to_recover(tmp_path: Path) -> None:
    """And recovery creates nothing in it."""
    assert recover(tmp_path) == ()
    assert _names(tmp_path) == []


def test_the_folder_of_every_table_can_be_read_after_the_first_publication(tmp_path: Path) -> None:
    """A trial without flags has a table of flags with its columns and no rows."""
    publish(tmp_path, FIRST, {"scans": [row("scans")]}, "core lab", "nightly")
    for name, columns in TABLES.items():
        frame = pd.read_parquet(tmp_path / "tables" / name)
        assert list(frame.columns) == [column.name for column in columns]
        assert len(frame) == (1 if name in {"visits", "scans"} else 0)
