"""A lock that somebody changed, or the log around it, is found and named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import audit
from storage.arrays import store_path
from storage.digest import file_digest
from storage.errors import TamperedError
from storage.lock import verify_lock
from tests.storage.lock.drawn import FLAGS, edit, free, lock


def _add_rows(folder: Path) -> None:
    shutil.copy(folder / FLAGS, folder / "tables/flags/extra.parquet")


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
    edit(FLAGS)(folder)
    _add_rows(folder)


CHANGES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "edited": (edit(FLAGS), [f"{FLAGS} was changed"]),
    "toml": (edit("trial.toml"), ["trial.toml was changed"]),
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
    free(folder)
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
    edit(FLAGS)(folder)
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
    free(locked / "locks/interim")
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
