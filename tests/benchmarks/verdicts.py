"""Does the verdict find what went wrong? ``python -m tests.benchmarks.verdicts CASES [--scans FOLDER ...]``.

Sound slices of the digital trial at ``typical``, segmented as a night does it, and failures planted into them
(`tests.benchmarks.verdict_plants`). A slice of a role is a true failure if the mask that all is read in
overlaps the truth by a Dice coefficient under 0.7, or its mean T1 is more than 50 ms off the ideal one. What
the pipeline reads of every case is kept in CASES, so that changed limits of trial.toml can be judged again at
once: ``--scans`` names the folder of `tests.benchmarks.scanned` from which missing cases are made.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

from cmrcore.quantify import QuantifySettings, ScanResult, quantify_scan
from cmrcore.quantify import role as role_module
from cmrcore.quantify.overlap import dice
from cmrcore.quantify.qc import Flag, Place, QcLimits, raise_flag
from cmrcore.quantify.quality import SliceQuality
from cmrcore.quantify.records import Role
from cmrcore.quantify.role_checks import READ_CODES, check_quality
from cmrcore.quantify.scan_checks import check_uptake
from cmrcore.registration.align import SliceAlignment, align_slice
from cmrcore.threads import one_thread
from storage.config import load_config
from tasks.quantify import limits_of, settings_of
from tests.benchmarks.scanned import DEMO_CONFIG, SCANNED_AT, ScannedVisit, scanned_visit
from tests.benchmarks.verdict_plants import PLANTS, plant, series_of

SEED = 82_000
DICE_MIN = 0.7
T1_ERROR_MAX_MS = 50.0
MARGIN_PX = 12
Window = tuple[slice, slice]
ROLES: tuple[Role, Role] = ("native", "post")


def make_cases(scans: Path, seed: int, subject: int, n_plants: int) -> list[dict[str, Any]]:
    """Quantify a visit as it is and with failures planted, and keep what the checks read."""
    config = load_config(DEMO_CONFIG)
    settings = settings_of(config.quantify, config.align)
    visit = scanned_visit(scans, seed, subject, "typical")
    kinds = list(PLANTS)
    with one_thread(), patch.object(role_module, "align_slice", _remembered(align_slice)):
        window = _window(visit)
        cases = [_case(_cut(visit, window), settings) | {"kind": None, "role": None, "slice_index": None}]
        for number in range(n_plants):
            kind = kinds[(subject * n_plants + number) % len(kinds)]
            made = plant(visit, kind, np.random.default_rng([seed, subject, number]))
            about = {"kind": kind, "role": made.role, "slice_index": made.slice_index}
            own = _window(made.visit)
            is_within = all(a.start <= b.start and b.stop <= a.stop for a, b in zip(window, own, strict=True))
            cut = _cut(made.visit, window if is_within else own)
            cases.append(_case(cut, settings) | about)
    return [case | {"subject": subject} for case in cases]


def _remembered(align: Callable[..., SliceAlignment]) -> Callable[..., SliceAlignment]:
    """Align each slice once: a plant touches one, and the others are those of the visit."""
    known: dict[bytes, SliceAlignment] = {}

    def align_once(**given: Any) -> SliceAlignment:
        digest = hashlib.blake2b(str(given["reference"]).encode())
        for name in ("echoes", "ti_ms", "masks"):
            digest.update(given[name].numpy().tobytes())
        if digest.digest() not in known:
            known[digest.digest()] = align(**given)
        return known[digest.digest()]

    return align_once


def _cut(visit: ScannedVisit, window: Window) -> ScannedVisit:
    """Cut the images down to where there are masks: a fit elsewhere tells the checks nothing."""
    cut = {}
    for role in ROLES:
        series = series_of(visit, role)
        cut[role] = replace(
            series,
            echoes=series.echoes[..., window[0], window[1]],
            masks=None if series.masks is None else series.masks[..., window[0], window[1]],
            guide=None if series.guide is None else series.guide[..., window[0], window[1]],
        )
    labels: dict[Role, Tensor] = {
        role: walls[..., window[0], window[1]] for role, walls in visit.labels.items()
    }
    return replace(visit, native=cut["native"], post=cut["post"], labels=labels)


def _window(visit: ScannedVisit) -> Window:
    """Rows and columns with masks, and a margin around them."""
    masks = torch.zeros(visit.native.echoes.shape[2:], dtype=torch.bool)
    for role in ROLES:
        for one in (series_of(visit, role).masks, series_of(visit, role).guide):
            if one is not None:
                masks |= one.flatten(0, -3).any(0)
    return _lines(masks.any(1)), _lines(masks.any(0))


def _lines(has_mask: Tensor) -> slice:
    """First to last line with a mask, and a margin."""
    lines = torch.nonzero(has_mask)[:, 0]
    return slice(max(0, int(lines.min()) - MARGIN_PX), int(lines.max()) + MARGIN_PX + 1)


def _case(visit: ScannedVisit, settings: QuantifySettings) -> dict[str, Any]:
    """Quantify one visit; keep readings, flags and truth."""
    field_t = visit.truth["field_strength_t"]
    native, post = (replace(one, field_strength_t=field_t) for one in (visit.native, visit.post))
    result = quantify_scan(native, post, visit.hematocrit, SCANNED_AT, SCANNED_AT.date(), settings)
    return {
        "field_strength_t": field_t,
        "levels": native.levels,
        "readings": result.readings,
        "flags": [[flag.code, flag.role, flag.slice_index] for flag in result.flags],
        "truth": [
            _truth(visit, result, role, index) for role in ROLES for index in range(len(native.levels))
        ],
    }


def _truth(visit: ScannedVisit, result: ScanResult, role: Role, index: int) -> dict[str, Any]:
    """How far a slice of a role is from the truth."""
    series, walls = series_of(visit, role), visit.labels[role][0, index]
    overlap = None
    # Where the roles were swapped, the masks belong to other images.
    if series.masks is not None and len(walls) == series.masks.shape[2]:
        echo = int(series.reference()[index])
        overlap = dice(series.masks[0, index, echo], walls[echo])
    found = result.slices[index][f"t1_{role}_ms"]
    ideal = visit.truth["slices"][index][f"t1_{role}_ms_ideal"]
    error_ms = None if found is None else float(found) - ideal
    return {"role": role, "slice_index": index, "dice": overlap, "t1_error_ms": error_ms}


@dataclass(frozen=True, slots=True)
class Judged:
    """A slice of a role with its verdict and the truth."""

    subject: int
    """Subject of the trial."""
    slice_index: int
    """Slice."""
    kind: str | None
    """What was planted in this slice; None where nothing was."""
    is_failure: bool
    """Whether mask or T1 are truly wrong."""
    flags: tuple[Flag, ...]
    """Flags about the slice."""

    @property
    def verdict(self) -> str:
        """Verdict of the slice."""
        severities = {flag.severity for flag in self.flags}
        return next((one for one in ("fail", "review") if one in severities), "pass")


def judge(case: dict[str, Any], limits: QcLimits) -> Iterator[Judged]:
    """Judge the slices of a case that tell something: all of a sound visit, the planted one of another."""
    again = READ_CODES | {"contrast_missing"}
    flags = [
        raise_flag(code, "", Place(role, index)) for code, role, index in case["flags"] if code not in again
    ]
    levels, quality = case["levels"], {role: _quality(case, role) for role in ROLES}
    for role in ROLES:
        flags += check_quality(role, quality[role], levels, case["field_strength_t"], limits)
    flags += check_uptake(quality["native"], quality["post"], levels, range(len(levels)), limits)
    for truth in case["truth"]:
        role, index = truth["role"], truth["slice_index"]
        if case["kind"] is not None and (role, index) != (case["role"], case["slice_index"]):
            continue
        error_ms, overlap = truth["t1_error_ms"], truth["dice"]
        yield Judged(
            subject=case["subject"],
            slice_index=index,
            kind=case["kind"],
            is_failure=error_ms is None
            or abs(error_ms) > T1_ERROR_MAX_MS
            or (overlap is not None and overlap < DICE_MIN),
            flags=tuple(flag for flag in flags if flag.slice_index == index and flag.role in (role, None)),
        )


def _quality(case: dict[str, Any], role: Role) -> list[SliceQuality | None]:
    """Give the kept readings of a role."""
    quality: list[SliceQuality | None] = [None] * len(case["levels"])
    for reading in case["readings"]:
        if reading["role"] == role:
            values = {key: value for key, value in reading.items() if key not in ("role", "slice_index")}
            quality[reading["slice_index"]] = SliceQuality(**values)
    return quality


def figures(judged: list[Judged]) -> pd.DataFrame:
    """Shares of slices with each verdict, with Wilson's 95 % intervals."""
    planted = [one for one in judged if one.kind is not None]
    plain = [one for one in judged if one.kind is None]
    groups = {
        "planted failures": [one for one in planted if one.is_failure],
        "planted, came out right": [one for one in planted if not one.is_failure],
        "sound slices": [one for one in plain if not one.is_failure],
        "sound slices, both roles": _both_roles([one for one in plain if not one.is_failure]),
        "failures by themselves": [one for one in plain if one.is_failure],
        **{f"- {kind}": [one for one in planted if one.is_failure and one.kind == kind] for kind in PLANTS},
    }
    rows = []
    for name, group in groups.items():
        row: dict[str, Any] = {"slices": name, "n": len(group)}
        for title, which in (("not pass", ("review", "fail")), ("fail", ("fail",))):
            found = sum(one.verdict in which for one in group)
            row[title] = found / len(group) if group else None
            if group:
                interval = binomtest(found, len(group)).proportion_ci(method="wilson")
                row[f"{title} low"], row[f"{title} high"] = float(interval.low), float(interval.high)
        rows.append(row)
    return pd.DataFrame(rows)


def _both_roles(sound: list[Judged]) -> list[Judged]:
    """Join the roles of slices that are sound in both: a row of the table ``slices``."""
    rows: dict[tuple[int, int], list[Judged]] = {}
    for one in sound:
        rows.setdefault((one.subject, one.slice_index), []).append(one)
    return [
        replace(pair[0], flags=(*pair[0].flags, *pair[1].flags))
        for pair in rows.values()
        if len(pair) == len(ROLES)
    ]


def codes(judged: list[Judged]) -> pd.DataFrame:
    """How often each check spoke on sound slices and on planted failures, and alone."""
    groups = {
        "sound": [one for one in judged if one.kind is None and not one.is_failure],
        "planted": [one for one in judged if one.kind is not None and one.is_failure],
    }
    counts: dict[str, dict[str, int]] = {}
    for name, group in groups.items():
        for one in group:
            raised = {flag.code for flag in one.flags if flag.severity != "note"}
            for code in raised:
                row = counts.setdefault(
                    code, dict.fromkeys((*groups, *(f"{key} alone" for key in groups)), 0)
                )
                row[name] += 1
                row[f"{name} alone"] += len(raised) == 1
    return pd.DataFrame([{"check": code, **row} for code, row in sorted(counts.items())])


def show(title: str, found: pd.DataFrame) -> None:
    """Print a table."""
    shown = Table(*map(str, found.columns), title=title)
    for row in found.itertuples(index=False):
        shown.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    Console(width=160).print(shown)


def main() -> None:
    """Make what is missing, judge, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--visits", type=int, nargs=2, default=(0, 40), metavar=("FIRST", "LAST"))
    parser.add_argument("--plants", type=int, default=4, help="failures planted into each visit")
    chosen = parser.parse_args()
    cases: list[dict[str, Any]] = []
    for subject in range(*chosen.visits):
        file = chosen.cases / f"{chosen.seed}-{subject:03d}.json"
        if chosen.scans is not None and not file.exists():
            chosen.cases.mkdir(parents=True, exist_ok=True)
            made = make_cases(chosen.scans, chosen.seed, subject, chosen.plants)
            file.write_text(json.dumps(made), encoding="utf-8")
        if file.exists():
            cases += json.loads(file.read_text(encoding="utf-8"))
    limits = limits_of(load_config(DEMO_CONFIG).quantify.qc)
    judged = [one for case in cases for one in judge(case, limits)]
    show(f"verdicts, seed {chosen.seed}, 95 % intervals by Wilson", figures(judged))
    show("which checks spoke", codes(judged))


if __name__ == "__main__":
    main()
