"""The trial in Markdown."""

import re
from base64 import b64decode
from pathlib import Path

import pytest

from storage.tables import read_table
from storage.trial import Trial, open_trial
from tasks.report import trial_picture, trial_summary
from tasks.report.trial_summary import trial_summary_markdown
from tests.flows.published import publish_small_trial
from tests.storage.drawn_rows import row
from tests.tasks.report.drawn_trial import write_row
from tests.tasks.report.test_trial_visits import plan_line, trial_of


def told_of(trial: Trial) -> str:
    """Tell a trial of which something is published."""
    return trial_summary_markdown(trial, read_table(trial.root, "visits").to_pylist())


def picture_in(told: str) -> str:
    """Give the SVG text of the picture in it."""
    (encoded,) = re.findall(r"\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", told)
    return b64decode(encoded).decode()


def test_a_small_trial_is_told_whole(tmp_path: Path) -> None:
    """Counts, what needs attention, and every subject's visits in their places."""
    publish_small_trial(tmp_path / "trial")

    told = told_of(open_trial(tmp_path / "trial"))

    lines = told.splitlines()
    assert lines[0] == "**Trial demo**: 10 planned visits"
    assert lines[2] == "| ✓ QC pass | ? QC review | ◔ overdue | … waiting |"
    assert lines[4] == "| 7 | 1 | 1 | 1 |"
    assert any(line.startswith("| 02 BL-R | ? QC review |") for line in lines)
    picture = picture_in(told)
    cells = re.findall(r'<use href="#(\w+)" x="([\d.]+)" y="(\d+)"/>', picture)
    assert len(cells) == 10
    assert [outcome for outcome, _, y in cells if y == "38"] == ["pass", "review", "pass"]
    assert [outcome for outcome, _, y in cells if y == "57"] == ["pass", "pass", "overdue", "waiting"]
    assert re.findall(r">(0\d|BL|BL-R|W\d+)</text>", picture) == [
        "BL",
        "BL-R",
        "W52",
        "W104",
        "01",
        "02",
        "03",
    ]


def test_a_reason_is_never_markup(tmp_path: Path) -> None:
    """A site's words make no link, no image, no column and no tag."""
    trial = trial_of(tmp_path, plan_line())
    reason = "<img src=x> [a](http://b) ![c](d) | e\n| f `g` *h*"
    write_row(tmp_path, "visits", row("visits", state="refused", reason=reason))

    told = told_of(trial)

    line = next(line for line in told.splitlines() if line.startswith("| S01 V1"))
    assert line.count("|") == 4
    assert not set("<[]`*(") & set(line.split("|")[3])


def test_a_trial_without_visits_says_so(tmp_path: Path) -> None:
    """An empty plan is no error."""
    assert told_of(trial_of(tmp_path)) == "**Trial demo**: no visit is planned.\n"


def test_a_trial_without_trouble_says_so(tmp_path: Path) -> None:
    """Nothing to look at is news too."""
    trial = trial_of(tmp_path, plan_line())
    write_row(tmp_path, "visits", row("visits", state="done"))

    assert "Nothing needs attention." in told_of(trial)


def test_a_large_trial_shows_the_subjects_in_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out who needs no attention, the most urgent first, and say how many."""
    monkeypatch.setattr(trial_picture, "MOST_SUBJECTS", 2)
    monkeypatch.setattr(trial_summary, "MOST_LISTED", 1)
    trial = trial_of(tmp_path, *(plan_line(subject_id=f"S{number}") for number in range(5)))
    for number, state in enumerate(("done", "flagged", "failed", "done", "done")):
        verdict = {"done": "pass", "flagged": "review"}.get(state)
        write_row(tmp_path, "visits", row("visits", subject_id=f"S{number}", state=state, qc_verdict=verdict))

    told = told_of(trial)

    picture = picture_in(told)
    assert picture.index(">S2<") < picture.index(">S1<")
    assert ">S0<" not in picture
    assert "and 1 more" in told
    assert "3 more subjects are on the trial's page." in told
