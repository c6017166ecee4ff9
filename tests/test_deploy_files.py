"""The files in deploy/ that are not run here: compose by its published schema, and what all of them agree on.

``compose-spec.json`` is the schema of The Compose Specification (copyright 2020 The Compose Specification
Authors, Apache License 2.0), schema/compose-spec.json at commit 170098ba.
"""

import importlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Read the compose file."""
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return read


def environment_example() -> dict[str, str]:
    """Read the example of what all services must agree on."""
    words = shlex.split((DEPLOY / "environment.example").read_text(), comments=True)
    return dict(word.split("=", 1) for word in words)


def test_the_compose_file_follows_the_specification(compose: dict[str, Any]) -> None:
    """A misspelled key is refused by the schema, so it must be by this test."""
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert list(validator.iter_errors(compose)) == []
    compose["services"]["server"]["port"] = ["4200:4200"]
    assert [error.validator for error in validator.iter_errors(compose)] == ["additionalProperties"]
    del compose["services"]["server"]["port"]


def test_nothing_of_compose_is_reached_from_another_machine(compose: dict[str, Any]) -> None:
    """Who reaches a Dask scheduler or a Prefect server without password may run code."""
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert sorted(published) == ["127.0.0.1:4200:4200", "127.0.0.1:8787:8787"]


def test_compose_offers_cpu_and_gpu_with_one_thread_a_process(compose: dict[str, Any]) -> None:
    """Two threads of a process would take each other down; a device holds one process."""
    services = compose["services"]
    offered = {}
    for name in ("workers", "worker-gpu-0"):
        command = services[name]["command"]
        assert command[command.index("--nthreads") + 1] == "1"
        offered[name] = command[command.index("--resources") + 1]
    assert offered == {"workers": "CPU=1", "worker-gpu-0": "GPU=1"}
    (device,) = services["worker-gpu-0"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert len(device["device_ids"]) == 1


def test_compose_and_bare_machine_set_the_same(compose: dict[str, Any]) -> None:
    """What one of the two forgets fails only there."""
    example, inside = environment_example(), compose["x-environment"]
    elsewhere = {"CMRTRIALS_ROOT", "CMR_WORKERS", "PREFECT_API_DATABASE_CONNECTION_URL"}
    assert set(example) - elsewhere == set(inside) - {"CMR_PSEUDONYM_KEY"}
    for name in set(example).intersection(inside) - {"CMR_DASK_SCHEDULER", "PREFECT_API_URL"}:
        assert example[name] == inside[name], name


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_listen_on_loopback_only(unit: Path) -> None:
    """Whatever a unit listens on is named in its command."""
    (command,) = re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
    if " serve " in command:
        return  # on 127.0.0.1 without being told
    hosts = re.findall(r"--host (\S+)", command) + re.findall(r"--dashboard-address (\S+)", command)
    assert hosts
    assert all(re.fullmatch(r"(tls://)?127\.0\.0\.1(:\d+)?", host) for host in hosts), hosts


def test_units_know_every_variable_that_they_use() -> None:
    """An unknown one is an empty word to systemd."""
    used = {name for unit in UNITS for name in re.findall(r"\$\{(\w+)\}", unit.read_text())}
    assert used == {"CMR_DASK_SCHEDULER", "CMR_WORKERS", "CMRTRIALS_ROOT"}
    assert used <= set(environment_example())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze: install systemd")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """Only the programs are missing here, so each gets one that stands in for it."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        text = re.sub(r"ExecStart=\S+", f"ExecStart={program}", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    units = [str(tmp_path / unit.name) for unit in UNITS]
    found = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_every_deployment_is_a_flow_and_every_parameter_is_known() -> None:
    """A renamed flow or parameter would be found only when it is deployed."""
    read = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())
    names = set()
    for deployment in read["deployments"]:
        module, name = deployment["entrypoint"].rsplit(".", 1)
        flow = getattr(importlib.import_module(module), name)
        assert set(deployment["parameters"]) <= set(flow.parameters.properties), name
        names.add(flow.name)
    assert names >= {"nightly", "rerun", "whatif", "train"}
