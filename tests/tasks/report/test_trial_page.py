"""The trial's page: complete, escaped, and honest where there is little to tell."""

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from storage.errors import NotStoredError
from storage.trial import Trial, open_trial
from tasks.report.trial_page import RESULTS_PAGE, TRIAL_PAGE, page_values, write_trial_page
from tasks.report.trial_visits import SCAN_NUMBERS, read_rows
from tests.flows.published import publish_small_trial
from tests.storage.drawn_rows import row
from tests.tasks.report.drawn_trial import draw_trial, write_row, write_visit_page
from tests.tasks.report.test_trial_visits import plan_line, trial_of


def written(trial: Trial, page: Path = RESULTS_PAGE) -> tuple[str, dict[str, Any]]:
    """Write a trial's pages; give the text of one and the data in it."""
    write_trial_page(trial)
    text = (trial.root / page).read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return text, json.loads(data, parse_constant=pytest.fail)


def test_the_page_tells_a_small_trial(tmp_path: Path) -> None:
    """States, checks, visits without a page and nights, at its place and nothing beside it."""
    publish_small_trial(tmp_path / "trial")
    write_visit_page(tmp_path / "trial", "01", "BL")
    trial = open_trial(tmp_path / "trial")

    text, data = written(trial)
    values = page_values(trial, read_rows(trial), datetime(2026, 4, 1, tzinfo=UTC))

    files = {path.name for path in (trial.root / "reports").iterdir() if path.is_file()}
    assert files == {"index.html", "results.html"}
    assert "10 planned visits of 3 subjects at 2 sites" in text
    assert dict(values["states"]) == {
        **{"done": 7, "flagged": 1, "failed": 0, "refused": 0, "overdue": 1, "waiting": 1},
        **{"new": 0, "unplanned": 0},
    }
    assert [(one["code"], one["fail"], one["review"]) for one in values["codes"]] == [
        ("echoes_unaligned", 0, 1)
    ]
    assert len(values["without_page"]) == 7
    assert values["sites"][0] | {"parts": None} == {"name": "10", "n": 6, "parts": None}
    assert values["sites"][0]["parts"]["review"] == 1
    # The fixture's two runs share one id, so its visits are one night; the rerun's reason is another's.
    assert [run["computed"] for run in values["runs"]] == [8]
    assert data["visits"][0]["page"] == "01/BL.html"
    assert 'href="01/BL.html"' not in text  # needs no attention, so only the script links it


def test_the_page_that_readers_begin_at_holds_nothing_measured(tmp_path: Path) -> None:
    """No number of a scan, no distribution, no change, and no reason that quotes one; the other page does."""
    trial = trial_of(tmp_path, plan_line())
    quoted = {
        "ecv_implausible": "mean ECV 83.21 %, expected 10 to 80 %",
        "ecv_changed": "ECV rose by 9.87 points",
        "center_jumps": "center off by 11.46 mm, expected at most 9 mm",
    }
    reason = "; ".join(f"{code}: {message}" for code, message in quoted.items())
    flags = [row("flags", code=code, severity="review", message=said) for code, said in quoted.items()]
    write_row(tmp_path, "visits", row("visits", state="flagged", qc_verdict="review", reason=reason))
    numbers = {column: 0.61234 + place for place, column in enumerate(SCAN_NUMBERS.values())}
    write_row(tmp_path, "scans", row("scans", qc_verdict="review", **numbers))
    write_row(tmp_path, "flags", *flags)

    text, data = written(trial, TRIAL_PAGE)
    (visit,) = data["visits"]

    assert visit["reason"] == (
        "ecv_implausible: what was found is among the results; "
        "center_jumps: center off by 11.46 mm, expected at most 9 mm"
    )
    assert (visit["verdict"], visit["codes"].keys()) == ("review", {"ecv_implausible", "center_jumps"})
    assert data.keys() == {"is_blinded", "visits", "slowest"}
    for telling in (
        "83.21",
        "9.87",
        "ecv_changed",
        ".6123",
        'id="changes"',
        'id="distributions"',
        'id="drift"',
    ):
        assert telling not in text, telling
        assert telling in written(trial)[0]


def test_what_a_site_wrote_is_text(tmp_path: Path) -> None:
    """Neither the list of reasons nor the data can be left by what a reason says."""
    trial = trial_of(tmp_path, plan_line())
    reason = "</script><script>alert(1)</script> & <b> <!-- \u2028 'quoted' \"twice\""
    write_row(tmp_path, "visits", row("visits", state="refused", result_digest=None, reason=reason))

    text, data = written(trial)

    assert data["visits"][0]["reason"] == reason
    assert "alert(1)</script>" not in text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text
    assert text.count("<!--") == 0


@pytest.mark.parametrize("published", [False, True], ids=["no night yet", "one night"])
def test_a_trial_that_waits_for_all_is_told_so(tmp_path: Path, published: bool) -> None:
    """No scan, no plot, no error."""
    when = date(2099, 1, 1)
    nothing = dict.fromkeys(("result_digest", "qc_verdict", "reason"))
    nothing |= dict.fromkeys(("seconds_intake", "seconds_segment", "seconds_quantify"))
    trial = trial_of(tmp_path, plan_line(when=when))
    if published:
        write_row(tmp_path, "visits", row("visits", **nothing, state="waiting"))

    text, data = written(trial)

    assert "Nothing: no visit failed" in text
    assert ("nothing has been published yet" in text) is not published
    assert "No scan has a result yet." in text
    assert [metric["groups"] for metric in data["distributions"]] == [[]] * 6
    assert data["drift"] == data["slowest"] == []


def test_an_empty_plan_has_a_page(tmp_path: Path) -> None:
    """A trial that is only set up."""
    text, data = written(trial_of(tmp_path))

    assert "No visit is planned: subjects.csv has no rows." in text
    assert data["visits"] == []


def test_a_trial_without_a_plan_has_none(tmp_path: Path) -> None:
    """Say that subjects.csv is missing rather than that nothing is planned."""
    trial = trial_of(tmp_path)
    (tmp_path / "subjects.csv").unlink()

    with pytest.raises(NotStoredError, match=r"subjects\.csv"):
        write_trial_page(trial)
    assert not (tmp_path / "reports").exists()


def test_one_visit_without_a_scanners_name_has_a_page(tmp_path: Path) -> None:
    """Name what is unknown as unknown."""
    trial = trial_of(tmp_path, plan_line())
    write_row(tmp_path, "visits", row("visits", state="done"))
    unknown = dict.fromkeys(("manufacturer", "scanner_model", "field_strength_t", "scan_datetime"))
    write_row(tmp_path, "scans", row("scans", **unknown))

    text, data = written(trial)

    assert "scanner unnamed, field unknown" in text
    assert data["distributions"][0]["groups"][0]["name"] == "field unknown"
    assert data["drift"] == []


def test_shifted_dates_leave_out_calendar_time(tmp_path: Path) -> None:
    """Dates moved by another number of days for each subject show no drift of a scanner."""
    draw_trial(tmp_path / "trial", 3, 3)
    config = tmp_path / "trial" / "trial.toml"
    config.write_text(config.read_text().replace('dates = "keep"', 'dates = "shift"'))

    text, data = written(open_trial(tmp_path / "trial"))

    assert data["drift"] == []
    assert "nothing can be said about calendar time" in text


def test_nobody_is_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    """Who ran a night is in the audit log and nobody else's business; the page fetches nothing."""
    draw_trial(tmp_path / "trial", 4)

    text, _ = written(open_trial(tmp_path / "trial"))

    assert "core lab" not in text
    assert str(tmp_path) not in text
    assert re.findall(r'(?:src|href)="(?:https?:)?//', text) == []
