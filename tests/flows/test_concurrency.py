"""Two nights at once."""

import os
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client

from storage.audit import read_events
from storage.errors import StorageError
from storage.lock import lock_record
from storage.record import verify_record
from tests.flows.conftest import COMMAND

pytestmark = pytest.mark.slow

EXECUTION_COLUMNS = [
    "device",
    "seconds_intake",
    "seconds_segment",
    "seconds_quantify",
    "run_id",
    "published_at",
]


def test_workers_keep_their_memory_for_the_next_image(site: dict[str, str]) -> None:
    """What Dask sets by default doubles the time of a stage."""
    with Client(site["CMR_DASK_SCHEDULER"], set_as_default=False) as client:
        said = client.run(os.getenv, "MALLOC_TRIM_THRESHOLD_")
    assert said
    assert set(said.values()) == {None}


def test_two_nights_at_once_neither_double_nor_tear_a_row(
    small_night: Path, small_copy: Path, environment: dict[str, str], site: dict[str, str]
) -> None:
    """A scheduled night and one started by hand meet; the tables are those of a single night."""
    # Workers of its own each: on a shared cluster one night would wait for the other's task runs.
    own = {"PREFECT_API_URL": site["PREFECT_API_URL"], "CMR_WORKERS": "1"}
    nights = [
        subprocess.Popen(
            [COMMAND, "run", small_copy],
            env=environment | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    refusal = ""
    try:
        while "under way" not in refusal and any(night.poll() is None for night in nights):
            with pytest.raises(StorageError) as refused:
                lock_record(small_copy, "meanwhile", "J. Doe", "too early", "1.0")
            refusal = str(refused.value)  # before the nights begin, that nothing is published
            time.sleep(0.2)
        outputs = [night.communicate(timeout=300)[0] for night in nights]
    finally:
        for night in nights:
            night.kill()
    assert [night.returncode for night in nights] == [0, 0], outputs
    assert refusal == "a night, or another lock, is under way in this trial; lock it when that has ended"

    for table in ("visits", "scans", "slices", "segments", "echoes", "longitudinal"):
        left, right = (
            pd.read_parquet(root / "tables" / table) if (root / "tables" / table).exists() else pd.DataFrame()
            for root in (small_night, small_copy)
        )
        columns = [column for column in left.columns if column not in EXECUTION_COLUMNS]
        pd.testing.assert_frame_equal(left[columns], right[columns])
    published = [
        (event["subject_id"], event["visit_id"])
        for event in read_events(small_copy)
        if event["event"] == "published"
    ]
    assert sorted(published) == [("S01", "V1"), ("S02", "V1")]
    assert verify_record(small_copy).n_former == 0
    assert not list(small_copy.rglob("*.tmp"))
