"""The child process in which strangers' bytes are parsed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from storage.bounded import BoundedReader
from storage.bounded_wire import unpack_frames
from storage.config_uploads import PrivacyConfig
from storage.deidentify import KEY_VARIABLE
from storage.dicom_pixels import read_frames
from storage.dicom_read import FileSource, read_file
from storage.dicom_write import write_guide_nifti, write_guide_seg
from storage.errors import RefusedError
from storage.guide import Guide, read_nifti, read_seg
from storage.header_read import HeaderPart, read_file_header
from storage.zipped import ZipMember
from tests.storage.drawn_uploads import (
    BROKEN_DICOM,
    NATIVE,
    demo_config,
    drawn_masks,
    on_slices,
    source,
    stack_geometry,
    write_series,
)

KEY = bytes(range(32))
PRIVACY = PrivacyConfig(headers="basic", dates="shift", keep_private=())
RULES = demo_config().uploads
LABELS = demo_config().intake.guide.nifti_labels
HOSTILE = "tests.storage.hostile_child"
FINE = ("S01", date(2026, 3, 4))


@pytest.fixture(scope="module")
def reader() -> Iterator[BoundedReader]:
    """Give one reader to all tests that do it no harm."""
    with BoundedReader(RULES) as reader:
        yield reader


@pytest.fixture(scope="module")
def hostile() -> Iterator[BoundedReader]:
    """Give a reader with little time and memory, and a child that does what a file tells it."""
    rules = RULES.model_copy(update={"read_seconds": 1.0, "read_memory_mib": 200.0})
    with BoundedReader(rules, HOSTILE, wall_factor=100.0) as reader:
        yield reader


def _file(folder: Path, word: str) -> Path:
    path = folder / "file"
    path.write_text(word)
    return path


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _same(one: Guide, other: Guide) -> bool:
    planes = zip(one.planes, other.planes, strict=True)
    return (one.source, one.path, one.series_uids) == (other.source, other.path, other.series_uids) and all(
        (a.label, a.pixel_spacing_mm) == (b.label, b.pixel_spacing_mm)
        and np.array_equal(a.mask, b.mask)
        and np.array_equal(a.position_mm, b.position_mm)
        and np.array_equal(a.orientation, b.orientation)
        for a, b in planes
    )


def test_images_come_through_whole(tmp_path: Path, reader: BoundedReader) -> None:
    """Header and pixels are those that are read without a child."""
    path = write_series(tmp_path, on_slices(NATIVE, 0))[3]
    plain = read_file(path, source())
    found = reader.read_file(path, source())
    assert found == plain
    assert plain is not None
    assert found is not None
    (frames,) = reader.read_frames([found])
    assert isinstance(frames, np.ndarray)
    assert np.array_equal(frames, read_frames(plain))


def test_cleaned_headers_come_through_whole(tmp_path: Path, reader: BoundedReader) -> None:
    """The whole header of one file, the references of the others."""
    path = write_series(tmp_path, on_slices(NATIVE, 0))[3]
    parts: tuple[HeaderPart, ...] = ("all", "references")
    for part in parts:
        found = reader.read_header(path, source(), PRIVACY, KEY, "S01", part)
        assert found == read_file_header(path, source(), PRIVACY, KEY, "S01", part)
        assert (found.header is None) == (part == "references")


def test_the_key_is_not_in_the_childs_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes over the child finds no key there, nor in its arguments."""
    monkeypatch.setenv(KEY_VARIABLE, KEY.hex())
    (path,) = write_series(tmp_path, on_slices(NATIVE, 0))[:1]
    with BoundedReader(RULES) as reader:
        reader.read_header(path, source(), PRIVACY, KEY, "S01", "all")
        child = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1]
        seen = [Path("/proc", child, name).read_bytes() for name in ("environ", "cmdline")]
    assert all(seen)
    assert not any(KEY.hex().encode() in text for text in seen)


def test_guides_come_through_whole(tmp_path: Path, reader: BoundedReader) -> None:
    """Masks, geometry and the series they were drawn on."""
    files = write_series(tmp_path, NATIVE)
    write_guide_seg(tmp_path / "guide.dcm", drawn_masks(), files[::8], "native")
    write_guide_nifti(tmp_path / "guide.nii.gz", drawn_masks(), stack_geometry(), LABELS.model_dump())
    seg, nifti = tmp_path / "guide.dcm", tmp_path / "guide.nii.gz"
    assert _same(reader.read_seg(seg, source()), read_seg(seg, source()))
    assert _same(reader.read_nifti(nifti, source(), LABELS), read_nifti(nifti, source(), LABELS))


def test_identity_comes_through(tmp_path: Path, reader: BoundedReader) -> None:
    """None where the file is not DICOM; a name that is no UTF-8 is no obstacle."""
    (path,) = write_series(tmp_path, on_slices(NATIVE, 0))[:1]
    odd = path.rename(path.with_name("Jane_\udcff.dcm"))
    assert reader.read_identity(odd, source()) == FINE
    assert reader.read_identity(_file(tmp_path, "text"), source()) is None


def test_an_interrupted_request_leaves_no_answer_for_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels of the file before would pass for those of this one: they have its shape."""
    one, other = write_series(tmp_path, on_slices(NATIVE, 0))[:2]
    found, plain = read_file(one, source()), read_file(other, source())
    assert found is not None
    assert plain is not None
    with BoundedReader(RULES) as reader:
        reader.read_file(one, source())
        with monkeypatch.context() as patch:
            patch.setattr(reader._child, "_receive", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                reader.read_frames([found])
        (pixels,) = reader.read_frames([plain])
        assert isinstance(pixels, np.ndarray)
        assert np.array_equal(pixels, read_frames(plain))


def test_a_broken_file_is_refused_as_without_a_child(tmp_path: Path, reader: BoundedReader) -> None:
    """The reason is the reader's own."""
    path = tmp_path / "broken.dcm"
    path.write_bytes(BROKEN_DICOM)
    with pytest.raises(RefusedError) as plain:
        read_file(path, source())
    with pytest.raises(RefusedError) as bounded:
        reader.read_file(path, source())
    assert bounded.value.reason == plain.value.reason


def test_what_the_machine_cannot_read_is_no_refusal(tmp_path: Path, reader: BoundedReader) -> None:
    """The error keeps its kind and holds no path."""
    with pytest.raises(FileNotFoundError) as gone:
        reader.read_file(tmp_path / "Jane.dcm", source())
    assert "Jane" not in str(gone.value)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("segfault", "it crashes its reader (SIGSEGV); export it again"),
        ("loop", "reading it takes more than 1 s of processor time (uploads.read_seconds)"),
        ("memory", "a length in it is wrong: it has 6 bytes and promises far more; export it again"),
        ("exit", "it crashes its reader (exit code 3); export it again"),
        ("raise", "it cannot be read (UnicodeTranslateError); export it again"),
        ("panic", "it cannot be read (PanicException); export it again"),
        ("garble", "its reading gave no answer that can be read"),
        ("lie", "what its reader says of it does not fit its kind"),
    ],
)
def test_a_dangerous_file_costs_that_file_only(
    tmp_path: Path, hostile: BoundedReader, word: str, reason: str
) -> None:
    """The reason names upload and file; the next file is read as if nothing had been."""
    with pytest.raises(RefusedError) as refused:
        hostile.read_identity(_file(tmp_path, word), source(7))
    assert refused.value.reason == f"upload u-3fa9c1d2e4, file 7: {reason}"
    assert hostile.read_identity(_file(tmp_path, "fine"), source()) == FINE


@pytest.mark.slow
def test_of_many_files_only_the_dangerous_ones_are_lost(tmp_path: Path, hostile: BoundedReader) -> None:
    """Those behind one that ends the child are asked for again, in their order."""
    words = ("fine", "segfault", "raise", "fine", "exit", "exit", "loop", "fine", "garble", "fine")
    files: list[tuple[Path, FileSource]] = []
    for number, word in enumerate(words, 1):
        (tmp_path / f"{number}").write_text(word)
        files.append((tmp_path / f"{number}", source(number)))
    found = hostile.read_files(files)
    refused = [number for number, one in enumerate(found, 1) if isinstance(one, RefusedError)]
    assert refused == [2, 3, 5, 6, 7, 9]
    assert all(f"file {number}: " in str(found[number - 1]) for number in refused)
    assert [one for one in found if not isinstance(one, RefusedError)] == [None] * 4


def test_a_hang_without_work_ends_by_the_clock(tmp_path: Path) -> None:
    """A parser that waits for ever uses no processor time."""
    rules = RULES.model_copy(update={"read_seconds": 1.0})
    with BoundedReader(rules, HOSTILE, wall_factor=2.0) as reader:
        with pytest.raises(RefusedError, match=r"no end after 2 s \(2 x uploads.read_seconds\)$"):
            reader.read_identity(_file(tmp_path, "sleep"), source())
        assert reader.n_started == 1


@pytest.mark.parametrize(
    ("shape", "n_values"), [((1, 2, 3), 5), ((1, -1, 6), 6), ((1, 6), 6), ((1, 2, 3), 7)]
)
def test_pixels_must_fit_their_shape(shape: tuple[int, ...], n_values: int) -> None:
    """A child that was taken over says what it likes."""
    with pytest.raises(ValueError, match=r"reshape|size|Field required|negative|valid"):
        unpack_frames(list(shape), bytearray(4 * n_values))


def test_only_members_of_the_zip_file_can_be_damaged(tmp_path: Path, hostile: BoundedReader) -> None:
    """Their names are looked up by these numbers."""
    with pytest.raises(RefusedError, match="does not fit its kind"):
        hostile.unpack_zip(_file(tmp_path, "lie"), (ZipMember(0, "a", 1),), tmp_path)


def test_the_child_cannot_write_files(tmp_path: Path, hostile: BoundedReader) -> None:
    """Whoever takes it over changes nothing in the trial."""
    with pytest.raises(OSError, match="File too large"):
        hostile.read_identity(_file(tmp_path, "write"), source())
    assert not (tmp_path / "written").exists() or (tmp_path / "written").stat().st_size == 0


def test_what_a_library_prints_is_no_answer(
    tmp_path: Path, hostile: BoundedReader, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor does it reach a log: it may quote the file."""
    assert hostile.read_identity(_file(tmp_path, "print"), source()) == FINE
    assert capfd.readouterr() == ("", "")


def test_one_child_reads_many_files(tmp_path: Path, reader: BoundedReader) -> None:
    """Its start costs half a second, which a visit pays once."""
    before = reader.n_started
    for path in write_series(tmp_path, on_slices(NATIVE, 0)):
        reader.read_file(path, source())
    assert reader.n_started <= max(before, 1)


def test_a_child_that_was_killed_is_replaced(tmp_path: Path) -> None:
    """The machine may end it for want of memory; the file is tried once more and is not to blame."""
    (path,) = write_series(tmp_path, on_slices(NATIVE, 0))[:1]
    with BoundedReader(RULES) as reader:
        assert reader.read_identity(path, source()) == FINE
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert reader.read_identity(path, source()) == FINE
        assert reader.n_started == 2


@pytest.mark.parametrize("word", ["loop", "hold"])
def test_a_busy_child_ends_with_its_parent(tmp_path: Path, word: str) -> None:
    """A worker that was killed takes its reader along before the limits do, in whatever it is stuck."""
    (tmp_path / "fine").write_text("fine")
    code = (
        "import os\nfrom pathlib import Path\nfrom storage.bounded import BoundedReader\n"
        "from tests.storage.drawn_uploads import demo_config, source\n"
        f"reader = BoundedReader(demo_config().uploads, {HOSTILE!r})\n"
        f"reader.read_identity(Path({str(tmp_path / 'fine')!r}), source())\n"
        "print(Path(f'/proc/self/task/{os.getpid()}/children').read_text(), flush=True)\n"
        f"reader.read_identity(Path({str(_file(tmp_path, word))!r}), source())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc", parent.stdout.readline().strip())
        time.sleep(0.3)
        assert child.exists()
        parent.kill()
    _wait_for_the_end(child)


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A killed worker leaves no process behind, even while a file is read."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom storage.bounded import BoundedReader\n"
        "from tests.storage.drawn_uploads import demo_config, source\n"
        "reader = BoundedReader(demo_config().uploads)\n"
        f"reader.read_identity(Path({str(_file(tmp_path, 'x'))!r}), source())\n"
        "print(Path(f'/proc/self/task/{os.getpid()}/children').read_text(), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    _wait_for_the_end(Path("/proc", done.stdout.strip()))


def _wait_for_the_end(child: Path) -> None:
    deadline = time.monotonic() + 10
    while child.exists() and "(zombie)" not in (child / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
