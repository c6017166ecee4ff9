"""What stands under one name of incoming/."""

import os
from pathlib import Path

import pytest

from storage.upload_entry import (
    is_as_listed,
    look_at,
    named_files,
    printable,
    without_common_folders,
    without_marker,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with files in it and below."""
    place = tmp_path / "S01_a"
    (place / "b" / "empty").mkdir(parents=True)
    (place / "b" / "1").write_text("one")
    (place / "a").write_text("two")
    return place


def test_a_folder_is_listed_with_all_that_is_in_it(folder: Path) -> None:
    """Folders themselves are no files; names are relative and sorted."""
    entry = look_at(folder)
    assert (entry.name, entry.is_folder) == ("S01_a", True)
    assert [(name, status.st_size) for name, status in entry.files] == [("a", 3), ("b/1", 3)]
    assert named_files(folder) == [("a", folder / "a"), ("b/1", folder / "b" / "1")]


def test_a_single_file_is_an_entry_too(folder: Path) -> None:
    """A zip file, or a stray one."""
    entry = look_at(folder / "a")
    assert ([name for name, _ in entry.files], entry.is_folder) == (["a"], False)


def test_a_link_is_listed_and_not_followed(folder: Path) -> None:
    """It may lead anywhere, and in a circle."""
    (folder / "b" / "up").symlink_to(folder)
    (folder / "out").symlink_to("/")
    assert [name for name, _ in look_at(folder).files] == ["a", "b/1", "b/up", "out"]


def test_the_newest_file_or_folder_says_when_it_changed(folder: Path) -> None:
    """Copies may keep the scanner's times; that of their arrival counts."""
    os.utime(folder / "a", ns=(1, 1))
    changed = (folder / "a").stat().st_ctime_ns
    assert look_at(folder).changed_ns >= changed > 1
    late = 2**62
    os.utime(folder / "b" / "empty", ns=(late, late))
    assert look_at(folder).changed_ns == late


def test_a_listing_holds_until_a_file_changes(folder: Path) -> None:
    """Or is gone."""
    fingerprint = look_at(folder).fingerprint()
    assert is_as_listed(folder, fingerprint)
    os.utime(folder / "b" / "1", ns=(1, 1))
    assert not is_as_listed(folder, fingerprint)
    assert not is_as_listed(folder.with_name("gone"), fingerprint)


def test_folders_may_be_deeper_than_calls_can_be_nested(tmp_path: Path) -> None:
    """Python nests a thousand."""
    folders = [tmp_path / "deep"]
    while len(folders) <= 1200:
        folders.append(folders[-1] / "d")
    for folder in folders:
        folder.mkdir()
    file = folders[-1] / "file"
    file.write_text("x")
    try:
        (name,) = (name for name, _ in look_at(folders[0]).files)
    finally:
        file.unlink()
        for folder in reversed(folders):  # pytest, which clears old folders away, could not remove them
            folder.rmdir()
    assert name == "d/" * 1200 + "file"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/b/1", "a/b/2"], ["1", "2"]),
        (["a/b/1", "a/2"], ["b/1", "2"]),
        (["a/1"], ["1"]),
        (["1", "a/2"], ["1", "a/2"]),
        (["a/1", "b/1"], ["a/1", "b/1"]),
        ([], []),
    ],
)
def test_folders_that_hold_all_else_do_not_count(names: list[str], expected: list[str]) -> None:
    """Whoever packs a folder may pack its name or not."""
    assert without_common_folders(names) == expected


@pytest.mark.parametrize("place", ["done", "S01/done"])
def test_the_marker_is_no_file_of_the_upload(place: str) -> None:
    """At the top, or where the packed folder put it; one of the same name below is the site's own."""
    named = [(name, Path(name)) for name in (place, "S01/1", "S01/sub/done")]
    assert [name for name, _ in without_marker(named, "done")] == ["S01/1", "S01/sub/done"]


def test_names_that_are_no_text_stay_apart_and_printable() -> None:
    """Two files must not become one."""
    names = [printable(name) for name in ("Jane_\udcff", "Jane_\udcfe", "Jané")]
    assert names == ["Jane_\\udcff", "Jane_\\udcfe", "Jané"]
