"""The trial in Markdown."""

from pathlib import Path

import pytest

from storage.trial import open_trial
from tasks.report import trial_summary
from tasks.report.trial_summary import trial_summary_markdown
from tests.flows.published import publish_small_trial
from tests.storage.drawn_rows import row
from tests.tasks.report.drawn_trial import write_row
from tests.tasks.report.test_trial_visits import plan_line, trial_of


def test_a_small_trial_is_told_whole(tmp_path: Path) -> None:
    """Counts, what needs attention, and every subject's visits."""
    publish_small_trial(tmp_path / "trial")

    told = trial_summary_markdown(open_trial(tmp_path / "trial")).splitlines()

    assert told[0] == "**Trial demo**: 10 planned visits"
    assert told[2] == "| ✓ QC pass | ? QC review | ◔ overdue | … waiting |"
    assert told[4] == "| 7 | 1 | 1 | 1 |"
    assert "| 02 | ✓ | ? | ✓ |  |" in told
    assert "| 03 | ✓ | ✓ | ◔ | … |" in told


def test_a_reason_is_never_markup(tmp_path: Path) -> None:
    """A site's words make no link, no image, no column and no tag."""
    trial = trial_of(tmp_path, plan_line())
    reason = "<img src=x> [a](http://b) ![c](d) | e\n| f `g` *h*"
    write_row(tmp_path, "visits", row("visits", state="refused", reason=reason))

    told = trial_summary_markdown(trial)

    line = next(line for line in told.splitlines() if line.startswith("| S01 V1"))
    assert line.count("|") == 4
    assert not set("<[]`*(") & set(line.split("|")[3])


def test_a_trial_without_visits_says_so(tmp_path: Path) -> None:
    """An empty plan is no error."""
    assert trial_summary_markdown(trial_of(tmp_path)) == "**Trial demo**: no visit is planned.\n"


def test_a_trial_without_trouble_says_so(tmp_path: Path) -> None:
    """Nothing to look at is news too."""
    trial = trial_of(tmp_path, plan_line())
    write_row(tmp_path, "visits", row("visits", state="done"))

    assert "Nothing needs attention." in trial_summary_markdown(trial)


def test_a_large_trial_shows_the_subjects_in_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out who needs no attention, the most urgent first, and say how many."""
    monkeypatch.setattr(trial_summary, "MOST_SUBJECTS", 2)
    monkeypatch.setattr(trial_summary, "MOST_LISTED", 1)
    trial = trial_of(tmp_path, *(plan_line(subject_id=f"S{number}") for number in range(5)))
    for number, state in enumerate(("done", "flagged", "failed", "done", "done")):
        verdict = {"done": "pass", "flagged": "review"}.get(state)
        write_row(tmp_path, "visits", row("visits", subject_id=f"S{number}", state=state, qc_verdict=verdict))

    told = trial_summary_markdown(trial)

    assert told.index("| S2 | &#33; |") < told.index("| S1 | ? |")
    assert "| S0 |" not in told
    assert "and 1 more" in told
    assert "3 more subjects are on the trial's page." in told
