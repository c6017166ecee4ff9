"""The published files of visits as they stand on an object store, without a lock: each visit's old or new.

Readers list, read, and list again: what has the same versions in both listings stood still in between. A
visit whose staged files have their manifest is published already, though its files are not all in place; its
new files are read where they are staged. So a publication happens for readers at the one moment in which its
manifest is put, and a killed one is whole as well.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.errors import StorageError
from storage.objects import read_all, versions
from storage.staging import MANIFEST_FILE, STAGING_FOLDER, TABLES_FOLDER

if TYPE_CHECKING:
    from upath import UPath

ATTEMPTS = 20
"""Listings after which a visit that is never seen at rest is given up."""

_SUFFIX = ".parquet"

VisitKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Seen:
    versions: dict[str, str]
    """Versions of a visit's objects, by name."""
    data: dict[str, bytes]
    """The objects."""


def published_files(
    root: "UPath", names: Iterable[str], subject_id: str | None = None
) -> dict[str, dict[VisitKey, bytes]]:
    """Read the files of visits in some tables: by table, then subject and visit, sorted.

    Parameters
    ----------
    root
        Root of the trial.
    names
        Tables; ``visits`` must be among them where there is one of results, as it changes with each.
    subject_id
        The only subject whose files are read; None for all.

    Raises
    ------
    StorageError
        If a visit is published again and again while it is read.
    """
    names = tuple(names)
    tables = root / TABLES_FOLDER
    seen: dict[VisitKey, _Seen] = {}
    for _ in range(ATTEMPTS):
        listed = _list(tables, names, subject_id)
        changed = [key for key, found in listed.items() if key not in seen or seen[key].versions != found]
        seen = {key: one for key, one in seen.items() if key in listed}
        if not changed:
            return _in_place(seen, names)
        data = read_all(tables, [name for key in changed for name in listed[key]])
        for key in changed:
            # One that is gone meanwhile shows in the next listing.
            seen[key] = _Seen(listed[key], {name: data[name] for name in listed[key] if name in data})
    message = f"tables of {root} change faster than they can be read; try again"
    raise StorageError(message)


def _list(tables: "UPath", names: Iterable[str], subject_id: str | None) -> dict[VisitKey, dict[str, str]]:
    """List each visit's files in some tables, and what is staged for it."""
    listed: dict[VisitKey, dict[str, str]] = {}
    for name in (*names, STAGING_FOLDER):
        folder = tables / name if subject_id is None else tables / name / subject_id
        for path, version in versions(folder).items():
            parts = path.split("/") if subject_id is None else [subject_id, *path.split("/")]
            if len(parts) == (3 if name == STAGING_FOLDER else 2):
                key = (parts[0], parts[1].removesuffix(_SUFFIX) if len(parts) == 2 else parts[1])
                listed.setdefault(key, {})["/".join([name, *parts])] = version
    return listed


def _in_place(seen: dict[VisitKey, _Seen], names: Iterable[str]) -> dict[str, dict[VisitKey, bytes]]:
    """Give the files as they are in place, or will be when what is staged is."""
    files: dict[str, dict[VisitKey, bytes]] = {name: {} for name in names}
    for key, one in sorted(seen.items()):
        staged = "/".join([STAGING_FOLDER, *key])
        manifest: dict[str, Any] = json.loads(one.data.get(f"{staged}/{MANIFEST_FILE}", b"{}"))
        for name, of_visits in files.items():
            path = f"{name}/{key[0]}/{key[1]}{_SUFFIX}"
            if name in manifest.get("new", ()):
                path = f"{staged}/{name}{_SUFFIX}"
            elif name in manifest.get("former", ()):
                continue
            if path in one.data:
                of_visits[key] = one.data[path]
    return files
