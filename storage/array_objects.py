"""Zarr stores on an object store: uploaded with the root's ``zarr.json`` last, by which a store is there.

A store's name is the digest of what it was made from, so whoever uploads again after a kill puts the same
objects.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from storage.objects import ages_s, put, put_all, read_all, remove_all, versions

if TYPE_CHECKING:
    from upath import UPath
    from zarr.storage import FsspecStore

ROOT_OBJECT = "zarr.json"
"""Metadata of a store's root group."""

UNFINISHED_S = 24 * 3600.0
"""Age at which what was uploaded cannot belong to a running night any more [s]."""


def is_whole(store: "UPath") -> bool:
    """Whether all of a store has been uploaded."""
    return (store / ROOT_OBJECT).exists()


def reader(store: "UPath") -> "FsspecStore":
    """Give what Zarr reads a store by."""
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(str(store), storage_options=dict(store.storage_options), read_only=True)


def download(store: "UPath", folder: Path) -> None:
    """Copy a store into a new folder."""
    for name, data in read_all(store, versions(store)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def upload(folder: Path, store: "UPath") -> bool:
    """Copy a store from a folder; it is there when all of it is. False where a whole one is there.

    What a killed upload left under the same name is replaced, or removed where the store has no such object.
    """
    if is_whole(store):
        return False
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    remove_all(store, versions(store).keys() - names)
    put_all(store, {name: (folder / name).read_bytes() for name in names - {ROOT_OBJECT}})
    put(store / ROOT_OBJECT, (folder / ROOT_OBJECT).read_bytes())
    return True


def digests(store: "UPath") -> Iterator[tuple[str, str]]:
    """Yield relative name and SHA-256 of every object of a store, sorted as paths are."""
    data = read_all(store, versions(store))
    for name in sorted(data, key=lambda name: name.split("/")):
        yield name, hashlib.sha256(data[name]).hexdigest()


def remove_unfinished(arrays: "UPath", older_than_s: float = UNFINISHED_S) -> int:
    """Remove stores that are not whole and to which nothing was added for a time; give their number."""
    youngest: dict[str, float] = defaultdict(lambda: float("inf"))
    objects: dict[str, list[str]] = defaultdict(list)
    for name, age_s in ages_s(arrays, time.time()).items():
        store = "/".join(name.split("/")[:3])
        objects[store].append(name)
        youngest[store] = min(youngest[store], age_s)
    stale = [
        store
        for store, names in objects.items()
        if f"{store}/{ROOT_OBJECT}" not in names and youngest[store] > older_than_s
    ]
    for store in stale:
        remove_all(arrays, objects[store])
    return len(stale)
