"""Stages that store, publish and lend as the real ones do, but compute nothing.

Rows and arrays are drawn from the digest of an upload's content, so that they are the same whenever and
wherever they are made, and differ between visits.
"""

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.arrays import open_store, write_array, write_stack, write_store
from storage.dicom_read import FileSource
from storage.dicom_series import EchoStack
from storage.digest import canonical_digest
from storage.durable import write_durably
from storage.errors import RefusedError, UploadChangedError
from storage.geometry import Vector
from storage.plan import PlannedVisit
from storage.quarantine import quarantine_upload
from storage.schema import LEVELS, REGIONS, TABLES
from storage.series_rules import ROLES, Role
from storage.tables import read_table
from storage.trial import open_trial
from storage.upload import Upload, is_unchanged, open_upload
from tasks.stage import StageResult, VisitRef, run_stage
from tests.benchmarks.kill_switch import obey_order

SECONDS = "CMRTRIALS_STUB_SECONDS"
"""Environment variable: how long each stage sleeps in the middle of its store [s]; 0 where it is not set."""

FAULT_FILE = "fault.txt"
"""File of an upload whose text says what a stage does: ``refused`` or ``failed``."""

N_TI, SIDE = 11, 16

_IDS = ("subject_id", "visit_id", "site_id", "result_digest")


@task(name="intake", task_run_name="intake {visit.label}", cache_policy=NO_CACHE, persist_result=False)
def intake(
    visit: VisitRef,
    planned: PlannedVisit,
    uploads: tuple[Upload, ...],
    config: object,  # noqa: ARG001 (as the real stage)
    privacy: object,  # noqa: ARG001
    key_name: str | None,  # noqa: ARG001
    digest: str,
    force: bool,
) -> StageResult:
    """Store drawn echoes of both roles, as many as a real visit has, of 16 x 16 pixels."""
    obey_order(Path(visit.root))

    def work() -> str:
        fault = _fault(uploads)
        if fault == "refused":
            for upload in uploads:
                quarantine_upload(visit.path, upload, "drawn to be refused")
            raise RefusedError("drawn to be refused")
        contents = canonical_digest([upload.content_digest for upload in uploads])
        with write_store(visit.path, visit.subject_id, visit.visit_id, digest) as store:
            store.update_attributes({"intake_digest": digest, "contents": contents, "fault": fault})
            for number, role in enumerate(ROLES):
                write_stack(store, _stack(role, _rng(contents, number), planned, uploads[0]))
                _work()
        if not all(map(is_unchanged, uploads)):
            raise UploadChangedError("an upload changed since it was planned; the next night reads it again")
        return f"uploads={len(uploads)}"

    return run_stage(visit, "intake", digest, work, force=force)


@task(name="segment", task_run_name="segment {visit.label}", cache_policy=NO_CACHE, persist_result=False)
def segment(
    visit: VisitRef,
    echoes_digest: str,
    config: object,  # noqa: ARG001
    digest: str,
    force: bool,
    source: object = None,  # noqa: ARG001
) -> StageResult:
    """Add drawn masks to the echoes."""
    obey_order(Path(visit.root))

    def work() -> str:
        ids = (visit.subject_id, visit.visit_id)
        with write_store(visit.path, *ids, digest, extends=echoes_digest) as store:
            store.attrs["segment_digest"] = digest
            for number, role in enumerate(ROLES):
                rng = _rng(str(store.attrs["contents"]), 10 + number)
                masks = rng.random((3, len(LEVELS), N_TI, SIDE, SIDE)) < 0.3
                write_array(store, f"{role}/masks", masks, "1", "label slice ti row col")
                _work()
        return "method=stub"

    return run_stage(visit, "segment", digest, work, force=force)


@task(name="quantify", task_run_name="quantify {visit.label}", cache_policy=NO_CACHE, persist_result=False)
def quantify(
    visit: VisitRef,
    recorded: PlannedVisit,  # noqa: ARG001
    masks_digest: str,
    config: object,  # noqa: ARG001
    align: object,  # noqa: ARG001
    digest: str,
    force: bool,
    reviewed: tuple[object, ...] = (),  # noqa: ARG001
) -> StageResult:
    """Add drawn maps, and the rows of all tables, as many as a real visit has."""
    obey_order(Path(visit.root))

    def work() -> str:
        ids = (visit.subject_id, visit.visit_id)
        with write_store(visit.path, *ids, digest, extends=masks_digest) as store:
            if store.attrs["fault"] == "failed":
                raise ValueError("drawn to fail")
            rng = _rng(str(store.attrs["contents"]), 20)
            for role in ROLES:
                t1_ms = rng.normal(1000.0, 50.0, (len(LEVELS), SIDE, SIDE)).astype(np.float32)
                write_array(store, f"{role}/t1_ms", t1_ms, "ms", "slice row col")
            _work()
            store.attrs["result_digest"] = digest
            store.attrs["rows"] = _rows(store, rng)
        return "verdict=pass"

    return run_stage(visit, "quantify", digest, work, force=force)


@task(name="summarise", task_run_name="summarise {subject_id}", cache_policy=NO_CACHE, persist_result=False)
def summarise(
    subject_id: str,  # noqa: ARG001
    results: tuple[tuple[VisitRef, str], ...],
    config: object,  # noqa: ARG001
    coefficients: object,  # noqa: ARG001
) -> dict[str, list[dict[str, Any]]]:
    """Set each visit against the first, by what their stores hold."""
    scans: dict[str, dict[str, Any]] = {}
    for visit, digest in results:
        rows: Any = open_store(visit.path, visit.subject_id, visit.visit_id, digest).attrs["rows"]
        scans[visit.visit_id] = rows["scans"][0]
    (first, baseline), *later = scans.items()
    return {first: []} | {
        visit_id: [_change(visit_id, level, scan, first, baseline) for level in REGIONS]
        for visit_id, scan in later
    }


@task(
    name="report", task_run_name="report {subject_id}/{visit_id}", cache_policy=NO_CACHE, persist_result=False
)
def report(root: str, subject_id: str, visit_id: str) -> None:
    """Write a page that holds nothing but what it was made from."""
    from tasks.report.visit_page import _MADE_FROM, page_digest, page_path  # torch takes seconds

    obey_order(Path(root))

    trial = open_trial(Path(root))
    visits, reviews = (read_table(trial.root, name, subject_id).to_pylist() for name in ("visits", "reviews"))
    _work()
    page = f"<html>{subject_id} {visit_id}</html>" + _MADE_FROM.format(page_digest(visits, reviews))
    write_durably(page_path(trial.root, subject_id, visit_id), page.encode())


def _work() -> None:
    time.sleep(float(os.environ.get(SECONDS, "0")))


def _fault(uploads: tuple[Upload, ...]) -> str:
    """Read what an upload is drawn to do."""
    for upload in uploads:
        with open_upload(upload) as opened:
            for file in opened.files:
                if file.path.name == FAULT_FILE:
                    return file.path.read_text()
    return ""


def _rng(digest: str, number: int) -> np.random.Generator:
    return np.random.default_rng([int(digest[:16], 16), number])


def _stack(role: Role, rng: np.random.Generator, planned: PlannedVisit, upload: Upload) -> EchoStack:
    n_slices = len(LEVELS)
    shape = (n_slices, N_TI)
    files = [FileSource(upload.upload_id, file.number, file.sha256) for file in upload.files]
    positions: tuple[Vector, ...] = tuple((0.0, 0.0, -10.0 * index) for index in range(n_slices))
    return EchoStack(
        role=role,
        echoes=rng.integers(0, 4096, (*shape, SIDE, SIDE)).astype(np.float32),
        ti_ms=np.tile(100.0 + 400.0 * np.arange(N_TI), (n_slices, 1)),
        acquisition_index=np.tile(np.arange(N_TI), (n_slices, 1)),
        ti_source=((("InversionTime (0018,0082)",) * N_TI),) * n_slices,
        sources=((files[0],) * N_TI,) * n_slices,
        positions_mm=positions,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(1.5, 1.5),
        slice_thickness_mm=8.0,
        levels=("basal", "mid", "apical"),
        anterior=(-1.0, 0.0),
        scheme="5(3)3" if role == "native" else "4(1)3(1)2",
        acquired_at=datetime.combine(planned.visit_date, datetime.min.time()),
        study_date=planned.visit_date,
        field_strength_t=1.5,
        manufacturer="cmrtrials",
        scanner_model="stub",
        repeats=(),
    )


def _rows(store: zarr.Group, rng: np.random.Generator) -> dict[str, list[dict[str, Any]]]:
    """Draw the rows of each table, still without the ids of the visit."""
    moment: Any = store["native"].attrs["acquired_at"]

    def measured() -> dict[str, Any]:
        return {"t1_native_ms": rng.normal(1000.0, 30.0), "ecv_fraction": rng.normal(0.27, 0.02)}

    scan = {
        "scan_datetime": moment,
        "field_strength_t": 1.5,
        "manufacturer": "cmrtrials",
        "scanner_model": "stub",
        "n_slices": len(LEVELS),
        "qc_verdict": "pass",
        "qc_reasons": [],
        **measured(),
    }
    places = [{"slice_index": index, "level": level} for index, level in enumerate(LEVELS)]
    return {
        "scans": [scan],
        "slices": [place | {"qc_verdict": "pass", "qc_reasons": []} | measured() for place in places],
        "segments": [
            places[min(index // 6, 2)] | {"aha_segment": index + 1, "aha_name": str(index + 1)} | measured()
            for index in range(16)
        ],
        "echoes": [
            place
            | {"role": role, "echo_index": index, "acquisition_index": index, "ti_ms": 100.0 + 400.0 * index}
            | {"alignment": "still", "turn_from": "none", "confidence": float(rng.random())}
            for role in ROLES
            for place in places
            for index in range(N_TI)
        ],
        "flags": [],
    }


def _change(
    visit_id: str, level: str, scan: dict[str, Any], first: str, baseline: dict[str, Any]
) -> dict[str, Any]:
    """Give a row of ``longitudinal`` of a visit; its ids come with publication."""
    empty = {column.name: None for column in TABLES["longitudinal"] if column.name not in _IDS}
    return empty | {
        "visit_id": visit_id,
        "baseline_visit_id": first,
        "level": level,
        "t1_native_change_ms": scan["t1_native_ms"] - baseline["t1_native_ms"],
        "ecv_change_fraction": scan["ecv_fraction"] - baseline["ecv_fraction"],
        "protocol_deviations": [],
    }
