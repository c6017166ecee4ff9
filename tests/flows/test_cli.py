"""The command: quick to answer, clear when it refuses."""

import resource
import subprocess
from pathlib import Path

import pytest

from tests.flows.conftest import COMMAND
from tests.flows.trials import Cmrtrials, set_segmentation


def processor_seconds(*arguments: str, environment: dict[str, str]) -> float:
    """Processor time of a command [s]: its start waits for nobody, and a busy machine does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([COMMAND, *arguments], env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_comes_within_a_second(environment: dict[str, str]) -> None:
    """Torch and Prefect are imported where they are used."""
    assert processor_seconds("--help", environment=environment) < 1


def test_status_comes_within_a_second(small_trial: Path, environment: dict[str, str]) -> None:
    """An engineer asks often; before the first night all is new."""
    assert processor_seconds("status", str(small_trial), environment=environment) < 1


@pytest.mark.parametrize(
    "command",
    ["simulate", "run", "status", "rerun", "report", "query", "compare", "review", "export", "serve"],
)
def test_every_command_has_a_help_text(command: str, cmrtrials: Cmrtrials) -> None:
    """Each says what it does and what its options mean."""
    shown = cmrtrials(command, "--help")
    assert shown.returncode == 0
    assert "Folder of the trial" in shown.stdout


def test_status_of_a_new_trial_lists_what_is_planned(small_trial: Path, cmrtrials: Cmrtrials) -> None:
    """Every planned visit shows before any night has run."""
    shown = cmrtrials("status", small_trial)
    assert shown.returncode == 0
    assert shown.stdout.count(" new ") == 2


@pytest.mark.parametrize(
    "command",
    [["status"], ["run"], ["query"], ["serve"], ["export", "--dicom"], ["audit", "verify"]],
    ids=lambda given: given[0],
)
def test_a_folder_that_is_no_trial_is_refused_in_one_line(
    command: list[str], tmp_path: Path, cmrtrials: Cmrtrials
) -> None:
    """No traceback: what is missing and what to do."""
    refused = cmrtrials(*command, tmp_path, *(["select 1"] if command == ["query"] else []))
    assert refused.returncode == 2
    assert "trial.toml" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_weights_that_nobody_has_are_named_before_the_night(small_copy: Path, cmrtrials: Cmrtrials) -> None:
    """One line with the digest and what to do, not one failure a visit."""
    set_segmentation(small_copy, base="sha256:" + "0" * 64)
    refused = cmrtrials("run", small_copy)
    assert refused.returncode == 2
    assert "segment.base: no weights with digest sha256:0000" in refused.stderr
    assert "weights/ of the trial's root" in refused.stderr
    assert not (small_copy / "tables").exists()


def test_the_record_of_a_new_trial_is_whole(small_trial: Path, cmrtrials: Cmrtrials) -> None:
    """Nothing was published; checking does not make it so."""
    verified = cmrtrials("audit", "verify", small_trial)
    assert verified.returncode == 0, verified.stderr
    assert "audit log: 0 lines" in verified.stdout
    assert not (small_trial / "audit").exists()


@pytest.mark.slow
def test_simulate_never_writes_over_another_trial(small_trial: Path, cmrtrials: Cmrtrials) -> None:
    """Another recipe needs another folder; the same one is left as it is."""
    options = ["--subjects", "2", "--visits", "1", "--no-faults", "--difficulty", "clean", "--guides", "all"]
    assert cmrtrials("simulate", small_trial, *options).returncode == 0
    refused = cmrtrials("simulate", small_trial, *options, "--seed", "9")
    assert refused.returncode == 2
    assert "not empty" in refused.stderr


def test_query_answers_in_sql_before_the_first_night(small_trial: Path, cmrtrials: Cmrtrials) -> None:
    """All tables are there with their columns, even when they are empty."""
    answer = cmrtrials("query", small_trial, "select count(*) as n, max(ecv_fraction) as ecv from scans")
    assert answer.returncode == 0, answer.stderr
    assert "ecv" in answer.stdout


@pytest.mark.parametrize(
    ("sql", "said"), [("select missing from scans", "missing"), ("", "no statement")], ids=["column", "empty"]
)
def test_a_wrong_query_is_refused_in_one_line(
    sql: str, said: str, small_trial: Path, cmrtrials: Cmrtrials
) -> None:
    """DuckDB's message reaches the user without a traceback."""
    refused = cmrtrials("query", small_trial, sql)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
