"""What is told of past nights, from rows whose answer is known."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.history import PastNight, past_nights, slowest_visits
from storage.staging import HISTORY_FOLDER
from tests.flows.trials import Cmrtrials

BEGIN = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)


def row(run: str, visit: str, minute: float, state: str = "done", *times: float | None) -> dict[str, Any]:
    """Draw a row of ``visits``; times of intake, segment and quantify [s]."""
    seconds = dict(zip(("seconds_intake", "seconds_segment", "seconds_quantify"), times, strict=False))
    at = BEGIN + timedelta(minutes=minute)
    return {
        "subject_id": "S01",
        "visit_id": visit,
        "run_id": run,
        "state": state,
        "published_at": at,
    } | seconds


ROWS = [
    row("a", "V1", 0, "done", 1.0, 20.0, 4.0),
    row("a", "V2", 9, "failed", None, None, None),
    row("b", "V1", 1440, "flagged", 1.0, 20.0, 4.0),  # a new summary alone: the times are those of night a
    row("b", "V2", 1443, "done", 2.0, 40.0, 8.0),
    row("b", "V3", 1443, "waiting"),  # a row of a version that knew no times
    row("c", "V1", 2880, "done", None, 10.0, 4.0),  # intake stood already
]


def test_a_night_counts_what_it_published_and_computed() -> None:
    """A row that is published again brings the times of another night along."""
    first, second, third = past_nights(ROWS)
    assert first == PastNight("a", BEGIN, BEGIN + timedelta(minutes=9), first.states, 1, 25.0)
    assert (first.minutes, second.minutes, third.minutes) == (9.0, 3.0, 0.0)
    assert dict(second.states) == {"flagged": 1, "done": 1, "waiting": 1}
    assert (second.n_computed, second.seconds) == (1, 50.0)
    assert (third.n_computed, third.seconds) == (1, 14.0)


def test_the_slowest_visits_come_first_each_once() -> None:
    """A visit that was computed again has its latest times; one without any is not listed."""
    assert [(line["visit_id"], line["run_id"]) for line in slowest_visits(ROWS)] == [("V2", "b"), ("V1", "c")]


@pytest.mark.slow
def test_the_command_tells_of_the_night_and_of_the_one_before(
    small_night_copy: Path, cmrtrials: Cmrtrials, site: dict[str, str]
) -> None:
    """A rerun for which nothing changed publishes nothing; another configuration replaces rows."""
    first = cmrtrials("status", small_night_copy, "--history")
    assert first.returncode == 0, first.stderr
    lines = [line.split("\t") for line in first.stdout.splitlines()]
    assert lines[0][0] == "run"
    (night,) = lines[1:2]
    assert night[3:6] == ["2", "2 done", "2"]
    assert {tuple(line[:2]) for line in lines[3:]} == {("S01", "V1"), ("S02", "V1")}

    trial_toml = small_night_copy / "trial.toml"
    changed = trial_toml.read_text().replace("ecv_change_relative = 0.10", "ecv_change_relative = 0.20")
    trial_toml.write_text(changed)
    assert cmrtrials("run", small_night_copy, **site).returncode == 0
    assert list((small_night_copy / HISTORY_FOLDER).glob("*/*/*/visits.parquet"))
    second = cmrtrials("status", small_night_copy, "--history")
    nights = [line.split("\t") for line in second.stdout.splitlines()][1:3]
    assert nights[0] == night
    assert nights[1][3:] == ["2", "2 done", "0", "0.0", "-"]
