"""Locks: frozen copies of the record."""

import hmac
import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from storage import audit
from storage.arrays import content_digest, store_path, write_array, write_store
from storage.config import load_config
from storage.deidentify import KEY_VARIABLE, date_shift
from storage.digest import file_digest
from storage.errors import AlreadyWrittenError, ConfigError, NotStoredError, StorageError, TamperedError
from storage.lock import Lock, lock_names, lock_record, night_underway, verify_lock
from storage.plan import read_plan
from storage.record import RecordCheck, verify_record
from storage.recorded_dates import recorded_plan
from storage.tables import publish
from tests.storage.drawn_rows import row, visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG
from tests.storage.kills import killed

PLAN = """subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id
S01,V1,2026-03-01,14,,,01
02,V1,2026-03-01,14,,,01
"""
FLAGS = "tables/flags/S01/V1.parquet"


def draw_trial(root: Path) -> Path:
    """Write a trial of two visits: one with a result, its arrays and a former state, one that waits."""
    root.mkdir(exist_ok=True)
    shutil.copy(DEMO_CONFIG, root / "trial.toml")
    (root / "subjects.csv").write_text(PLAN)
    with write_store(root, "S01", "V1", "digest-1") as store:
        write_array(store, "values", np.arange(3.0), "1", "value")
    publish_result(root, "draft")
    publish_result(root, "")
    waiting = visit_row(
        subject_id="02",
        state="waiting",
        result_digest=None,
        config_digest=load_config(root / "trial.toml").digest(),
    )
    publish(root, waiting, {}, "core lab", "night")
    return root


def publish_result(root: Path, reason: str, **values: Any) -> None:
    """Publish the first subject's visit, with a scan and a flag."""
    config_digest = load_config(root / "trial.toml").digest()
    visit = visit_row(reason=reason, config_digest=config_digest, published_at=datetime.now(UTC))
    rows = {"scans": [row("scans", **values)], "flags": [row("flags")]}
    arrays = content_digest(store_path(root, "S01", "V1", "digest-1"))
    assert publish(root, visit, rows, "core lab", "night", arrays) == "published"


def lock(root: Path, name: str = "interim") -> Lock:
    """Lock a trial."""
    return lock_record(root, name, "J. Doe", "analysis", "1.0")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a published trial, to be copied."""
    return draw_trial(tmp_path_factory.mktemp("drawn") / "trial")


@pytest.fixture(scope="module")
def drawn_locked(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a trial with a lock, to be copied."""
    root = Path(shutil.copytree(drawn, tmp_path_factory.mktemp("locked") / "trial"))
    lock(root)
    return root


@pytest.fixture
def root(drawn: Path, tmp_path: Path) -> Path:
    """Give a published trial."""
    return Path(shutil.copytree(drawn, tmp_path / "trial"))


@pytest.fixture
def locked(drawn_locked: Path, tmp_path: Path) -> Path:
    """Give a trial with a lock."""
    return Path(shutil.copytree(drawn_locked, tmp_path / "trial"))


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def _free(folder: Path) -> None:
    """Make a lock writable, as somebody would who wants to change it."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755)


def test_a_lock_holds_tables_and_what_they_came_from(root: Path) -> None:
    """The manifest names each file by digest, and the arrays, which stay where they are."""
    head = audit.verify(root)
    made = lock(root)
    folder = root / "locks/interim"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    copied = {path: data for path, data in _contents(folder).items() if path.startswith("tables/")}
    assert copied == {f"tables/{path}": data for path, data in _contents(root / "tables").items()}
    for file in ("trial.toml", "subjects.csv"):
        assert (folder / file).read_bytes() == (root / file).read_bytes()
    assert manifest["files"] == {
        path: file_digest(folder / path) for path in _contents(folder) if path != "manifest.json"
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
    before = _contents(locked / "locks")
    publish_result(locked, "later", ecv_fraction=0.4)
    assert verify_lock(locked, "interim").name == "interim"
    assert _contents(locked / "locks") == before
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
    _free(locked / "locks/interim")
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


def _add_rows(folder: Path) -> None:
    shutil.copy(folder / FLAGS, folder / "tables/flags/extra.parquet")


def _edit(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    return change


def _link_to_the_same(folder: Path) -> None:
    (folder / FLAGS).unlink()
    (folder / FLAGS).symlink_to(folder.parents[1] / FLAGS)


def _add_linked_folder(folder: Path) -> None:
    (folder / "tables/flags/S09").symlink_to(folder / "tables/flags/S01")


def _replace_by_folder(folder: Path) -> None:
    (folder / FLAGS).unlink()
    (folder / FLAGS).mkdir()


def _replace_folder_by_link(folder: Path) -> None:
    shutil.move(folder / "tables/flags/S01", folder.parents[1] / "S01")
    (folder / "tables/flags/S01").symlink_to(folder.parents[1] / "S01")


def _edit_and_add(folder: Path) -> None:
    _edit(FLAGS)(folder)
    _add_rows(folder)


CHANGES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "edited": (_edit(FLAGS), [f"{FLAGS} was changed"]),
    "toml": (_edit("trial.toml"), ["trial.toml was changed"]),
    "removed": (lambda folder: (folder / FLAGS).unlink(), [f"{FLAGS} is missing"]),
    "added": (_add_rows, ["tables/flags/extra.parquet was added"]),
    "hidden": (lambda folder: (folder / ".x").write_text(""), [".x was added"]),
    "folder": (lambda folder: (folder / "tables/more").mkdir(), ["tables/more was added"]),
    "link": (_link_to_the_same, [f"{FLAGS} was replaced by a link"]),
    "linked-folder": (_add_linked_folder, ["tables/flags/S09 was added"]),
    "folder-for-file": (_replace_by_folder, [f"{FLAGS} was replaced by a folder"]),
    "link-for-folder": (_replace_folder_by_link, ["tables/flags/S01 was added", f"{FLAGS} is missing"]),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), ["pipe was added"]),
    "two": (_edit_and_add, [f"{FLAGS} was changed", "tables/flags/extra.parquet was added"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_a_lock_is_named(locked: Path, change: str) -> None:
    """And only those; put back as it was, the lock verifies again."""
    folder = locked / "locks/interim"
    kept = locked.parent / "kept"
    shutil.copytree(folder, kept)
    _free(folder)
    make, expected = CHANGES[change]
    make(folder)
    with pytest.raises(TamperedError, match="not as locked: ") as raised:
        verify_lock(locked, "interim")
    found = str(raised.value).removeprefix("not as locked: ").split("; ")
    assert sorted(found) == sorted(f"locks/interim/{path}" for path in expected)
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    assert verify_lock(locked, "interim").name == "interim"


def _agree(folder: Path) -> None:
    """Change a table and write the manifest to match."""
    _edit(FLAGS)(folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][FLAGS] = file_digest(folder / FLAGS)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def _link(path: Path) -> None:
    """Move something out of the lock, and link to it from where it was."""
    elsewhere = path.parents[2] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _write_over(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            _agree, r"locks/interim/manifest\.json was changed; what it lists proves nothing", id="edited"
        ),
        pytest.param(
            lambda folder: (folder / "manifest.json").unlink(), r"manifest\.json is missing", id="removed"
        ),
        pytest.param(
            lambda folder: _link(folder / "manifest.json"), r"manifest\.json is missing", id="linked"
        ),
        pytest.param(
            lambda folder: _link(folder), "locks/interim was replaced by a link", id="folder-linked"
        ),
        pytest.param(lambda folder: _write_over(folder), "by a link or a file", id="file"),
    ],
)
def test_a_manifest_cannot_be_bent(locked: Path, change: Callable[[Path], Any], message: str) -> None:
    """The audit log holds its digest."""
    _free(locked / "locks/interim")
    change(locked / "locks/interim")
    with pytest.raises(TamperedError, match=message):
        verify_lock(locked, "interim")


def test_a_lock_that_the_log_does_not_know_is_named(locked: Path) -> None:
    """A copy under another name is none."""
    shutil.copytree(locked / "locks/interim", locked / "locks/final")
    with pytest.raises(TamperedError, match="the audit log knows of no lock final"):
        verify_lock(locked, "final")


@pytest.mark.parametrize("change", ["changed", "missing"])
def test_changed_arrays_of_a_lock_are_named(locked: Path, change: str) -> None:
    """Its rows came from them."""
    store = store_path(locked, "S01", "V1", "digest-1")
    if change == "changed":
        (store / "zarr.json").write_text("{}")
    else:
        shutil.rmtree(store)
    with pytest.raises(
        TamperedError, match=rf"not as locked: arrays/S01/V1/digest-1\.zarr (is|was) {change}$"
    ):
        verify_lock(locked, "interim")


def test_a_log_written_anew_around_a_lock_is_found(locked: Path) -> None:
    """A chain that holds, with the lock's own line, but other lines before it."""
    events = list(audit.read_events(locked))
    shutil.rmtree(locked / "audit")
    for event in events:
        facts = {fact: value for fact, value in event.items() if fact not in {"at", "previous"}}
        audit.append(locked, facts | ({"why": "another"} if event["event"] == "published" else {}))
    assert audit.verify(locked).n_lines == len(events)
    with pytest.raises(TamperedError, match="before the lock is not what it was"):
        verify_lock(locked, "interim")


def test_a_changed_log_is_found_first(locked: Path) -> None:
    """It vouches for the manifest."""
    log = locked / audit.AUDIT_LOG
    log.write_bytes(log.read_bytes().replace(b"core lab", b"core law", 1))
    with pytest.raises(TamperedError, match="does not follow"):
        verify_lock(locked, "interim")
    with pytest.raises(TamperedError, match="does not follow"):
        lock(locked, "final")


def test_what_a_kill_left_aside_is_no_lock(root: Path) -> None:
    """Without its line in the log it is thrown away, read-only or not."""
    left = root / "locks/.interim.tmp/tables"
    left.mkdir(parents=True)
    (left / "x.parquet").write_text("x")
    left.chmod(0o555)
    assert lock_names(root) == ()
    made = lock(root)
    assert verify_lock(root, "interim") == made
    assert [path.name for path in (root / "locks").iterdir()] == ["interim"]


def test_what_was_entered_but_not_moved_into_place_is_completed(locked: Path) -> None:
    """With the contents of then, though a night came between; not if somebody changed it meanwhile."""
    folder, staging = locked / "locks/interim", locked / "locks/.interim.tmp"
    folder.rename(staging)
    publish_result(locked, "later", ecv_fraction=0.4)
    assert lock(locked) == verify_lock(locked, "interim")
    assert pd.read_parquet(folder / "tables/scans")["ecv_fraction"].tolist() == [1.5]
    folder.rename(staging)
    _free(staging)
    _edit(FLAGS)(staging)
    with pytest.raises(AlreadyWrittenError, match="but it is gone"):
        lock(locked)


@pytest.mark.slow
def test_a_kill_at_any_point_leaves_no_half_lock(drawn: Path, tmp_path: Path) -> None:
    """Either there is none or a whole one; locking again makes it, once."""
    outcomes = set()
    # Coarsely while files are copied, then at every third step: the log's line stands for two or three.
    for kill_at in itertools.chain(range(1, 140, 23), itertools.count(140, 3)):
        root = Path(shutil.copytree(drawn, tmp_path / str(kill_at)))
        if not killed(root, lock, kill_at):
            break
        exists = (root / "locks/interim").exists()
        outcomes.add((exists, any(event["event"] == "locked" for event in audit.read_events(root))))
        if exists:
            assert verify_lock(root, "interim").n_arrays == 1
        else:
            assert lock_names(root) == ()
            lock(root)
        assert verify_lock(root, "interim").n_arrays == 1
        assert sum(event["event"] == "locked" for event in audit.read_events(root)) == 1
        assert verify_record(root).n_visits == 2
        publish_result(root, "later")
    assert (False, False) in outcomes
    assert (False, True) in outcomes


def test_times_of_a_lock_are_told(root: Path) -> None:
    """In UTC."""
    made = datetime.fromisoformat(lock(root).locked_at)
    assert timedelta(0) <= datetime.now(UTC) - made < timedelta(minutes=5)
