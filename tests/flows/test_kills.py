"""What goes wrong with a night leaves no trace after the next one; `make bench-long` tries 200 moments."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

VICTIMS = ("worker", "night", "server", "runner", "full disk", "overlap")
FIRST_SEED = 1001

Points = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Points:
    """Try one moment of each kind, on one server and one cluster, with stages that compute nothing."""
    folder = tmp_path_factory.mktemp("kills")
    asked = [part for victim in VICTIMS for part in ("--victim", victim)]
    asked += ["--points", str(len(VICTIMS)), "--seed", str(FIRST_SEED)]
    asked += ["--folder", str(folder), "--json", str(folder / "points")]
    tried = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.kills", *asked],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert "points, " in tried.stdout, tried.stdout + tried.stderr
    found = map(json.loads, (folder / "points").read_text().splitlines())
    return {point["victim"]: point for point in found}


@pytest.mark.parametrize("victim", VICTIMS)
def test_after_the_next_night_all_is_as_if_nothing_had_happened(points: Points, victim: str) -> None:
    """Tables row for row, arrays by their bytes, no file more or less, no run that seems to go on."""
    point = points[victim]
    if point["skipped"]:
        pytest.skip(point["skipped"])
    assert point["problems"] == [], f"seed {point['seed']}: {point['moment']}"
