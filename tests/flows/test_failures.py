"""What goes wrong in a night costs one visit, and the next night knows."""

from pathlib import Path

import pandas as pd
import pydicom
import pytest

from tests.flows.trials import Cmrtrials, published_row, states

pytestmark = pytest.mark.slow


def test_a_row_that_cannot_be_published_stops_nobody(small_night_copy: Path, on_site: Cmrtrials) -> None:
    """A stored result was damaged: the visit keeps its rows and is named, the other gets its new summary."""
    result = published_row(small_night_copy, "visits", "S01", "V1")["result_digest"]
    attributes = small_night_copy / "arrays" / "S01" / "V1" / f"{result}.zarr" / "zarr.json"
    attributes.write_text(attributes.read_text().replace('"qc_verdict": "pass"', '"qc_verdict": 3'))
    trial_toml = small_night_copy / "trial.toml"
    trial_toml.write_text(
        trial_toml.read_text().replace("ecv_change_relative = 0.10", "ecv_change_relative = 0.20")
    )
    before = published_row(small_night_copy, "visits", "S02", "V1")["summary_digest"]
    night = on_site("run", small_night_copy)
    assert night.returncode == 0
    assert "summary not renewed: S01/V1: table scans" in night.stdout.strip().splitlines()[-1]
    assert states(small_night_copy) == {"S01/V1": "done", "S02/V1": "done"}
    assert published_row(small_night_copy, "visits", "S02", "V1")["summary_digest"] != before


def test_a_stage_that_raises_fails_one_visit_only(small_copy: Path, on_site: Cmrtrials) -> None:
    """A failing subject stops nobody; what raised is old news the next night, and runs again when asked."""
    for file in (small_copy / "incoming").glob("S02_*/IM*.dcm"):
        image = pydicom.dcmread(file)
        image.RescaleIntercept, image.RescaleSlope, image.RescaleType = "-2000", "1", "US"
        image.save_as(file)
    night = on_site("run", small_copy)
    assert night.returncode == 1
    assert "S02/V1 failed: model 'molli' fits magnitudes" in night.stdout.strip().splitlines()[-1]
    assert states(small_copy) == {"S01/V1": "done", "S02/V1": "failed"}
    failed = published_row(small_copy, "visits", "S02", "V1")
    assert (failed["failed_stage"], failed["failure_kind"]) == ("quantify", "error")
    assert pd.isna(failed["result_digest"])

    second = on_site("run", small_copy)
    assert second.returncode == 0, second.stdout + second.stderr
    again = on_site("rerun", small_copy)
    assert again.returncode == 1, again.stdout + again.stderr


def test_a_failure_of_the_machine_is_tried_again_the_next_night(small_copy: Path, on_site: Cmrtrials) -> None:
    """A place on disk that cannot be written says nothing about the visit."""
    blocked = small_copy / "arrays" / "S02" / "V1"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    assert on_site("run", small_copy).returncode == 1
    failed = published_row(small_copy, "visits", "S02", "V1")
    assert (failed["state"], failed["failure_kind"]) == ("failed", "passing")
    assert str(small_copy) not in failed["reason"]
    blocked.unlink()
    assert on_site("run", small_copy).returncode == 0
    assert states(small_copy) == {"S01/V1": "done", "S02/V1": "done"}


def test_a_rerun_of_a_subject_that_is_not_planned_is_refused(small_trial: Path, on_site: Cmrtrials) -> None:
    """A typing error must not look like a success."""
    refused = on_site("rerun", small_trial, "--subject", "S99")
    assert refused.returncode == 2
    assert "not planned in subjects.csv: S99" in refused.stderr
