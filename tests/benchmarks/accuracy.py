"""Accuracy of T1 and ECV: ``python -m tests.benchmarks.accuracy [VISITS [SEED [FOLDER [EROSION_MM]]]]``.

Visits of the digital trial at ``typical`` are simulated, segmented by the networks that the demo names,
without a reader, and quantified under the demo's configuration as a night does it. Every result is held
against three yardsticks: ``ideal``, the noise-free fit over the true wall eroded as the measured one is;
``ideal_whole``, the same over the whole true wall with the edge pixels that it shares; ``true``, the tissue.
The measured hematocrit errs as trial.toml says; the errors of ECV are told without that, the calibration of
its uncertainty with it.

What stands in the folder (default ``bench/scans``) is not computed again; all rows go to its
``accuracy.parquet``.
"""

import hashlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cmrcore.phantom import Difficulty
from cmrcore.quantify import QuantifySettings, ScanResult, quantify_scan
from cmrcore.quantify.aha import aha_segments, rv_insertions, stack_orientations
from cmrcore.quantify.records import Role
from cmrcore.quantify.wall import erode_walls
from cmrcore.threads import one_thread
from storage.config import load_config
from tasks.quantify import settings_of
from tasks.stage import RESULT_VERSIONS
from tests.benchmarks.figure import Figure, print_figures
from tests.benchmarks.scanned import DEMO_CONFIG, SCANNED_AT, ScannedVisit, scanned_visit

N_VISITS = 60
SEED = 82_000
FOLDER = Path("bench") / "scans"
QUANTITIES = ("t1_native_ms", "t1_post_ms", "ecv_fraction")
YARDSTICKS = ("ideal", "ideal_whole", "true")
_MAPS = {"t1_native_ms": "native/t1_ms", "t1_post_ms": "post/t1_ms", "ecv_fraction": "ecv_fraction"}


def accuracy_rows(
    folder: Path, seed: int, n_visits: int, settings: QuantifySettings, difficulty: Difficulty = "typical"
) -> pd.DataFrame:
    """Rows of every scan, slice and segment of the visits; those that stand in the folder are read."""
    state = f"{settings} {RESULT_VERSIONS['quantify']}"
    digest = hashlib.sha256(state.encode()).hexdigest()[:12]
    tables = []
    for subject in range(n_visits):
        file = folder / f"rows-{digest}" / f"{difficulty}-{seed}-{subject:03d}.parquet"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            visit = scanned_visit(folder, seed, subject, difficulty)
            with one_thread():
                pd.DataFrame(visit_rows(visit, settings)).to_parquet(file)
        tables.append(pd.read_parquet(file))
    return pd.concat(tables, ignore_index=True)


def visit_rows(visit: ScannedVisit, settings: QuantifySettings) -> list[dict[str, Any]]:
    """Quantify a visit and hold its scan, slices and segments against the truth."""
    rng = np.random.default_rng([visit.seed, visit.subject_index])
    exact = visit.hematocrit.fraction
    measured = exact + float(rng.normal(0, settings.hematocrit_sd_fraction))
    result = quantify_scan(
        visit.native,
        visit.post,
        replace(visit.hematocrit, fraction=measured),
        SCANNED_AT,
        SCANNED_AT.date(),
        settings,
    )
    regions = true_regions(visit, settings)
    scale = (1 - exact) / (1 - measured)
    rows = []
    for kind, index, number, row in _results(result):
        whole, inner = regions[kind, index, number]
        one: dict[str, Any] = {
            "seed": visit.seed,
            "subject_index": visit.subject_index,
            "kind": kind,
            "slice_index": index,
            "aha_segment": number,
            "scheme": visit.native.scheme,
            "field_strength_t": visit.truth["field_strength_t"],
            "qc_verdict": row.get("qc_verdict"),
        }
        for quantity in QUANTITIES:
            one[quantity] = _number(row[quantity])
            ideal = visit.maps[f"{_MAPS[quantity]}_ideal"]
            one[f"{quantity}_ideal"] = _mean(ideal, inner)
            one[f"{quantity}_ideal_whole"] = _mean(ideal, whole)
            one[f"{quantity}_true"] = _mean(visit.maps[f"{_MAPS[quantity]}_true"], inner)
            one[_uncertainty(quantity)] = _number(row[_uncertainty(quantity)])
        one["ecv_exact_fraction"] = one["ecv_fraction"] * scale
        one["ecv_synthetic_fraction"] = _number(row["ecv_synthetic_fraction"])
        for role in get_args(Role):
            column = f"blood_t1_{role}_ms"
            one[column] = _number(row.get(column))
            truth = visit.truth["scan"] if kind == "scan" else visit.truth["slices"][index]
            one[f"{column}_ideal"] = truth[f"{column}_ideal"] if kind in ("scan", "slice") else math.nan
        one["insertion_error_deg"] = _insertion_error_deg(visit, index) if kind == "slice" else math.nan
        rows.append(one)
    return rows


def true_regions(
    visit: ScannedVisit, settings: QuantifySettings
) -> dict[tuple[str, int, int], tuple[Tensor, Tensor]]:
    """Whole and eroded true wall of each scan, slice and segment, on the first native image."""
    series = visit.native
    first = series.acquisition_index.argmin(1)
    labels = visit.labels["native"][:, torch.arange(len(first)), first]
    inner = erode_walls(labels[0], labels[1], settings.myocardium_erosion_mm, series.pixel_spacing_mm)
    orientations = stack_orientations(labels[0], labels[2], series.anterior, series.pixel_spacing_mm)
    segments = torch.zeros(labels[0].shape, dtype=torch.uint8)
    for index, orientation in enumerate(orientations):
        if orientation is not None:
            level, spacing = series.levels[index], series.pixel_spacing_mm
            segments[index] = aha_segments(labels[0, index], orientation, level, spacing)
    regions = {("scan", -1, 0): (labels[0], inner)}
    for index in range(len(first)):
        here = torch.zeros_like(inner)
        here[index] = True
        regions["slice", index, 0] = (labels[0] & here, inner & here)
        for number in range(1, 17):
            of_segment = (segments == number) & here
            regions["segment", index, number] = (of_segment, of_segment & inner)
    return regions


def accuracy_figures(rows: pd.DataFrame) -> list[Figure]:
    """Summarize the errors; percentage points for ECV."""
    figures: list[Figure] = []
    for kind in ("scan", "slice", "segment"):
        of_kind = rows[rows["kind"] == kind]
        for name, quantity, factor, unit in (
            ("ECV", "ecv_exact_fraction", 100.0, "points"),
            ("native T1", "t1_native_ms", 1.0, "ms"),
            ("post-contrast T1", "t1_post_ms", 1.0, "ms"),
        ):
            for yardstick in YARDSTICKS:
                error = factor * (
                    of_kind[quantity] - of_kind[f"{quantity.replace('_exact', '')}_{yardstick}"]
                )
                error = error.dropna()
                target_bias, target_sd = _targets(kind, name, yardstick)
                label = f"{name} per {kind} against {yardstick}"
                note = f"n = {len(error)}, 95 % within {error.abs().quantile(0.95):.2f}"
                figures.append(Figure(f"{label}: bias", error.mean(), unit, target_bias, note))
                figures.append(Figure(f"{label}: SD", error.std(), unit, target_sd, ""))
    for kind in ("scan", "slice", "segment"):
        of_kind = rows[rows["kind"] == kind]
        for name, quantity, factor, target in (
            ("ECV", "ecv_fraction", 100.0, "58-78"),
            ("native T1", "t1_native_ms", 1.0, ""),
            ("post-contrast T1", "t1_post_ms", 1.0, ""),
        ):
            for yardstick in ("ideal", "ideal_whole"):
                told = of_kind[_uncertainty(quantity)]
                error = (of_kind[quantity] - of_kind[f"{quantity}_{yardstick}"])[told.notna()].dropna()
                inside = 100 * (error.abs() <= told[error.index]).mean()
                note = f"median predicted {factor * told.median():.2f}, found {factor * error.std():.2f}"
                label = f"{name} errors inside 1 SD per {kind} against {yardstick}"
                figures.append(Figure(label, inside, "%", target, note))
    angle = rows["insertion_error_deg"].dropna().abs()
    note = f"n = {len(angle)}, 90 % within {angle.quantile(0.9):.1f}"
    figures.append(Figure("anterior insertion, median error", angle.median(), "degrees", "", note))
    missing = rows[rows["kind"] == "scan"]["ecv_fraction"].isna().sum()
    figures.append(
        Figure("scans without ECV", float(missing), "1", "0", f"of {(rows['kind'] == 'scan').sum()}")
    )
    return figures


def _targets(kind: str, name: str, yardstick: str) -> tuple[str, str]:
    """Targets of bias and SD."""
    if name != "ECV" or yardstick == "true":
        return "", ""
    return {"scan": ("< 0.5", "< 1.5"), "slice": ("", ""), "segment": ("", "< 3.5")}[kind]


def _uncertainty(quantity: str) -> str:
    """Name of the column with the standard uncertainty of a quantity."""
    stem, unit = quantity.rsplit("_", 1)
    return f"{stem}_uncertainty_{unit}"


def _results(result: ScanResult) -> list[tuple[str, int, int, Any]]:
    """Kind, slice, segment and row of all that was measured."""
    found: list[tuple[str, int, int, Any]] = [("scan", -1, 0, result.scan)]
    found += [("slice", int(str(row["slice_index"])), 0, row) for row in result.slices]
    return found + [
        ("segment", int(str(row["slice_index"])), int(str(row["aha_segment"])), row)
        for row in result.segments
    ]


def _insertion_error_deg(visit: ScannedVisit, index: int) -> float:
    """Turn of the predicted anterior insertion against the true one, each as seen from its LV center."""
    series = visit.native
    if series.masks is None:
        return math.nan
    masks = series.masks[:, index, int(series.reference()[index])]
    found = rv_insertions(masks[0], masks[2], series.anterior, series.pixel_spacing_mm)
    if found is None:
        return math.nan
    center = torch.nonzero(masks[:2].any(0)).double().mean(0).numpy()
    anterior, _, true_center = np.asarray(visit.truth["landmarks_px"][index])
    spacing = np.asarray(series.pixel_spacing_mm)
    here, there = (np.asarray(found[0]) - center) * spacing, (anterior - true_center) * spacing
    turn = math.degrees(math.atan2(here[0], here[1]) - math.atan2(there[0], there[1]))
    return (turn + 180) % 360 - 180


def _mean(values: Tensor, mask: Tensor) -> float:
    """Mean of the valid values in a mask; NaN without any."""
    return values[mask].double().nanmean().item()


def _number(value: object) -> float:
    """Value of a column, NaN where there is none."""
    return float(value) if isinstance(value, int | float) else math.nan


def main() -> None:
    """Measure and print."""
    n_visits = int(sys.argv[1]) if len(sys.argv) > 1 else N_VISITS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else FOLDER
    config = load_config(DEMO_CONFIG)
    settings = settings_of(config.quantify, config.align)
    if len(sys.argv) > 4:
        settings = replace(settings, myocardium_erosion_mm=float(sys.argv[4]))
    rows = accuracy_rows(folder, seed, n_visits, settings)
    rows.to_parquet(folder / "accuracy.parquet")
    print_figures(f"accuracy over {n_visits} visits of seed {seed}", accuracy_figures(rows))


if __name__ == "__main__":
    main()
