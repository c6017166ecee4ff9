"""Peers in an environment of their own: made once, in bounded time, and done without where that fails."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

UKAT = "ukat==0.7.3"
UKAT_NEEDS = ("numpy", "scipy", "nibabel", "pathos", "scikit-learn", "tqdm")
_SETUP_LIMIT_S = 240.0
"""For all steps together; the lightest take a minute."""
_FIT_LIMIT_S = 120.0


def say(text: str) -> None:
    """Tell on stderr what a benchmark does now."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


def ukat_seconds(curves: np.ndarray, ti_ms: np.ndarray, folder: Path) -> tuple[dict[str, float] | None, str]:
    """Seconds of ukat's MOLLI fit in one process ("one") and in its pool ("pool"); None and why without it.

    Parameters
    ----------
    curves
        Magnitudes, pixel by time [a.u.].
    ti_ms
        Inversion times [ms].
    folder
        Keeps the environment: ukat is GPL-3 and needs older packages than this project.
    """
    why = _make_environment(folder)
    if why:
        say(f"going on without ukat: {why}")
        return None, why
    say(f"fitting {len(curves)} curves with ukat, at most {_FIT_LIMIT_S:.0f} s")
    with tempfile.TemporaryDirectory() as scratch:
        data, result = Path(scratch) / "curves.npz", Path(scratch) / "seconds.json"
        np.savez(data, curves=curves, ti_ms=ti_ms)
        script = Path(__file__).with_name("peer_ukat.py")
        command = [str(_python(folder)), str(script), str(data), str(result)]
        why = _run(command, _FIT_LIMIT_S, folder / "ukat.log")
        if why:
            say(f"going on without ukat: {why}")
            return None, why
        return json.loads(result.read_text()), ""


def _python(folder: Path) -> Path:
    """Interpreter of the environment."""
    return folder / "bin" / "python"


def _make_environment(folder: Path) -> str:
    """Make the environment where it is not complete; the reason where that fails, else an empty text."""
    complete = folder / "complete"
    if complete.exists():
        return ""
    python = str(_python(folder))
    install = [python, "-m", "pip", "install", "-qq", "--only-binary", ":all:", "--timeout", "15"]
    steps = {
        "an environment": [sys.executable, "-m", "venv", "--clear", str(folder)],
        UKAT: [*install, "--retries", "1", "--no-deps", UKAT],
        ", ".join(UKAT_NEEDS): [*install, "--retries", "1", *UKAT_NEEDS],
    }
    end = time.monotonic() + _SETUP_LIMIT_S
    for what, command in steps.items():
        left_s = end - time.monotonic()
        say(f"peers, once: {what} (at most {max(left_s, 0):.0f} s)")
        why = _run(command, left_s, folder.with_suffix(".log"))
        if why:
            return f"{what}: {why}"
    complete.touch()
    return ""


def _run(command: list[str], limit_s: float, log: Path) -> str:
    """Run a command with its children in bounded time; the reason where it fails, else an empty text.

    The log is a file and the group ends as a whole: a child that keeps a pipe open would be waited for.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    with log.open("w") as text:
        process = subprocess.Popen(command, stdout=text, stderr=text, env=environment, start_new_session=True)
        try:
            process.wait(timeout=max(limit_s, 0.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"not done in time, see {log}"
    if process.returncode:
        last = (log.read_text().strip().splitlines() or ["no message"])[-1]
        return f"{last[:70]}, see {log}"
    return ""
