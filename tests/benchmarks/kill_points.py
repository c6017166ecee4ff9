"""Points at which something happens to a night, each followed by a night in peace."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.benchmarks.kill_check import differences, unsettled_runs
from tests.benchmarks.kill_ground import Ground
from tests.benchmarks.kill_troubles import NotPossibleError, change_clock, fill_disk, overlap
from tests.benchmarks.kill_victims import (
    kill_night,
    kill_night_with_cluster,
    kill_runner,
    kill_server,
    kill_worker,
)


@dataclass(slots=True)
class Point:
    """One thing that happens to a night."""

    victim: str
    """What is killed, or else goes wrong."""
    seed: int
    """What the moment is drawn from."""
    moment: str = ""
    """When it happened."""
    seconds: float = 0.0
    """Time that the point took, the night in peace included [s]."""
    problems: list[str] = field(default_factory=list)
    """What is not as after a night in peace."""
    skipped: str = ""
    """Why it could not be tried."""


Happening = Callable[[Ground, Path, np.random.Generator], tuple[str, list[str]]]
"""Lets something happen to a night over a trial; gives the moment, and what went wrong besides."""

VICTIMS: dict[str, tuple[int, Happening]] = {
    "worker": (6, kill_worker),
    "night": (6, kill_night),
    "night with its cluster": (1, kill_night_with_cluster),
    "server": (2, kill_server),
    "runner": (2, kill_runner),
    "full disk": (1, fill_disk),
    "overlap": (1, overlap),
    "clock": (1, change_clock),
}
"""Share of each victim, in twentieths, and what happens to it."""


def drawn_victim(seed: int) -> str:
    """Give the victim of a seed."""
    shares = np.array([share for share, _ in VICTIMS.values()])
    return str(np.random.default_rng([seed, 0]).choice(list(VICTIMS), p=shares / shares.sum()))


def try_point(ground: Ground, victim: str, seed: int) -> Point:
    """Let something happen to a night, run another in peace, and compare."""
    point = Point(victim, seed)
    started = time.monotonic()
    root = ground.trial(f"point{seed}")
    try:
        point.moment, point.problems = VICTIMS[victim][1](ground, root, np.random.default_rng([seed, 1]))
        point.problems += ground.in_peace(root)
        # A disk without room fails visits, and history tells so.
        point.problems += differences(root, ground.reference, had_failures=victim == "full disk")
        # Of a task run the server keeps the state of the latest time, so that what is told by a clock that
        # went back does not count.
        went_back = victim == "clock" and point.moment.startswith("by -")
        kinds = ("flow_runs",) if went_back else ("flow_runs", "task_runs")
        point.problems += unsettled_runs(ground.server, root, kinds)
    except NotPossibleError as error:
        point.skipped = str(error)
    except Exception as error:  # noqa: BLE001 (a point that breaks off is one that failed)
        point.problems.append(f"{type(error).__name__}: {error}")
    finally:
        ground.unmount(root, keep=bool(point.problems))
    point.seconds = round(time.monotonic() - started, 1)
    if not point.problems:
        shutil.rmtree(root.parent, ignore_errors=True)
    return point
