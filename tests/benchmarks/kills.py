"""Nights to which something happens: ``python -m tests.benchmarks.kills [--points N] [--seed S]``.

Each point lets a worker, a night, the runner or the server die by SIGKILL, fills the disk, lets two nights
meet or changes the clock, at a moment drawn from its seed; then a night runs in peace. Exit code 1 where the
trial is not as if nothing had happened; ``--points 1 --seed SEED --victim VICTIM`` repeats such a point.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.kill_points import Point

N_POINTS = 200


def main() -> None:
    """Try points, print a table by victim, and say which failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=N_POINTS)
    parser.add_argument("--seed", type=int, default=1, help="of the first point; the next has the next")
    parser.add_argument("--victim", action="append", help="in turn; without it drawn, see VICTIMS")
    parser.add_argument("--json", type=Path, help="file for the points, one a line")
    parser.add_argument("--folder", type=Path, help="kept where points failed; else a temporary one")
    asked = parser.parse_args()
    folder: Path = asked.folder or Path(tempfile.mkdtemp(prefix="cmrtrials-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(asked.seed, asked.seed + asked.points)
    points = try_points(folder, seeds, asked.victim or [], asked.json)
    print_table(points)
    failed = [point for point in points if point.problems]
    for point in failed:
        print(f"FAILED --victim {point.victim!r} --seed {point.seed}: {point.moment}")  # noqa: T201
        for problem in point.problems[:10]:
            print(f"    {problem}")  # noqa: T201
    if failed:
        print(f"their trials are in {folder}")  # noqa: T201
        sys.exit(1)


def try_points(folder: Path, seeds: range, victims: list[str], file: Path | None) -> list["Point"]:
    """Try a point for each seed, on one server and one cluster."""
    # Before Prefect is imported, which reads it once.
    from tests.benchmarks.kill_site import Server, environment

    for name in [name for name in os.environ if name.startswith(("PREFECT_", "CMR_"))]:
        del os.environ[name]
    os.environ.update(environment(folder))
    from flows.cli import main as set_environment

    set_environment()
    from tests.benchmarks import stub_flow  # noqa: F401 (what nights need, before they are forked)
    from tests.benchmarks.kill_ground import Ground
    from tests.benchmarks.kill_points import drawn_victim, try_point

    server = Server(os.environ["PREFECT_API_URL"])
    server.start()
    points = []
    try:
        ground = Ground(folder, server)
        with ground.cluster():
            ground.measure()
            say(f"a night in peace: {ground.night_s:.1f} s, {ground.night_steps} steps on the disk")
            for number, seed in enumerate(seeds):
                victim = victims[number % len(victims)] if victims else drawn_victim(seed)
                point = try_point(ground, victim, seed)
                points.append(point)
                said = point.skipped or "; ".join(point.problems) or "as in peace"
                said += f", {point.seconds} s"
                say(f"{number + 1}/{len(seeds)} {victim}, seed {seed}: {point.moment}: {said}")
                if file is not None:
                    with file.open("a") as lines:
                        lines.write(json.dumps(asdict(point)) + "\n")
    finally:
        server.kill()
    return points


def print_table(points: list["Point"]) -> None:
    """Print what became of the points of each victim."""
    say(f"{'victim':<24}{'points':>8}{'skipped':>9}{'failures':>10}{'seconds a point':>17}")
    for victim in dict.fromkeys(point.victim for point in points):
        own = [point for point in points if point.victim == victim]
        skipped = sum(bool(point.skipped) for point in own)
        failures = sum(bool(point.problems) for point in own)
        seconds = sum(point.seconds for point in own) / len(own)
        say(f"{victim:<24}{len(own):>8}{skipped:>9}{failures:>10}{seconds:>17.1f}")
    say(f"{len(points)} points, {sum(bool(point.problems) for point in points)} failures")


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
