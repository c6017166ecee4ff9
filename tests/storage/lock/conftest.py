"""A drawn trial, and the same with a lock, for each test."""

import shutil
from pathlib import Path

import pytest

from tests.storage.lock.drawn import draw_trial, lock


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a published trial, to be copied."""
    return draw_trial(tmp_path_factory.mktemp("drawn") / "trial")


@pytest.fixture(scope="module")
def drawn_locked(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a trial with a lock, to be copied."""
    root = Path(shutil.copytree(drawn, tmp_path_factory.mktemp("locked") / "trial"))
    lock(root)
    return root


@pytest.fixture
def root(drawn: Path, tmp_path: Path) -> Path:
    """Give a published trial."""
    return Path(shutil.copytree(drawn, tmp_path / "trial"))


@pytest.fixture
def locked(drawn_locked: Path, tmp_path: Path) -> Path:
    """Give a trial with a lock."""
    return Path(shutil.copytree(drawn_locked, tmp_path / "trial"))
