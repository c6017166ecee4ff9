"""Visits drawn for the tests of pages: a ring of known T1, quantified and published as a night does it."""

import shutil
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmrcore.relaxation import molli_signal
from storage import Trial, open_trial
from storage.arrays import open_store, write_array, write_stack, write_store
from storage.dicom_read import FileSource
from storage.dicom_series import EchoStack
from storage.geometry import Level
from storage.plan import PlannedVisit
from storage.tables import publish
from tasks.plan import VisitJob
from tasks.publish import Publisher
from tasks.quantify import quantify
from tasks.stage import VisitRef
from tasks.summarise import stated_repeatability, summarise
from tests.storage.drawn_rows import visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG

SHAPE = (64, 64)
SPACING_MM = (2.0, 2.0)
LEVELS: tuple[Level, ...] = ("basal", "mid")
CENTER = (32.0, 34.0)
TI_MS: dict[str, tuple[float, ...]] = {
    "native": (120.0, 200.0, 1000.0, 1100.0, 1900.0, 2000.0, 2900.0, 3900.0),
    "post": (120.0, 200.0, 280.0, 1000.0, 1100.0, 1200.0, 1900.0, 2000.0, 2900.0),
}
T1_MS = {"native": (1000.0, 1600.0, 250.0), "post": (450.0, 330.0, 250.0)}
"""T1 of myocardium, blood and what lies around [ms]."""
MOVED_ECHO = 4
"""Echo on which the heart lies elsewhere."""
MOVED_PX = 3
"""How far, along the columns [pixel]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnVisit:
    """What is drawn of a visit."""

    visit_id: str = "V1"
    """Its name."""
    roles: tuple[str, ...] = ("native", "post")
    """Series that were acquired."""
    n_post: int = 2
    """Slices of the post-contrast series; the native one has two."""
    without_masks: tuple[int, ...] = ()
    """Slices without guide and masks."""
    hematocrit_fraction: float | None = 0.42
    """Hematocrit."""
    visit_date: date = date(2026, 3, 4)
    """Day of the visit."""
    field_strength_t: float | None = 1.5
    """Field strength [T]."""


def drawn_trial(root: Path, *visits: DrawnVisit) -> Trial:
    """Publish drawn visits of subject S01, in the order of their dates."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(DEMO_CONFIG, root / "trial.toml")
    lines = [
        f"S01,{one.visit_id},{one.visit_date},14,{one.hematocrit_fraction or ''},"
        f"{one.visit_date if one.hematocrit_fraction else ''},01"
        for one in visits
    ]
    head = "subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id"
    (root / "subjects.csv").write_text("\n".join([head, *lines, ""]))
    trial = open_trial(root)
    jobs = [_quantified(trial, one, line) for one, line in zip(visits, trial.plan(), strict=True)]
    config = trial.config.summarise
    results = tuple((job.visit, job.digests["quantify"]) for job in jobs)
    changes = summarise.fn("S01", results, config, stated_repeatability(config))
    publisher = Publisher(trial.root, trial.config, {"S01": "matching"}, "run", "test", "test")
    for job in jobs:
        publisher.result(job, {}, changes[job.visit.visit_id], "summary")
    return trial


def publish_without_result(trial: Trial, visit_id: str, state: str, reason: str, **values: Any) -> None:
    """Publish a visit of subject S01 that has no result."""
    empty = dict.fromkeys(("result_digest", "qc_verdict", "n_files", "failed_stage", "failure_kind"))
    lists: dict[str, Any] = {
        "qc_reasons": [],
        "upload_ids": [],
        "upload_digests": [],
        "upload_fingerprints": [],
    }
    row = visit_row(**empty | lists | {"visit_id": visit_id, "state": state, "reason": reason} | values)
    publish(trial.root, row | {"published_at": datetime.now(UTC)}, {}, "test", "test", None)


def _quantified(trial: Trial, drawn: DrawnVisit, line: PlannedVisit) -> VisitJob:
    """Store echoes and masks of a visit, and quantify them."""
    visit = VisitRef(str(trial.root), "S01", drawn.visit_id, "01")
    digests: Any = {stage: f"{drawn.visit_id}-{stage}" for stage in ("intake", "segment", "quantify")}
    with write_store(trial.root, "S01", drawn.visit_id, digests["segment"]) as store:
        store.attrs.update({"refused_files": [], "burned_in_files": [], "minutes_since_contrast": 15.0})
        for role in drawn.roles:
            stack = drawn_stack(role, drawn)
            write_stack(store, stack)
            masks = _masks(stack.echoes.shape[0], stack.echoes.shape[1], drawn.without_masks)
            if not masks.any():
                continue
            note = {"origin": "reader", "score": 0.9, "findings": [], "rejected": []}
            notes = [None if index in drawn.without_masks else note for index in range(len(stack.echoes))]
            write_array(store, f"{role}/guide", masks[:, :, 0], "1", "label slice row col", {"guides": notes})
            write_array(store, f"{role}/masks", masks, "1", "label slice ti row col")
            zeros = np.zeros(len(stack.echoes), dtype=np.int64)
            write_array(store, f"{role}/reference_echo", zeros, "1", "slice")
    recorded = replace(line, visit_date=drawn.visit_date)
    config = trial.config
    quantify.fn(
        visit, recorded, digests["segment"], config.quantify, config.align, digests["quantify"], False
    )
    assert open_store(trial.root, "S01", drawn.visit_id, digests["quantify"])
    return VisitJob(visit, recorded, recorded, (), digests, False, None, lambda _: digests)


def drawn_stack(role: Any, drawn: DrawnVisit) -> EchoStack:  # noqa: ANN401 (a literal of storage)
    """Draw the echoes of a role: the recovery of each tissue, with a little noise."""
    ti_ms = np.array(TI_MS[role])
    n_slices = drawn.n_post if role == "post" else 2
    masks = _masks(n_slices, len(ti_ms), ())
    signals = np.array([_recovery(ti_ms, t1_ms) for t1_ms in T1_MS[role]])
    tissue = np.where(masks[0], 0, np.where(masks[1] | masks[2], 1, 2))
    echoes = np.abs(signals[tissue, np.arange(len(ti_ms))[None, :, None, None]])
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    echoes[..., np.hypot(rows - 32, cols - 32) > 30] = 0.0  # air, which fits badly
    echoes += np.random.default_rng(1).normal(0.0, 3.0, echoes.shape)
    source = FileSource("u-0123456789", 7, "0" * 64)
    return EchoStack(
        role=role,
        echoes=np.abs(echoes).astype(np.float32),
        ti_ms=np.tile(ti_ms, (n_slices, 1)),
        acquisition_index=np.tile(np.arange(len(ti_ms)), (n_slices, 1)),
        ti_source=(("InversionTime (0018,0082)",) * len(ti_ms),) * n_slices,
        sources=((source,) * len(ti_ms),) * n_slices,
        positions_mm=tuple((0.0, 0.0, -10.0 * index) for index in range(n_slices)),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=SPACING_MM,
        slice_thickness_mm=8.0,
        levels=LEVELS[:n_slices],
        anterior=(-1.0, 0.0),
        scheme="5(3)3" if role == "native" else "4(1)3(1)2",
        acquired_at=datetime.combine(drawn.visit_date, datetime.min.time()),
        study_date=drawn.visit_date,
        field_strength_t=drawn.field_strength_t,
        manufacturer="cmrtrials",
        scanner_model="drawn",
        repeats=(),
    )


def _recovery(ti_ms: np.ndarray[Any, Any], t1_ms: float) -> np.ndarray[Any, Any]:
    """Signal of a Look-Locker read-out that shortens T1 to T1* = T1 / 1.1 at B = 2.1 A."""
    a, b, t1_star_ms = (torch.tensor(value, dtype=torch.float64) for value in (500.0, 1050.0, t1_ms / 1.1))
    return molli_signal(torch.from_numpy(ti_ms), a, b, t1_star_ms).numpy()


def _masks(n_slices: int, n_ti: int, without: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Myocardium, blood pool and RV, ``[label, slice, ti, row, col]``; on one echo they lie elsewhere."""
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    masks = np.zeros((3, n_slices, n_ti, *SHAPE), dtype=bool)
    for echo in range(n_ti):
        at = CENTER[1] + (MOVED_PX if echo == MOVED_ECHO else 0)
        radius = np.hypot(rows - CENTER[0], cols - at)
        right = (np.hypot(rows - CENTER[0], cols - at + 14) < 11) & (radius >= 14)
        masks[:, :, echo] = np.stack([(radius >= 8) & (radius < 13), radius < 8, right])[:, None]
    masks[:, [index for index in without if index < n_slices]] = False
    return masks
