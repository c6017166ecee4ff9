"""What the tests do with a trial besides running the command on it."""

import hashlib
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flows.simulate import Recipe
from flows.simulated_upload import CUT_OFF_BYTES
from storage.config import CONFIG_FILE

Cmrtrials = Callable[..., subprocess.CompletedProcess[str]]

SMALL_TRIAL = Recipe(n_subjects=2, n_visits=1, seed=1)
"""Two sound subjects with one visit each, and a reader's guides."""


@dataclass(frozen=True)
class DemoNight:
    """A trial with the demo's faults after its first night."""

    root: Path
    """The trial."""
    first: subprocess.CompletedProcess[str]
    """What the first night printed, and its exit code."""


def interruptible() -> None:
    """Heed Ctrl-C, which a process does not whose parent was started in the background of a script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def published_row(root: Path, table: str, subject_id: str, visit_id: str) -> dict[str, Any]:
    """Read one published row as pandas gives it."""
    (row,) = pd.read_parquet(root / "tables" / table / subject_id / f"{visit_id}.parquet").to_dict("records")
    return {str(column): value for column, value in row.items()}


def states(root: Path) -> dict[str, str]:
    """Read the state of every visit."""
    visits = pd.read_parquet(root / "tables" / "visits").to_dict("records")
    return {f"{row['subject_id']}/{row['visit_id']}": str(row["state"]) for row in visits}


def snapshot(root: Path) -> dict[str, str]:
    """Digest and time of every file of a trial."""
    return {
        file.relative_to(root).as_posix(): (
            f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_mtime_ns}"
        )
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def set_segmentation(root: Path, *, method: str = "carry", base: str = "", guided: str = "") -> None:
    """Change how a trial segments; without arguments readers' guides are carried, and no network runs."""
    file = root / CONFIG_FILE
    text = file.read_text()
    for key, value in {"method": method, "base": base, "guided": guided}.items():
        text, n_changed = re.subn(
            rf'^{key} = "[^"]*"', f'{key} = "{value}"', text, count=1, flags=re.MULTILINE
        )
        assert n_changed == 1, key
    file.write_text(text)


def cut_off(root: Path, upload: str) -> None:
    """Cut off an image of the upload whose folder matches, as the demo trial's fault does."""
    (folder,) = (root / "incoming").glob(upload)
    image = sorted(folder.glob("IM*.dcm"))[2]
    image.write_bytes(image.read_bytes()[:-CUT_OFF_BYTES])


def withhold(root: Path, upload: str) -> None:
    """Take away the upload whose folder matches, as if it had not come yet."""
    (folder,) = (root / "incoming").glob(upload)
    shutil.rmtree(folder)


def mend(root: Path, upload: str = "S05_202608*") -> None:
    """Complete the cut-off image of an upload, as a site does that sends it again."""
    (folder,) = (root / "incoming").glob(upload)
    image = min(folder.glob("IM*.dcm"), key=lambda file: file.stat().st_size)
    with image.open("ab") as file:
        file.write(bytes(CUT_OFF_BYTES))
