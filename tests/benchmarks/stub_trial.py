"""Trials for `tests.benchmarks.stub_stages`: a plan, and uploads of one image of two by two pixels each."""

import csv
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from importlib.resources import files
from pathlib import Path

import numpy as np

from storage.config import CONFIG_FILE
from storage.dicom_write import MrHeader, deterministic_uid, write_mr
from storage.plan import PLAN_FILE, REQUIRED_COLUMNS
from storage.upload import INCOMING
from tests.benchmarks.stub_stages import FAULT_FILE

FIRST_VISIT = date(2026, 1, 12)


def make_stub_trial(
    root: Path, n_subjects: int, n_visits: int, faults: Mapping[tuple[int, int], str] | None = None
) -> None:
    """Write trial.toml, subjects.csv and incoming/ of a trial whose stages are stubs.

    Parameters
    ----------
    root
        New folder.
    n_subjects, n_visits
        Subjects, and visits of each, half a year apart.
    faults
        By subject and visit, from 0: ``refused`` or ``failed`` by a stage, ``missing``: nothing uploaded.
    """
    faults = faults or {}
    (root / INCOMING).mkdir(parents=True)
    (root / CONFIG_FILE).write_bytes(files("deploy.trials").joinpath("demo.toml").read_bytes())
    with (root / PLAN_FILE).open("w", newline="") as file:
        plan = csv.writer(file)
        plan.writerow(REQUIRED_COLUMNS)
        for subject in range(n_subjects):
            for visit in range(n_visits):
                subject_id, visit_id = f"S{subject + 1:04d}", f"V{visit + 1}"
                planned = FIRST_VISIT + timedelta(days=subject % 100 + 182 * visit)
                plan.writerow([subject_id, visit_id, planned, 14, "", "", "01"])
                add_upload(root, subject_id, planned, faults.get((subject, visit), ""))


def add_upload(root: Path, subject_id: str, taken_on: date, fault: str = "") -> None:
    """Put the upload of a visit into incoming/; none where the fault is ``missing``."""
    if fault == "missing":
        return
    folder = root / INCOMING / f"{subject_id}_{taken_on:%Y%m%d}"
    write_mr(folder / "IM0001.dcm", np.zeros((2, 2), dtype=np.uint16), _header(subject_id, taken_on))
    if fault:
        (folder / FAULT_FILE).write_text(fault)


def _header(subject_id: str, taken_on: date) -> MrHeader:
    seed, moment = f"{subject_id} {taken_on}", datetime.combine(taken_on, time(10))
    return MrHeader(
        patient_id=subject_id,
        study_uid=deterministic_uid(f"{seed} study"),
        series_uid=deterministic_uid(f"{seed} series"),
        instance_uid=deterministic_uid(seed),
        series_number=1,
        instance_number=1,
        series_description="stub",
        acquired_at=moment,
        study_at=moment,
        inversion_time_ms=None,
        position_mm=(0.0, 0.0, 0.0),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(1.5, 1.5),
        slice_thickness_mm=8.0,
        field_strength_t=1.5,
    )
