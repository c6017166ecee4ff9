"""A published trial of any size, drawn without a night: its tables are written, nothing is computed."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq

from storage import audit
from storage.plan import PlannedVisit, plan_csv
from storage.rows import arrow_table
from storage.staging import table_file
from tests.storage.drawn_rows import row
from tests.storage.drawn_uploads import DEMO_CONFIG

SCANNERS = (
    ("SIEMENS", "Aera", 1.494),
    ("SIEMENS", "Prisma", 2.89362),
    ("Philips Medical Systems", "Ingenia", 1.5),
    ("GE MEDICAL SYSTEMS", "SIGNA Premier", 3.0),
)
"""Manufacturer, model and field strength [T], one a site in turn."""

VISITS = (("BL", 0), ("BL-R", 7), ("W12", 84), ("W26", 182), ("W52", 364))
"""Visits and their days after the first."""

BASELINE_MS = {1: (1000.0, 1600.0), 3: (1230.0, 1900.0)}
"""Native T1 of myocardium and blood, below and above 2 T."""

DRIFT_MS_A_YEAR = 80.0
"""What blood T1 of site 03 gains."""

FIRST_NIGHT = datetime(2026, 3, 2, 2, 0, tzinfo=UTC)
"""When the first visits were published."""

LAST_NIGHT = datetime(2026, 5, 2, 2, 0, tzinfo=UTC)
"""The night after the last scan; later visits are waited for."""


@dataclass
class _Subject:
    subject_id: str
    site: int
    start: date
    t1_ms: float
    ecv_fraction: float
    hematocrit_fraction: float
    treated: bool


def draw_trial(root: Path, n_subjects: int, n_visits: int = 5, seed: int = 1) -> None:
    """Write trial.toml, plan, tables and audit log of a trial at eight sites.

    Parameters
    ----------
    root
        Where; made.
    n_subjects
        Subjects.
    n_visits
        Visits of each, at most five; the last ones are in the future.
    seed
        Seed of everything drawn.
    """
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    (root / "trial.toml").write_bytes(DEMO_CONFIG.read_bytes())
    planned, events = [], []
    for number in range(n_subjects):
        site = int(rng.integers(8))
        subject = _Subject(
            subject_id=f"{site + 1:02d}-{number + 1:03d}",
            site=site,
            start=date(2025, 3, 3) + timedelta(days=int(360 * number / max(n_subjects, 1))),
            t1_ms=float(rng.normal(0, 35)),
            ecv_fraction=float(rng.normal(0.28, 0.035)),
            hematocrit_fraction=float(rng.normal(0.42, 0.035)),
            treated=bool(rng.integers(2)),
        )
        first: dict[str, Any] | None = None
        for visit_id, days in VISITS[:n_visits]:
            when = subject.start + timedelta(days=days)
            line = PlannedVisit(subject.subject_id, visit_id, f"{site + 1:02d}", when, 14, None, None, None)
            planned.append(line)
            scan = _write_visit(root, rng, subject, line, first)
            first = first or scan
            events.append(
                {
                    "event": "published",
                    "who": "core lab",
                    "why": "night",
                    "subject_id": subject.subject_id,
                    "visit_id": visit_id,
                    "history_number": None,
                }
            )
    (root / "subjects.csv").write_text(plan_csv(planned))
    audit.append(root, *events)


def write_row(root: Path, table: str, *rows: dict[str, Any]) -> None:
    """Write a visit's rows of a table as a night would publish them."""
    path = table_file(root, table, rows[0]["subject_id"], rows[0]["visit_id"])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(arrow_table(table, rows), path)


def write_visit_page(root: Path, subject_id: str, visit_id: str) -> None:
    """Write something that stands for a visit's page."""
    path = root / "reports" / subject_id / f"{visit_id}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<!doctype html><title>{quote(subject_id)} {quote(visit_id)}</title>")


def _write_visit(
    root: Path, rng: np.random.Generator, subject: _Subject, line: PlannedVisit, first: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Write one visit; give the row of its scan, if it has one."""
    ids: dict[str, Any] = {
        "subject_id": line.subject_id,
        "visit_id": line.visit_id,
        "site_id": line.site_id,
        "result_digest": None,
    }
    after = datetime.combine(line.visit_date, datetime.min.time(), UTC) + timedelta(hours=26)
    night = min(max(FIRST_NIGHT, after), LAST_NIGHT)
    about = {"visit_date": line.visit_date, "published_at": night, "run_id": f"run-{night:%Y%m%d}"}
    nothing: dict[str, Any] = {
        "seconds_intake": None,
        "seconds_segment": None,
        "seconds_quantify": None,
        "qc_reasons": [],
    }
    nothing |= {"qc_verdict": None, "failed_stage": None, "failure_kind": None, "upload_ids": []}
    chance = rng.random()
    if line.visit_date >= LAST_NIGHT.date() or chance < 0.03:
        reason = "no upload of this visit yet"
        write_row(root, "visits", row("visits", **ids, **about, **nothing, state="waiting", reason=reason))
        return None
    if chance < 0.06:
        state, stage = ("refused", "intake") if chance < 0.05 else ("failed", "segment")
        reason = "native: 3 inversion times, expected 8 (5(3)3); export it again"
        if state == "failed":
            reason = "the worker died (KilledWorker); the next night tries again"
        stopped = nothing | {"failed_stage": stage}
        write_row(root, "visits", row("visits", **ids, **about, **stopped, state=state, reason=reason))
        return None
    ids["result_digest"] = f"result of {line.subject_id}/{line.visit_id}"
    verdict = ("fail", "review", "pass")[int(np.searchsorted([0.03, 0.16], rng.random()))]
    codes = {"fail": ["mask_no_ring"], "review": [str(rng.choice(["center_jumps", "t1_apart"]))]}.get(
        verdict, []
    )
    scan = _draw_scan(rng, subject, line, ids, verdict, codes)
    flags = [row("flags", **ids, code=code, severity=verdict, message=f"{code}: drawn") for code in codes]
    seconds = rng.lognormal([0.0, 1.3, 1.8], 0.35)
    taken = dict(
        zip(("seconds_intake", "seconds_segment", "seconds_quantify"), seconds.tolist(), strict=True)
    )
    state = "done" if verdict == "pass" else "flagged"
    judged = {"qc_verdict": verdict, "qc_reasons": codes, "failed_stage": None, "failure_kind": None}
    reason = "; ".join(f"{code}: drawn" for code in codes)
    write_row(root, "visits", row("visits", **ids, **about, **taken, **judged, state=state, reason=reason))
    write_row(root, "scans", scan)
    if flags:
        write_row(root, "flags", *flags)
    if first is not None:
        write_row(root, "longitudinal", *_changes(ids, first, scan))
    write_visit_page(root, line.subject_id, line.visit_id)
    return scan


def _draw_scan(
    rng: np.random.Generator,
    subject: _Subject,
    line: PlannedVisit,
    ids: dict[str, Any],
    verdict: str,
    codes: list[str],
) -> dict[str, Any]:
    manufacturer, model, field_strength_t = SCANNERS[subject.site % len(SCANNERS)]
    t1_ms, blood_t1_ms = BASELINE_MS[1 if field_strength_t < 2 else 3]
    years = (line.visit_date - date(2025, 3, 3)).days / 365.25
    weeks = (line.visit_date - subject.start).days / 7
    effect = -0.0011 * weeks if subject.treated else 0.0
    ecv = subject.ecv_fraction + effect + rng.normal(0, 0.012)
    t1 = t1_ms + subject.t1_ms + 500 * effect + rng.normal(0, 12)
    if verdict == "fail" or rng.random() < 0.005:
        t1, ecv = t1 + rng.normal(0, 180), ecv + rng.normal(0, 0.12)
    hematocrit = None if rng.random() < 0.05 else subject.hematocrit_fraction + rng.normal(0, 0.01)
    drift = DRIFT_MS_A_YEAR * years if subject.site == 2 else 0.0
    ecv_fraction = None if hematocrit is None else float(np.clip(ecv, 0.05, 0.9))
    return row(
        "scans",
        **ids,
        manufacturer=manufacturer,
        scanner_model=model,
        field_strength_t=field_strength_t,
        scan_datetime=datetime.combine(line.visit_date, datetime.min.time()) + timedelta(hours=10),
        t1_native_ms=float(t1),
        t1_native_septal_ms=float(t1 + rng.normal(8, 8)),
        t1_post_ms=float(rng.normal(450, 30)),
        blood_t1_native_ms=float(
            rng.normal(blood_t1_ms, 25) - 900 * (subject.hematocrit_fraction - 0.42) + drift
        ),
        ecv_fraction=ecv_fraction,
        ecv_septal_fraction=None if ecv_fraction is None else ecv_fraction + float(rng.normal(0, 0.006)),
        r_squared_native_mean=float(1 - rng.lognormal(-4.2, 0.5)),
        hematocrit_fraction=None if hematocrit is None else float(hematocrit),
        qc_verdict=verdict,
        qc_reasons=codes,
    )


def _changes(ids: dict[str, Any], first: dict[str, Any], scan: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for level, middle in (("global", ""), ("septal", "_septal")):
        t1 = scan[f"t1_native{middle}_ms"] - first[f"t1_native{middle}_ms"]
        values = [one[f"ecv{middle}_fraction"] for one in (first, scan)]
        ecv = None if None in values else values[1] - values[0]
        limits = (37.0, 0.05) if level == "global" else (58.0, 0.05)
        rows.append(
            row(
                "longitudinal",
                **ids,
                baseline_visit_id=first["visit_id"],
                level=level,
                aha_segment=None,
                t1_native_change_ms=t1,
                t1_native_repeatability_ms=limits[0],
                t1_native_beyond_repeatability=bool(abs(t1) > limits[0]),
                ecv_change_fraction=ecv,
                ecv_repeatability_fraction=limits[1],
                ecv_beyond_repeatability=None if ecv is None else bool(abs(ecv) > limits[1]),
            )
        )
    return rows
