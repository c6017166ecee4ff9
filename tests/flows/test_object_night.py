"""A night of a trial on an object store, with workers in other processes."""

import os
from pathlib import Path

import pandas as pd
import pytest

from storage import open_trial
from storage.arrays import content_digest, store_path
from storage.objects import files_under
from storage.place import Place, relative_name, to_place
from storage.record import verify_record
from storage.schema import RESULT_TABLES
from tests.flows.trials import Cmrtrials

pytestmark = pytest.mark.slow

EXECUTION_COLUMNS = {
    *("run_id", "published_at", "device", "seconds_intake", "seconds_segment", "seconds_quantify")
}


@pytest.fixture(scope="module")
def on_s3(small_trial: Path, site: dict[str, str]) -> dict[str, str]:
    """Environment of commands on the store; the workers that they start inherit it."""
    reach = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    folder = {"CMR_INCOMING": str(small_trial / "incoming"), "CMR_WORKERS": "2"}
    return {"PREFECT_API_URL": site["PREFECT_API_URL"], **reach, **folder}


@pytest.fixture(scope="module")
def root(s3_bucket: str, small_trial: Path, cmrtrials: Cmrtrials, on_s3: dict[str, str]) -> Place:
    """Give the small trial on S3 after its first night."""
    place = to_place(f"{s3_bucket}/small")
    for name in ("trial.toml", "subjects.csv"):
        (place / name).write_bytes((small_trial / name).read_bytes())
    night = cmrtrials("run", str(place), **on_s3)
    assert night.returncode == 0, night.stdout + night.stderr
    assert f"{place}/tables" in night.stdout
    return place


def _rows(root: Place, name: str) -> pd.DataFrame:
    table = open_trial(root).table(name)
    return table[[column for column in table.columns if column not in EXECUTION_COLUMNS]]


def test_a_night_on_s3_gives_the_results_of_one_in_a_folder(root: Place, small_night: Path) -> None:
    """Tables row for row, and arrays byte for byte."""
    for name in RESULT_TABLES:
        pd.testing.assert_frame_equal(_rows(root, name), _rows(small_night, name))
    for _, row in _rows(root, "visits").iterrows():
        key = (row["subject_id"], row["visit_id"], row["result_digest"])
        assert content_digest(store_path(root, *key)) == content_digest(store_path(small_night, *key))
    found = verify_record(root)
    assert (found.n_visits, found.n_arrays, found.interrupted) == (2, 2, ())
    pages = {relative_name(path, root) for path in files_under(root / "reports")}
    assert {"reports/index.html", "reports/S01/V1.html", "reports/S02/V1.html"} <= pages


def test_commands_read_a_trial_on_s3(root: Place, cmrtrials: Cmrtrials, on_s3: dict[str, str]) -> None:
    """As they read one in a folder; those that cannot say so at once."""
    status = cmrtrials("status", str(root), **on_s3)
    assert (status.returncode, status.stdout.count("done")) == (0, 2), status.stdout + status.stderr
    answer = cmrtrials("query", str(root), "select count(*) as n from scans", **on_s3)
    assert (answer.returncode, "2" in answer.stdout) == (0, True), answer.stderr
    audit = cmrtrials("audit", "verify", str(root), **on_s3)
    assert "as published: 2 visits" in audit.stdout, audit.stdout + audit.stderr
    for command in (("export", str(root)), ("lock", str(root), "interim"), ("serve", str(root))):
        refused = cmrtrials(*command, **on_s3)
        assert refused.returncode == 2
        assert f"error: cmrtrials {command[0]}" in refused.stderr.splitlines()[0]
        assert "needs a trial in a local folder" in refused.stderr


def test_a_second_night_on_s3_changes_nothing(
    root: Place, cmrtrials: Cmrtrials, on_s3: dict[str, str]
) -> None:
    """Nothing is published or computed again."""
    before = {path: path.read_bytes() for path in files_under(root) if "running" not in path.parts}
    night = cmrtrials("run", str(root), **on_s3)
    assert night.returncode == 0, night.stdout + night.stderr
    after = {path: path.read_bytes() for path in files_under(root) if "running" not in path.parts}
    assert after == before
