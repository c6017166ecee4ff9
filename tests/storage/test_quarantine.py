"""quarantine/."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import RefusedFile
from storage.quarantine import quarantine_file, quarantine_upload, upload_records
from storage.upload import Upload
from tests.storage.drawn_uploads import read_upload


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    """Give an upload of one file whose name is no UTF-8."""
    folder = tmp_path / "incoming" / "S01_a"
    folder.mkdir(parents=True)
    Path(folder, "Jane_\udcff.dcm").write_bytes(b"broken")
    return read_upload(tmp_path)


def _snapshot(root: Path) -> dict[Path, tuple[int, int]]:
    files = [path for path in (root / "quarantine").rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def _refused(upload: Upload, reason: str = "cut off") -> RefusedFile:
    return RefusedFile(upload.upload_id, 1, reason, upload.files[0].path, upload.files[0].sha256)


def test_a_refused_file_is_copied_with_its_reason(tmp_path: Path, upload: Upload) -> None:
    """Whoever mends it finds the site's own name here, and only here."""
    folder = quarantine_file(tmp_path, _refused(upload), upload.files[0].site_path)
    assert folder == tmp_path / "quarantine" / upload.upload_id / "1"
    assert (folder / "file").read_bytes() == b"broken"
    facts = json.loads((folder / "reason.json").read_text())
    assert facts["reason"] == "cut off"
    assert facts["site_path"] == "S01_a/Jane_\\udcff.dcm"
    assert facts["sha256"] == upload.files[0].sha256
    assert upload.files[0].path.exists()


def test_a_refused_upload_has_a_reason(tmp_path: Path, upload: Upload) -> None:
    """It stays in incoming/, so only the reason is written."""
    folder = quarantine_upload(tmp_path, upload, "no native series")
    facts = json.loads((folder / "reason.json").read_text())
    assert (facts["upload_id"], facts["reason"], facts["site_path"]) == (
        upload.upload_id,
        "no native series",
        "S01_a",
    )
    assert [path.name for path in folder.iterdir()] == ["reason.json"]


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"mended"), Path.unlink])
def test_bytes_that_were_not_refused_are_not_copied(
    tmp_path: Path, upload: Upload, change: Callable[[Path], object]
) -> None:
    """The site replaced the file meanwhile; the copy would not be what the reason speaks of."""
    change(upload.files[0].path)
    folder = quarantine_file(tmp_path, _refused(upload), upload.files[0].site_path)
    facts = json.loads((folder / "reason.json").read_text())
    assert facts["no_copy"] == "the file was changed or removed after it was refused"
    assert facts["sha256"] == upload.files[0].sha256
    assert [path.name for path in folder.iterdir()] == ["reason.json"]


def test_a_second_night_changes_nothing(tmp_path: Path, upload: Upload) -> None:
    """The same refusal is old news."""
    quarantine_file(tmp_path, _refused(upload), upload.files[0].site_path)
    quarantine_upload(tmp_path, upload, "refused")
    before = _snapshot(tmp_path)
    quarantine_file(tmp_path, _refused(upload), upload.files[0].site_path)
    quarantine_upload(tmp_path, upload, "refused")
    assert _snapshot(tmp_path) == before


def test_another_reason_replaces_the_former(tmp_path: Path, upload: Upload) -> None:
    """A newer version of the code may know better."""
    quarantine_file(tmp_path, _refused(upload, "unreadable"), upload.files[0].site_path)
    folder = quarantine_file(tmp_path, _refused(upload, "cut off"), upload.files[0].site_path)
    assert json.loads((folder / "reason.json").read_text())["reason"] == "cut off"


def test_what_did_not_agree_is_told_to_the_operator(tmp_path: Path, upload: Upload) -> None:
    """Folder, PatientID and study date side by side, in the one place where they may stand."""
    found = {"folder": "Jane_\udcff", "PatientID": "H4711", "StudyDate": "2026-03-04"}
    folder = quarantine_upload(tmp_path, upload, "PatientID: no planned subject", found=found)
    facts = json.loads((folder / "reason.json").read_text())
    assert facts["found"] == {"folder": "Jane_\\udcff", "PatientID": "H4711", "StudyDate": "2026-03-04"}
    assert "H4711" not in facts["reason"]


def test_a_refused_upload_is_known_again(tmp_path: Path, upload: Upload) -> None:
    """By its name and listing, together with what decided; nothing did where it could not be read."""
    quarantine_upload(tmp_path, upload, "no planned subject", judged_by="digest")
    (record,) = upload_records(tmp_path).items()
    assert record[0] == ("S01_a", upload.fingerprint)
    assert (record[1].upload_id, record[1].judged_by) == (upload.upload_id, "digest")
    quarantine_upload(tmp_path, upload, "is no zip file")
    (again,) = upload_records(tmp_path).values()
    assert (again.reason, again.judged_by) == ("is no zip file", None)
