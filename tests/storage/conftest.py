"""Folders that several tests of uploads begin with."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.drawn_export import DrawnVisits
from tests.storage.drawn_uploads import NATIVE, on_slices, write_series


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
