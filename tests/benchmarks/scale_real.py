"""Real nights with one worker and with two, and the same functions in a plain pool of two processes.

`python -m tests.benchmarks.scale_real` needs two quiet cores and about seven minutes; it prints the figures
and writes them to bench/scale_real.json. Everything computes on one thread. Each night runs over its own copy
of one simulated trial, on a site that has computed a visit before, so that libraries and networks are loaded.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.figure import Figure, print_figures
from tests.benchmarks.scale_site import TREE, Watch, running_site

if TYPE_CHECKING:
    from tasks.plan import VisitJob

N_SUBJECTS, N_VISITS = 12, 2
SHARE_MAX = 0.15
"""Largest share of a night that may be orchestration."""
SPEED_UP_MIN = 1.7
"""How much faster two workers must be than one."""
STAGES = ("seconds_intake", "seconds_segment", "seconds_quantify")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=N_SUBJECTS, help="of two visits each")
    parser.add_argument("--folder", type=Path, help="where trials are drawn, if not in the system's place")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = real_figures(options.subjects, Path(folder))
    print_figures("nights with real stages", figures)
    file = Path("bench", "scale_real.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")


def real_figures(n_subjects: int, folder: Path) -> list[Figure]:
    """All figures."""
    drawn, warm_up = folder / "drawn", folder / "warm_up"
    _simulate(drawn, n_subjects, N_VISITS)
    _simulate(warm_up, 2, 1)  # as many visits as there are workers
    n_visits = n_subjects * N_VISITS
    nights = {n_workers: _night(drawn, warm_up, folder, n_workers) for n_workers in (1, 2)}
    one, two = nights[1], nights[2]
    pool_s = _pool_seconds(drawn, warm_up, folder)
    night_s = two["parts"]["night"]["wall_s"]
    share = 1 - pool_s / night_s
    speed_up = one["parts"]["night"]["wall_s"] / night_s
    cpu_s = sum(two["cpu_s"].values())
    return [
        Figure(
            "night, 1 worker", one["parts"]["night"]["wall_s"], "s", "", f"{n_visits} visits, plan to pages"
        ),
        Figure("night, 2 workers", night_s, "s", "", "likewise"),
        Figure("2 workers against 1", speed_up, "", f"> {SPEED_UP_MIN}"),
        Figure("the same functions in a pool of 2", pool_s, "s", "", "plan, stages, publication, pages"),
        Figure("orchestration: 1 - pool / night", share, "", f"< {SHARE_MAX}", "wall time, 2 workers"),
        Figure(
            "stages of a visit", two["stages_s"] / n_visits, "s", "", "2 workers, as the table visits has it"
        ),
        Figure("processor time of a visit", cpu_s / n_visits, "s", "", "2 workers, all processes"),
        *(
            Figure(
                f"of it, {name}", spent_s / n_visits, "s", "", f"peak memory {two['peak_mib'][name]:.0f} MiB"
            )
            for name, spent_s in sorted(two["cpu_s"].items())
        ),
        Figure(
            "disk of a visit: arrays", two["arrays_mib"] / n_visits, "MiB", "", "192 x 192 pixels, 3 slices"
        ),
        Figure("disk of a visit: tables", two["tables_mib"] / n_visits, "MiB"),
        Figure("disk of a visit: page", two["reports_mib"] / n_visits, "MiB"),
        Figure("load average", os.getloadavg()[0], "", "", f"{os.cpu_count()} cores"),
    ]


def _simulate(root: Path, n_subjects: int, n_visits: int) -> None:
    from flows.simulate import Recipe, simulate_trial

    recipe = Recipe(n_subjects, n_visits, 1, (), "typical", "phantom", "all")
    simulate_trial(root, recipe, on_visit=lambda _: None)


def _night(drawn: Path, warm_up: Path, folder: Path, n_workers: int) -> dict[str, Any]:
    """Run a night over a copy of the trial on a site of so many workers; what it took."""
    from storage.tables import read_table

    place, watch = folder / f"{n_workers}", Watch()
    root = place / "trial"
    shutil.copytree(drawn, root)
    shutil.copytree(warm_up, place / "warm_up")
    with running_site(place, n_workers, watch) as environment:
        _run(place / "warm_up", environment)
        watch.look()
        watch.forget_peaks()
        before = dict(watch.cpu_s)
        with watch.watching():
            told = _run(root, environment)
        watch.look()
    rows = read_table(root, "visits").to_pylist()
    return {
        "parts": told["parts"],
        "cpu_s": {name: cpu_s - before[name] for name, cpu_s in watch.cpu_s.items()},
        "peak_mib": watch.peak_mib,
        "stages_s": sum(row[name] or 0.0 for row in rows for name in STAGES),
        **{f"{name}_mib": _disk_mib(root / name) for name in ("arrays", "tables", "reports")},
    }


def _run(root: Path, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.scale_night", "--real", str(root)]
    output = subprocess.run(command, env=environment, cwd=TREE, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(output.stdout.strip().rpartition("\n")[2])
    return told


def _disk_mib(folder: Path) -> float:
    """Disk that a folder takes [MiB]; a file that has several names counts once."""
    found = {(status.st_dev, status.st_ino): status.st_blocks for status in _statuses(folder)}
    return sum(found.values()) / 2048


def _statuses(folder: Path) -> list[os.stat_result]:
    return [file.stat() for file in folder.rglob("*") if file.is_file()]


def _pool_seconds(drawn: Path, warm_up: Path, folder: Path) -> float:
    """Wall time of plan, stages, publication and pages in a pool of two processes that is warm [s]."""
    roots = [folder / "pool", folder / "pool_warm_up"]
    for source, root in zip((drawn, warm_up), roots, strict=True):
        shutil.copytree(source, root)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        _pooled(pool, roots[1])
        started = time.monotonic()
        _pooled(pool, roots[0])
        return time.monotonic() - started


def _pooled(pool: ProcessPoolExecutor, root: Path) -> None:
    from storage.trial import open_trial
    from tasks.plan import Selection, plan_night
    from tasks.report.trial_page import write_trial_page

    plan = plan_night(open_trial(root), Selection("new"))
    of_subject: dict[str, list[VisitJob]] = {}
    for job in plan.jobs:
        of_subject.setdefault(job.visit.subject_id, []).append(job)
    futures = [
        pool.submit(_compute_subject, root, jobs, plan.matching, plan.key_name)
        for jobs in of_subject.values()
    ]
    for future in futures:
        future.result()
    pages = [(str(root), job.visit.subject_id, job.visit.visit_id) for job in plan.jobs]
    list(pool.map(_make_page, pages))
    write_trial_page(open_trial(root))


def _compute_subject(
    root: Path, jobs: "list[VisitJob]", matching: Mapping[str, str], key_name: str | None
) -> None:
    """Do for a subject what the tasks of a night do, one after another."""
    import torch
    from prefect.logging import disable_run_logger

    from storage.trial import open_trial
    from tasks.digests import summary_digests
    from tasks.intake import intake
    from tasks.publish import Publisher
    from tasks.quantify import quantify
    from tasks.segment import segment
    from tasks.stage import StageName, StageResult
    from tasks.summarise import stated_repeatability, summarise

    torch.set_num_threads(1)
    config = open_trial(root).config
    publisher = Publisher(root, config, matching, "pool", "pool", "pool")
    with disable_run_logger():
        stages: dict[str, dict[StageName, StageResult]] = {}
        for job in jobs:
            digests = job.digests
            stages[job.visit.visit_id] = {
                "intake": intake.fn(
                    job.visit,
                    job.planned,
                    job.uploads,
                    config.intake,
                    config.privacy,
                    key_name,
                    digests["intake"],
                    force=False,
                ),
                "segment": segment.fn(
                    job.visit, digests["intake"], config.segment, digests["segment"], force=False
                ),
                "quantify": quantify.fn(
                    job.visit,
                    job.recorded,
                    digests["segment"],
                    config.quantify,
                    config.align,
                    digests["quantify"],
                    force=False,
                ),
            }
        results = tuple((job.visit, job.digests["quantify"]) for job in jobs)
        coefficients = stated_repeatability(config.summarise)
        rows = summarise.fn(jobs[0].visit.subject_id, results, config.summarise, coefficients)
        digests_of = summary_digests(config, {visit.visit_id: digest for visit, digest in results})
        for job in jobs:
            visit_id = job.visit.visit_id
            publisher.result(job, stages[visit_id], rows[visit_id], digests_of[visit_id])


def _make_page(page: tuple[str, str, str]) -> None:
    from prefect.logging import disable_run_logger

    from tasks.report.task import report

    with disable_run_logger():
        report.fn(*page)


if __name__ == "__main__":
    main()
