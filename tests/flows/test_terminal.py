"""What the command prints."""

import csv
import io
import shutil
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import typer
from prefect import Flow
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from flows import cli_nights, server, terminal
from flows.errors import ServerNotStartedError, ServerUnreachableError, SettingsError
from flows.server import prefect_server
from flows.site import dask_task_runner
from storage.plan import REQUIRED_COLUMNS
from storage.running import marked_running
from storage.tables import publish
from storage.trial import open_trial
from tests.storage.drawn_rows import visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG

COLUMNS = ["subject_id", "ecv_fraction", "message"]
ROWS: list[list[Any]] = [["01", 0.4283, "12.5 % of [myocardial] pixels"], ["02", None, ""]]


def shown(monkeypatch: pytest.MonkeyPatch, width: int) -> str:
    """Print an answer into a terminal of a width."""
    out = io.StringIO()
    monkeypatch.setattr(
        terminal, "console", Console(file=out, width=width, force_terminal=True, no_color=True)
    )
    terminal.print_answer(COLUMNS, ROWS)
    return out.getvalue()


def test_an_answer_in_a_pipe_is_csv(capsys: pytest.CaptureFixture[str]) -> None:
    """Ids stay text, and nothing is cut to the width of a terminal that is not there."""
    terminal.print_answer(COLUMNS, ROWS)
    answer = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert answer == [COLUMNS, ["01", "0.4283", "12.5 % of [myocardial] pixels"], ["02", "", ""]]


def test_an_answer_that_fits_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is printed as it is, with its percent sign and brackets."""
    lines = shown(monkeypatch, 100).splitlines()
    assert any("subject_id" in line and "message" in line for line in lines)
    assert any("0.4283" in line and "12.5 % of [myocardial] pixels" in line for line in lines)


def test_an_answer_that_is_too_wide_is_a_block_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """No value is cut off or left out."""
    text = shown(monkeypatch, 50)
    assert text.count("subject_id") == 2
    assert "0.4283" in text


def test_a_machine_that_is_too_busy_says_nothing_against_the_trial(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Prefect and Dask time out with an OSError; exit code 2 would blame trial.toml or a name."""
    with pytest.raises(typer.Exit) as ended, terminal.fail_clearly():
        raise TimeoutError
    assert ended.value.exit_code == 3
    assert "no answer in time; what was published stands" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadError("gone"),
        RuntimeError("Failed to reach API at http://127.0.0.1:9/api"),
        ObjectNotFound(KeyError("run")),
    ],
    ids=["gone", "unreachable", "back"],
)
def test_a_night_that_lost_its_server_broke_off(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where another server stands in its place that knows nothing of it: no visit has failed."""

    def flow(**_: object) -> None:
        raise error

    shutil.copy(DEMO_CONFIG, tmp_path / "trial.toml")
    monkeypatch.setattr(server, "prefect_server", nullcontext)
    with pytest.raises(typer.Exit) as ended:
        cli_nights._run_flow(tmp_path, cast("Flow[..., Any]", flow), {})
    assert ended.value.exit_code == 3
    assert f"knows no more of this run ({type(error).__name__})" in capsys.readouterr().err


def test_a_defect_is_not_taken_for_a_server_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its traceback."""

    def flow(**_: object) -> None:
        message = "a defect"
        raise RuntimeError(message)

    shutil.copy(DEMO_CONFIG, tmp_path / "trial.toml")
    monkeypatch.setattr(server, "prefect_server", nullcontext)
    with pytest.raises(RuntimeError, match="a defect"):
        cli_nights._run_flow(tmp_path, cast("Flow[..., Any]", flow), {})


def test_a_server_that_goes_between_two_questions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect has an error of its own for it."""

    def get_client(**_: object) -> None:
        message = "Failed to reach API at http://127.0.0.1:9/api"
        raise RuntimeError(message)

    monkeypatch.setattr(server, "get_client", get_client)
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ServerUnreachableError, match=r"which PREFECT_API_URL names \(Failed to reach"),
        prefect_server(),
    ):
        pass


def test_a_port_in_use_is_refused() -> None:
    """Another trial's server on that port must not be joined by mistake."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerNotStartedError, match="is in use"), prefect_server(taken.getsockname()[1]):
            pass


def test_a_wrong_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site's settings are refused in one line that names the variable."""
    monkeypatch.setenv("CMR_WORKERS", "many")
    with pytest.raises(SettingsError, match="CMR_WORKERS"):
        dask_task_runner()


def test_a_visit_that_was_removed_from_the_plan_is_still_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows stay in the tables, so the list of visits must not keep quiet about them."""
    monkeypatch.setattr(terminal, "console", Console(width=200))
    (tmp_path / "trial.toml").write_bytes(DEMO_CONFIG.read_bytes())
    (tmp_path / "subjects.csv").write_text(
        f"{','.join(REQUIRED_COLUMNS)}\nS01,V1,2026-03-01,7,,,01\nS01,V2,2026-09-01,7,,,01\n"
    )
    for visit_id in ("V1", "V3"):
        publish(tmp_path, visit_row(visit_id=visit_id, reason=""), {}, "core lab", "night")
    with marked_running(tmp_path, "night"):
        terminal.print_visits(open_trial(tmp_path))
    assert "a night is at work" in capsys.readouterr().out
    terminal.print_visits(open_trial(tmp_path))
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("S01")]
    assert [row[1:4] for row in rows] == [
        ["V1", "2026-03-01", "done"],
        ["V2", "2026-09-01", "new"],
        ["V3", "-", "done"],
    ]
    assert "no longer in subjects.csv, its rows stay" in " ".join(rows[2])
    assert not any("at work" in " ".join(row) for row in rows)
