"""One night end to end: DICOM in, tables out."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from storage import open_trial
from storage.audit import read_events
from tests.flows.trials import (
    Cmrtrials,
    DemoNight,
    mend,
    published_row,
    snapshot,
    states,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def against_truth(demo_night: DemoNight) -> pd.DataFrame:
    """Join the published scans with their truth."""
    scans = pd.read_parquet(demo_night.root / "tables" / "scans")
    truth = pd.read_parquet(demo_night.root / "truth" / "scans.parquet")
    return scans.merge(truth, on=["subject_id", "visit_id"], validate="one_to_one")


def test_the_first_night_fails_and_names_the_broken_upload(demo_night: DemoNight) -> None:
    """An engineer must see from the exit code and the last line what to mend."""
    assert demo_night.first.returncode == 1, demo_night.first.stderr
    last_line = demo_night.first.stdout.strip().splitlines()[-1]
    assert "S05/V2 refused: " in last_line
    assert "pixel data" in last_line


def test_every_planned_visit_has_a_row_with_state_and_reason(demo_night: DemoNight) -> None:
    """No subject is dropped silently."""
    assert len(states(demo_night.root)) == 10
    counted = {"done": 5, "flagged": 2, "refused": 1, "waiting": 2}
    assert Counter(states(demo_night.root).values()) == counted
    assert "guide_missing" in published_row(demo_night.root, "visits", "S04", "V2")["reason"]
    assert "hematocrit_missing" in published_row(demo_night.root, "visits", "S05", "V1")["reason"]
    assert published_row(demo_night.root, "visits", "S05", "V2")["failed_stage"] == "intake"


def test_ids_stay_text(demo_night: DemoNight) -> None:
    """Site 01 is no number 1."""
    scans = pd.read_parquet(demo_night.root / "tables" / "scans")
    assert set(scans["site_id"]) == {"01", "02"}


def test_native_t1_is_within_5_ms_of_the_ideal(against_truth: pd.DataFrame) -> None:
    """Accuracy asked of the demo trial: no motion, SNR 40."""
    measured = against_truth.dropna(subset="t1_native_ms")
    assert len(measured) == 6
    assert (measured["t1_native_ms"] - measured["t1_native_ms_ideal"]).abs().max() < 5


def test_ecv_is_within_half_a_point_of_the_ideal(against_truth: pd.DataFrame) -> None:
    """Accuracy asked of the demo trial: no motion, SNR 40."""
    measured = against_truth.dropna(subset="ecv_fraction")
    assert len(measured) == 5
    assert (measured["ecv_fraction"] - measured["ecv_fraction_ideal"]).abs().max() < 0.005


def test_a_missing_hematocrit_leaves_the_partition_coefficient(against_truth: pd.DataFrame) -> None:
    """What needs no hematocrit is kept; ECV has no value rather than a wrong one."""
    (scan,) = against_truth.query("subject_id == 'S05' and visit_id == 'V1'").to_dict("records")
    assert np.isnan(scan["ecv_fraction"])
    myocardium, blood = (
        1 / scan[f"{region}t1_post_ms_ideal"] - 1 / scan[f"{region}t1_native_ms_ideal"]
        for region in ("", "blood_")
    )
    # The ratio of rates of mean T1, where the pipeline averages the ratio.
    assert scan["partition_coefficient"] == pytest.approx(myocardium / blood, rel=0.03)


def test_tables_of_slices_segments_and_echoes_are_complete(demo_night: DemoNight) -> None:
    """6 of 7 scans have a guide; each has 3 slices, 16 segments, and 8 or 11 + 9 echoes a slice."""
    trial = open_trial(demo_night.root)
    assert len(trial.table("slices")) == 7 * 3
    assert len(trial.table("segments")) == 6 * 16
    assert len(trial.table("echoes")) == 3 * (5 * (8 + 9) + 2 * (11 + 9))
    assert set(trial.table("longitudinal")["subject_id"]) == {"S01", "S02", "S03", "S04", "S05"}


def test_published_arrays_hold_echoes_masks_and_maps(demo_night: DemoNight) -> None:
    """A map can be looked at with the images and masks it came from."""
    arrays = open_trial(demo_night.root).arrays("S03", "V1")
    assert np.asarray(arrays["native/echoes"]).shape[:2] == (3, 11)
    assert np.asarray(arrays["native/masks"]).shape[:3] == (3, 3, 11)
    assert arrays["post/t1_ms"].attrs["units"] == "ms"
    ecv = np.asarray(arrays["ecv_fraction"])
    myocardium = np.asarray(arrays["native/guide"])[0].astype(bool)
    assert np.isfinite(ecv[myocardium]).mean() > 0.99


def test_the_refused_upload_is_in_quarantine_with_its_reason(demo_night: DemoNight) -> None:
    """What is refused is not lost."""
    reasons = list((demo_night.root / "quarantine").rglob("reason.json"))
    assert len(reasons) == 2  # the file and the upload
    assert any("pixel data" in reason.read_text() for reason in reasons)


def test_a_second_night_executes_nothing_and_changes_no_file(demo_copy: Path, on_site: Cmrtrials) -> None:
    """Nothing is done twice, and old news does not fail a night again."""
    before = snapshot(demo_copy)
    second = on_site("run", demo_copy)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.strip().splitlines()[-1] == "10 visits: 5 done, 2 flagged, 1 refused, 2 waiting"
    assert snapshot(demo_copy) == before
    # It still lists what is refused.
    assert "S05" in second.stdout


def test_rerun_after_mending_executes_only_what_failed(demo_copy: Path, on_site: Cmrtrials) -> None:
    """The operator mends the upload and asks again; the others are left alone."""
    mend(demo_copy)
    before = snapshot(demo_copy / "tables")
    again = on_site("rerun", demo_copy, "--reason", "site sent the file again")
    assert again.returncode == 0, again.stdout + again.stderr
    after = snapshot(demo_copy / "tables")
    changed = {name for name in after if after[name] != before.get(name)}
    # The refused visit became a result with all its tables; no other visit's file changed.
    assert {name.split("/", 1)[1] for name in changed} == {"S05/V2.parquet"}
    assert states(demo_copy)["S05/V2"] == "done"
    assert len(list((demo_copy / "history" / "S05" / "V2").rglob("superseded.json"))) == 1
    settled = Counter(event["event"] for event in read_events(demo_copy))
    assert settled == {"accepted": 8, "refused": 1, "superseded": 1, "published": 11}
    verified = on_site("audit", "verify", demo_copy)
    assert verified.returncode == 0, verified.stderr
    assert "10 visits, 1 former states" in verified.stdout
    log = demo_copy / "audit" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"refused", b"Refused", 1))
    forged = on_site("audit", "verify", demo_copy)
    assert (forged.returncode, forged.stdout) == (1, "")
    assert "does not follow" in forged.stderr


def test_a_rerun_that_fails_leaves_a_good_result_in_place(demo_copy: Path, on_site: Cmrtrials) -> None:
    """The stored maps differ from what is computed now: all rows stand, its later visits too."""
    before = snapshot(demo_copy / "tables")
    result = published_row(demo_copy, "visits", "S01", "V1")["result_digest"]
    store = demo_copy / "arrays" / "S01" / "V1" / f"{result}.zarr"
    (store / "zarr.json").write_text((store / "zarr.json").read_text() + " ")
    again = on_site("rerun", demo_copy, "--subject", "S01", "--visit", "V1")
    assert again.returncode == 1
    assert "S01/V1 keeps its result, quantify failed: " in again.stdout.strip().splitlines()[-1]
    assert snapshot(demo_copy / "tables") == before
