"""Quantification of a visit: echoes and masks in, maps and table rows out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

import torch
import zarr
from prefect import task
from prefect.cache_policies import NO_CACHE

from cmrcore.quantify import (
    Flag,
    GuideNote,
    Hematocrit,
    QuantifySettings,
    ScanResult,
    Series,
    SyntheticHematocrit,
    check_scanner,
    quantify_scan,
)
from cmrcore.quantify.qc import (
    HematocritLimits,
    Place,
    QcLimits,
    TissueLimits,
    raise_flag,
    reasons,
    scan_verdict,
)
from cmrcore.registration.align import AlignSettings
from storage.arrays import read_array, read_notes, read_stack, stored_roles, write_array, write_store
from storage.config_quantify import AlignConfig, QcConfig, QuantifyConfig
from storage.dicom_dialect import DOUBTFUL_SOURCES
from storage.dicom_series import EchoStack
from storage.plan import PLAN_FILE, PlannedVisit
from storage.reviews import ReviewedSlice
from tasks.review import decisions_of
from tasks.stage import StageResult, VisitRef, run_stage

MAP_UNITS = {"t1_ms": "ms", "t1_star_ms": "ms", "t1_sd_ms": "ms"}
"""Units of the maps that have one."""

FILE_FLAGS = {"file_refused": "refused_files", "burned_in_annotation": "burned_in_files"}
"""Flags about single files, and the attribute of a store in which intake names the files."""


@task(name="quantify", task_run_name="quantify {visit.label}", cache_policy=NO_CACHE, persist_result=False)
def quantify(
    visit: VisitRef,
    recorded: PlannedVisit,
    masks_digest: str,
    config: QuantifyConfig,
    align: AlignConfig,
    digest: str,
    force: bool,
    reviewed: tuple[ReviewedSlice, ...] = (),
) -> StageResult:
    """Fit, measure and check a scan, and store its maps and rows.

    ``recorded`` is the visit's line of the plan with dates moved as those of the stored images are;
    ``reviewed`` is what a reader decided about its slices.
    """
    ids = (visit.subject_id, visit.visit_id)

    def work() -> str:
        with write_store(visit.path, *ids, digest, extends=masks_digest) as store:
            stacks = {role: read_stack(store, role) for role in stored_roles(store)}
            native = stacks["native"]
            minutes: Any = store.attrs.get("minutes_since_contrast")
            series = {
                role: replace(
                    read_series(store, stack),
                    decisions=decisions_of(store, role, len(stack.echoes), reviewed),
                )
                for role, stack in stacks.items()
            }
            result = quantify_scan(
                native=series["native"],
                post=replace(series["post"], minutes_since_contrast=minutes) if "post" in series else None,
                hematocrit=hematocrit_of(recorded),
                scan_time=native.acquired_at,
                scan_date=native.study_date,
                settings=settings_of(config, align),
            )
            result = add_flags(result, [*stack_flags(native, stacks.get("post")), *_file_flags(store)])
            for name, values in result.maps.items():
                units = MAP_UNITS.get(name.rpartition("/")[2], "1")
                write_array(store, name, values.numpy(), units, "slice row col")
            for name, values in result.displacements.items():
                axes = "slice ti axis row col" if values.ndim == 5 else "slice axis row col"
                write_array(store, name, values.numpy(), "pixel", axes)
            store.attrs["result_digest"] = digest
            store.attrs["rows"] = table_rows(result, native)
        return f"verdict={result.verdict} flags={len(result.flags)} slices={len(result.slices)}"

    return run_stage(visit, "quantify", digest, work, force=force)


def read_series(store: zarr.Group, stack: EchoStack) -> Series:
    """Read what a role's measurement needs from a store."""
    role = stack.role
    names = ("guide", "masks", "confidence", "reference_echo", "insertions_px")
    found = {name: read_array(store, f"{role}/{name}") for name in names}
    masks = {name: None if array is None else torch.from_numpy(array) for name, array in found.items()}
    return Series(
        echoes=torch.from_numpy(stack.echoes),
        ti_ms=torch.from_numpy(stack.ti_ms),
        acquisition_index=torch.from_numpy(stack.acquisition_index),
        masks=masks["masks"],
        guide=masks["guide"],
        confidence=masks["confidence"],
        positions_mm=torch.tensor(stack.positions_mm, dtype=torch.float64),
        pixel_spacing_mm=stack.pixel_spacing_mm,
        orientation=stack.orientation,
        anterior=stack.anterior,
        levels=stack.levels,
        scheme=stack.scheme,
        field_strength_t=stack.field_strength_t,
        reference_echo=masks["reference_echo"],
        insertions_px=masks["insertions_px"],
        guide_notes=tuple(
            None if note is None else _guide_note(note)
            for note in read_notes(store, f"{role}/guide").get("guides", ())
        ),
    )


def _guide_note(note: Mapping[str, Any]) -> GuideNote:
    """Read what the stage segment noted of a guide."""
    return GuideNote(
        note["origin"],
        note["score"],
        tuple(note["findings"]),
        tuple(note["rejected"]),
        note.get("overlap"),  # notes of former versions have none of these
        note.get("reader_replaced", False),
        note.get("not_carried"),
    )


def stack_flags(native: EchoStack, post: EchoStack | None) -> list[Flag]:
    """Flag what intake found out about the acquisitions themselves."""
    stacks = [native] if post is None else [native, post]
    flags = [
        raise_flag("acquisition_repeated", repeat, Place(role=stack.role))
        for stack in stacks
        for repeat in stack.repeats
    ]
    for stack in stacks:
        for name in sorted(DOUBTFUL_SOURCES.intersection(chain.from_iterable(stack.ti_source))):
            message = f"{stack.role}: inversion times were read from {name}; check them against the protocol"
            flags.append(raise_flag("inversion_time_doubtful", message, Place(role=stack.role)))
    if post is not None:
        flags += check_scanner(
            (post.field_strength_t, native.field_strength_t),
            (f"{post.manufacturer} {post.scanner_model}", f"{native.manufacturer} {native.scanner_model}"),
            ("post-contrast series", "native series"),
            Place(role="post"),
        )
    return flags


def hematocrit_of(planned: PlannedVisit) -> Hematocrit | None:
    """Hematocrit that the plan gives for a visit, if it gives one."""
    if planned.hematocrit_fraction is None or planned.hematocrit_date is None:
        return None
    return Hematocrit(
        planned.hematocrit_fraction, planned.hematocrit_date, planned.hematocrit_time, source=PLAN_FILE
    )


def settings_of(config: QuantifyConfig, align: AlignConfig) -> QuantifySettings:
    """Give the science its slices of trial.toml."""
    return QuantifySettings(
        t1_model=config.t1_model,
        blood_erosion_mm=config.blood_erosion_mm,
        blood_slice=config.blood_slice,
        myocardium_erosion_mm=config.myocardium_erosion_mm,
        hematocrit_sd_fraction=config.hematocrit_sd_fraction,
        synthetic=SyntheticHematocrit(**config.synthetic_hematocrit.model_dump()),
        hematocrit=HematocritLimits(**config.hematocrit.model_dump()),
        qc=limits_of(config.qc),
        align=AlignSettings(**align.model_dump()),
    )


def limits_of(config: QcConfig) -> QcLimits:
    """Give the checks their limits."""
    flat = config.model_dump(exclude={"tissue_1_5t", "tissue_3t"})
    return QcLimits(
        **flat,
        tissue_1_5t=TissueLimits(**config.tissue_1_5t.model_dump()),
        tissue_3t=TissueLimits(**config.tissue_3t.model_dump()),
    )


def _file_flags(store: zarr.Group) -> list[Flag]:
    """Flag what intake found out about single files."""
    messages: Any = {code: store.attrs[attribute] for code, attribute in FILE_FLAGS.items()}
    return [raise_flag(code, message) for code, of_code in messages.items() for message in of_code]


def add_flags(result: ScanResult, flags: list[Flag]) -> ScanResult:
    """Add flags about the whole scan to those of its measurement; the verdict follows from all."""
    every = [*result.flags, *flags]
    worst = scan_verdict(every)
    return replace(result, flags=every, verdict=worst, scan={**result.scan, "qc_verdict": worst})


def slice_distance_mm(positions: Sequence[Sequence[float]], index: int) -> float | None:
    """Distance of a slice from the first one [mm]; None for one that only the other series has."""
    return math.dist(positions[index], positions[0]) if index < len(positions) else None


def table_rows(result: ScanResult, native: EchoStack) -> dict[str, list[dict[str, Any]]]:
    """Rows of each table, still without the ids of the visit."""
    scanner = {
        "scan_datetime": None if native.acquired_at is None else native.acquired_at.isoformat(),
        "field_strength_t": native.field_strength_t,
        "manufacturer": native.manufacturer,
        "scanner_model": native.scanner_model,
        "row_spacing_mm": native.pixel_spacing_mm[0],
        "col_spacing_mm": native.pixel_spacing_mm[1],
    }
    return {
        "scans": [scanner | result.scan | {"qc_reasons": reasons(result.flags)}],
        "slices": [
            row
            | {
                "slice_distance_mm": slice_distance_mm(native.positions_mm, index),
                "qc_reasons": reasons(flag for flag in result.flags if flag.slice_index == index),
            }
            for index, row in enumerate(result.slices)
        ],
        "segments": [dict(row) for row in result.segments],
        "echoes": [dict(row) for row in result.echoes],
        "flags": [asdict(flag) for flag in result.flags],
    }
