"""Arrays in Zarr."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from storage.arrays import (
    content_digest,
    open_store,
    read_array,
    read_stack,
    store_exists,
    store_path,
    stored_roles,
    write_array,
    write_stack,
    write_store,
)
from storage.dicom_series import EchoStack, assemble
from storage.errors import AlreadyWrittenError, NotStoredError, StorageError
from storage.leftovers import remove_leftovers
from tests.storage.drawn_uploads import NATIVE, demo_config, read_instances, write_series

VISIT = ("S01", "V1")
VALUES = np.arange(24, dtype=np.float32).reshape(3, 2, 4)


@pytest.fixture
def stack(tmp_path: Path) -> EchoStack:
    """Give a native echo stack."""
    paths = write_series(tmp_path / "incoming" / "S01_a")
    return assemble(read_instances(paths), demo_config().intake).native


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write(root: Path, digest: str = "a", values: np.ndarray = VALUES) -> Path:
    with write_store(root, *VISIT, digest) as group:
        write_array(group, "native/t1_ms", values, "ms", "slice row col")
        group.attrs["stages"] = {"intake": digest}
    return store_path(root, *VISIT, digest)


def _read(root: Path, digest: str, name: str = "native/t1_ms") -> np.ndarray:
    values = read_array(open_store(root, *VISIT, digest), name)
    assert values is not None
    return values


def test_an_echo_stack_comes_back_as_it_was_written(tmp_path: Path, stack: EchoStack) -> None:
    """Every field, types included."""
    assert stack.study_date == NATIVE.started_at.date()
    with write_store(tmp_path, *VISIT, "a") as group:
        write_stack(group, stack)
    group = open_store(tmp_path, *VISIT, "a")
    again = read_stack(group, "native")
    assert stored_roles(group) == ("native",)
    for field in fields(EchoStack):
        written, read = getattr(stack, field.name), getattr(again, field.name)
        if isinstance(written, np.ndarray):
            assert written.dtype == read.dtype
            assert np.array_equal(written, read)
        else:
            assert written == read


def test_a_stack_without_scan_time_comes_back(tmp_path: Path, stack: EchoStack) -> None:
    """None stays None."""
    with write_store(tmp_path, *VISIT, "a") as group:
        write_stack(group, replace(stack, acquired_at=None, study_date=None, slice_thickness_mm=None))
    again = read_stack(open_store(tmp_path, *VISIT, "a"), "native")
    assert (again.acquired_at, again.study_date, again.slice_thickness_mm) == (None, None, None)


def test_a_role_that_was_not_stored_is_refused(tmp_path: Path) -> None:
    """Post-contrast images may be missing."""
    _write(tmp_path)
    with pytest.raises(NotStoredError, match="no post echoes"):
        read_stack(open_store(tmp_path, *VISIT, "a"), "post")


def test_an_array_carries_units_axes_and_chunks(tmp_path: Path) -> None:
    """Any Zarr reader sees them; a chunk is one slice with everything in it."""
    _write(tmp_path)
    array = open_store(tmp_path, *VISIT, "a")["native/t1_ms"]
    assert isinstance(array, zarr.Array)
    assert array.metadata.dimension_names == ("slice", "row", "col")  # type: ignore[union-attr]
    assert (array.attrs["units"], array.chunks) == ("ms", (1, 2, 4))


def test_a_lost_chunk_reads_as_nan(tmp_path: Path) -> None:
    """Zero would poison every mean."""
    path = _write(tmp_path)
    (path / "native" / "t1_ms" / "c.1.0.0").unlink()
    values = _read(tmp_path, "a")
    assert np.isnan(values[1]).all()
    assert not np.isnan(values[[0, 2]]).any()


def test_an_absent_array_is_none(tmp_path: Path) -> None:
    """A visit without a guide has no guide array; a group is no array either."""
    _write(tmp_path)
    group = open_store(tmp_path, *VISIT, "a")
    assert read_array(group, "native/guide") is None
    assert read_array(group, "native") is None


def test_wrong_axes_are_refused(tmp_path: Path) -> None:
    """And the store with them does not appear."""
    with (
        pytest.raises(StorageError, match="t1_ms has 3 axes, but 2 are named: row col"),
        write_store(tmp_path, *VISIT, "a") as group,
    ):
        write_array(group, "t1_ms", VALUES, "ms", "row col")
    assert not store_exists(tmp_path, *VISIT, "a")


def test_a_store_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """A stage that fails half-way leaves nothing behind."""

    def fail_half_way() -> None:
        with write_store(tmp_path, *VISIT, "a") as group:
            write_array(group, "t1_ms", VALUES, "ms", "slice row col")
            assert not store_exists(tmp_path, *VISIT, "a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert _names(tmp_path / "arrays" / "S01" / "V1") == []


def test_a_published_store_cannot_be_written(tmp_path: Path) -> None:
    """Readers get it read-only."""
    _write(tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        open_store(tmp_path, *VISIT, "a").attrs["stages"] = {}


def test_writing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    """A repeated stage is harmless: the same bytes, the first files stay."""
    path = _write(tmp_path)
    before = {file: file.stat().st_ino for file in path.rglob("*")}
    _write(tmp_path)
    assert {file: file.stat().st_ino for file in path.rglob("*")} == before
    assert _names(path.parent) == ["a.zarr"]


def test_other_content_under_the_same_digest_is_refused(tmp_path: Path) -> None:
    """A digest names one content; the first stands."""
    _write(tmp_path)
    with pytest.raises(AlreadyWrittenError, match="raise the stage's result version"):
        _write(tmp_path, values=VALUES + 1)
    assert np.array_equal(_read(tmp_path, "a"), VALUES)


def test_bytes_depend_on_content_alone(tmp_path: Path) -> None:
    """Neither time nor place enters, so two machines agree."""
    assert content_digest(_write(tmp_path / "x")) == content_digest(_write(tmp_path / "y"))


def _add_array(group: zarr.Group) -> None:
    write_array(group, "native/r_squared", VALUES, "1", "slice row col")


def _change_attributes(group: zarr.Group) -> None:
    group.attrs["stages"] = {"intake": "a", "segment": "b"}


def _change_values(group: zarr.Group) -> None:
    group["native/t1_ms"][0] = -1  # type: ignore[index]


def _remove_array(group: zarr.Group) -> None:
    del group["native/t1_ms"]


@pytest.mark.parametrize("change", [_add_array, _change_attributes, _change_values])
def test_a_later_stage_never_changes_the_earlier_one(
    tmp_path: Path, change: Callable[[zarr.Group], None]
) -> None:
    """Its files are linked, not copied, so writing into one would write into both."""
    path = _write(tmp_path)
    before = content_digest(path)
    with write_store(tmp_path, *VISIT, "b", extends="a") as group:
        change(group)
    assert content_digest(path) == before
    assert content_digest(store_path(tmp_path, *VISIT, "b")) != before


def test_a_store_that_lost_files_while_it_was_written_is_not_published(tmp_path: Path) -> None:
    """Half a store under a digest would be believed for ever; the earlier stage stays as it is."""
    path = _write(tmp_path)
    before = content_digest(path)
    with (
        pytest.raises(
            StorageError, match=r"subject S01, visit V1: 4 of 6 files are gone .*run the visit again"
        ),
        write_store(tmp_path, *VISIT, "b", extends="a") as group,
    ):
        _remove_array(group)
    assert content_digest(path) == before
    assert _names(path.parent) == ["a.zarr"]


def test_a_store_that_is_being_written_is_not_taken_for_left_behind(tmp_path: Path) -> None:
    """A second night cleans up while the first writes, by whatever clock: here all is two days old."""
    path = _write(tmp_path)
    with write_store(tmp_path, *VISIT, "b", extends="a") as group:
        for one in path.parent.iterdir():
            os.utime(one, (one.stat().st_mtime - 48 * 3600,) * 2)
        assert remove_leftovers(tmp_path) == 0
        _add_array(group)
    assert store_exists(tmp_path, *VISIT, "b")


def test_a_later_stage_holds_what_the_earlier_one_held(tmp_path: Path) -> None:
    """The published store is complete, and takes the disk space once."""
    path = _write(tmp_path)
    with write_store(tmp_path, *VISIT, "b", extends="a") as group:
        _add_array(group)
    assert np.array_equal(_read(tmp_path, "b"), VALUES)
    chunk = Path("native", "t1_ms", "c.0.0.0")
    assert (path / chunk).samefile(store_path(tmp_path, *VISIT, "b") / chunk)


def test_where_links_are_impossible_files_are_copied(tmp_path: Path) -> None:
    """The earlier store lies on another disk, behind a symbolic link."""
    path = _write(tmp_path)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        assert Path(elsewhere).stat().st_dev != path.stat().st_dev
        moved = shutil.move(path, elsewhere)
        path.symlink_to(moved)
        with write_store(tmp_path, *VISIT, "b", extends="a") as group:
            _add_array(group)
    assert np.array_equal(_read(tmp_path, "b"), VALUES)


def test_a_stage_needs_the_earlier_one(tmp_path: Path) -> None:
    """A digest that is not there is named."""
    with (
        pytest.raises(NotStoredError, match="no arrays of stage a to build on"),
        write_store(tmp_path, *VISIT, "b", extends="a"),
    ):
        pass


def test_a_store_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    """With the visit and the digest."""
    with pytest.raises(NotStoredError, match="subject S01, visit V1: no arrays of result a; run or rerun"):
        open_store(tmp_path, *VISIT, "a")
