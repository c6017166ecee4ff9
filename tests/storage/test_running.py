"""Nights at work and nights that died."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from storage.running import forget_run, mark_running, marked_running, running_nights

HOLD = """
import sys
from pathlib import Path
from storage.running import marked_running
with marked_running(Path(sys.argv[1]), "killed"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_is_marked_while_it_lasts(tmp_path: Path) -> None:
    """Two at once know nothing bad of each other."""
    assert running_nights(tmp_path) == []
    with marked_running(tmp_path, "first") as dead, marked_running(tmp_path, "second") as also_dead:
        assert running_nights(tmp_path) == ["first", "second"]
        assert (dead, also_dead) == ([], [])
    assert running_nights(tmp_path) == []


def test_a_killed_run_is_told_until_it_is_forgotten(tmp_path: Path) -> None:
    """SIGKILL leaves the mark, but not the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert running_nights(tmp_path) == ["killed"]
        with marked_running(tmp_path, "meanwhile") as dead:
            assert dead == []
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert running_nights(tmp_path) == []
    for run_id in ("next", "the one after"):
        with marked_running(tmp_path, run_id) as dead:
            assert dead == ["killed"]
    forget_run(tmp_path, "killed")
    with marked_running(tmp_path, "after") as dead:
        assert dead == []
    assert list((tmp_path / "running").iterdir()) == []


def test_a_run_that_is_tried_again_keeps_its_mark_when_the_first_try_ends(tmp_path: Path) -> None:
    """A Retry in the UI, while the process of the first try has not quite gone."""
    first = mark_running(tmp_path, "run")
    second = mark_running(tmp_path, "run")
    first.remove()
    assert running_nights(tmp_path) == ["run"]
    second.remove()
    assert list((tmp_path / "running").iterdir()) == []
