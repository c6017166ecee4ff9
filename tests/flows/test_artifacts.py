"""What a night shows in the Prefect UI."""

import logging
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flows import artifacts
from flows.artifacts import NightArtifacts, artifact_key, summary_markdown, visit_rows
from storage.plan import PlannedVisit
from storage.trial import Trial, open_trial
from tests.storage.drawn_uploads import DEMO_CONFIG

STATES: dict[tuple[str, str], dict[str, Any]] = {
    ("S01", "V1"): {"state": "done", "reason": "", "qc_verdict": "pass", "result_digest": "d"},
    ("S02", "V1"): {"state": "refused", "reason": "old news", "qc_verdict": None, "result_digest": None},
    ("S03", "V1"): {"state": "flagged", "reason": "low_r2", "qc_verdict": "review", "result_digest": "d"},
    ("S04", "V1"): {"state": "failed", "reason": "a | *b*", "qc_verdict": None, "result_digest": None},
    ("S05", "V1"): {"state": "done", "reason": "", "qc_verdict": "pass", "result_digest": "d"},
}
"""Rows of the table ``visits``; S06 has none."""
NEWS = {
    "S04/V1": "failed: a | *b*",
    "S05/V1": "keeps its result, quantify failed: boom",
    "upload u-1": "refused: no planned visit",
}


def planned() -> list[PlannedVisit]:
    """Plan six subjects with a visit each."""
    return [
        PlannedVisit(f"S0{number}", "V1", "01", date(2026, 1, 12), 14, None, None, None)
        for number in range(1, 7)
    ]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Rows of the table of visits."""
    return visit_rows(planned(), STATES, NEWS, lambda subject, visit: f"http://x/{subject}/{visit}.html")


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Trial in a folder."""
    (tmp_path / "trial.toml").write_bytes(DEMO_CONFIG.read_bytes())
    return open_trial(tmp_path)


def test_every_planned_visit_is_listed_and_what_needs_attention_comes_first(
    rows: list[dict[str, Any]],
) -> None:
    """Who opens the table sees tonight's failures without a click."""
    assert [row["subject"] for row in rows] == ["S04", "S05", "S02", "S03", "S06", "S01"]
    assert [row["state"] for row in rows][:3] == ["failed", "done", "refused"]
    assert rows[1]["reason"] == "keeps its result, quantify failed: boom"
    assert rows[4]["state"] == "new"
    assert [row["subject"] for row in rows if row["report"]] == ["S05", "S03", "S01"]


def test_the_summary_counts_links_and_quotes(rows: list[dict[str, Any]]) -> None:
    """Counts are of the rows; a reason's signs are no Markdown."""
    text = summary_markdown("demo", rows, NEWS, "6 visits: 2 done", 1.5, "http://x/index.html")
    for line in ("| failed | 1 |", "| done | 2 |", "| new | 1 |", "Checks: 2 pass, 1 review"):
        assert line in text
    assert "- **S04/V1** failed: a \\| \\*b\\*" in text
    assert "[demo](http://x/index.html)" in text
    assert "[S03/V1](http://x/S03/V1.html)" in text
    assert "Nothing new went wrong" in summary_markdown("demo", rows, {}, "", 1.0, None)


def test_keys_are_what_prefect_takes() -> None:
    """Prefect refuses capitals, dots and underscores, which a trial's name may have."""
    assert artifact_key("Study_2.b", "visits") == "study-2-b-visits"


def test_links_are_of_the_served_pages_or_of_pages_that_are_there(trial: Trial) -> None:
    """Where nothing serves them, a link to a page that no night has written would be dead."""
    assert NightArtifacts(trial, "http://x/")._page("S 1", "V1") == "http://x/demo/S%201/V1.html"
    local = NightArtifacts(trial, None)
    assert local._page() is None
    (trial.root / "reports").mkdir()
    (trial.root / "reports" / "index.html").touch()
    assert local._page() == (trial.root / "reports" / "index.html").as_uri()


def test_an_artifact_that_cannot_be_written_is_tried_once_and_stops_nothing(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server may be gone; each further call would wait for it."""
    calls = []

    def fail(*_: object, **__: object) -> None:
        calls.append(1)
        raise OSError

    for name in ("create_progress_artifact", "create_table_artifact", "create_markdown_artifact"):
        monkeypatch.setattr(artifacts, name, fail)
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: logging.getLogger("test"))
    night = NightArtifacts(trial, None)
    night.begin(3)
    night.advance(1, 3)
    night.end(planned(), STATES, NEWS, "tally")
    assert len(calls) == 1
    assert "the night goes on" in caplog.text


def test_the_progress_moves_but_not_at_every_visit(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of quick visits must not be thousands of calls; the last one always counts."""
    steps: list[float] = []
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda *_, **__: "id")
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda _, value, **__: steps.append(value))
    now_s = [0.0]
    monkeypatch.setattr("flows.artifacts.time.monotonic", lambda: now_s[0])
    night = NightArtifacts(trial, None)
    night.begin(4)
    for number, seconds in enumerate((0.5, 3.0, 3.5, 3.6), 1):
        now_s[0] = seconds
        night.advance(number, 4)
    assert steps == [50.0, 100.0]
