"""Temporary folders for what is unpacked."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from storage.unpacked import remove_leftovers, unpacking_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the tests a folder for temporary files of their own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_gone_after_use(temporary: Path) -> None:
    """Also when what was done in it failed."""

    def fail() -> None:
        with unpacking_folder() as folder:
            (folder / "1").write_text("Jane Doe")
            assert folder.stat().st_mode & 0o077 == 0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(temporary.iterdir()) == []


def test_the_next_start_removes_what_a_killed_process_left(temporary: Path) -> None:
    """A patient's images must not lie about."""
    code = (
        "import os, signal\nfrom storage.unpacked import unpacking_folder\n"
        "with unpacking_folder() as folder:\n"
        "    (folder / '1').write_text('Jane Doe')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], env={"TMPDIR": str(temporary)}, check=False)
    assert len(list(temporary.glob("*/1"))) == 1
    remove_leftovers()
    assert list(temporary.iterdir()) == []


def test_a_folder_in_use_is_no_leftover(temporary: Path) -> None:
    """Two workers unpack at the same time."""
    with unpacking_folder() as one, unpacking_folder() as other:
        remove_leftovers()
        assert {one, other} == set(temporary.iterdir())
