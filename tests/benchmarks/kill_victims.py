"""Processes that die by SIGKILL while a night is at work; each function gives the moment, and problems."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.kill_check import FINAL
from tests.benchmarks.kill_ground import Ground
from tests.benchmarks.kill_served import Served
from tests.benchmarks.kill_site import (
    NIGHT_S,
    begin_night,
    end_of,
    kill_session,
    session,
    wait_until,
    workers_of,
)
from tests.benchmarks.kill_switch import ORDER

AT_A_STEP = 0.7
"""Share of kills of nights and workers that are before a step on the disk; the others are at any time."""
WORKER_STEPS = 400
"""A worker dies before one of so many steps; it does some 150 a visit."""
GONE_S = 30.0
"""Time in which all that belonged to a dead night must have ended [s]."""


def kill_worker(ground: Ground, root: Path, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Kill a worker of the site's cluster; its nanny starts another."""
    order = Path(os.environ[ORDER])
    for former in order.parent.glob(f"{order.name}*"):
        former.unlink()
    if rng.random() < AT_A_STEP:
        kill_at = int(rng.integers(1, WORKER_STEPS))
        moment = f"step {kill_at} of a worker"
        order.write_text(str(kill_at))
        code = end_of(begin_night(root, root.parent / "log"))
        order.unlink(missing_ok=True)
        for taken in order.parent.glob(f"{order.name}.*"):
            pid = int(taken.suffix[1:])
            if pid in workers_of(ground.keeper):
                moment += ", not reached: between the nights"
                os.kill(pid, signal.SIGKILL)
    else:
        delay_s, which = float(rng.random()) * ground.night_s, int(rng.integers(100))
        moment = f"{delay_s:.2f} s"
        night = begin_night(root, root.parent / "log")
        night.join(delay_s)
        workers = workers_of(ground.keeper)
        if workers:
            os.kill(workers[which % len(workers)], signal.SIGKILL)
        code = end_of(night)
    return moment, [] if code in (0, 1) else [f"the night whose worker died ended with {code}"]


def kill_night(
    ground: Ground, root: Path, rng: np.random.Generator, *, own_cluster: bool = False
) -> tuple[str, list[str]]:
    """Kill the process of the flow."""
    kill_at, delay_s = 0, float(rng.random()) * ground.night_s
    if rng.random() < AT_A_STEP:
        kill_at = int(rng.integers(1, ground.night_steps + 1))
    night = begin_night(root, root.parent / "log", kill_at, own_cluster=own_cluster)
    if not kill_at:
        night.join(delay_s)
        night.kill()
    end_of(night)
    moment = f"step {kill_at} of the night" if kill_at else f"{delay_s:.2f} s"
    leader = night.pid or 0
    try:
        wait_until(lambda: not session(leader), "processes of a dead night live on", GONE_S)
    except TimeoutError as error:
        kill_session(leader)
        return moment, [str(error)]
    return moment, []


def kill_night_with_cluster(ground: Ground, root: Path, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Kill the process of a flow that has a cluster of its own."""
    return kill_night(ground, root, rng, own_cluster=True)


def kill_server(ground: Ground, root: Path, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Kill the Prefect server; it is back, with its database, at once, later or when the night has ended."""
    delay_s, back_s = float(rng.random()) * ground.night_s, float(rng.choice([0.0, 20.0, NIGHT_S]))
    moment = f"{delay_s:.2f} s, back " + ("at the end" if back_s == NIGHT_S else f"{back_s:.0f} s later")
    night = begin_night(root, root.parent / "log")
    night.join(delay_s)
    ground.server.kill()
    night.join(back_s)
    problems = []
    if back_s == NIGHT_S and night.exitcode is None:
        problems.append(f"the night did not end within {NIGHT_S:.0f} s without its server")
    ground.server.start()
    code = end_of(night)
    if code not in (0, 1, 2, 3):  # 2: it had not begun; 3: it broke off; both in words
        problems.append(f"the night that lost its server ended with {code}")
    return moment, problems


def kill_runner(ground: Ground, root: Path, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Kill `cmrtrials serve`, with or without the run it had begun; the next one goes on, with a Retry."""
    delay_s, with_run = float(rng.random()) * (ground.night_s + 10.0), bool(rng.random() < 0.5)
    moment = f"{delay_s:.2f} s after the run was taken on, {'with' if with_run else 'without'} it"
    with Served(ground.server, root, root.parent / "serve.log") as served:
        run_id = served.ask_for_a_night()
        wait_until(lambda: served.state(run_id) != "SCHEDULED", "the run is not taken on")
        time.sleep(delay_s)
        served.kill(with_run=with_run)
        served.start()
        # Without its runner a run goes on to its end, unless it had not begun: then it is due again.
        wait_until(lambda: served.state(run_id) in FINAL, "the run does not end", NIGHT_S)
        if served.state(run_id) == "CRASHED":
            served.retry(run_id)
            moment += ", retried"
            wait_until(lambda: served.state(run_id) in FINAL - {"CRASHED"}, "the Retry does not end", NIGHT_S)
    return moment, []
