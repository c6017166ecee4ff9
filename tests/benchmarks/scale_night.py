"""One night of stub stages, its parts timed: ``python -m tests.benchmarks.scale_night [--real] ROOT``.

The environment names Prefect's server and Dask's scheduler. The last line that it prints is JSON: wall and
processor time of each part [s], and the states of the trial's visits.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

PARTS = {
    "plan": "flows.night.plan_night",
    "stages": "flows.night.Night._compute",
    "publish": "tasks.publish.Publisher._write",
    "pages": "flows.night.make_outdated_pages",
    "trial page": "flows.night_pages.write_trial_page",
    "verdict": "flows.night.Night._verdict",
    "night": "flows.night._run_marked",
}
"""What is timed, where it is looked up; ``publish`` is within ``stages``, ``trial page`` within ``pages``."""


def run_timed_night(root: Path, *, real: bool) -> dict[str, Any]:
    """Run a night with real stages or stubs; gives seconds of each of `PARTS`, and the states of visits."""
    from flows.cli import main as set_environment

    set_environment()
    from flows.nightly import nightly
    from storage.tables import read_table

    if not real:
        from tests.benchmarks.stub_flow import nightly

    parts: dict[str, dict[str, float]] = {}
    for name, place in PARTS.items():
        owner_name, _, attribute = place.rpartition(".")
        owner = resolve_name(owner_name)
        parts[name] = {"wall_s": 0.0, "cpu_s": 0.0}
        setattr(owner, attribute, _timed(getattr(owner, attribute), parts[name]))
    state = nightly(root=str(root), return_state=True)
    rows = read_table(root, "visits").to_pylist()
    states = Counter(row["state"] for row in rows)
    return {"parts": parts, "cpu_s": time.process_time(), "message": state.message, "states": states}


def _timed(function: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever it gives)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent["wall_s"] += time.perf_counter() - wall_s
            spent["cpu_s"] += time.process_time() - cpu_s

    return timed


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_timed_night(Path(sys.argv[-1]), real="--real" in sys.argv)) + "\n")
