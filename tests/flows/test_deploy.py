"""A site as deploy/ describes it: PostgreSQL, server, scheduler and workers, each a process of its own.

The commands are those of the systemd units, with free ports and this environment's programs.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.flows.trials import Cmrtrials, published_row, states

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"
PROGRAMS = Path(sys.executable).parent
START_S = 240.0
"""Longest wait for a service on a busy machine [s]."""

Site = dict[str, str]


def free_port() -> int:
    """Give a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command_of(unit: str, site: Site) -> list[str]:
    """Read the command of a unit, with this environment's program and the site's ports."""
    (line,) = re.findall(r"^ExecStart=(.+)$", (DEPLOY / "systemd" / unit).read_text(), re.MULTILINE)
    for name, value in site.items():
        line = line.replace(f"${{{name}}}", value)
    line = line.replace("/opt/cmrtrials/bin", str(PROGRAMS)).replace("/var/cache/cmrtrials", site["CACHE"])
    line = line.replace("--port 4200", f"--port {site['UI_PORT']}")
    line = line.replace("--port 8786", f"--port {site['DASK_PORT']}").replace(":8787", ":0")
    return shlex.split(line)


@contextmanager
def service(unit: str, site: Site, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service until the end of the context, with all processes that it starts."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command_of(unit, site), env=site, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in family[1:]:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()


def wait_for_port(port: int, log: Path) -> None:
    """Wait until something listens."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.3)
    pytest.fail(log.read_text())


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """URL of a fresh PostgreSQL that is reached by a socket; it refuses to run as root."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    bin_folder = programs[-1].parent
    # Not below pytest's own folders, which other accounts cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="cmrtrials-pg-"))
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        account = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def run(program: str, *arguments: str) -> None:
        command = [str(bin_folder / program), *arguments]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=START_S, **account
        )
        assert done.returncode == 0, done.stdout + done.stderr

    data = folder / "data"
    try:
        run("initdb", "--auth=trust", "--no-sync", "--username=prefect", "--pgdata", str(data))
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "start", "-w", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-t", "120")
        try:
            run("createdb", "-h", str(folder), "-U", "prefect", "prefect")
            yield f"postgresql+asyncpg://prefect@/prefect?host={folder}"
        finally:
            run("pg_ctl", "stop", "-D", str(data), "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def ask(database: str, sql: str) -> str:
    """Ask PostgreSQL itself."""
    (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    host = database.rpartition("=")[2]
    asked = [str(programs / "psql"), "-h", host, "-U", "prefect", "-At", "-c", sql, "prefect"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def deployed(
    postgresql: str, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Environment of a site that runs by the units, with TLS; a CPU worker is labelled as one with a GPU."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([DEPLOY / "make-tls.sh", folder / "tls"], check=True, capture_output=True)
    example = (DEPLOY / "environment.example").read_text().replace("/etc/cmrtrials/tls", str(folder / "tls"))
    lines = [line.split("=", 1) for line in shlex.split(example, comments=True)]
    ui_port, dask_port = free_port(), free_port()
    site = (
        environment
        | dict(lines)
        | {
            "PREFECT_API_DATABASE_CONNECTION_URL": postgresql,
            "PREFECT_API_URL": f"http://127.0.0.1:{ui_port}/api",
            "CMR_DASK_SCHEDULER": f"tls://127.0.0.1:{dask_port}",
            "CMR_WORKERS": "1",
            "UI_PORT": str(ui_port),
            "DASK_PORT": str(dask_port),
            "CACHE": str(folder / "cache"),
            "CUDA_VISIBLE_DEVICES": "",
        }
    )
    with ExitStack() as running:

        def start(name: str) -> None:
            log = folder / f"{name}.log"
            site[f"PID {name}"] = str(running.enter_context(service(f"{name}.service", site, log)).pid)

        start("cmrtrials-server")
        start("cmrtrials-scheduler")
        wait_for_port(dask_port, folder / "cmrtrials-scheduler.log")
        wait_for_port(ui_port, folder / "cmrtrials-server.log")
        start("cmrtrials-workers")
        start("cmrtrials-gpu-worker@")
        yield site


def processes_of(site: Site, name: str) -> list[psutil.Process]:
    """Give the processes of a service."""
    parent = psutil.Process(int(site[f"PID {name}"]))
    return [parent, *parent.children(recursive=True)]


def test_a_night_on_the_deployed_site(deployed: Site, small_copy: Path, cmrtrials: Cmrtrials) -> None:
    """Segmentation goes to the worker labelled GPU, and the row names the device that really computed."""
    night = cmrtrials("run", small_copy, **{k: v for k, v in deployed.items() if k.isupper()})
    assert night.returncode == 0, night.stdout + night.stderr
    assert set(states(small_copy).values()) == {"done"}
    row = published_row(small_copy, "visits", "S01", "V1")
    assert row["device"] == "cpu"
    runs = ask(
        deployed["PREFECT_API_DATABASE_CONNECTION_URL"],
        f"select name, state_type from flow_run where id = '{row['run_id']}'",
    )
    assert runs.endswith("|COMPLETED"), runs
    logs = httpx.post(f"{deployed['PREFECT_API_URL']}/logs/filter", json={"limit": 200}, timeout=30).json()
    said = [log["message"] for log in logs]
    run = row["run_id"]
    for stage in ("intake", "segment", "quantify"):
        wanted = (
            rf"trial=demo subject=S01 visit=V1 stage={stage} state=executed seconds=\d+\.\d\d "
            rf"peak_memory_mib=\d\d+ verdict=- device=cpu run={run}"
        )
        assert sum(re.fullmatch(wanted, message) is not None for message in said) == 1, said
    published = f"verdict={row['qc_verdict']} device=cpu run={run} outcome=published reason=-"
    assert sum(message.endswith(published) for message in said) == len(states(small_copy)), said
    (page,) = [message.split(": ")[1] for message in said if message.startswith("Dask dashboard")]
    assert httpx.get(page, timeout=30).status_code == httpx.codes.OK
    assert not any("no GPU worker" in message for message in said)
    assert any(message.startswith("segment S01/V1 executed") for message in said), said


def test_everything_listens_on_loopback_only(deployed: Site) -> None:
    """An open port of the scheduler is a way to run code."""
    for name in ("cmrtrials-server", "cmrtrials-scheduler", "cmrtrials-workers", "cmrtrials-gpu-worker@"):
        listening = [
            connection.laddr.ip
            for process in processes_of(deployed, name)
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening, name
        assert set(listening) <= {"127.0.0.1", "::1"}, (name, listening)


def test_workers_keep_their_memory_for_the_next_image(deployed: Site) -> None:
    """What Dask sets by default doubles the time of a stage."""
    for name in ("cmrtrials-workers", "cmrtrials-gpu-worker@"):
        workers = [one for one in processes_of(deployed, name) if "spawn_main" in " ".join(one.cmdline())]
        assert workers, name
        assert all("MALLOC_TRIM_THRESHOLD_" not in worker.environ() for worker in workers)


def test_nobody_joins_the_cluster_without_its_certificate(deployed: Site) -> None:
    """Another authority's certificate is no help, nor is none at all."""
    code = """
import sys
from distributed import Client
try:
    Client(sys.argv[1], timeout=10)
except OSError:
    sys.exit(7)
"""
    tls = Path(deployed["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"]).parent
    other = tls.parent / "other"
    subprocess.run([DEPLOY / "make-tls.sh", other], check=True, capture_output=True)
    address = deployed["CMR_DASK_SCHEDULER"]
    stranger = {
        name: value.replace(str(tls), str(other)) if name.startswith("DASK_DISTRIBUTED") else value
        for name, value in deployed.items()
    }
    for who, code_expected in ((deployed, 0), (stranger, 7)):
        done = subprocess.run(
            [sys.executable, "-c", code, address], env=who, capture_output=True, text=True, check=False
        )
        assert done.returncode == code_expected, done.stderr


def test_prefect_yaml_is_deployed(deployed: Site, small_trial: Path) -> None:
    """The deployments are there with the trial's root, and the night has the trial's schedule."""
    prefect = str(PROGRAMS / "prefect")
    trial = {
        "CMRTRIALS_ROOT": str(small_trial),
        "CMRTRIALS_TRIAL": "demo",
        "CMRTRIALS_CRON": "0 2 * * *",
        "CMRTRIALS_TIMEZONE": "Europe/Vienna",
    }
    for arguments in (
        ["work-pool", "create", "cmrtrials", "--type", "process"],
        ["--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOY / "prefect.yaml")],
    ):
        done = subprocess.run(
            [prefect, *arguments],
            env=deployed | trial,
            cwd=DEPLOY.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    url = deployed["PREFECT_API_URL"]
    for flow in ("nightly", "rerun", "whatif", "train"):
        made = httpx.get(f"{url}/deployments/name/{flow}/demo", timeout=30).json()
        assert made["entrypoint"] == f"flows.{flow}.{flow}"
        assert made["work_pool_name"] == "cmrtrials"
        assert made["global_concurrency_limit"]["limit"] == 1
        assert str(small_trial) in str(made["parameters"])
        schedules = [
            (one["schedule"]["cron"], one["schedule"]["timezone"]) for one in made.get("schedules", [])
        ]
        assert schedules == ([("0 2 * * *", "Europe/Vienna")] if flow == "nightly" else [])
