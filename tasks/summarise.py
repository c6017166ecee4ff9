"""Summary of a subject: what changed from visit to visit."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import zarr
from jaxtyping import Float
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from torch import Tensor

from cmrcore.quantify import Series
from cmrcore.quantify.longitudinal import (
    ChangeSettings,
    VisitFindings,
    change_rows,
    retest_values,
    same_conditions,
)
from cmrcore.quantify.protocol import check_protocol, protocol_of
from cmrcore.quantify.qc import Flag
from cmrcore.quantify.repeatability import Coefficients, StatedRepeatability, computed_coefficients
from cmrcore.quantify.shape import HeartMasks
from storage.arrays import open_store, read_array, read_stack
from storage.config_summarise import SummariseConfig
from storage.guide import LABELS
from storage.rows import complete_rows
from tasks.quantify import read_series, slice_distance_mm
from tasks.stage import VisitRef

VisitResult = tuple[VisitRef, str]
"""A visit and the digest of its result."""


@task(name="summarise", task_run_name="summarise {subject_id}", cache_policy=NO_CACHE, persist_result=False)
def summarise(
    subject_id: str,
    results: tuple[VisitResult, ...],
    config: SummariseConfig,
    coefficients: Coefficients,
) -> dict[str, list[dict[str, Any]]]:
    """Compare each visit of a subject with the first one that has a result, and the last with each.

    Parameters
    ----------
    subject_id
        Pseudonym of the subject.
    results
        The subject's visits that have a result, in order of the plan, with their result digests.
    config
        What counts as a change.
    coefficients
        Repeatability of each quantity, see `repeatability`.

    Returns
    -------
        Rows of the table ``longitudinal`` by visit, with `Flag`s as ``protocol_deviations``; none for the
        first.
    """
    findings = [read_findings(*result) for result in results]
    settings = ChangeSettings(
        pixel_tolerance_mm=config.pixel_tolerance_mm,
        ecv_change_relative=config.ecv_change_relative,
        false_discovery_rate=config.false_discovery_rate,
        coefficients=coefficients,
    )
    changes = change_rows(findings, settings)
    get_run_logger().info("summarise %s visits=%d changes=%d", subject_id, len(findings), len(changes))
    found = {one.visit_id: deviations(one, findings[0], config) for one in findings}
    return {
        one.visit_id: [
            row | {"protocol_deviations": found[one.visit_id]}
            for row in changes
            if row["visit_id"] == one.visit_id
        ]
        for one in findings
    }


def deviations(visit: VisitFindings, baseline: VisitFindings, config: SummariseConfig) -> list[Flag]:
    """Flag what differs from the protocol of the first visit."""
    now, before = (protocol_of(one.scan, one.slices) for one in (visit, baseline))
    tolerances = (config.pixel_tolerance_mm, config.slice_distance_tolerance_mm)
    return check_protocol(now, before, baseline.visit_id, *tolerances)


@task(name="repeatability", task_run_name="repeatability", cache_policy=NO_CACHE, persist_result=False)
def repeatability(
    config: SummariseConfig, retests: tuple[tuple[VisitResult, VisitResult], ...]
) -> Coefficients:
    """Compute a trial's repeatability from visits between which nothing changes.

    Pairs on two scanners or with two protocols are left out, and means that rest on other levels. Where
    there are too few, what the trial states holds.
    """
    findings = [tuple(read_findings(*one, masks=False) for one in pair) for pair in retests]
    alike = [
        retest_values(first, second)
        for first, second in findings
        if same_conditions(first, second, config.pixel_tolerance_mm)
    ]
    computed = computed_coefficients(alike, config.retest_pairs_min)
    get_run_logger().info("repeatability pairs=%d of=%d computed=%d", len(alike), len(retests), len(computed))
    return stated_repeatability(config) | computed


def stated_repeatability(config: SummariseConfig) -> Coefficients:
    """Give the repeatability that a trial states in trial.toml."""
    return StatedRepeatability(**config.repeatability.model_dump()).coefficients()


def read_findings(visit: VisitRef, digest: str, *, masks: bool = True) -> VisitFindings:
    """Read what visits are compared by from a result's store."""
    store = open_store(visit.path, visit.subject_id, visit.visit_id, digest)
    stored: Any = store.attrs["rows"]
    rows = {name: complete_rows(name, stored[name]) for name in ("scans", "slices", "segments")}
    spacing: Any = store["native"].attrs["pixel_spacing_mm"]
    _add_protocol(store, rows["scans"][0], rows["slices"], spacing)
    return VisitFindings(
        visit_id=visit.visit_id,
        scan=rows["scans"][0],
        slices=rows["slices"],
        segments=rows["segments"],
        pixel_spacing_mm=(spacing[0], spacing[1]),
        heart=_read_heart(store, rows["slices"], stored["flags"]) if masks else None,
    )


def _add_protocol(
    store: zarr.Group, scan: dict[str, Any], slices: Sequence[dict[str, Any]], spacing: Sequence[float]
) -> None:
    """Fill in what rows of former versions do not say of the protocol; the stack beside them does."""
    if scan["row_spacing_mm"] is not None:
        return
    scan["row_spacing_mm"], scan["col_spacing_mm"] = spacing
    positions = read_array(store, "native/positions_mm")
    if positions is not None:
        for index, row in enumerate(slices):
            row["slice_distance_mm"] = slice_distance_mm(positions.tolist(), index)


def _read_heart(
    store: zarr.Group, slices: Sequence[Mapping[str, Any]], flags: Sequence[Mapping[str, Any]]
) -> HeartMasks | None:
    """Read the masks on the native reference echoes; without those of slices that the means leave out."""
    series = read_series(store, read_stack(store, "native"))
    if series.masks is None:
        return None
    echoes = series.reference()
    on_reference = torch.stack(
        [series.masks[:, index, echo] for index, echo in enumerate(echoes.tolist())], 1
    )
    # Stores of former versions do not say which slices were used.
    used = [row.get("used_native", row["n_pixels_myocardium"] is not None) for row in slices[: len(echoes)]]
    myocardium, rv = (on_reference[LABELS.index(label)] for label in ("myocardium", "rv"))
    return HeartMasks(
        myocardium=myocardium & torch.tensor(used)[:, None, None],
        rv=rv,
        levels=series.levels,
        pixel_spacing_mm=series.pixel_spacing_mm,
        anterior=series.anterior,
        insertions_px=_used_insertions(series, flags),
    )


def _used_insertions(series: Series, flags: Sequence[Mapping[str, Any]]) -> Float[Tensor, "slice 2"] | None:
    """Give a reader's points without those that quantification found off the heart."""
    if series.insertions_px is None:
        return None
    points = series.insertions_px.clone()
    for flag in flags:
        if flag["code"] == "landmark_off_heart" and flag["role"] == "native":
            points[flag["slice_index"]] = torch.nan
    return points
