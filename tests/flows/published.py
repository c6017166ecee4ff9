"""A small published trial, made without a night: three subjects at two sites, a retest, week 52, a lock."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from storage.config import load_config
from storage.lock import lock_record
from storage.tables import publish
from tests.storage.drawn_rows import row
from tests.storage.drawn_uploads import DEMO_CONFIG

SITES = {"01": "10", "02": "10", "03": "20"}
VISITS = {"BL": date(2024, 1, 10), "BL-R": date(2024, 1, 11), "W52": date(2025, 1, 8)}

ECV = {
    ("01", "BL"): 0.30,
    ("01", "BL-R"): 0.31,
    ("01", "W52"): 0.28,
    ("02", "BL"): 0.26,
    ("02", "BL-R"): 0.27,
    ("02", "W52"): 0.29,
    ("03", "BL"): None,
    ("03", "BL-R"): 0.28,
}
"""ECV of each scan; the last subject has no hematocrit at baseline, and week 52 is waited for."""
T1_MS = {
    ("01", "BL"): 1000.0,
    ("01", "BL-R"): 1010.0,
    ("01", "W52"): 1005.0,
    ("02", "BL"): 1020.0,
    ("02", "BL-R"): 1000.0,
    ("02", "W52"): 1600.0,
    ("03", "BL"): 1200.0,
    ("03", "BL-R"): 1205.0,
}


def publish_small_trial(root: Path) -> None:
    """Publish all visits, lock them as ``interim``, and publish one of them again with another ECV."""
    root.mkdir(parents=True)
    (root / "trial.toml").write_bytes(DEMO_CONFIG.read_bytes())
    header = "subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id\n"
    lines = [
        f"{subject_id},{visit_id},{planned},14,,,{site_id}\n"
        for subject_id, site_id in SITES.items()
        for visit_id, planned in VISITS.items()
    ]
    lines += [f"03,W104,{date(2099, 1, 1)},14,,,20\n"]
    (root / "subjects.csv").write_text(header + "".join(lines))
    for key, ecv_fraction in ECV.items():
        publish_scan(root, key, ecv_fraction)
    for visit_id, planned in (("W52", VISITS["W52"]), ("W104", date(2099, 1, 1))):
        ids = {"subject_id": "03", "visit_id": visit_id, "site_id": "20", "result_digest": None}
        visit = row("visits", **ids, visit_date=planned, state="waiting")
        publish(root, visit, {}, "core lab", "night")
    lock_record(root, "interim", "J. Doe", "interim analysis", "1.0")
    publish_scan(root, ("02", "W52"), 0.295, digest="second", why="rerun: a reader's guide came")


def publish_scan(
    root: Path,
    key: tuple[str, str],
    ecv_fraction: float | None,
    digest: str = "first",
    why: str = "night",
) -> None:
    """Publish a scan with three slices of a segment each, the last one failed; flags where QC failed."""
    subject_id, visit_id = key
    failed = key == ("02", "BL-R")
    ids: dict[str, Any] = {
        **{"subject_id": subject_id, "visit_id": visit_id, "site_id": SITES[subject_id]},
        "result_digest": f"{digest} of {subject_id}/{visit_id}",
    }
    scan = row(
        "scans",
        **ids,
        t1_native_ms=T1_MS[key],
        t1_post_ms=450.0,
        blood_t1_native_ms=1600.0,
        ecv_fraction=ecv_fraction,
        hematocrit_fraction=None if ecv_fraction is None else 0.42,
        qc_verdict="fail" if failed else "pass",
        field_strength_t=1.5 if SITES[subject_id] == "10" else 3.0,
        scanner_model="Aera" if SITES[subject_id] == "10" else "Prisma",
    )
    segments = [
        row("segments", **ids, slice_index=index, aha_segment=7, n_pixels_ecv=pixels, ecv_fraction=value)
        for index, (pixels, value) in enumerate(
            [(10, ecv_fraction), (30, None if failed else 0.5), (40, 0.9)]
        )
    ]
    slices = [row("slices", **ids, slice_index=index, used_ecv=index < 2) for index in range(3)]
    flags = [
        row("flags", **ids, code="echoes_unaligned", severity="review", slice_index=index) for index in (0, 1)
    ]
    config_digest = load_config(root / "trial.toml").digest()
    visit = row(
        "visits",
        **ids,
        visit_date=VISITS[visit_id],
        state="flagged" if failed else "done",
        config_digest=config_digest,
        published_at=datetime(2026, 3, 5, tzinfo=UTC),
    )
    rows = {"scans": [scan], "slices": slices, "segments": segments, "flags": flags if failed else []}
    publish(root, visit, rows, "core lab", why)
