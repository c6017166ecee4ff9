"""What the tests do with a trial besides running the command on it."""

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.simulate import CUT_OFF_BYTES

Cmrtrials = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class DemoNight:
    """The demo trial after its first night."""

    root: Path
    """The trial."""
    first: subprocess.CompletedProcess[str]
    """What the first night printed, and its exit code."""


def snapshot(root: Path) -> dict[str, str]:
    """Digest and time of every file of a trial."""
    return {
        file.relative_to(root).as_posix(): (
            f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_mtime_ns}"
        )
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def mend(root: Path) -> None:
    """Complete the demo trial's cut-off image, as a site does that sends it again."""
    (upload,) = (root / "incoming").glob("S06_202608*")
    cut_off = min(upload.glob("IM*.dcm"), key=lambda file: file.stat().st_size)
    with cut_off.open("ab") as file:
        file.write(bytes(CUT_OFF_BYTES))
