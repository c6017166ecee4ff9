"""exports/<kind>/...: a visit's folder appears whole, is replaced whole, and says what it was made from."""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.digest import file_digest
from storage.durable import exclusive_lock, fsync_path
from storage.export_visit import ExportedVisit

EXPORTS = "exports"
MANIFEST = "export.json"

_FORMAT = {"format": "cmrtrials-export", "version": 1}
_TEMPORARY = ".export-"


@contextmanager
def export_folder(root: Path, kind: str) -> Iterator[Path]:
    """Hold the folder of all exports of a kind alone, without what killed exports left behind."""
    folder = root / EXPORTS / kind
    with exclusive_lock(folder):
        for stale in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(stale)
        yield folder


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read what a visit's export says of itself; None where there is none, or none that can be read."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.items() >= _FORMAT.items() else None


def is_current(folder: Path, visit: ExportedVisit, kind: str) -> bool:
    """Whether a visit's export stands and was made from what is published now."""
    found = read_manifest(folder)
    return found is not None and found.get("export_digest") == visit.digest(kind)


def write_export(
    exports: Path, folder: Path, visit: ExportedVisit, kind: str, write: Callable[[Path], None]
) -> None:
    """Write a visit's export beside its place, then put it there instead of a former one.

    Parameters
    ----------
    exports
        What `export_folder` gave.
    folder
        Place of the visit's export below it.
    visit, kind
        What is exported.
    write
        Writes the files into a folder.
    """
    temporary = exports / f"{_TEMPORARY}{secrets.token_hex(4)}"
    try:
        temporary.mkdir()
        write(temporary)
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        manifest = {
            **_FORMAT,
            "kind": kind,
            "export_digest": visit.digest(kind),
            **visit.facts(),
            "files": {file.relative_to(temporary).as_posix(): file_digest(file) for file in files},
        }
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
        (temporary / MANIFEST).write_text(text + "\n", encoding="utf-8")
        for file in (*files, temporary / MANIFEST):
            fsync_path(file)
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_export(exports, folder)
        temporary.rename(folder)
        fsync_path(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_export(exports: Path, folder: Path) -> bool:
    """Take a visit's export away, whole; whether there was one."""
    if not folder.is_dir():
        return False
    former = exports / f"{_TEMPORARY}{secrets.token_hex(4)}"
    folder.rename(former)
    shutil.rmtree(former)
    return True
