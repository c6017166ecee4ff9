"""Folders that several tests of uploads begin with."""

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.place import Place, to_place
from tests.storage.drawn_export import DrawnVisits
from tests.storage.drawn_uploads import NATIVE, on_slices, write_series

S3 = pytest.param("s3", marks=pytest.mark.slow)
"""Each request to the server takes a few milliseconds, and a publication makes sixty."""


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """Give an incoming/ with one upload of subject S01."""
    write_series(tmp_path / "incoming" / "S01_a", on_slices(NATIVE, 0))
    return tmp_path / "incoming"


@pytest.fixture
def public_root() -> Iterator[Path]:
    """Give the root of a trial that any user may enter, which pytest's own folders allow nobody."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def drawn_visits(tmp_path_factory: pytest.TempPathFactory) -> DrawnVisits:
    """Give visits to export, each drawn once."""
    return DrawnVisits(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(params=["folder", "memory", S3])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Give an empty root on each kind of store."""
    if request.param == "folder":
        return to_place(tmp_path)
    return on_objects(request)


@pytest.fixture(params=["memory", S3])
def objects_place(request: pytest.FixtureRequest) -> Place:
    """Give an empty root on each kind of object store."""
    return on_objects(request)


@pytest.fixture
def memory_place() -> Place:
    """Give an empty root in memory, where each step is quick."""
    return to_place(f"memory://bucket/{secrets.token_hex(6)}")


def on_objects(request: pytest.FixtureRequest) -> Place:
    """Give an empty root on the object store that a parameter names."""
    bucket = request.getfixturevalue("s3_bucket") if request.param == "s3" else "memory://bucket"
    return to_place(f"{bucket}/{secrets.token_hex(6)}")
