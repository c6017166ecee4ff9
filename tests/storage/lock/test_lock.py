"""Locks: frozen copies of the record."""

import hmac
import json
import multiprocessing
import shutil
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

import pandas as pd
import pytest

from storage import audit
from storage.arrays import content_digest, store_path
from storage.config import load_config
from storage.deidentify import KEY_VARIABLE, date_shift
from storage.digest import file_digest
from storage.errors import AlreadyWrittenError, ConfigError, NotStoredError, StorageError, TamperedError
from storage.lock import lock_names, night_underway, verify_lock
from storage.plan import read_plan
from storage.record import RecordCheck, verify_record
from storage.recorded_dates import recorded_plan
from tests.storage.drawn_uploads import DEMO_CONFIG
from tests.storage.lock.drawn import FLAGS, PLAN, contents, free, lock, publish_result


def test_a_lock_holds_tables_and_what_they_came_from(root: Path) -> None:
    """The manifest names each file by digest, and the arrays, which stay where they are."""
    head = audit.verify(root)
    made = lock(root)
    folder = root / "locks/interim"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    copied = {path: data for path, data in contents(folder).items() if path.startswith("tables/")}
    assert copied == {f"tables/{path}": data for path, data in contents(root / "tables").items()}
    for file in ("trial.toml", "subjects.csv"):
        assert (folder / file).read_bytes() == (root / file).read_bytes()
    assert manifest["files"] == {
        path: file_digest(folder / path) for path in contents(folder) if path != "manifest.json"
    }
    arrays = {"S01/V1/digest-1": content_digest(store_path(root, "S01", "V1", "digest-1"))}
    assert manifest["arrays"] == arrays
    assert manifest["audit"] == {"n_lines": head.n_lines, "digest": head.digest}
    assert manifest["config_digest"] == load_config(root / "trial.toml").digest()
    said = {fact: manifest[fact] for fact in ("name", "who", "why", "code_version", "states")}
    assert said == {
        **{"name": "interim", "who": "J. Doe", "why": "analysis", "code_version": "1.0"},
        "states": {"done": 1, "waiting": 1},
    }
    assert made == verify_lock(root, "interim")
    assert (made.n_files, made.n_arrays, made.other_configuration) == (len(manifest["files"]), 1, ())
    assert made.manifest_digest == file_digest(folder / "manifest.json")
    assert lock_names(root) == ("interim",)


def test_a_lock_of_shifted_dates_holds_no_real_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real plan beside the shifted tables would give each subject's shift by one subtraction."""
    config = root / "trial.toml"
    config.write_text(config.read_text().replace('dates = "keep"', 'dates = "shift"'))
    (root / "subjects.csv").write_text(
        "subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id\n"
        "S01,V1,2026-03-01,14,0.42,2026-02-27,01\n02,V1,2026-03-01,14,,,01\n"
    )
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="is missing"):
        lock(root)
    key = bytes(range(32))
    monkeypatch.setenv(KEY_VARIABLE, key.hex())
    lock(root)
    folder = root / "locks/interim"
    real, moved = read_plan(root), read_plan(folder)
    for one, other in zip(real, moved, strict=True):
        assert other == recorded_plan(one, date_shift(one.subject_id, key))
        assert other.visit_date != one.visit_date
    text = (folder / "subjects.csv").read_text()
    assert "2026-03-01" not in text
    assert "2026-02-27" not in text
    manifest = (folder / "manifest.json").read_text()
    assert file_digest(root / "subjects.csv") not in manifest  # it could be tried
    seal = hmac.new(key, (root / "subjects.csv").read_bytes(), "sha256").hexdigest()
    assert json.loads(manifest)["plan_hmac_sha256"] == seal
    assert verify_lock(root, "interim").name == "interim"


def test_a_lock_is_put_on_record(locked: Path) -> None:
    """Who, why and the manifest's digest; the record itself stays whole."""
    (event,) = [event for event in audit.read_events(locked) if event["event"] == "locked"]
    assert (event["name"], event["who"], event["why"]) == ("interim", "J. Doe", "analysis")
    assert event["manifest"] == file_digest(locked / "locks/interim/manifest.json")
    assert verify_record(locked).n_visits == 2


def test_a_lock_is_read_only(locked: Path) -> None:
    """Every file and folder of it; the trial's own files stay as they were."""
    folder = locked / "locks/interim"
    assert {path.stat().st_mode & 0o222 for path in [folder, *folder.rglob("*")]} == {0}
    assert (locked / FLAGS).stat().st_mode & 0o200
    assert (locked / FLAGS).stat().st_ino != (folder / FLAGS).stat().st_ino


def test_later_nights_leave_a_lock_alone(locked: Path) -> None:
    """It reads with pandas as it was, and still verifies; a second one holds what is new."""
    before = contents(locked / "locks")
    publish_result(locked, "later", ecv_fraction=0.4)
    assert verify_lock(locked, "interim").name == "interim"
    assert contents(locked / "locks") == before
    assert pd.read_parquet(locked / "locks/interim/tables/scans")["ecv_fraction"].tolist() == [1.5]
    assert pd.read_parquet(locked / "tables/scans")["ecv_fraction"].tolist() == [0.4]
    assert pd.read_parquet(locked / "locks/interim/tables/visits")["subject_id"].tolist() == ["02", "S01"]
    lock(locked, "final")
    assert pd.read_parquet(locked / "locks/final/tables/scans")["ecv_fraction"].tolist() == [0.4]
    assert verify_lock(locked, "interim").name == "interim"
    assert lock_names(locked) == ("final", "interim")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/abs",
        "two words",
        ".hidden",
        "-x",
        "a\n",
        "ä",
        "x" * 65,
        "a\0b",
        "~",
        "*",
    ],
    ids=repr,
)
def test_a_name_that_is_no_plain_name_is_refused(root: Path, name: str) -> None:
    """It becomes a folder, and nothing else than that."""
    for action in (lock, verify_lock):
        with pytest.raises(StorageError, match="cannot be the name of a lock"):
            action(root, name)
    assert not (root / "locks").exists()


@pytest.mark.parametrize("taken", ["lock", "file", "dangling", "link"])
def test_a_name_that_is_taken_is_refused(root: Path, taken: str) -> None:
    """By a lock, or by whatever lies there."""
    place = root / "locks/interim"
    place.parent.mkdir()
    if taken == "lock":
        lock(root)
    elif taken == "file":
        place.write_text("x")
    else:
        place.symlink_to(root / ("nowhere" if taken == "dangling" else "tables"))
    n_lines = audit.verify(root).n_lines
    with pytest.raises(AlreadyWrittenError, match="there is a lock interim already"):
        lock(root)
    assert audit.verify(root).n_lines == n_lines


def test_a_lock_that_was_removed_is_missed_and_not_made_anew(locked: Path) -> None:
    """Another one under its name would pass for it."""
    free(locked / "locks/interim")
    shutil.rmtree(locked / "locks/interim")
    with pytest.raises(TamperedError, match=r"locks/interim is missing; J\. Doe locked it"):
        verify_lock(locked, "interim")
    with pytest.raises(AlreadyWrittenError, match="but it is gone; restore locks/interim from a back-up"):
        lock(locked)


def test_a_lock_that_there_never_was_is_not_found(locked: Path) -> None:
    """The message names those there are."""
    with pytest.raises(NotStoredError, match="no lock final; there are: interim"):
        verify_lock(locked, "final")


def test_an_unpublished_trial_is_not_locked(tmp_path: Path) -> None:
    """There is nothing to freeze."""
    shutil.copy(DEMO_CONFIG, tmp_path / "trial.toml")
    (tmp_path / "subjects.csv").write_text(PLAN)
    with pytest.raises(StorageError, match="nothing is published yet; run a night"):
        lock(tmp_path)
    assert not (tmp_path / "locks").exists()


def test_a_planned_visit_without_a_row_is_named(root: Path) -> None:
    """A lock holds every planned visit with its state."""
    with (root / "subjects.csv").open("a") as plan:
        plan.write("S03,V1,2026-03-01,14,,,01\n")
    with pytest.raises(StorageError, match="no night has seen them: S03/V1; run a night first"):
        lock(root)


def test_a_broken_record_is_not_locked(root: Path) -> None:
    """Whatever `verify_record` finds: a table here."""
    (root / FLAGS).unlink()
    with pytest.raises(TamperedError, match=r"flags/S01/V1\.parquet is missing"):
        lock(root)
    assert not (root / "locks").exists()


def test_an_interrupted_night_is_completed_first(root: Path) -> None:
    """Half of a publication is no state to freeze."""
    staging = root / "tables/.staging/S01/V1"
    staging.mkdir(parents=True)
    (staging / "manifest.json").write_text("{}")
    with pytest.raises(StorageError, match="killed while it published S01/V1; run a night first"):
        lock(root)


def test_a_log_that_nobody_vouches_for_is_adopted_first(root: Path) -> None:
    """Lines may be missing from it."""
    (root / "audit/head.json").unlink()
    with pytest.raises(StorageError, match=r"no head vouches for lines 1 to .* audit adopt"):
        lock(root)
    audit.adopt(root, "J. Doe", "compared with the back-up")
    assert lock(root).n_arrays == 1


def _hold_a_night(root: Path, ready: Event, done: Event) -> None:
    with night_underway(root):
        ready.set()
        done.wait(60)


def test_nothing_is_locked_while_a_night_is_under_way(root: Path) -> None:
    """In any process; two nights do not keep each other out, and a killed one keeps out nobody."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    night = context.Process(target=_hold_a_night, args=(root, ready, done))
    night.start()
    assert ready.wait(60)
    with night_underway(root), pytest.raises(StorageError, match="a night, or another lock, is under way"):
        lock(root)
    with pytest.raises(StorageError, match="a night, or another lock, is under way"):
        lock(root)
    night.kill()
    night.join()
    assert lock(root).name == "interim"


def test_what_is_published_meanwhile_is_not_locked_unseen(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By somebody who heeds no night: the record was compared before it came."""

    def publish_and_compare(root: Path) -> RecordCheck:
        found = verify_record(root)
        publish_result(root, "meanwhile")
        return found

    monkeypatch.setattr("storage.lock.verify_record", publish_and_compare)
    with pytest.raises(StorageError, match="something was published while the record was compared"):
        lock(root)
    monkeypatch.undo()
    assert lock(root).name == "interim"


def test_rows_of_another_configuration_are_named(root: Path) -> None:
    """The lock's trial.toml is not the one that they were made under."""
    config = root / "trial.toml"
    config.write_text(config.read_text().replace("ecv_change_relative = 0.1", "ecv_change_relative = 0.2"))
    publish_result(root, "under the new one")
    assert lock(root).other_configuration == ("02/V1",)


def test_times_of_a_lock_are_told(root: Path) -> None:
    """In UTC."""
    made = datetime.fromisoformat(lock(root).locked_at)
    assert timedelta(0) <= datetime.now(UTC) - made < timedelta(minutes=5)
