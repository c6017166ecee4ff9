"""What keeps a night from beginning is said in one line, with what to do."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from fsspec.implementations.memory import MemoryFileSystem

import storage
from flows import preflight
from flows.errors import ClusterUnreachableError, NotWritableError, VersionMismatchError
from flows.preflight import COMPARED, check_cluster, check_ready, check_writable, differences
from flows.site import SiteSettings
from storage.place import to_place
from tests.flows.trials import Cmrtrials

NOBODY = 65534


@pytest.fixture
def foreign_root() -> Iterator[Path]:
    """Folder that this account, no longer root, may enter but not write; its audit/ it may."""
    folder = Path(tempfile.mkdtemp(prefix="cmrtrials-root-"))  # pytest's own folders are closed to others
    (folder / "tables").mkdir()
    (folder / "audit").mkdir()
    (folder / "audit").chmod(0o777)
    is_root = os.geteuid() == 0
    for closed in (folder, folder / "tables"):
        closed.chmod(0o755 if is_root else 0o555)
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_root_that_cannot_be_written_is_named_by_folder(foreign_root: Path) -> None:
    """Not a traceback of whichever file comes first."""
    with pytest.raises(NotWritableError, match=r"\): the root itself, tables/; .*chown -R") as refused:
        check_ready(foreign_root, SiteSettings())
    assert str(foreign_root) not in str(refused.value)
    check_writable(foreign_root / "audit")


def test_a_store_without_conditional_puts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nights could write a trial there at once."""
    root = to_place("memory://bucket/preflight")
    check_writable(root)
    pipe_file = MemoryFileSystem.pipe_file
    monkeypatch.setattr(
        MemoryFileSystem, "pipe_file", lambda system, path, data, **_: pipe_file(system, path, data)
    )
    with pytest.raises(NotWritableError, match="use a store that knows conditional puts"):
        check_writable(root)


def packages(**other: str) -> dict[str, Any]:
    """Versions of one process."""
    return {"host": {}, "packages": dict.fromkeys(COMPARED, "1.0") | other}


def test_versions_are_compared_and_equal_workers_counted() -> None:
    """What a scheduler has of numpy does not matter: it never computes."""
    same = {
        "client": packages(),
        "scheduler": packages(numpy="9"),
        "workers": {name: packages(lz4="7") for name in "abc"},
    }
    assert differences(same) == []
    other = deepcopy(same)
    other["scheduler"] = packages(distributed="0.9")
    other["workers"] |= {"b": packages(torch="2.0", zarr="3.1"), "c": packages(torch="2.0", zarr="3.1")}
    del other["workers"]["a"]["packages"]["cmrtrials"]
    assert differences(other) == [
        "the scheduler: distributed 0.9 (here 1.0)",
        "1 of 3 workers: cmrtrials none (here 1.0)",
        "2 of 3 workers: torch 2.0 (here 1.0), zarr 3.1 (here 1.0)",
    ]


@pytest.mark.slow
def test_a_worker_with_other_code_is_refused(tmp_path: Path) -> None:
    """A real worker process, which finds metadata of another zarr and another checkout before ours."""
    packages = Path(storage.__file__).parent.parent
    for name in ("cmrcore", "flows", "storage", "tasks"):
        shutil.copytree(packages / name, tmp_path / name, ignore=shutil.ignore_patterns("weights", "*.png"))
    with (tmp_path / "storage" / "digest.py").open("a") as file:
        file.write("\n# One line more.\n")
    metadata = tmp_path / "zarr-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 0.0.1\n")
    kwargs: dict[str, Any] = {
        "n_workers": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "worker_dashboard_address": "127.0.0.1:0",
    }
    with LocalCluster(**kwargs) as cluster:
        check_cluster(cluster.scheduler_address)
        command = [Path(sys.executable).with_name("dask"), "worker", cluster.scheduler_address]
        options = ["--no-nanny", "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
        worker = subprocess.Popen(
            [*command, *options], env=os.environ | {"PYTHONPATH": str(tmp_path)}, stderr=subprocess.DEVNULL
        )
        try:
            with Client(cluster) as client:
                client.wait_for_workers(2, timeout=120)
            with pytest.raises(
                VersionMismatchError,
                match=r": 1 of 2 workers: zarr 0\.0\.1 \(here \d.*\), "
                r"code of cmrtrials \w{12} \(here \w{12}\); install",
            ):
                check_cluster(cluster.scheduler_address)
        finally:
            worker.terminate()
            worker.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://127.0.0.1:9", "tls://127.0.0.1:9"])
def test_a_scheduler_that_does_not_answer_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there, a wrong address, no certificates: one line that names the setting."""
    monkeypatch.setattr(preflight, "CONNECT_S", 2)
    with pytest.raises(
        ClusterUnreachableError, match=f"no Dask scheduler answers at {address}, which CMR_DASK_SCHEDULER"
    ) as refused:
        check_cluster(address)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CMR_DASK_SCHEDULER", "tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("PREFECT_API_URL", "http://127.0.0.1:9/api", "no Prefect server answers at http://127.0.0.1:9/api"),
    ],
    ids=["scheduler", "server"],
)
def test_a_night_that_cannot_begin_says_so_in_one_line(
    name: str, value: str, said: str, small_copy: Path, cmrtrials: Cmrtrials
) -> None:
    """Exit code 2, no traceback, and nothing was written."""
    refused = cmrtrials("run", small_copy, **{name: value})
    assert refused.returncode == 2, refused.stdout + refused.stderr
    (line,) = refused.stderr.strip().splitlines()
    assert line.startswith(f"error: {said}, which {name} names (")
    assert f"unset {name}" in line
    assert not (small_copy / "tables").exists()
