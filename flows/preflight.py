"""What must be so before a night begins; what is not is said in one line, with what to do."""

import hashlib
import os
import secrets
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Client

import cmrcore
import storage
import tasks
from flows.errors import ClusterUnreachableError, NotWritableError, VersionMismatchError
from flows.site import SiteSettings
from flows.user import current_user
from storage.objects import keeps_the_first, store_errors
from storage.place import Place

if TYPE_CHECKING:
    from upath import UPath

WRITTEN = ("arrays", "audit", "history", "quarantine", "reports", "running", "tables")
"""Folders of a root that nights write."""
CONNECT_S = 15
"""Longest wait for the scheduler [s]."""
COMPARED = ("python", "cmrtrials", "dask", "distributed", "numpy", "torch", "zarr")
"""What workers must have as the night has it: it computes, stores, or carries between them."""
COMPARED_SCHEDULER = ("python", "dask", "distributed")
_CODE = "code of cmrtrials"


def check_ready(root: Place, settings: SiteSettings) -> None:
    """Check that a night can write its root, and use the cluster that the site names.

    Raises
    ------
    NotWritableError, ClusterUnreachableError, VersionMismatchError
        When it cannot.
    """
    check_writable(root)
    if settings.dask_scheduler:
        check_cluster(settings.dask_scheduler)


def check_writable(root: Place) -> None:
    """Check that this account may write what nights write.

    Raises
    ------
    NotWritableError
        Naming the folders in which it may not.
    """
    if not isinstance(root, Path):
        _check_objects(root)
        return
    there = [root, *(root / name for name in WRITTEN if (root / name).is_dir())]
    closed = [
        "the root itself" if folder == root else f"{folder.name}/"
        for folder in there
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True)
    ]
    if closed:
        message = (
            f"the trial's root is not writable for {current_user()} (uid {os.geteuid()}): "
            f"{', '.join(closed)}; is it mounted read-only? Else run as the account that owns it "
            f"(uid {root.stat().st_uid}), or give it to this one with chown -R"
        )
        raise NotWritableError(message)


def _check_objects(root: "UPath") -> None:
    """Put an object into the root, see that another one does not take its place, and remove it."""
    probe = root / "running" / f".{secrets.token_hex(4)}"
    try:
        is_safe = keeps_the_first(probe)
    except store_errors() as error:
        message = f"{root} is not writable ({_first_line(error)}); check the bucket and the rights to it"
        raise NotWritableError(message) from None
    if not is_safe:
        message = (
            f"{root}: the store puts an object in the place of one that is there when asked not to "
            "(If-None-Match), so that two nights could write at once; use a store that knows conditional puts"
        )
        raise NotWritableError(message)


def check_cluster(address: str) -> None:
    """Check that a scheduler answers, and that it and its workers have this process's versions.

    Raises
    ------
    ClusterUnreachableError
        When the scheduler does not answer, or not to this process.
    VersionMismatchError
        Naming what differs.
    """
    try:
        with Client(address, timeout=CONNECT_S, set_as_default=False) as client:
            versions = client.get_versions(packages=list(COMPARED))
            # Two checkouts of one version are told apart by their text. A worker without this function, or
            # whose answer fails otherwise, has other code.
            codes = client.run(code_digest, on_error="return")
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # the last three: address, or TLS
        message = (
            f"no Dask scheduler answers at {address}, which CMR_DASK_SCHEDULER names "
            f"({_first_line(error)}); start it with `dask scheduler` and see that its certificates are this "
            f"process's, or unset CMR_DASK_SCHEDULER for a cluster of the night's own"
        )
        raise ClusterUnreachableError(message) from None
    versions["client"]["packages"][_CODE] = code_digest()
    for worker, code in codes.items():
        if worker in versions["workers"]:
            versions["workers"][worker]["packages"][_CODE] = code if isinstance(code, str) else None
    differing = differences(versions)
    if differing:
        message = (
            f"the Dask cluster has other versions than this night: {'; '.join(differing)}; install one "
            f"release, with its constraints.txt, on all machines, and restart scheduler and workers"
        )
        raise VersionMismatchError(message)


@cache
def code_digest() -> str:
    """Give the first characters of the SHA-256 of what runs on workers: every module, by name and text.

    As the files were when a process was first asked: what is installed over them later, it does not run.
    """
    text = hashlib.sha256()
    for package in (cmrcore, storage, tasks):
        (folder,) = (Path(place) for place in package.__path__)
        for file in sorted(folder.rglob("*.py")):
            text.update(f"{package.__name__}/{file.relative_to(folder).as_posix()}\n".encode())
            text.update(file.read_bytes())
    return text.hexdigest()[:12]


def differences(versions: Mapping[str, Any]) -> list[str]:
    """Say what scheduler and workers have otherwise than the client; workers that say the same are counted.

    Parameters
    ----------
    versions
        As ``distributed.Client.get_versions`` gives them.
    """
    here = versions["client"]["packages"]

    def differing(theirs: Mapping[str, Any] | None, names: tuple[str, ...]) -> str:
        found = (theirs or {}).get("packages", {})
        return ", ".join(
            f"{name} {found.get(name) or 'none'} (here {here.get(name) or 'none'})"
            for name in names
            if found.get(name) != here.get(name)
        )

    said = []
    if scheduler := differing(versions["scheduler"], COMPARED_SCHEDULER):
        said.append(f"the scheduler: {scheduler}")
    workers = Counter(differing(theirs, (*COMPARED, _CODE)) for theirs in versions["workers"].values())
    said += [f"{n} of {workers.total()} workers: {what}" for what, n in sorted(workers.items()) if what]
    return said


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
