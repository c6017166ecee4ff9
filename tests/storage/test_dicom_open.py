"""Files that are kept between their header and their pixels."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from storage.dicom_open import keep_files, open_header, open_whole
from tests.storage.drawn_uploads import NATIVE, on_slices, write_series


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[Path]]:
    """Give two files of one size, and room to keep both."""
    files = write_series(tmp_path, on_slices(NATIVE, 0))[:2]
    keep_files(files[0].stat().st_size * 5 // 2)
    yield files
    keep_files(0)


def test_a_file_whose_header_is_read_twice_is_kept_once(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted twice it would take the room of others, for as long as the process lives."""
    one, other = files
    for path in (one, one, other):
        open_header(path)
    monkeypatch.setattr(pydicom, "dcmread", None)
    assert [len(open_whole(path).PixelData) > 0 for path in files] == [True, True]
