"""What else goes wrong while a night is at work: no room on the disk, another night, a clock that jumps."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.kill_ground import Ground
from tests.benchmarks.kill_site import NIGHT_S, REPOSITORY, begin_night, end_of, kill_session, workers_of

DISK_MIB = 16
MOST_FREE_KIB = 4 * 1024
"""A night of stub stages writes some 5 MiB."""
LARGEST_FILE_BYTES = 40_000
"""Of its files, few are larger."""
MOVED_CLOCK = Path(__file__).with_name("moved_clock.c")
JUMPS_H = (1.0, 25.0, 400 * 24.0)


class NotPossibleError(RuntimeError):
    """Something that this machine cannot do."""


def fill_disk(ground: Ground, root: Path, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Give a trial a disk of its own (tmpfs) that gets full in the middle of a night.

    Where nothing may be mounted, no file may grow above a limit: another error (EFBIG), in the same places.
    """
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs"]
    mounted = subprocess.run(["mount", *options, root.parent], capture_output=True, check=False)
    if mounted.returncode:
        return _limit_files(ground, root, rng)
    ground.fill(root)
    free_kib = int(rng.integers(0, MOST_FREE_KIB))
    disk = os.statvfs(root)
    filler = root.parent / "filler"
    filler.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - free_kib * 1024)))
    code = end_of(begin_night(root, ground.folder / "disk.log"))
    filler.unlink()
    problems = ["the night did not end on a full disk"] if code is None else []
    return f"{free_kib} KiB left, exit code {code}", problems


def _limit_files(ground: Ground, root: Path, rng: np.random.Generator) -> tuple[str, list[str]]:
    limit = int(rng.integers(1, LARGEST_FILE_BYTES))
    pids = [os.getpid(), *workers_of(ground.keeper)]
    former = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, hard) in former.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))
    try:
        code = end_of(begin_night(root, Path(os.devnull)))
    finally:
        for pid, limits in former.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    problems = ["the night did not end where files cannot grow"] if code is None else []
    return f"nothing may be mounted; no file above {limit} bytes, exit code {code}", problems


def overlap(ground: Ground, root: Path, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Begin a night while another is at work; every other time the second one is killed."""
    delay_s, kill_s = (float(rng.random()) * ground.night_s * times for times in (1.0, 2.0))
    is_killed = bool(rng.random() < 0.5)
    first = begin_night(root, root.parent / "log")
    time.sleep(delay_s)
    second = begin_night(root, root.parent / "log2")
    if is_killed:
        second.join(kill_s)
        second.kill()
    codes = [end_of(first), end_of(second)]
    wrong = [code for code in (codes[:1] if is_killed else codes) if code not in (0, 1)]
    moment = f"second after {delay_s:.2f} s" + (f", killed {kill_s:.2f} s later" if is_killed else "")
    return moment, [f"a night beside another ended with {code}" for code in wrong]


def change_clock(ground: Ground, root: Path, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Let the clock of a night and its workers jump once, forward or back, as `date --set` does.

    Timers do not follow such a jump, nor do the times that the disk notes: they are the machine's.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        message = "no C compiler for a clock that can be moved: apt-get install gcc"
        raise NotPossibleError(message)
    library = root.parent / "moved_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, MOVED_CLOCK, "-ldl"], check=True)
    hours = float(rng.choice([-1.0, 1.0])) * float(rng.choice(JUMPS_H))
    delay_s = float(rng.random()) * ground.night_s
    clock, log = root.parent / "clock", root.parent / "log"
    clock.write_text("0")
    faked = {
        "LD_PRELOAD": str(library),
        "CMRTRIALS_CLOCK": str(clock),
        "CMR_WORKERS": "1",
    }
    own = {name: value for name, value in os.environ.items() if name != "CMR_DASK_SCHEDULER"}
    with log.open("w") as output:
        night = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.stub_night", "run", root],
            env=own | faked,
            cwd=REPOSITORY,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    code: int | None = None
    try:
        deadline = time.monotonic() + NIGHT_S
        # From here on it works, however long it took to begin.
        while not any(root.glob("arrays/*/*/.*.tmp")) and night.poll() is None:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        time.sleep(delay_s)
        clock.write_text(f"{hours * 3600:.0f}")
        code = night.wait(NIGHT_S)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        kill_session(night.pid)
        night.wait()
    moment = f"by {hours:+.0f} h, {delay_s:.2f} s after the first store was begun"
    return moment, [] if code in (0, 1) else [f"the night whose clock jumped ended with {code}"]
