"""Objects of a store that has no rename: put whole, copied within the store, listed with what tells versions.

To put one object is atomic: readers find the former bytes or the new ones. Nothing here touches more than one
object at a time in a way that readers could see half of; what belongs together is made so by the order in
which it is put (`storage.staging`, `storage.arrays`).
"""

import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from storage.place import Place

if TYPE_CHECKING:
    from upath import UPath

CONFLICTS_MAX = 5
"""How often an object is tried to be put while somebody else puts one of its name."""
CONFLICT_S = 0.2
"""Time between two such tries [s]."""


def put(place: "UPath", data: bytes) -> None:
    """Put an object, in place of the one of this name."""
    place.fs.pipe_file(place.path, data)


def put_all(folder: "UPath", data: Mapping[str, bytes]) -> None:
    """Put objects under a folder by relative name, many at a time and in no order."""
    folder.fs.pipe({f"{folder.path}/{name}": content for name, content in data.items()})


def get(place: "UPath") -> bytes:
    """Read an object."""
    data: bytes = place.fs.cat_file(place.path)
    return data


def put_new(place: "UPath", data: bytes) -> bool:
    """Put an object unless there is one of this name; whether it was put. Of several callers one succeeds."""
    for attempt in range(CONFLICTS_MAX):
        try:
            place.fs.pipe_file(place.path, data, mode="create")
        except FileExistsError:
            break
        except OSError as error:
            status = _http_status(error)
            if status == HTTPStatus.PRECONDITION_FAILED:  # not every store names the condition
                break
            if status != HTTPStatus.CONFLICT or attempt == CONFLICTS_MAX - 1:
                raise
            time.sleep(CONFLICT_S)
        else:
            return True
    # The store may have answered a first attempt too late, and refused the second for it.
    return get(place) == data


def keeps_the_first(place: "UPath") -> bool:
    """Whether a store refuses to put what is to be new but is there, on which leases rest; removes both."""
    try:
        is_put = put_new(place, b"first")
    except OSError as error:
        if _http_status(error) == HTTPStatus.NOT_IMPLEMENTED:
            return False
        raise
    try:
        return is_put and not put_new(place, b"second")
    finally:
        remove(place)


def copy(source: Place, target: Place) -> None:
    """Copy an object within the store, in place of the one of the target's name; a file likewise."""
    if isinstance(source, Path) or isinstance(target, Path):
        shutil.copyfile(str(source), str(target))
        return
    source.fs.cp_file(source.path, target.path)


def remove(place: Place) -> None:
    """Remove an object or a file, if it is there."""
    if isinstance(place, Path):
        place.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        place.fs.rm_file(place.path)


def remove_all(folder: "UPath", names: Iterable[str]) -> None:
    """Remove objects under a folder by relative name, in no order; they must be there."""
    if paths := [f"{folder.path}/{name}" for name in names]:
        folder.fs.rm(paths)


def files_under(folder: Place) -> list[Place]:
    """List all files under a folder, sorted."""
    if isinstance(folder, Path):
        return [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    return [folder / name for name in sorted(versions(folder))]


def versions(folder: "UPath") -> dict[str, str]:
    """List all objects under a folder by relative name, with what changes when one is put again."""
    found = folder.fs.find(folder.path, detail=True)
    return {
        name[len(folder.path) :].strip("/"): f"{facts.get('ETag')} {_put_at(facts)} {facts['size']}"
        for name, facts in found.items()
    }


def read_all(folder: "UPath", names: Iterable[str]) -> dict[str, bytes]:
    """Read objects under a folder by relative name, many at a time; those that are gone are left out."""
    paths = {f"{folder.path}/{name}": name for name in names}
    if not paths:
        return {}
    found = folder.fs.cat(list(paths), on_error="return")
    read: dict[str, bytes] = {}
    for path, data in found.items():
        if isinstance(data, FileNotFoundError):
            continue
        if isinstance(data, Exception):
            raise data
        read[paths[path]] = data
    return read


def ages_s(folder: "UPath", now_s: float) -> dict[str, float]:
    """List all objects under a folder by relative name, with their age by the store's clock and this one."""
    found = folder.fs.find(folder.path, detail=True)
    return {name[len(folder.path) :].strip("/"): now_s - _put_at(facts) for name, facts in found.items()}


def store_errors() -> tuple[type[Exception], ...]:
    """Errors of a store that does not answer, or not to this account, as far as they were imported."""
    found: list[type[Exception]] = [OSError]
    if "botocore" in sys.modules:
        from botocore.exceptions import BotoCoreError

        found.append(BotoCoreError)
    if "aiohttp" in sys.modules:
        from aiohttp import ClientError

        found.append(ClientError)
    return tuple(found)


def _http_status(error: OSError) -> int | None:
    """Give the status with which a store refused a request, where it is known."""
    answer = getattr(error.__cause__, "response", None)
    if not isinstance(answer, dict):
        return None
    status: int | None = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _put_at(facts: dict[str, object]) -> float:
    """Give when an object was put [s since 1970]."""
    when = facts.get("LastModified") or facts["created"]
    return float(when.timestamp() if hasattr(when, "timestamp") else when)  # type: ignore[arg-type]
