"""Exports appear whole and are replaced whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from storage.export_folder import (
    MANIFEST,
    export_folder,
    is_current,
    read_manifest,
    remove_export,
    write_export,
)
from tests.storage.drawn_export import VISIT


def write(exports: Path, text: str, visit_digest: str = "d") -> Path:
    """Export a visit as a file of some text."""
    visit = replace(VISIT, result_digest=visit_digest)
    folder = exports / "S01" / "V1"
    write_export(exports, folder, visit, "dicom", lambda place: save(place, text))
    return folder


def save(folder: Path, text: str) -> None:
    """Write a file named like its text, in a folder."""
    (folder / "images").mkdir()
    (folder / "images" / f"{text}.dcm").write_text(text)


def names(folder: Path) -> set[str]:
    """Files of a folder."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_an_export_of_another_result_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Nothing of the former one stays."""
    with export_folder(tmp_path, "dicom") as exports:
        folder = write(exports, "first")
        assert is_current(folder, replace(VISIT, result_digest="d"), "dicom")
        assert not is_current(folder, replace(VISIT, result_digest="d"), "bids")
        assert not is_current(folder, replace(VISIT, result_digest="other"), "dicom")
        assert not is_current(folder, replace(VISIT, result_digest="d", qc_verdict="fail"), "dicom")
        write(exports, "second", "other")
        assert names(exports) == {"S01/V1/images/second.dcm", f"S01/V1/{MANIFEST}"}


def test_a_manifest_says_what_was_exported(tmp_path: Path) -> None:
    """With the digest of every file, and the verdict."""
    with export_folder(tmp_path, "dicom") as exports:
        manifest = read_manifest(write(exports, "first"))
    assert manifest is not None
    assert list(manifest["files"]) == ["images/first.dcm"]
    assert (manifest["subject_id"], manifest["qc_verdict"], manifest["kind"]) == ("S01", "review", "dicom")
    assert not {"published_at", "run_id"} & manifest.keys()


def test_a_writer_that_fails_leaves_the_former_export(tmp_path: Path) -> None:
    """And nothing half done beside it."""

    def fail(folder: Path) -> None:
        save(folder, "second")
        message = "the disk is full"
        raise OSError(message)

    with export_folder(tmp_path, "dicom") as exports:
        folder = write(exports, "first")
        with pytest.raises(OSError, match="the disk is full"):
            write_export(exports, folder, VISIT, "dicom", fail)
        assert names(exports) == {"S01/V1/images/first.dcm", f"S01/V1/{MANIFEST}"}
        assert [path.name for path in exports.iterdir()] == ["S01"]


def test_what_a_killed_export_left_is_cleared_away(tmp_path: Path) -> None:
    """By the next one, which alone holds the folder."""
    left = tmp_path / "exports" / "dicom" / ".export-0badc0de"
    left.mkdir(parents=True)
    (left / "half.dcm").touch()
    with export_folder(tmp_path, "dicom") as exports:
        assert not list(exports.iterdir())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "version": 1}'])
def test_a_manifest_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    """The visit is then exported again."""
    (tmp_path / MANIFEST).write_text(text)
    assert read_manifest(tmp_path) is None
    assert not is_current(tmp_path, VISIT, "dicom")


def test_a_manifest_without_a_digest_is_of_no_result(tmp_path: Path) -> None:
    """Somebody edited it: the visit is exported again."""
    (tmp_path / MANIFEST).write_text('{"format": "cmrtrials-export", "version": 1}')
    assert not is_current(tmp_path, VISIT, "dicom")


def test_an_export_is_taken_away_whole(tmp_path: Path) -> None:
    """It is told whether there was one."""
    with export_folder(tmp_path, "dicom") as exports:
        folder = write(exports, "first")
        assert json.loads((folder / MANIFEST).read_bytes())["format"] == "cmrtrials-export"
        assert remove_export(exports, folder)
        assert not remove_export(exports, folder)
        assert not names(exports)
