"""Points at which something happens to a night: one function a victim, each followed by a night in peace."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.benchmarks.kill_check import Record, differences, record_of, unsettled_runs
from tests.benchmarks.kill_site import (
    NIGHT_S,
    REPOSITORY,
    Server,
    begin_night,
    cluster,
    end_of,
    fork,
    kill_session,
    run_command,
    session,
    wait_until,
    workers_of,
)
from tests.benchmarks.kill_switch import ORDER
from tests.benchmarks.stub_trial import add_upload, FIRST_VISIT, make_stub_trial

FAULTS = {(1, 0): "failed", (2, 0): "refused", (2, 1): "missing"}
DISK_MIB = 16
GONE_S = 30.0
"""Time in which all that belonged to a dead night must have ended [s]."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


class NotPossibleError(RuntimeError):
    """This machine cannot do what a point needs."""


@dataclass
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


class Ground:
    """A site, a trial that no night has seen, and the record of one that was left in peace."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.keeper = 0
        self.pristine = folder / "pristine"
        make_stub_trial(self.pristine, 3, 2, FAULTS)
        add_upload(self.pristine, "nobody", FIRST_VISIT)
        self.night_s, self.night_steps, self.worker_steps = 0.0, 0, 0
        self.reference: Record

    def measure(self) -> None:
        """Run nights in peace, and note what they take."""
        root = self.trial("reference")
        order = Path(os.environ[ORDER])
        for number in (1, 2):
            # The first one warms the workers up.
            root = self.trial(f"reference{number}")
            started = time.monotonic()
            code = end_of(begin_night(root, root.parent / "log"))
            self.night_s = time.monotonic() - started
            if code != 1:  # an upload is refused, and a visit fails
                raise RuntimeError(f"a night in peace ended with {code}, see {root.parent / 'log'}")
            self.night_steps = int((root.parent / "steps").read_text())
        self.reference = record_of(root)
        order.unlink(missing_ok=True)

    def trial(self, name: str) -> Path:
        """Give a copy of the trial with the times of its files."""
        root = self.folder / name / "trial"
        shutil.rmtree(root.parent, ignore_errors=True)
        shutil.copytree(self.pristine, root, copy_function=shutil.copy2)
        return root

    @contextmanager
    def cluster(self) -> Iterator[None]:
        """Keep a cluster for as long as nothing kills it as a whole."""
        with cluster(self.folder) as self.keeper:
            yield


def in_peace(ground: Ground, root: Path, point: Point) -> None:
    """Run a night that nothing happens to."""
    code = end_of(begin_night(root, root.parent / "log"))
    if code not in (0, 1):
        point.problems.append(f"the night in peace ended with {code}")


def kill_worker(ground: Ground, root: Path, point: Point, rng: np.random.Generator) -> None:
    """A worker of the site's cluster dies: before a step of its own, or at any time."""
    order = Path(os.environ[ORDER])
    for former in order.parent.glob(f"{order.name}*"):
        former.unlink()
    if rng.random() < 0.7:
        kill_at = int(rng.integers(1, 400))
        point.moment = f"step {kill_at} of a worker"
        order.write_text(str(kill_at))
        night = begin_night(root, root.parent / "log")
        code = end_of(night)
        order.unlink(missing_ok=True)
        for taken in order.parent.glob(f"{order.name}.*"):
            pid = int(taken.suffix[1:])
            if pid in workers_of(ground.keeper):
                point.moment += " was not reached: between two nights"
                os.kill(pid, signal.SIGKILL)
    else:
        delay_s = float(rng.random()) * ground.night_s
        point.moment = f"{delay_s:.2f} s"
        night = begin_night(root, root.parent / "log")
        time.sleep(delay_s)
        workers = workers_of(ground.keeper)
        if workers:
            os.kill(workers[int(rng.integers(len(workers)))], signal.SIGKILL)
        code = end_of(night)
    if code not in (0, 1):
        point.problems.append(f"the night whose worker died ended with {code}")


def kill_night(
    ground: Ground, root: Path, point: Point, rng: np.random.Generator, *, own_cluster: bool = False
) -> None:
    """The process of the flow dies: before a step of its own, or at any time."""
    kill_at, delay_s = 0, float(rng.random()) * ground.night_s
    if rng.random() < 0.7:
        kill_at = int(rng.integers(1, ground.night_steps + 1))
    point.moment = f"step {kill_at} of the night" if kill_at else f"{delay_s:.2f} s"
    night = begin_night(root, root.parent / "log", kill_at, own_cluster=own_cluster)
    if not kill_at:
        night.join(delay_s)
        night.kill()
    end_of(night)
    leader = night.pid or 0
    try:
        wait_until(lambda: not session(leader), "processes of a dead night live on", GONE_S)
    except TimeoutError as error:
        point.problems.append(f"{error}: {session(leader)}")
        kill_session(leader)


def kill_night_with_cluster(ground: Ground, root: Path, point: Point, rng: np.random.Generator) -> None:
    """The process of a flow that has a cluster of its own dies."""
    kill_night(ground, root, point, rng, own_cluster=True)


def kill_server(ground: Ground, root: Path, point: Point, rng: np.random.Generator) -> None:
    """The Prefect server dies, and comes back with its database when the night has ended."""
    delay_s = float(rng.random()) * ground.night_s
    point.moment = f"{delay_s:.2f} s"
    night = begin_night(root, root.parent / "log")
    night.join(delay_s)
    ground.server.kill()
    back_s = float(rng.choice([0.0, 30.0, 1e9]))
    point.moment += f", back {'when the night has ended' if back_s > NIGHT_S else f'after {back_s:.0f} s'}"
    night.join(min(back_s, NIGHT_S))
    if back_s <= NIGHT_S or night.exitcode is not None:
        ground.server.start()
    if end_of(night) is None:
        point.problems.append("the night did not end without its server")
    if back_s > NIGHT_S and not ground.server._answers():
        ground.server.start()


def kill_runner(ground: Ground, root: Path, point: Point, rng: np.random.Generator) -> None:
    """`cmrtrials serve` dies, with or without the run it had begun; started again, the run is retried."""
    server = ground.server
    with_run = bool(rng.random() < 0.5)
    log = root.parent / "log"
    deployment = ""
    run_id = ""

    def serve() -> int:
        return run_command(["serve", str(root), "--port", str(20_000 + os.getpid() % 10_000)], root)

    def begin() -> "object":
        served = fork(serve, log)
        return served

    def is_there() -> bool:
        nonlocal deployment
        found = server.post("deployments/filter", {})
        assert isinstance(found, list)
        mine = [one["id"] for one in found if one["parameters"].get("root") == str(root)]
        deployment = mine[0] if mine else ""
        return "Ctrl-C ends it" in log.read_text() and bool(mine)

    def state() -> str:
        return dict(server.states(root)).get(run_id, "")

    runner = fork(serve, log)
    try:
        wait_until(is_there, "nothing is served")
        flow = [
            one["id"]
            for one in server.post("deployments/filter", {})  # type: ignore[attr-defined]
            if one["parameters"].get("root") == str(root)
            and "nightly" in one["entrypoint"]
            or one["parameters"].get("root") == str(root)
            and "stub_flow" in one["entrypoint"]
        ]
        made = server.post(f"deployments/{flow[0]}/create_flow_run", {"state": {"type": "SCHEDULED"}})
        assert isinstance(made, dict)
        run_id = made["id"]
        wait_until(lambda: state() not in ("SCHEDULED", ""), "the run does not begin")
        delay_s = float(rng.random()) * (ground.night_s + 10.0)
        point.moment = f"{delay_s:.2f} s after the run was taken on, {'with' if with_run else 'without'} it"
        time.sleep(delay_s)
        runs = [pid for pid in session(runner.pid or 0) if pid != runner.pid]
        os.kill(runner.pid or 0, signal.SIGKILL)
        runner.join()
        for pid in runs if with_run else []:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    finally:
        former, runner_pid = runner, runner.pid or 0
    log.write_text("")
    again = fork(serve, log)
    try:
        wait_until(is_there, "nothing is served again")
        if not with_run:
            # The run goes on without its runner.
            wait_until(lambda: len(session(runner_pid)) == 0, "the run without runner does not end", NIGHT_S)
            again_state = state()
            if again_state not in ("COMPLETED", "FAILED", "CRASHED"):
                point.moment += f" ({again_state})"
        if state() in ("CRASHED", "RUNNING", "CANCELLED"):
            retry = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
            server.post(f"flow_runs/{run_id}/set_state", retry)
            point.moment += ", retried"
        wait_until(lambda: state() in ("COMPLETED", "FAILED"), "the run does not end well", NIGHT_S)
    except TimeoutError as error:
        point.problems.append(f"{error}, state {state()}")
    finally:
        os.kill(again.pid or 0, signal.SIGTERM)
        again.join(30)
        kill_session(again.pid or 0)
        kill_session(runner_pid)
        former.join()


def fill_disk(ground: Ground, root: Path, point: Point, rng: np.random.Generator) -> None:
    """The disk gets full in the middle of a night, and has room again for the next one."""
    used = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    log = root.parent / "log"
    with ExitStack() as stack:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", root.parent], check=True)
        stack.callback(subprocess.run, ["umount", "-l", root.parent], check=True)
        shutil.copytree(ground.pristine, root, copy_function=shutil.copy2)
        free_kib = int(rng.integers(0, 4 * 1024))
        point.moment = f"{free_kib} KiB left"
        filler = root.parent / "filler"
        left = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
        filler.write_bytes(bytes(max(0, left - free_kib * 1024)))
        code = end_of(begin_night(root, ground.folder / "disk.log"))
        point.moment += f" of {used} B, night ended with {code}"
        if code is None:
            point.problems.append("the night did not end on a full disk")
        filler.unlink()
        in_peace(ground, root, point)
        point.problems += differences(root, ground.reference, had_failures=True)
        del log


def overlap(ground: Ground, root: Path, point: Point, rng: np.random.Generator) -> None:
    """Two nights at once, one of which may be killed."""
    delay_s = float(rng.random()) * ground.night_s
    kill_s = float(rng.random()) * 2.0 * ground.night_s if rng.random() < 0.5 else None
    point.moment = f"second after {delay_s:.2f} s" + ("" if kill_s is None else f", dies at {kill_s:.2f} s")
    first = begin_night(root, root.parent / "log")
    time.sleep(delay_s)
    second = begin_night(root, root.parent / "log2")
    if kill_s is not None:
        second.join(kill_s)
        second.kill()
    for night in (first, second):
        code = end_of(night)
        if code not in (0, 1) and not (night is second and kill_s is not None):
            point.problems.append(f"a night beside another ended with {code}")


def change_clock(ground: Ground, root: Path, point: Point, rng: np.random.Generator) -> None:
    """The clock of night and workers jumps once, by hours or days, forward or back."""
    if not FAKETIME.exists():
        raise NotPossibleError("no libfaketime: apt-get install faketime")
    hours = float(rng.choice([-1, 1])) * float(rng.choice([1.0, 25.0, 24.0 * 400]))
    delay_s = float(rng.random()) * 3.0 * ground.night_s
    point.moment = f"by {hours:+.0f} h after {delay_s:.2f} s"
    clock = root.parent / "clock"
    clock.write_text("+0")
    faked = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "CMR_WORKERS": "1",
    }
    own = {name: value for name, value in os.environ.items() if name != "CMR_DASK_SCHEDULER"}
    with (root.parent / "log").open("w") as log:
        night = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.stub_night", "run", str(root)],
            env=own | faked,
            cwd=REPOSITORY,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            night.wait(delay_s)
        except subprocess.TimeoutExpired:
            clock.write_text(f"{hours:+.0f}h")
        try:
            code: int | None = night.wait(NIGHT_S)
        except subprocess.TimeoutExpired:
            code = None
        kill_session(night.pid)
        night.wait()
    clock.unlink()
    if code not in (0, 1):
        point.problems.append(f"the night whose clock jumped ended with {code}")


VICTIMS: dict[str, tuple[int, Callable[[Ground, Path, Point, np.random.Generator], None]]] = {
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
    shares = [share for share, _ in VICTIMS.values()]
    rng = np.random.default_rng([seed, 0])
    return str(rng.choice(list(VICTIMS), p=np.array(shares) / sum(shares)))


def try_point(ground: Ground, victim: str, seed: int) -> Point:
    """Let something happen to a night, run another in peace, and compare."""
    point = Point(victim, seed)
    rng = np.random.default_rng([seed, 1])
    started = time.monotonic()
    root = ground.trial(f"point{seed}")
    try:
        VICTIMS[victim][1](ground, root, point, rng)
        if victim != "full disk":
            in_peace(ground, root, point)
            point.problems += differences(root, ground.reference)
        point.problems += unsettled_runs(ground.server, root)
    except NotPossibleError as error:
        point.skipped = str(error)
    except Exception as error:  # noqa: BLE001 (a point that breaks off is one that failed)
        point.problems.append(f"{type(error).__name__}: {error}")
    point.seconds = time.monotonic() - started
    if not point.problems:
        shutil.rmtree(root.parent, ignore_errors=True)
    return point


def as_json(point: Point) -> str:
    """Write a point on one line."""
    return json.dumps(vars(point))
