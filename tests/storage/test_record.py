"""Whether the record is as it was published."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from storage.arrays import content_digest, store_path, write_array, write_store
from storage.audit import AUDIT_LOG, append
from storage.errors import TamperedError
from storage.record import verify_record
from storage.tables import publish
from tests.storage.drawn_rows import row, visit_row


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a trial of two visits, one of them published three times, with one table less each time."""
    for number in range(3):
        digest = f"digest-{number}"
        later = visit_row()["published_at"] + timedelta(days=number)
        tables = ("scans", "slices", "flags")[: 3 - number]
        rows = {name: [row(name, result_digest=digest)] for name in tables}
        publish(tmp_path, visit_row(result_digest=digest, published_at=later), rows, "core lab", "night")
    publish(tmp_path, visit_row(subject_id="S02"), {}, "core lab", "night")
    return tmp_path


def test_an_untouched_record_is_as_published(root: Path) -> None:
    """Each current and each former state is compared."""
    found = verify_record(root)
    assert (found.n_visits, found.n_former, found.interrupted) == (2, 2, ())


def test_a_new_trial_is_as_published(tmp_path: Path) -> None:
    """Nothing was, and checking creates nothing."""
    assert verify_record(tmp_path).head.n_lines == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_each_changed_file_is_named(root: Path, change: str) -> None:
    """Current rows, former rows, and who superseded them."""
    files = [
        path
        for folder in ("tables", "history")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.name != "+columns.parquet"
    ]
    assert len(files) == 2 + 1 + 2 * 2 + 3 + 2
    for path in files:
        data = path.read_bytes()
        path.unlink()
        if change == "edited":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(TamperedError, match=str(path.relative_to(root))):
            verify_record(root)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
    assert verify_record(root).n_visits == 2


def test_an_added_file_is_named(root: Path) -> None:
    """Rows in a table that had none, and rows of a visit that was never published."""
    shutil.copy(root / "tables/scans/S01/V1.parquet", root / "tables/slices/S01/V1.parquet")
    with pytest.raises(TamperedError, match=r"tables/slices/S01/V1\.parquet was added"):
        verify_record(root)
    (root / "tables/slices/S01/V1.parquet").unlink()
    for table in ("visits", "scans"):
        shutil.copytree(root / f"tables/{table}/S01", root / f"tables/{table}/S03")
        unknown = rf"tables/{table}/S03/V1\.parquet: the log knows of no such visit"
        with pytest.raises(TamperedError, match=unknown):
            verify_record(root)
        shutil.rmtree(root / f"tables/{table}/S03")


@pytest.mark.parametrize(
    ("copied", "added"),
    [
        ("tables/scans/S02/extra.parquet", "tables/scans/S02/extra.parquet"),
        ("tables/scans/extra.parquet", "tables/scans/extra.parquet"),
        ("tables/scans/S01/V1.parquet.bak", "tables/scans/S01/V1.parquet.bak"),
        ("history/S01/V1/9/scans.parquet", "history/S01/V1/9/scans.parquet"),
        ("history/S01/V1/1/extra.parquet", "history/S01/V1/1/extra.parquet"),
        ("history/S01/note", "history/S01/note"),
    ],
    ids=["rows", "rows-of-nobody", "beside", "former-state", "in-a-former-state", "beside-former-states"],
)
def test_a_file_under_a_new_name_is_named(root: Path, copied: str, added: str) -> None:
    """Reading a table takes in all of its folder, and history is what an inspector reads."""
    former = root / "history/S01/V1/1/scans.parquet"
    (root / copied).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(former, root / copied)
    with pytest.raises(TamperedError, match=f"{added}: the log knows of no such"):
        verify_record(root)


def test_rows_in_the_file_without_rows_are_named(root: Path) -> None:
    """It is part of the table, and no publication names it."""
    shutil.copy(root / "tables/scans/S01/V1.parquet", root / "tables/scans/+columns.parquet")
    with pytest.raises(TamperedError, match=r"tables/scans/\+columns\.parquet holds rows"):
        verify_record(root)
    (root / "tables/scans/+columns.parquet").write_text("no Parquet")
    with pytest.raises(TamperedError, match=r"tables/scans/\+columns\.parquet holds rows"):
        verify_record(root)


@pytest.mark.parametrize("change", ["edited", "removed", "added", "all"])
def test_changed_arrays_are_named(tmp_path: Path, change: str) -> None:
    """Those of current and of former results; one that is published again cannot bless a change."""
    for number in range(2):
        with write_store(tmp_path, "S01", "V1", f"digest-{number}") as store:
            write_array(store, "values", np.arange(3.0), "1", "value")
    stores = [store_path(tmp_path, "S01", "V1", f"digest-{number}") for number in range(2)]
    for number, store_folder in enumerate(stores):
        _publish_arrays(tmp_path, number, content_digest(store_folder))
    assert verify_record(tmp_path).n_arrays == 2
    former = stores[0]
    if change == "edited":
        (chunk,) = former.glob("values/c*")
        chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    elif change == "removed":
        (former / "values" / "zarr.json").unlink()
    elif change == "added":
        (former / "note").write_text("x")
    else:
        shutil.rmtree(former)
    with pytest.raises(TamperedError, match=r"arrays/S01/V1/digest-0\.zarr (was changed|is missing)$"):
        verify_record(tmp_path)
    if change != "all":
        _publish_arrays(tmp_path, 0, content_digest(former))
        with pytest.raises(TamperedError, match=r"digest-0\.zarr was changed$"):
            verify_record(tmp_path)


def _publish_arrays(root: Path, number: int, digest: str) -> None:
    row_of_result = visit_row(
        result_digest=f"digest-{number}", published_at=datetime.now(UTC), run_id=f"{number}"
    )
    assert publish(root, row_of_result, {}, "core lab", "night", digest) == "published"


def test_states_that_a_former_version_published_are_counted_not_blamed(root: Path) -> None:
    """Its log names no digests of files, and has no head."""
    log = root / AUDIT_LOG
    events = [json.loads(line) for line in log.read_bytes().splitlines()]
    log.unlink()
    (log.parent / "head.json").unlink()
    for event in events[:-1]:
        append(root, {name: value for name, value in event.items() if name not in {"files", "arrays_digest"}})
    append(root, events[-1])
    (log.parent / "head.json").unlink()
    found = verify_record(root)
    assert (found.n_visits, found.n_former, found.n_unlisted) == (1, 0, 3 + 4)  # states, results
    assert found.head.n_unproven == len(events)


def test_a_log_that_is_gone_is_missed_by_the_tables(root: Path) -> None:
    """The log cannot say that there was one."""
    shutil.rmtree(root / "audit")
    with pytest.raises(TamperedError, match="the log knows of no such visit"):
        verify_record(root)


def test_tables_that_are_gone_are_missed_by_the_log(root: Path) -> None:
    """All at once, too."""
    shutil.rmtree(root / "tables")
    with pytest.raises(TamperedError, match="tables/ is missing"):
        verify_record(root)


def test_a_changed_log_is_found_first(root: Path) -> None:
    """What it says of the tables counts for nothing then."""
    log = root / AUDIT_LOG
    log.write_bytes(log.read_bytes().replace(b"core lab", b"core law", 1))
    with pytest.raises(TamperedError, match="does not follow"):
        verify_record(root)


def test_a_publication_that_a_kill_interrupted_is_named_not_blamed(root: Path) -> None:
    """Its files are half former, half new, until the next run."""
    staging = root / "tables/.staging/S01/V1"
    staging.mkdir(parents=True)
    (staging / "manifest.json").write_text("{}")
    (root / "tables/scans/S01/V1.parquet").unlink()
    found = verify_record(root)
    assert (found.n_visits, found.interrupted) == (1, ("S01/V1",))
