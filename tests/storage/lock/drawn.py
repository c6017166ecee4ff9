"""A small trial that can be locked."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from storage.arrays import content_digest, store_path, write_array, write_store
from storage.config import load_config
from storage.lock import Lock, lock_record
from storage.tables import publish
from tests.storage.drawn_rows import row, visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG

PLAN = """subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id
S01,V1,2026-03-01,14,,,01
02,V1,2026-03-01,14,,,01
"""
FLAGS = "tables/flags/S01/V1.parquet"


def draw_trial(root: Path) -> Path:
    """Write a trial of two visits: one with a result, its arrays and a former state, one that waits."""
    root.mkdir(exist_ok=True)
    shutil.copy(DEMO_CONFIG, root / "trial.toml")
    (root / "subjects.csv").write_text(PLAN)
    with write_store(root, "S01", "V1", "digest-1") as store:
        write_array(store, "values", np.arange(3.0), "1", "value")
    publish_result(root, "draft")
    publish_result(root, "")
    waiting = visit_row(
        subject_id="02",
        state="waiting",
        result_digest=None,
        config_digest=load_config(root / "trial.toml").digest(),
    )
    publish(root, waiting, {}, "core lab", "night")
    return root


def publish_result(root: Path, reason: str, **values: Any) -> None:
    """Publish the first subject's visit, with a scan and a flag."""
    config_digest = load_config(root / "trial.toml").digest()
    visit = visit_row(reason=reason, config_digest=config_digest, published_at=datetime.now(UTC))
    rows = {"scans": [row("scans", **values)], "flags": [row("flags")]}
    arrays = content_digest(store_path(root, "S01", "V1", "digest-1"))
    assert publish(root, visit, rows, "core lab", "night", arrays) == "published"


def lock(root: Path, name: str = "interim") -> Lock:
    """Lock a trial."""
    return lock_record(root, name, "J. Doe", "analysis", "1.0")


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file in a folder, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def free(folder: Path) -> None:
    """Make a lock writable, as somebody would who wants to change it."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755)


def edit(file: str) -> Callable[[Path], None]:
    """Give a change of a file's last byte."""

    def change(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    return change
