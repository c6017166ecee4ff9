"""What nights cost besides their stages, by the number of visits.

`python -m tests.benchmarks.scale --visits 20 200 2000` prints it and writes it to bench/scale.json; ``make
bench`` measures 20 and 200. The stages are stubs that store and publish as real ones do. One site runs the
nights one after another, each over a trial of its own; a short one goes first, so that workers have imported
what they need. Processor times hold on a busy machine too; wall times need two quiet cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.figure import Figure, print_figures
from tests.benchmarks.scale_site import TREE, Watch, running_site
from tests.benchmarks.stub_trial import make_stub_trial

N_WORKERS = 2
VISITS_A_SUBJECT = 4
WARM_UP = 4
"""Visits of the night that goes first."""
FLAT = 1.3
"""How much more a visit may cost in the largest night than in the one before."""


@dataclass(frozen=True, slots=True)
class Night:
    """What a night took."""

    n_visits: int
    """Visits, all computed."""
    wall_s: float
    """From the start of its process to its end [s]."""
    cpu_s: dict[str, float]
    """Processor time of each process meanwhile [s]."""
    peak_mib: dict[str, float]
    """Most memory of each process meanwhile [MiB]."""
    parts: dict[str, dict[str, float]]
    """Wall and processor time of the parts of the flow's process [s], see `scale_night.PARTS`."""
    without_news: dict[str, float]
    """Wall and processor time of a second night, which finds nothing to do, without its start [s]."""
    database_mib: float
    """Growth of Prefect's database [MiB]."""
    tables_kib: float
    """Disk that a visit's rows take in tables/ [KiB]."""


def measure_nights(visits: Sequence[int], n_workers: int, folder: Path) -> list[Night]:
    """Run nights over so many visits each, on one site."""
    watch = Watch()
    with running_site(folder, n_workers, watch) as environment:
        _measure(WARM_UP, folder / "warm_up", environment, watch)
        return [_measure(n_visits, folder / str(n_visits), environment, watch) for n_visits in visits]


def _measure(n_visits: int, root: Path, environment: dict[str, str], watch: Watch) -> Night:
    make_stub_trial(root, -(-n_visits // VISITS_A_SUBJECT), min(VISITS_A_SUBJECT, n_visits))
    database_mib = _database_mib(environment)
    watch.look()
    watch.forget_peaks()
    before, started = {**watch.cpu_s, "flow": 0.0}, time.monotonic()
    told = _run(root, n_visits, environment, watch)
    wall_s = time.monotonic() - started
    watch.look()
    grown_mib = _database_mib(environment) - database_mib
    rows = (root / "tables").glob("*/*/*.parquet")
    return Night(
        n_visits=n_visits,
        wall_s=wall_s,
        cpu_s={name: cpu_s - before[name] for name, cpu_s in watch.cpu_s.items()} | {"flow": told["cpu_s"]},
        peak_mib=dict(watch.peak_mib),
        parts=told["parts"],
        without_news=_run(root, n_visits, environment, Watch())["parts"]["night"],
        database_mib=grown_mib,
        tables_kib=sum(file.stat().st_blocks for file in rows) / 2 / n_visits,
    )


def _run(root: Path, n_visits: int, environment: dict[str, str], watch: Watch) -> dict[str, Any]:
    """Run a night; gives what it told of itself."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.scale_night", str(root)],
        env=environment,
        cwd=TREE,
        stdout=subprocess.PIPE,
        text=True,
    ) as night:
        watch.add("flow", night.pid)
        with watch.watching():
            output, _ = night.communicate()
    told: dict[str, Any] = json.loads(output.strip().rpartition("\n")[2])
    if told["states"] != {"done": n_visits}:
        message = f"a night over {n_visits} sound visits ended with {told['states']}: {told['message']}"
        raise RuntimeError(message)
    return told


def _database_mib(environment: dict[str, str]) -> float:
    return sum(file.stat().st_size for file in Path(environment["PREFECT_HOME"]).glob("*.db*")) / 2**20


def night_figures(nights: Sequence[Night], n_workers: int) -> list[Figure]:
    """Figures of nights, and how much more a visit costs in the last one than in the one before."""
    figures = []
    for night in nights:
        name, n_visits = f"{night.n_visits} visits", night.n_visits
        every = {"wall time": night.wall_s, "processor time": sum(night.cpu_s.values())}
        figures += [
            Figure(f"{name}: {what}", seconds / n_visits, "s a visit", "", "start of the flow included")
            for what, seconds in every.items()
        ]
        for process, cpu_s in sorted(night.cpu_s.items()):
            memory = _memory(night, process, n_workers)
            figures.append(Figure(f"{name}: {process}", cpu_s / n_visits, "s a visit", "", memory))
        for part, spent in night.parts.items():
            cost_ms, wall = spent["cpu_s"] / n_visits * 1e3, f"processor time; wall {spent['wall_s']:.1f} s"
            figures.append(Figure(f"{name}: flow, {part}", cost_ms, "ms a visit", "", wall))
        again = night.without_news
        figures.append(
            Figure(
                f"{name}: a second night",
                again["cpu_s"] / n_visits * 1e3,
                "ms a visit",
                "",
                f"nothing new; processor time; wall {again['wall_s']:.1f} s",
            )
        )
        database_kib = night.database_mib / n_visits * 1024
        figures.append(Figure(f"{name}: Prefect's database", database_kib, "KiB a visit", "", "SQLite"))
        figures.append(Figure(f"{name}: tables", night.tables_kib, "KiB a visit", "", "disk blocks"))
    for fewer, more in pairwise(nights):
        ratio = cost_s(more) / cost_s(fewer)
        name = f"cost of a visit, {more.n_visits} over {fewer.n_visits}"
        figures.append(Figure(name, ratio, "", f"< {FLAT}", "processor time, start of the flow excluded"))
    figures.append(Figure("load average", os.getloadavg()[0], "", "", f"{os.cpu_count()} cores"))
    return figures


def cost_s(night: Night) -> float:
    """Processor time that a visit costs [s], without that of starting the flow's process."""
    flow_s = night.parts["night"]["cpu_s"]
    others_s = sum(cpu_s for name, cpu_s in night.cpu_s.items() if name != "flow")
    return (flow_s + others_s) / night.n_visits


def _memory(night: Night, process: str, n_workers: int) -> str:
    peak_mib = night.peak_mib[process]
    each = f", {n_workers} of them with their nannies" if process == "workers" else ""
    return f"processor time; peak memory {peak_mib:.0f} MiB{each}"


def scale_figures(
    visits: Sequence[int] = (20, 200), n_workers: int = N_WORKERS, folder: Path | None = None
) -> list[Figure]:
    """All figures."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        return night_figures(measure_nights(visits, n_workers, Path(temporary)), n_workers)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--workers", type=int, default=N_WORKERS)
    parser.add_argument("--folder", type=Path, help="where trials are drawn, if not in the system's place")
    options = parser.parse_args()
    figures = scale_figures(options.visits, options.workers, options.folder)
    print_figures("cost of orchestration", figures)
    file = Path("bench", "scale.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
