"""Temporary files and folders that killed writers leave, and how they are told from those in use."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.arrays import write_array, write_store
from storage.durable import write_durably
from storage.leftovers import new_held_file, new_held_folder, remove_leftovers
from storage.running import mark_running
from tests.storage.kills import killed


def _write_page(root: Path) -> None:
    write_durably(root / "reports" / "S01" / "V1.html", b"page")


def _write_store(root: Path) -> None:
    with write_store(root, "S01", "V1", "a") as group:
        write_array(group, "t1_ms", np.zeros((1, 2, 2)), "ms", "slice row col")


def _mark(root: Path) -> None:
    mark_running(root, "run").remove()


def _files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize(
    "write", [_write_page, _write_store, _mark], ids=["a page", "arrays", "the mark of a run"]
)
def test_whatever_a_kill_leaves_is_removed(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """At every step: what stands afterwards is whole, or not there."""
    whole = tmp_path / "whole"
    whole.mkdir()
    write(whole)
    n_left, kill_at = 0, 1
    while True:
        root = tmp_path / str(kill_at)
        root.mkdir()
        if not killed(root, write, kill_at):
            break
        n_left += remove_leftovers(root)
        left = {one for one in _files(root) if one != "running/run"}
        assert left in (set(), _files(whole))
        assert remove_leftovers(root) == 0
        kill_at += 1
    assert n_left > 0


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    """However old it looks: a clock that jumps must take nothing away from a night at work."""
    file, folder = tmp_path / "audit" / ".head.x.tmp", tmp_path / "arrays" / "S01" / "V1" / ".a.x.tmp"
    for path in (file, folder):
        path.parent.mkdir(parents=True)
    descriptor = new_held_file(file)
    with new_held_folder(folder):
        for path in (file, folder):
            os.utime(path, (0, 0))
        assert remove_leftovers(tmp_path) == 0
    assert not folder.exists()
    os.close(descriptor)
    assert remove_leftovers(tmp_path) == 1
    assert not file.exists()


def test_one_that_was_taken_away_before_it_was_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night that begins may come between a file's making and its lock."""
    path, calls = tmp_path / ".head.x.tmp", []

    def lock_late(descriptor: int, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            path.unlink()
        fcntl_lock(descriptor, operation)

    fcntl_lock = fcntl.flock
    monkeypatch.setattr("storage.leftovers.fcntl.flock", lock_late)
    descriptor = new_held_file(path)
    os.write(descriptor, b"whole")
    os.close(descriptor)
    assert path.read_bytes() == b"whole"
    assert len(calls) == 2


def test_a_link_to_nothing_is_passed_over(tmp_path: Path) -> None:
    """It has the name of a temporary, and nobody here made it."""
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / ".x.tmp").symlink_to(tmp_path / "gone")
    assert remove_leftovers(tmp_path) == 0


def test_a_folder_that_is_not_there_is_no_reason_to_try_for_ever(tmp_path: Path) -> None:
    """The error is the caller's."""
    with pytest.raises(FileNotFoundError):
        new_held_file(tmp_path / "gone" / ".x.tmp")
