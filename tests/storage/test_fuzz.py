"""Mutated files: intake ends with each of them taken or refused with a reason."""

from pathlib import Path

import pytest

from tests.storage.mutated_uploads import fuzz


@pytest.mark.parametrize(
    ("n_files", "seed"),
    [pytest.param(50, 1, id="50"), pytest.param(500, 2, id="500", marks=pytest.mark.slow)],
)
def test_no_mutated_file_ends_intake(tmp_path: Path, n_files: int, seed: int) -> None:
    """Ten thousand of them are in ``make bench-long``."""
    report = fuzz(tmp_path, n_files, seed)
    assert report.crashes == []
    assert report.n_files == n_files
    assert report.outcomes["refused"] > n_files / 2
    assert report.outcomes["taken"] > 0
    assert report.unforeseen.total() <= n_files / 100
