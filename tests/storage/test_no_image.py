"""Files that were meant as images and hold none."""

from pathlib import Path

import pytest

from storage.no_image import why_no_image

BARE_EXPLICIT = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"
BARE_IMPLICIT = b"\x08\x00\x16\x00\x1a\x00\x00\x001.2.840"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        pytest.param("a/IM0001.dcm", b"", "is empty", id="empty"),
        pytest.param("a/IM_0001", b"", "is empty", id="empty-without-ending"),
        pytest.param("1.2.840.113619.7", b"", "is empty", id="empty-uid"),
        pytest.param("IM1.IMA", b"\0" * 100, "is none, or is cut off", id="cut"),
        pytest.param("I10", BARE_EXPLICIT, "without the preamble", id="bare-explicit"),
        pytest.param("I10", BARE_IMPLICIT, "without the preamble", id="bare-implicit"),
        pytest.param("I10", b"\x02\x00\x10\x00UI\x14\x00", "without the preamble", id="bare-meta"),
        pytest.param("images.zip", b"PK", "is an archive", id="archive"),
    ],
)
def test_what_was_meant_as_an_image_says_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    """Otherwise the site hears of missing echoes, and not why they are missing."""
    file = tmp_path / "file"
    file.write_bytes(content)
    assert reason in (why_no_image(file, name) or "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("report.pdf", b"%PDF-1.7", id="pdf"),
        pytest.param("notes.txt", b"", id="empty-text"),
        pytest.param("DONE", b"", id="marker"),
        pytest.param(".DS_Store", b"\0\0\0\x01Bud1", id="mac"),
        pytest.param("Thumbs.db", b"\xd0\xcf\x11\xe0", id="windows"),
        pytest.param("VERSION", b"3", id="short"),
    ],
)
def test_what_was_never_an_image_is_left_in_peace(tmp_path: Path, name: str, content: bytes) -> None:
    """A visit with a report beside its images is a whole visit."""
    file = tmp_path / "file"
    file.write_bytes(content)
    assert why_no_image(file, name) is None
