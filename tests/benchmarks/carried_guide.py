"""A guide carried across visits: ``python -m tests.benchmarks.carried_guide [SUBJECTS [SEED [FOLDER]]]``.

Hearts of the digital trial at ``typical`` are scanned at a baseline and at three later visits, each in
another pose, with other noise and motion: unchanged, with a wall 1 to 3 mm thicker or thinner, and with an
ECV 3 to 10 points higher or lower. Each later visit is segmented twice as a night does it, by guides of its
own (``visit``) and by those of the baseline (``baseline``), and quantified under the demo's configuration.

Changes from the baseline are held against the true ones: wall thickness in the true labels, native T1 and ECV
of the noise-free fit over the true wall. Of unchanged hearts the SD of the change is told, of the others the
slope of measured on true change. A slope under 0.95 means that a guide hides a part of what it shall show.

What stands in the folder (default ``bench/carried``) is not computed again.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from cmrcore.phantom import SimulatedScan, simulate_scan
from cmrcore.phantom.course import Subject, draw_subject
from cmrcore.quantify import Hematocrit, Series, quantify_scan
from cmrcore.quantify.records import Role
from cmrcore.quantify.shape import HeartMasks, slice_shapes
from cmrcore.segmentation import EarlierGuides, Guide, Lent, guide_from_earlier
from cmrcore.threads import one_thread
from flows.simulate import SCHEME_POST
from storage.config import load_config
from storage.dicom_series import EchoStack
from tasks.quantify import settings_of
from tasks.segment import SliceMasks, compute_device, finder_of, planes_of, segment_series, segmenter_of
from tests.benchmarks.figure import Figure, print_figures
from tests.benchmarks.scanned import DEMO_CONFIG, SCANNED_AT, echo_scale, echo_stack, schemes_of

N_SUBJECTS = 12
SEED = 88_000
FOLDER = Path("bench") / "carried"
GuideFrom = Literal["visit", "baseline"]
ROLES: tuple[Role, ...] = ("native", "post")
WALL_CHANGES_MM = (1.0, -1.0, 2.0, -2.0, 3.0, -3.0)
ECV_CHANGES = (0.03, -0.03, 0.065, -0.065, 0.10, -0.10)
KINDS = ("unchanged", "wall", "ecv")
QUANTITIES = ("thickness_mm", "t1_native_ms", "ecv_fraction")
Segmented = dict[Role, tuple[EchoStack, list[SliceMasks | None]]]


def change_rows(folder: Path, seed: int, n_subjects: int) -> pd.DataFrame:
    """Give the changes of every subject; those that stand in the folder are read."""
    tables = []
    for index in range(n_subjects):
        file = folder / f"{seed}-{index:03d}.parquet"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with one_thread():
                pd.DataFrame(subject_rows(seed, index)).to_parquet(file)
        tables.append(pd.read_parquet(file))
    return pd.concat(tables, ignore_index=True)


def subject_rows(seed: int, index: int) -> Iterator[dict[str, Any]]:
    """Measured and true change from the baseline to each later visit, by where its guides are from."""
    subject = draw_subject(np.random.default_rng([seed, index]))
    baseline = scan_of(seed, index, 0, changed(subject, 0.0, 0.0, 1))
    first, _ = segmented(baseline, None)
    before, truth_before = measured(baseline, first), true_values(baseline)
    for visit_index, kind in enumerate(KINDS, 1):
        wall_mm = WALL_CHANGES_MM[index % 6] if kind == "wall" else 0.0
        ecv = ECV_CHANGES[index % 6] if kind == "ecv" else 0.0
        if not 0.22 < subject.ecv_fraction + ecv < 0.68:
            ecv = -ecv  # simulated ECV stays between 0.2 and 0.7
        scan = scan_of(seed, index, visit_index, changed(subject, wall_mm, ecv, visit_index))
        truth = true_values(scan)
        own, lent = segmented(scan, first)
        results: dict[GuideFrom, Segmented] = {"visit": own, "baseline": lent}
        for guide_from, found in results.items():
            values = measured(scan, found)
            slices = [one for _, of_role in found.values() for one in of_role]
            yield {
                "subject_index": index,
                "kind": kind,
                "guide_from": guide_from,
                "n_slices": len(slices),
                "n_carried": sum(one is not None and one.guide.origin == "baseline" for one in slices),
                "why_not": "; ".join(
                    one.guide.not_carried for one in slices if one is not None and one.guide.not_carried
                ),
                **{f"{name}_change": values[name] - before[name] for name in QUANTITIES},
                **{f"{name}_true": truth[name] - truth_before[name] for name in QUANTITIES},
            }


def changed(subject: Subject, wall_mm: float, ecv_fraction: float, visit_index: int) -> Subject:
    """Subject whose wall and ECV have gained so much by a visit, and nothing else."""
    return replace(
        subject,
        wall_change_mm_per_visit=wall_mm / visit_index,
        ecv_change_per_visit=ecv_fraction / visit_index,
    )


def scan_of(seed: int, index: int, visit_index: int, subject: Subject) -> SimulatedScan:
    """Scan of a visit."""
    return simulate_scan(
        seed,
        index,
        visit_index,
        scheme_native=schemes_of(index)["native"],
        scheme_post=SCHEME_POST,
        subject=subject,
    )


def segmented(scan: SimulatedScan, first: Segmented | None) -> tuple[Segmented, Segmented]:
    """Segment a scan by guides of its own, and by those of the baseline."""
    config = load_config(DEMO_CONFIG).segment
    device, here = compute_device(), Path()
    segmenter, finder = segmenter_of(here, config, device), finder_of(here, config, device)
    own: Segmented = {}
    lent: Segmented = {}
    for role in ROLES:
        taken = scan.native if role == "native" else scan.post
        stack = echo_stack(scan, role, taken, echo_scale(scan))
        found = segment_series(segmenter, finder, stack, None, config.alpha)
        own[role] = (stack, found)
        if first is not None:
            lent[role] = (stack, _by_baseline(stack, found, guides_of(*first[role])))
    return own, lent


def _by_baseline(
    stack: EchoStack, found: list[SliceMasks | None], earlier: EarlierGuides
) -> list[SliceMasks | None]:
    """Segment again with the baseline's guides; the own ones are not looked for twice."""
    config = load_config(DEMO_CONFIG).segment
    segmenter = segmenter_of(Path(), config, compute_device())
    guides = iter(None if one is None else one.guide for one in found)

    def lender(own: Guide, image: torch.Tensor, index: int) -> Guide:
        return guide_from_earlier(own, image, planes_of(stack), index, earlier)

    return segment_series(segmenter, lambda *_: next(guides), stack, None, config.alpha, lender)


def guides_of(stack: EchoStack, found: list[SliceMasks | None]) -> EarlierGuides:
    """Give the guides that a baseline lends."""
    empty = torch.zeros(3, *stack.echoes.shape[2:], dtype=torch.bool)
    return EarlierGuides(
        torch.stack([empty if one is None else one.guide.masks for one in found], 1),
        tuple(
            None if one is None or one.guide.findings else Lent(index, one.guide.origin, one.guide.score)
            for index, one in enumerate(found)
        ),
        planes_of(stack),
    )


def measured(scan: SimulatedScan, found: Segmented) -> dict[str, float]:
    """Wall thickness, native T1 and ECV of a scan; NaN for what is missing."""
    config = load_config(DEMO_CONFIG)
    series = {role: series_of(*of_role) for role, of_role in found.items()}
    result = quantify_scan(
        series["native"],
        series["post"],
        Hematocrit(scan.hematocrit_fraction, SCANNED_AT.date(), None, "truth"),
        SCANNED_AT,
        SCANNED_AT.date(),
        settings_of(config.quantify, config.align),
    )
    native = series["native"]
    assert native.masks is not None
    rows = torch.arange(len(native.levels))
    on_reference = native.masks[:, rows, native.reference()]
    values: dict[str, Any] = {"thickness_mm": thickness_mm(on_reference, native)}
    values |= {name: result.scan[name] for name in QUANTITIES[1:]}
    return {name: float("nan") if value is None else float(value) for name, value in values.items()}


def true_values(scan: SimulatedScan) -> dict[str, float]:
    """Give the true wall thickness, and native T1 and ECV of a perfect fit over the true wall."""
    stack = echo_stack(scan, "native", scan.native, echo_scale(scan))
    thickness = thickness_mm(scan.labels, series_of(stack, [None] * len(stack.levels)))
    ideal = scan.truth.scan
    assert thickness is not None
    return {
        "thickness_mm": thickness,
        "t1_native_ms": float(ideal["t1_native_ms_ideal"]),
        "ecv_fraction": float(ideal["ecv_fraction_ideal"]),
    }


def thickness_mm(masks: torch.Tensor, series: Series) -> float | None:
    """Mean wall thickness over the slices [mm]; None where one has no wall."""
    heart = HeartMasks(masks[0], masks[2], series.levels, series.pixel_spacing_mm, series.anterior)
    walls = [None if shape is None else shape.thickness_mm(None) for shape in slice_shapes(heart)]
    known = [wall for wall in walls if wall is not None]
    return float(np.mean(known)) if len(known) == len(walls) else None


def series_of(stack: EchoStack, found: list[SliceMasks | None]) -> Series:
    """Give what quantification reads of a segmented stack."""
    _, n_ti, n_rows, n_cols = stack.echoes.shape
    empty = torch.zeros(3, n_ti, n_rows, n_cols, dtype=torch.bool)
    return Series(
        echoes=torch.from_numpy(stack.echoes),
        ti_ms=torch.from_numpy(stack.ti_ms),
        acquisition_index=torch.from_numpy(stack.acquisition_index),
        masks=torch.stack([empty if one is None else one.found.masks for one in found], 1),
        guide=torch.stack([empty[:, 0] if one is None else one.guide.masks for one in found], 1),
        confidence=torch.stack(
            [torch.full((n_ti,), torch.nan) if one is None else one.found.confidence for one in found]
        ),
        positions_mm=torch.tensor(stack.positions_mm, dtype=torch.float64),
        pixel_spacing_mm=stack.pixel_spacing_mm,
        orientation=stack.orientation,
        anterior=stack.anterior,
        levels=stack.levels,
        scheme=stack.scheme,
        field_strength_t=stack.field_strength_t,
        reference_echo=torch.tensor(
            [
                int(stack.acquisition_index[index].argmin()) if one is None else one.guide.echo
                for index, one in enumerate(found)
            ]
        ),
    )


def carried_figures(rows: pd.DataFrame) -> list[Figure]:
    """Summarize: consistency of unchanged hearts, slope of the changed ones."""
    carried = rows[rows["guide_from"] == "baseline"]
    share = 100 * carried["n_carried"].sum() / carried["n_slices"].sum()
    figures = [Figure("slices guided by the baseline", share, "%", "", f"of {carried['n_slices'].sum()}")]
    for quantity, factor, unit in (
        ("thickness_mm", 1.0, "mm"),
        ("t1_native_ms", 1.0, "ms"),
        ("ecv_fraction", 100.0, "points"),
    ):
        for guide_from in ("visit", "baseline"):
            of_kind = rows[(rows["kind"] == "unchanged") & (rows["guide_from"] == guide_from)]
            # Poses differ, so the truth of an unchanged heart differs a little, too.
            error = factor * (of_kind[f"{quantity}_change"] - of_kind[f"{quantity}_true"]).dropna()
            label = f"unchanged, {quantity}, guide from {guide_from}: SD of the change"
            note = f"n = {len(error)}, mean {error.mean():.3g}"
            figures.append(Figure(label, float(error.std()), unit, "", note))
    for kind, quantity, unit in (
        ("wall", "thickness_mm", "mm"),
        ("ecv", "ecv_fraction", "1"),
        ("ecv", "t1_native_ms", "ms"),
    ):
        for guide_from in ("visit", "baseline"):
            of_kind = rows[(rows["kind"] == kind) & (rows["guide_from"] == guide_from)]
            pairs = of_kind[[f"{quantity}_true", f"{quantity}_change"]].dropna().to_numpy()
            slope, low, high = _slope(pairs[:, 0], pairs[:, 1])
            label = f"{kind} changed, {quantity}, guide from {guide_from}: slope"
            note = f"95 % {low:.3f} to {high:.3f}, n = {len(pairs)}"
            figures.append(Figure(label, slope, unit + " / " + unit, ">= 0.95", note))
    return figures


def _slope(true: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    """Slope of measured on true change through the origin, with its interval by the bootstrap."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(true), size=(2000, len(true)))
    drawn = (true[draws] * found[draws]).sum(1) / (true[draws] ** 2).sum(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(true @ found / (true @ true)), float(low), float(high)


def main() -> None:
    """Measure and print."""
    n_subjects = int(sys.argv[1]) if len(sys.argv) > 1 else N_SUBJECTS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else FOLDER
    rows = change_rows(folder, seed, n_subjects)
    print_figures(f"guide carried across visits, {n_subjects} subjects of seed {seed}", carried_figures(rows))


if __name__ == "__main__":
    main()
