"""Agreement of two runs over the same scans, or of one with a reader's numbers."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cmrcore.quantify.agreement import (
    BlandAltman,
    Estimate,
    Line,
    WithinSubject,
    bland_altman,
    deming,
    intraclass_correlation,
    least_squares,
    within_subject,
)
from cmrcore.quantify.regions import QUANTITIES, regional_values
from storage.errors import NotStoredError
from storage.reader_table import read_reader_table
from storage.staging import TABLES_FOLDER
from storage.tables import read_table
from storage.trial import open_trial

Scan = tuple[str, str]
"""Subject and visit."""
Key = tuple[str, str, str]
"""Subject, visit and place: ``global``, ``septal``, a level, ``slice 0`` or ``segment 8``."""
Values = Mapping[Key, Mapping[str, float | None]]
"""Each of `QUANTITIES` of each place; None, or no such name, where there is no value."""

LEAST_PAIRS = 3
"""Pairs under which there are no statistics."""

POOLED_REGIONS = ("level", "slice", "segment")
"""Regions of which a scan has several: they are not independent, so their statistics have no intervals."""

_RUN_REGIONS = ("global", "septal", "segment")
"""Regions in which two runs are compared."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """How two measurements of one quantity agree; differences are tested minus reference.

    Confidence limits are NaN where the pairs are not independent, see `POOLED_REGIONS`.
    """

    bland_altman: BlandAltman
    """Bias and limits of agreement."""
    relative_bias: float
    """Mean of the differences over the reference, as a fraction."""
    relative_sd: float
    """Their standard deviation."""
    beyond_fraction: float
    """Share of pairs whose relative difference, up or down, reaches the limit, 0-1."""
    icc: Estimate
    """ICC(2,1), absolute agreement; NaN where nothing varies."""
    within: WithinSubject
    """Scatter of both measurements about their mean."""
    ordinary: Line | None
    """Ordinary regression of the tested on the reference; None where the reference does not vary."""
    deming: Line | None
    """Deming regression; None where they do not vary together."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How one quantity agrees in one kind of region."""

    quantity: str
    """One of `QUANTITIES`."""
    region: str
    """``global``, ``septal``, ``level``, ``slice`` or ``segment``: what its pairs are."""
    reference: Float[np.ndarray, " pair"]
    """Values of the first run or the reader."""
    tested: Float[np.ndarray, " pair"]
    """Values of the second run, or of the run that the reader is held against."""
    n_missing: int
    """Places that both know and of which either has no value."""
    statistics: Statistics | None
    """What follows from the pairs; None under `LEAST_PAIRS`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All agreements of two sets of numbers, and what had no partner."""

    names: tuple[str, str]
    """What the reference and the tested are called."""
    relative_limit: float
    """Relative difference that is counted, 0-1."""
    agreements: tuple[Agreement, ...]
    """By quantity and region; those without a single pair are not there."""
    only_reference: tuple[str, ...]
    """What only the reference has."""
    only_tested: tuple[str, ...]
    """What only the tested has."""
    failed: tuple[str, ...]
    """Scans that failed their checks in a run, and are left out."""


def compare_runs(root_a: Path, root_b: Path) -> Comparison:
    """Compare the published results of two trial roots, scan by scan: B minus A, relative to A.

    A may be of a former version, whose trial.toml this one cannot read.
    """
    trial_b = open_trial(root_b)
    found = [published_values(root) for root in (root_a, trial_b.folder)]
    failed = _failed_scans(root_a) | _failed_scans(trial_b.folder)
    a, b = (
        {
            key: value
            for key, value in values.items()
            if _region(key[2]) in _RUN_REGIONS and key[:2] not in failed
        }
        for values in found
    )
    return _comparison(
        ("A", "B"),
        (a, b),
        trial_b.config.summarise.ecv_change_relative,
        (_unpaired(a, b), _unpaired(b, a)),
        failed,
    )


def compare_with_reader(root: Path, table: Path) -> Comparison:
    """Compare a trial's published results with a reader's table: the run minus the reader.

    Rows of the table that pair with nothing are named by their number.
    """
    trial = open_trial(root)
    rows = {
        (row.subject_id, row.visit_id, _place(row.level, row.slice_index, row.aha_segment)): row
        for row in read_reader_table(table)
    }
    regions = {_region(place) for _, _, place in rows}
    found = published_values(trial.folder)
    failed = _failed_scans(trial.folder)
    rows = {key: row for key, row in rows.items() if key[:2] not in failed}
    run = {key: value for key, value in found.items() if _region(key[2]) in regions and key[:2] not in failed}
    return _comparison(
        ("reader", "run"),
        ({key: row.values for key, row in rows.items()}, run),
        trial.config.summarise.ecv_change_relative,
        (tuple(f"row {row.row_number}" for key, row in rows.items() if key not in run), _unpaired(run, rows)),
        failed,
    )


def published_values(root: Path) -> dict[Key, dict[str, float | None]]:
    """T1 and ECV of every published scan: whole, septal, by level, slice and segment.

    Raises
    ------
    NotStoredError
        If nothing has been published there.
    """
    if not (root / TABLES_FOLDER).is_dir():
        message = f"{root.name} has no {TABLES_FOLDER}/, so no results to compare: run it first"
        raise NotStoredError(message)
    slices, segments = (_by_scan(read_table(root, name).to_pylist()) for name in ("slices", "segments"))
    values: dict[Key, dict[str, float | None]] = {}
    for scan, (row,) in _by_scan(read_table(root, "scans").to_pylist()).items():
        of_slices = slices.get(scan, [])
        for (level, segment), found in regional_values(row, of_slices, segments.get(scan, [])).items():
            values[*scan, _place(level, None, segment)] = found
        for one in of_slices:
            values[*scan, _place(None, one["slice_index"], None)] = {name: one[name] for name in QUANTITIES}
    return values


def statistics_of(
    reference: Float[np.ndarray, " pair"], tested: Float[np.ndarray, " pair"], relative_limit: float
) -> Statistics:
    """Agreement of at least `LEAST_PAIRS` pairs."""
    relative = (tested - reference) / reference
    both = np.stack([reference, tested], axis=1)
    return Statistics(
        bland_altman=bland_altman(reference, tested),
        relative_bias=float(relative.mean()),
        relative_sd=float(relative.std(ddof=1)),
        beyond_fraction=float((np.abs(relative) >= relative_limit).mean()),
        icc=intraclass_correlation(both, "ICC(2,1)"),
        within=within_subject(both),
        ordinary=least_squares(reference, tested),
        deming=deming(reference, tested),
    )


def table_of(comparison: Comparison) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows with every number, a quantity and region a row; None where there is none."""
    rows: list[dict[str, Any]] = []
    for one in comparison.agreements:
        row: dict[str, Any] = {
            "quantity": one.quantity,
            "region": one.region,
            "n": len(one.reference),
            "n_missing": one.n_missing,
            f"mean_{comparison.names[0]}": float(one.reference.mean()),
            f"mean_{comparison.names[1]}": float(one.tested.mean()),
        }
        rows.append(row | _statistics_columns(one.statistics))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, [[row.get(column) for column in columns] for row in rows]


def _comparison(
    names: tuple[str, str],
    values: tuple[Values, Values],
    relative_limit: float,
    unpaired: tuple[tuple[str, ...], tuple[str, ...]],
    failed: Collection[Scan],
) -> Comparison:
    """Agreement in every quantity and region that both know."""
    reference, tested = values
    shared = [key for key in reference if key in tested]
    agreements = []
    for quantity in QUANTITIES:
        for region in dict.fromkeys(_region(key[2]) for key in shared):
            here = [key for key in shared if _region(key[2]) == region and quantity in reference[key]]
            # A reference of 0 has no relative difference.
            pairs = [
                (first, second)
                for key in here
                if (first := reference[key][quantity]) and (second := tested[key].get(quantity)) is not None
            ]
            if pairs:
                first, second = np.array(pairs, dtype=float).T
                enough = len(pairs) >= LEAST_PAIRS
                found = statistics_of(first, second, relative_limit) if enough else None
                if found is not None and region in POOLED_REGIONS:
                    found = _without_intervals(found)
                agreements.append(Agreement(quantity, region, first, second, len(here) - len(pairs), found))
    left_out = tuple(f"{subject}/{visit}" for subject, visit in sorted(failed))
    return Comparison(names, relative_limit, tuple(agreements), *unpaired, left_out)


def _without_intervals(found: Statistics) -> Statistics:
    """Statistics of pairs that are not independent: 16 segments of a scan are not 16 scans."""
    limits, within = found.bland_altman, found.within
    return replace(
        found,
        bland_altman=replace(
            limits, bias=_bare(limits.bias), lower=_bare(limits.lower), upper=_bare(limits.upper)
        ),
        icc=_bare(found.icc),
        within=replace(
            within, sd=_bare(within.sd), repeatability_coefficient=_bare(within.repeatability_coefficient)
        ),
        ordinary=_bare_line(found.ordinary),
        deming=_bare_line(found.deming),
    )


def _bare(found: Estimate) -> Estimate:
    """Leave a number without its interval."""
    return Estimate(found.value, math.nan, math.nan)


def _bare_line(line: Line | None) -> Line | None:
    """Leave a line without its intervals."""
    return None if line is None else Line(_bare(line.slope), _bare(line.intercept))


def _statistics_columns(found: Statistics | None) -> dict[str, Any]:
    """Every number of the statistics by name; an interval as two more columns."""
    if found is None:
        return {}
    limits, within = found.bland_altman, found.within
    columns: dict[str, Any] = {
        **_interval("bias", limits.bias),
        "sd": limits.sd,
        **_interval("limit_lower", limits.lower),
        **_interval("limit_upper", limits.upper),
        "relative_bias": found.relative_bias,
        "relative_sd": found.relative_sd,
        "beyond_fraction": found.beyond_fraction,
        **_interval("icc_2_1", found.icc),
        **_interval("within_subject_sd", within.sd),
        **_interval("repeatability_coefficient", within.repeatability_coefficient),
        "within_subject_cv": within.coefficient_of_variation,
    }
    for name, line in (("ols", found.ordinary), ("deming", found.deming)):
        if line is not None:
            columns |= _interval(f"{name}_slope", line.slope) | _interval(f"{name}_intercept", line.intercept)
    return {name: None if math.isnan(value) else value for name, value in columns.items()}


def _interval(name: str, found: Estimate) -> dict[str, float]:
    """Columns of a number with its confidence limits."""
    return {name: found.value, f"{name}_ci_low": found.low, f"{name}_ci_high": found.high}


def _unpaired(here: Iterable[Key], there: Iterable[Key]) -> tuple[str, ...]:
    """Name scans that only one side has, and places where it has the scan."""
    partners = set(there)
    scans = {(subject, visit) for subject, visit, _ in partners}
    names = [
        f"{subject}/{visit}" + (f" {place}" if (subject, visit) in scans else "")
        for subject, visit, place in here
        if (subject, visit, place) not in partners
    ]
    return tuple(dict.fromkeys(names))


def _failed_scans(root: Path) -> set[Scan]:
    """Give the scans whose numbers are not to be used."""
    rows = read_table(root, "scans").to_pylist()
    return {(row["subject_id"], row["visit_id"]) for row in rows if row["qc_verdict"] == "fail"}


def _by_scan(rows: Sequence[dict[str, Any]]) -> dict[Scan, list[dict[str, Any]]]:
    """Rows of each scan."""
    found: dict[Scan, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["subject_id"], row["visit_id"]), []).append(row)
    return found


def _place(level: str | None, slice_index: int | None, aha_segment: int | None) -> str:
    """Name of a place in the heart."""
    if aha_segment is not None:
        return f"segment {aha_segment}"
    return f"slice {slice_index}" if level is None else level


def _region(place: str) -> str:
    """Kind of region a place is of."""
    kind = place.split()[0]
    return "level" if kind in ("basal", "mid", "apical") else kind
