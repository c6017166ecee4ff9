"""The planned visits that uploads belong to."""

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from storage.config_uploads import MatchingConfig
from storage.errors import RefusedError, UploadChangedError
from storage.matching import Match, Mismatch, match_upload
from storage.plan import PlannedVisit, by_subject
from storage.upload import Upload
from tests.storage.drawn_uploads import (
    BROKEN_DICOM,
    NATIVE,
    demo_config,
    on_slices,
    pack_damaged,
    read_upload,
    unreadable,
    write_series,
)

PLAN = tuple(
    PlannedVisit(subject, visit, "01", day, 7, None, None, None)
    for subject in ("S01", "S02")
    for visit, day in (("V1", date(2026, 3, 1)), ("V2", date(2026, 9, 1)))
)


def _match(incoming: Path, folder: str = "S01_a", **changes: object) -> Match | Mismatch:
    matching = demo_config().matching.model_copy(update=changes)
    return match_upload(read_upload(incoming.parent, folder), by_subject(PLAN), matching)


def test_a_file_that_cannot_be_read_stops_the_matching_of_its_upload(public_root: Path) -> None:
    """The text names the file by its number; a file that is gone means that the upload changed."""
    write_series(public_root / "incoming" / "S01_a", on_slices(NATIVE, 0))
    upload, matching = read_upload(public_root), demo_config().matching
    with (
        unreadable(upload.files[0].path),
        pytest.raises(RefusedError, match=r"^file 1 cannot be read: Permission denied$"),
    ):
        match_upload(upload, by_subject(PLAN), matching)
    upload.files[0].path.unlink()
    with pytest.raises(UploadChangedError, match="changed while it was read"):
        match_upload(upload, by_subject(PLAN), matching)


def test_folder_patient_and_date_give_the_visit(incoming: Path) -> None:
    """The study date is 2026-03-04, in the window of V1."""
    assert _match(incoming) == Match("S01", "V1")


def test_files_that_are_no_dicom_are_passed_over(incoming: Path) -> None:
    """A text file sorted first must not hide the images."""
    (incoming / "S01_a" / "!0_readme.txt").write_text("from site 01")
    (incoming / "S01_a" / "!1_broken.dcm").write_bytes(BROKEN_DICOM)
    assert _match(incoming) == Match("S01", "V1")


@pytest.mark.parametrize(
    ("folder", "subject_from", "reason"),
    [
        pytest.param(
            "S02_a", ("folder", "patient_id"), "folder gives S02; PatientID gives S01", id="disagree"
        ),
        pytest.param("Jane_Doe", ("folder", "patient_id"), "folder: no planned subject", id="folder"),
        pytest.param("S01(copy)", ("folder",), "folder: no planned subject", id="pattern"),
    ],
)
def test_disagreement_is_refused_without_names(
    incoming: Path, folder: str, subject_from: tuple[str, ...], reason: str
) -> None:
    """Never guessed; and what the site wrote stays out of the message."""
    (incoming / "S01_a").rename(incoming / folder)
    found = _match(incoming, folder, subject_from=subject_from)
    assert isinstance(found, Mismatch)
    assert reason in found.reason
    assert "Jane" not in repr(found)
    assert found.found == {"folder": folder, "PatientID": "S01", "StudyDate": "2026-03-04"}


def test_an_unplanned_patient_is_refused_without_the_patients_id(incoming: Path) -> None:
    """PatientID may be a hospital number."""
    shutil.rmtree(incoming / "S01_a")
    write_series(incoming / "S01_a", replace(NATIVE, patient_id="H4711"))
    found = _match(incoming)
    assert isinstance(found, Mismatch)
    assert found.reason == "PatientID: no planned subject; check subjects.csv and the upload"


def test_a_date_outside_every_window_shows_the_windows(incoming: Path) -> None:
    """Whoever mends the plan needs both; the date may be that of a patient who is in no trial."""
    shutil.rmtree(incoming / "S01_a")
    write_series(incoming / "S01_a", replace(NATIVE, started_at=NATIVE.started_at.replace(month=5)))
    found = _match(incoming)
    assert isinstance(found, Mismatch)
    assert "study date lies in no planned window: V1 2026-03-01 +- 7 d, V2" in found.reason
    assert "2026-05-04" not in repr(found)
    assert found.found["StudyDate"] == "2026-05-04"


def test_overlapping_windows_are_refused(incoming: Path) -> None:
    """Two visits claim the date; guessing the nearer one is still guessing."""
    plan = tuple(replace(visit, window_days=200) for visit in PLAN)
    found = match_upload(read_upload(incoming.parent), by_subject(plan), demo_config().matching)
    assert isinstance(found, Mismatch)
    assert "windows of several visits: V1, V2" in found.reason


def test_an_upload_without_dicom_matches_nothing(incoming: Path) -> None:
    """Without a study date there is no visit."""
    (incoming / "S02_a").mkdir()
    (incoming / "S02_a" / "notes.txt").write_text("")
    found = _match(incoming, "S02_a")
    assert isinstance(found, Mismatch)
    assert "no DICOM file with PatientID and StudyDate" in found.reason


def test_an_upload_of_packed_or_cut_images_says_so(incoming: Path) -> None:
    """No date is found in it either, but the site must learn what to send instead."""
    (incoming / "S02_a").mkdir()
    (incoming / "S02_a" / "images.zip").write_bytes(b"PK")
    (incoming / "S02_a" / "IM1.dcm").write_bytes(b"")
    (incoming / "S02_a" / "IM2.dcm").write_bytes(b"")
    found = _match(incoming, "S02_a")
    assert isinstance(found, Mismatch)
    assert "; 2 of 3 files: is empty (0 bytes)" in found.reason
    assert "; 1 of 3 files: is an archive inside of the upload" in found.reason


def test_one_source_alone_may_give_the_subject(incoming: Path) -> None:
    """A trial whose folders mean nothing goes by PatientID."""
    (incoming / "S01_a").rename(incoming / "export 7")
    assert _match(incoming, "export 7", subject_from=("patient_id",)) == Match("S01", "V1")


def test_matching_needs_only_what_it_is_told(incoming: Path) -> None:
    """Where PatientID is no source, files without one still match by folder."""
    shutil.rmtree(incoming / "S01_a")
    write_series(incoming / "S01_a", replace(NATIVE, patient_id=""))
    matching = MatchingConfig(subject_from=("folder",), folder_pattern="(?P<subject>.*)_a")
    upload: Upload = read_upload(incoming.parent)
    assert match_upload(upload, by_subject(PLAN), matching) == Match("S01", "V1")


@pytest.mark.parametrize(
    ("patient_id", "found"),
    [
        pytest.param("TRIAL-S01", Match("S01", "V1"), id="prefix"),
        pytest.param("S01", None, id="no-prefix"),
        pytest.param("TRIAL-S01 ", Match("S01", "V1"), id="padding"),
        pytest.param("xTRIAL-S01", None, id="whole"),
    ],
)
def test_a_pattern_finds_the_subject_in_the_patient_id(
    incoming: Path, patient_id: str, found: Match | None
) -> None:
    """Sites write the trial's name before the pseudonym; the pattern is for the whole PatientID."""
    shutil.rmtree(incoming / "S01_a")
    write_series(incoming / "S01_a", replace(NATIVE, patient_id=patient_id))
    match = _match(incoming, patient_id_pattern="TRIAL-(?P<subject>.+)")
    assert match == found if found else isinstance(match, Mismatch)


def test_damaged_files_of_a_zip_file_are_passed_over(incoming: Path) -> None:
    """Any sound image says whose it is; where all images are damaged, the reason says so."""
    first, *others = sorted(file.name for file in (incoming / "S01_a").iterdir())
    pack_damaged(incoming / "S01_a", incoming / "S01_b.zip", first)
    assert _match(incoming, "S01_b.zip") == Match("S01", "V1")
    (incoming / "S01_a" / "notes.txt").write_text("x")
    pack_damaged(incoming / "S01_a", incoming / "S01_c.zip", first, *others)
    found = _match(incoming, "S01_c.zip")
    assert isinstance(found, Mismatch)
    assert "; 8 of 9 files: is damaged in the zip file; make the zip file again" in found.reason
