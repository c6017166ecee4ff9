"""What is told of past nights."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.history import print_history
from flows.terminal import console
from storage.config import CONFIG_FILE
from storage.tables import publish
from storage.trial import open_trial
from tests.storage.drawn_rows import row, visit_row

BEGIN = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
DEMO = Path(__file__).parents[2] / "deploy" / "trials" / "demo.toml"


def times(intake: float | None, segment: float, quantify: float) -> dict[str, float | None]:
    """Columns of what the stages took [s]."""
    return {"seconds_intake": intake, "seconds_segment": segment, "seconds_quantify": quantify}


@pytest.fixture
def trial_of_two_nights(tmp_path: Path) -> Path:
    """Two visits computed in night a; in night b one again from its stored echoes, one with a new summary."""
    (tmp_path / CONFIG_FILE).write_text(DEMO.read_text())
    first, second = {"run_id": "a", "device": "cpu"}, {"run_id": "b", "device": "cuda:0"}
    summary = {"visit_id": "V2", "summary_digest": "summary-2"}
    for minutes, visit in (
        (0, visit_row(**first, **times(1.0, 20.0, 4.0))),
        (9, visit_row(visit_id="V2", **first, **times(2.0, 40.0, 8.0))),
        (1440, visit_row(**second, **times(None, 10.0, 4.0), result_digest="digest-2")),
        (1443, visit_row(**second | summary, **times(2.0, 40.0, 8.0))),
    ):
        stamped = visit | {"published_at": BEGIN + timedelta(minutes=minutes)}
        ids = {"visit_id": visit["visit_id"], "result_digest": visit["result_digest"]}
        publish(tmp_path, stamped, {"scans": [row("scans", **ids)]}, "core lab", f"night {visit['run_id']}")
    return tmp_path


def test_nights_and_slowest_visits(trial_of_two_nights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The work of a night is what it computed: a new summary brings the times of another night along."""
    print_history(open_trial(trial_of_two_nights))
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    headings, *nights = lines[:3]
    assert headings[2:7] == ["computed", "renewed", "failed", "refused", "waiting"]
    assert nights == [
        ["2026-01-02 02:00:00", "3.0", "1", "1", "0", "0", "0", "14.0", "14.0", "night b"],
        ["2026-01-01 02:00:00", "9.0", "2", "0", "0", "0", "0", "75.0", "37.5", "night a"],
    ]
    assert lines[4:] == [
        ["S01", "V2", "50.0", "2.0", "40.0", "8.0", "cuda:0"],
        ["S01", "V1", "14.0", "-", "10.0", "4.0", "cuda:0"],
    ]


def test_a_terminal_gets_tables(
    trial_of_two_nights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With titles, and every cell whole."""
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "width", 200)
    monkeypatch.setattr(console, "no_color", True)
    print_history(open_trial(trial_of_two_nights))
    shown = capsys.readouterr().out
    assert "nights that published something" in shown
    assert "slowest visits" in shown
    assert "night b" in shown
