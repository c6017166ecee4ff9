"""A trial's root folder."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storage import Trial, open_trial
from storage.arrays import write_array, write_store
from storage.errors import NotStoredError
from storage.schema import RESULT_TABLES
from storage.tables import publish
from tests.storage.drawn_rows import row, visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Give a trial without any visit."""
    shutil.copy(DEMO_CONFIG, tmp_path / "trial.toml")
    return open_trial(tmp_path)


def test_a_trial_is_opened_by_its_folder(trial: Trial) -> None:
    """As text or as a path."""
    assert open_trial(str(trial.root)) == trial
    assert trial.config.trial_id == "demo"


def test_a_relative_folder_is_the_same_trial(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that read files for us have another working directory."""
    monkeypatch.chdir(trial.folder.parent)
    assert open_trial(trial.root.name) == trial


def test_a_folder_without_configuration_is_no_trial(tmp_path: Path) -> None:
    """The message says how to make it one."""
    with pytest.raises(NotStoredError, match=r"trial\.toml is missing: copy"):
        open_trial(tmp_path)


def test_a_missing_plan_says_what_to_do(trial: Trial) -> None:
    """The plan is read when it is asked for."""
    with pytest.raises(NotStoredError, match=r"subjects\.csv is missing: write one"):
        trial.plan()


@pytest.mark.parametrize("name", RESULT_TABLES)
def test_an_empty_table_has_the_dtypes_of_a_full_one(trial: Trial, name: str) -> None:
    """An analysis script written against the demo runs on a new trial."""
    empty = trial.table(name)
    rows = {} if name == "visits" else {name: [row(name)]}
    publish(trial.root, visit_row(), rows, "core lab", "nightly")
    full = trial.table(name)
    assert (len(empty), len(full)) == (0, 1)
    assert empty.dtypes.equals(full.dtypes)


def test_arrays_are_those_of_the_published_result(trial: Trial) -> None:
    """Not those of an earlier or an unpublished one."""
    for digest, value in (("old", 1.0), ("digest-1", 2.0)):
        with write_store(trial.root, "S01", "V1", digest) as group:
            write_array(group, "t1_ms", np.full((1, 2, 2), value), "ms", "slice row col")
    publish(trial.root, visit_row(), {}, "core lab", "nightly")
    assert trial.arrays("S01", "V1")["t1_ms"][0, 0, 0] == 2.0  # type: ignore[index]


def test_an_unpublished_visit_has_no_arrays(trial: Trial) -> None:
    """Waiting visits have a row without a result."""
    publish(trial.root, visit_row(state="waiting", result_digest=None), {}, "core lab", "nightly")
    for visit_id in ("V1", "V2"):
        with pytest.raises(NotStoredError, match=f"subject S01, visit {visit_id}: no published result"):
            trial.arrays("S01", visit_id)


def test_opening_a_trial_imports_nothing_heavy() -> None:
    """`cmrtrials --help` and `status` must start within a second."""
    heavy = "{'pandas', 'zarr', 'pydicom', 'torch', 'nibabel', 'highdicom', 'pyarrow'}"
    code = f"import sys, storage, storage.trial, storage.upload; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
