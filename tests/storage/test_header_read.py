"""Cleaned headers of single files, as the bounded child reads them."""

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from storage.config_uploads import PrivacyConfig
from storage.deidentify import clean_header, pseudonymous_uid
from storage.errors import RefusedError, UnreadableError
from storage.header_read import read_file_header
from tests.storage.drawn_uploads import BROKEN_DICOM, NATIVE, on_slices, source, write_series

KEY = bytes(range(32))
RULES = PrivacyConfig(headers="basic", dates="keep", keep_private=())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give one image, with a name and a group of frames in its header."""
    path = write_series(tmp_path, on_slices(NATIVE, 0))[0]
    dataset = pydicom.dcmread(path)
    dataset.PatientName = "Doe^Jane"
    frame = pydicom.Dataset()
    frame.FrameComments = "Jane"
    dataset.PerFrameFunctionalGroupsSequence = [frame]
    dataset.save_as(path)
    return path


def test_a_whole_header_is_cleaned_and_without_its_frames(image: Path) -> None:
    """What frames say is measured and stored by itself; an enhanced file has thousands of lines of it."""
    found = read_file_header(image, source(), RULES, KEY, "S01", "all")
    original = pydicom.dcmread(image, stop_before_pixels=True)
    del original.PerFrameFunctionalGroupsSequence
    assert found.header == clean_header(original, RULES, KEY, "S01").to_json_dict()
    assert found.sop_class_uid == MRImageStorage
    assert "Jane" not in repr(found)


def test_references_are_the_same_pseudonyms_without_a_header(image: Path) -> None:
    """Of most files nothing else is kept, and only these four values are parsed."""
    original = pydicom.dcmread(image, stop_before_pixels=True)
    whole = read_file_header(image, source(), RULES, KEY, "S01", "all")
    found = read_file_header(image, source(), RULES, KEY, "S01", "references")
    assert found.header is None
    assert (found.sop_instance_uid, found.series_instance_uid, found.study_instance_uid) == tuple(
        pseudonymous_uid(str(uid), KEY)
        for uid in (original.SOPInstanceUID, original.SeriesInstanceUID, original.StudyInstanceUID)
    )
    assert found.sop_class_uid == whole.sop_class_uid


def test_a_header_without_an_identifier_gives_an_empty_one(image: Path) -> None:
    """It is no reason to lose the image, whose pixels are good."""
    dataset = pydicom.dcmread(image)
    del dataset.StudyInstanceUID
    dataset.SOPClassUID = EnhancedMRImageStorage
    dataset.save_as(image)
    found = read_file_header(image, source(), RULES, KEY, "S01", "references")
    assert (found.study_instance_uid, found.sop_class_uid) == ("", EnhancedMRImageStorage)


def test_what_cannot_be_read_is_named_by_its_number(tmp_path: Path) -> None:
    """A broken header is the file's fault, a missing file the machine's."""
    (tmp_path / "Jane.dcm").write_bytes(BROKEN_DICOM)
    with pytest.raises(RefusedError, match=r"file 3: its header cannot be read") as refused:
        read_file_header(tmp_path / "Jane.dcm", source(3), RULES, KEY, "S01", "all")
    with pytest.raises(UnreadableError, match=r"file 4 cannot be read: No such file") as gone:
        read_file_header(tmp_path / "no Jane.dcm", source(4), RULES, KEY, "S01", "all")
    assert "Jane" not in f"{refused.value} {gone.value}"
