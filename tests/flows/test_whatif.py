"""A visit under other settings: what is asked for, and what is shown of it."""

from pathlib import Path

import pytest

from flows.whatif import before_after, comparison_markdown, prepare
from storage.errors import ConfigError, PlanError
from storage.tables import publish
from storage.whatif import write_whatif
from tests.flows.published import publish_small_trial
from tests.flows.trials import Cmrtrials, snapshot
from tests.storage.drawn_rows import row

SETTINGS = ["align.method=none", "segment.alpha=0.25"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Root of a small published trial."""
    publish_small_trial(tmp_path / "trial")
    return tmp_path / "trial"


def test_before_and_after_stand_side_by_side(root: Path) -> None:
    """The record's scan and the other one, in the units of readers; what is missing is a dash."""
    prepared = prepare(root, "01", "BL", SETTINGS)
    lines = {name: values for name, *values in before_after(prepared)}
    assert lines["ECV [%]"] == ["30.00", "-"]
    write_whatif(root, prepared.folder, prepared.variant, prepared.line)
    ids = {"subject_id": "01", "visit_id": "BL", "site_id": "10", "result_digest": "other"}
    scan = row("scans", **ids, t1_native_ms=1023.4, ecv_fraction=0.3125, qc_reasons=["low_r2"])
    visit = row("visits", **ids, visit_date=prepared.line.visit_date, state="done")
    publish(prepared.folder, visit, {"scans": [scan]}, "core lab", "whatif: test")
    lines = {name: values for name, *values in before_after(prepared)}
    assert lines["ECV [%]"] == ["30.00", "31.25"]
    assert lines["T1 native [ms]"] == ["1000.0", "1023.4"]
    assert lines["flags"][1] == "low_r2"
    text = comparison_markdown(prepared, "what is *that*?")
    assert "| align.method | `refined` | `none` |" in text or "| align.method | `affine` | `none` |" in text
    assert "| ECV [%] | 30.00 | 31.25 |" in text
    assert "what is \\*that\\*?" in text
    assert str(root) not in text


def test_what_cannot_be_computed_is_said_before_anything_starts(root: Path) -> None:
    """Neither a typing error in a visit nor one in a setting costs a run."""
    before = snapshot(root)
    with pytest.raises(PlanError, match="not planned in subjects"):
        prepare(root, "01", "W99", SETTINGS)
    with pytest.raises(ConfigError, match="no such key"):
        prepare(root, "01", "BL", ["segment.alfa=0.5"])
    assert snapshot(root) == before


@pytest.mark.slow
def test_the_command_names_a_setting_that_is_wrong(root: Path, cmrtrials: Cmrtrials) -> None:
    """One line, exit code 2, no traceback, no server."""
    answer = cmrtrials("whatif", root, "--subject", "01", "--visit", "BL", "--set", "segment.alpha=7")
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: trial.toml: segment.alpha: found 7")
    assert "Traceback" not in answer.stderr
