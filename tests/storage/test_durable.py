"""Files that survive a kill."""

import multiprocessing
from pathlib import Path

import pytest

from storage.durable import exclusive_lock, fsync_paths, shared_lock, write_durably


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """A reader that has the old file open keeps reading the old one."""
    path = tmp_path / "new" / "file"
    write_durably(path, b"old")
    with path.open("rb") as reader:
        write_durably(path, b"new")
        assert (reader.read(), path.read_bytes()) == (b"old", b"new")
    assert _names(path.parent) == ["file"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A folder stands where the file should go, so the rename fails."""
    (tmp_path / "file" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="file"):
        write_durably(tmp_path / "file", b"new")
    assert _names(tmp_path) == ["file"]


def test_many_files_are_forced_to_disk_or_none_counts_as_written(tmp_path: Path) -> None:
    """An error of one is no less an error because others went well."""
    paths = [tmp_path / str(number) for number in range(20)]
    for path in paths:
        path.write_text("x")
    fsync_paths([*paths, tmp_path])
    paths[11].unlink()
    with pytest.raises(FileNotFoundError, match="11"):
        fsync_paths(paths)


def _count(folder: Path, n_times: int) -> None:
    for _ in range(n_times):
        with exclusive_lock(folder):
            number = int((folder / "count").read_text())
            (folder / "count").write_text(str(number + 1))


def test_writers_take_turns(tmp_path: Path) -> None:
    """Two nights at once must not tear a row: without the lock counts are lost."""
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_count, args=(tmp_path, 200)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "count").read_text() == "600"


def test_whoever_does_not_wait_is_turned_away(tmp_path: Path) -> None:
    """While others hold the folder, and only then."""
    with shared_lock(tmp_path), pytest.raises(BlockingIOError), exclusive_lock(tmp_path, wait=False):
        pass
    with exclusive_lock(tmp_path, wait=False):
        pass


def test_a_lock_leaves_no_file(tmp_path: Path) -> None:
    """A lock file left by a kill would have to be cleaned up by hand."""
    with exclusive_lock(tmp_path / "tables"):
        pass
    with shared_lock(tmp_path / "tables"):
        assert _names(tmp_path / "tables") == []
