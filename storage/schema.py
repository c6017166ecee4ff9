"""The tables: every column with its type, unit and meaning, and the check of rows before they are written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from storage.errors import StorageError

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
NUMBER = pa.float64()
COUNT = pa.int64()
TRUTH = pa.bool_()
DATE = pa.date32()
LOCAL_TIME = pa.timestamp("us")
UTC_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    """Name, with its unit where it has one."""
    type: pa.DataType
    """Arrow type."""
    unit: str
    """Unit; ``1`` for fractions, counts and indices, empty where there is none."""
    meaning: str
    """What the value says."""
    required: bool = False
    """Whether every row has a value."""


_IDS = (
    Column("subject_id", TEXT, "", "pseudonym of the subject", required=True),
    Column("visit_id", TEXT, "", "visit of the subject", required=True),
    Column("site_id", TEXT, "", "site of the subject", required=True),
)
_PROVENANCE = Column(
    "result_digest", TEXT, "", "digest of the visit's published result, which names its arrays"
)
_KEYS = (*_IDS, _PROVENANCE)
_RESULT_KEYS = (*_IDS, Column("result_digest", TEXT, "", _PROVENANCE.meaning, required=True))

_SLICE = (
    Column("slice_index", COUNT, "1", "index of the slice, 0 at the base", required=True),
    Column("level", TEXT, "", "basal, mid or apical", required=True),
)

_MEASURED = (
    Column("t1_native_ms", NUMBER, "ms", "mean native T1 of the myocardium away from its borders"),
    Column("t1_native_sd_ms", NUMBER, "ms", "standard deviation of the native T1 over the same pixels"),
    Column("t1_native_uncertainty_ms", NUMBER, "ms", "standard uncertainty of the mean native T1 from noise"),
    Column("t1_native_septal_ms", NUMBER, "ms", "mean native T1 of the septum"),
    Column("t1_post_ms", NUMBER, "ms", "mean post-contrast T1 of the myocardium away from its borders"),
    Column("t1_post_sd_ms", NUMBER, "ms", "standard deviation of the post-contrast T1 over the same pixels"),
    Column("t1_post_uncertainty_ms", NUMBER, "ms", "standard uncertainty of the mean post-contrast T1"),
    Column("t1_post_septal_ms", NUMBER, "ms", "mean post-contrast T1 of the septum"),
    Column(
        "blood_t1_native_ms",
        NUMBER,
        "ms",
        "native T1 of the mean blood signal; of a scan, mean of the slices whose blood serves an ECV",
    ),
    Column("blood_t1_post_ms", NUMBER, "ms", "the same post-contrast"),
    Column("r_squared_native_mean", NUMBER, "1", "mean R2 of the native magnitudes over the myocardium"),
    Column("r_squared_post_mean", NUMBER, "1", "mean R2 of the post-contrast magnitudes over the myocardium"),
    Column("r_squared_native_low_fraction", NUMBER, "1", "fraction of myocardial pixels with low native R2"),
    Column("r_squared_post_low_fraction", NUMBER, "1", "the same post-contrast"),
    Column("blood_r_squared_native", NUMBER, "1", "R2 of the native blood-pool fit"),
    Column("blood_r_squared_post", NUMBER, "1", "R2 of the post-contrast blood-pool fit"),
)
_ECV_REGION = (
    Column(
        "ecv_uncertainty_fraction",
        NUMBER,
        "1",
        "standard uncertainty of the mean extracellular volume from noise, blood T1 and hematocrit",
    ),
    Column(
        "ecv_synthetic_fraction",
        NUMBER,
        "1",
        "extracellular volume with the synthetic hematocrit, from the mean partition coefficient",
    ),
    Column("n_pixels_ecv", COUNT, "1", "pixels of both myocardia, away from borders, with an ECV of 0 to 1"),
    Column("n_pixels_ecv_invalid", COUNT, "1", "such pixels without one, which are left out"),
)
_ECV = (
    Column("partition_coefficient", NUMBER, "1", "mean partition coefficient of the myocardium"),
    Column("ecv_fraction", NUMBER, "1", "mean extracellular volume of the myocardium"),
    Column("ecv_sd_fraction", NUMBER, "1", "its standard deviation over the pixels"),
    *_ECV_REGION,
    Column("ecv_septal_fraction", NUMBER, "1", "mean extracellular volume of the septum"),
    Column("n_pixels_myocardium", COUNT, "1", "pixels of the whole native myocardium"),
    Column("n_pixels_read_native", COUNT, "1", "of these, pixels away from the borders, which are read"),
    Column("n_pixels_read_post", COUNT, "1", "pixels of the post-contrast myocardium that are read"),
    Column("n_pixels_failed_native", COUNT, "1", "pixels read without a native T1 of 50 to 5000 ms"),
    Column("n_pixels_failed_post", COUNT, "1", "pixels read without such a post-contrast T1"),
)
_VERDICT = (
    Column("qc_verdict", TEXT, "", "pass, review or fail", required=True),
    Column("qc_reasons", TEXTS, "", "codes of the flags that the verdict rests on", required=True),
)


def _judged(stem: str, unit: str) -> tuple[Column, ...]:
    """Columns that hold a change against its repeatability coefficient."""
    return (
        Column(
            f"{stem}_repeatability_{unit}",
            NUMBER,
            "1" if unit == "fraction" else unit,
            "repeatability coefficient of this quantity: 95 of 100 unchanged hearts differ by less",
        ),
        Column(
            f"{stem}_retest_pairs",
            COUNT,
            "1",
            "test-retest pairs it was computed from; empty where it is the one of trial.toml",
        ),
        Column(
            f"{stem}_beyond_repeatability",
            TRUTH,
            "",
            "whether the change exceeds it; empty where scanner or protocol differ",
        ),
        Column(f"{stem}_p_value", NUMBER, "1", "p-value of the change, if nothing changed"),
        Column(
            f"{stem}_q_value",
            NUMBER,
            "1",
            "of a segment, the same controlled for the false discovery rate over the visit's segments",
        ),
        Column(
            f"{stem}_changed",
            TRUTH,
            "",
            "whether it changed: beyond repeatability, and for a segment the q-value within the trial's rate",
        ),
    )


TABLES: dict[str, tuple[Column, ...]] = {
    "scans": (
        *_RESULT_KEYS,
        Column("scan_datetime", LOCAL_TIME, "", "start of the native acquisition, local time"),
        Column("field_strength_t", NUMBER, "T", "field strength"),
        Column("manufacturer", TEXT, "", "manufacturer of the scanner"),
        Column("scanner_model", TEXT, "", "model of the scanner"),
        Column("n_slices", COUNT, "1", "slices of the native series"),
        Column("n_slices_used_native", COUNT, "1", "slices that the native means are of; others failed"),
        Column("n_slices_used_post", COUNT, "1", "the same post-contrast"),
        Column("n_slices_used_ecv", COUNT, "1", "the same of ECV"),
        Column(
            "minutes_since_contrast", NUMBER, "min", "from the bolus to the post-contrast series; if stated"
        ),
        Column("row_spacing_mm", NUMBER, "mm", "distance of the rows of the native series"),
        Column("col_spacing_mm", NUMBER, "mm", "distance of its columns"),
        Column("scheme_native", TEXT, "", "native acquisition scheme"),
        Column("scheme_post", TEXT, "", "post-contrast acquisition scheme"),
        *_MEASURED,
        Column("hematocrit_fraction", NUMBER, "1", "hematocrit"),
        Column("hematocrit_synthetic_fraction", NUMBER, "1", "hematocrit from the native T1 of blood"),
        Column("hematocrit_synthetic_source", TEXT, "", "where the regression for that comes from"),
        Column("hematocrit_source", TEXT, "", "where the hematocrit comes from"),
        Column("hematocrit_hours", NUMBER, "h", "between blood sample and scan; empty without a time of day"),
        *_ECV,
        *_VERDICT,
    ),
    "slices": (
        *_RESULT_KEYS,
        *_SLICE,
        Column("slice_distance_mm", NUMBER, "mm", "distance of the slice from the first one"),
        *_MEASURED,
        Column("blood_t1_native_sd_ms", NUMBER, "ms", "standard error of the native blood T1, from the fit"),
        Column("blood_t1_post_sd_ms", NUMBER, "ms", "the same post-contrast"),
        Column("n_pixels_blood_native", COUNT, "1", "pixels of the native blood pool that were averaged"),
        Column("n_echoes_left_out_blood_native", COUNT, "1", "native echoes left out of the blood's fit"),
        Column("n_echoes_left_out_blood_post", COUNT, "1", "the same post-contrast"),
        Column(
            "n_pixels_blood_post", COUNT, "1", "pixels of the post-contrast blood pool that were averaged"
        ),
        Column("alignment_native", TEXT, "", "how the native echoes were aligned: none, affine or refined"),
        Column("alignment_post", TEXT, "", "the same post-contrast"),
        Column(
            "r_squared_native_unaligned_mean",
            NUMBER,
            "1",
            "mean R2 of the native magnitudes before alignment; pixels without a fit count as 0",
        ),
        Column("r_squared_post_unaligned_mean", NUMBER, "1", "the same post-contrast"),
        Column(
            "r_squared_native_unaligned_low_fraction",
            NUMBER,
            "1",
            "fraction of myocardial pixels with low native R2 before alignment",
        ),
        Column("r_squared_post_unaligned_low_fraction", NUMBER, "1", "the same post-contrast"),
        Column(
            "post_aligned_mm", NUMBER, "mm", "mean way of the post-contrast myocardium onto the native one"
        ),
        Column(
            "post_alignment",
            TEXT,
            "",
            "whether the post-contrast slice was brought onto the native one: aligned, still, contradicted, "
            "not_aligned; or why not: empty, at_border, reference_unusable, implausible",
        ),
        Column("post_dice", NUMBER, "1", "overlap of both myocardia that remained, as Dice coefficient"),
        *_ECV,
        *_VERDICT,
    ),
    "segments": (
        *_RESULT_KEYS,
        *_SLICE,
        Column("aha_segment", COUNT, "1", "AHA segment, 1 to 16", required=True),
        Column("aha_name", TEXT, "", "name of the segment", required=True),
        Column("n_pixels", COUNT, "1", "pixels of the whole native myocardium in the segment"),
        Column("n_pixels_read_native", COUNT, "1", "of these, pixels away from the borders, which are read"),
        Column("n_pixels_read_post", COUNT, "1", "pixels of the post-contrast segment that are read"),
        Column("t1_native_ms", NUMBER, "ms", "mean native T1"),
        Column("t1_native_sd_ms", NUMBER, "ms", "its standard deviation over the pixels"),
        Column("t1_native_uncertainty_ms", NUMBER, "ms", "standard uncertainty of the mean from noise"),
        Column("t1_post_ms", NUMBER, "ms", "mean post-contrast T1"),
        Column("t1_post_sd_ms", NUMBER, "ms", "its standard deviation over the pixels"),
        Column("t1_post_uncertainty_ms", NUMBER, "ms", "standard uncertainty of the mean from noise"),
        Column("r_squared_native_mean", NUMBER, "1", "mean R2 of the native magnitudes"),
        Column("r_squared_post_mean", NUMBER, "1", "mean R2 of the post-contrast magnitudes"),
        Column("ecv_fraction", NUMBER, "1", "mean extracellular volume"),
        Column("ecv_sd_fraction", NUMBER, "1", "its standard deviation over the pixels"),
        *_ECV_REGION,
    ),
    "echoes": (
        *_RESULT_KEYS,
        Column("role", TEXT, "", "native or post", required=True),
        *_SLICE,
        Column("echo_index", COUNT, "1", "index by inversion time, from 0", required=True),
        Column("acquisition_index", COUNT, "1", "index in the order of acquisition, from 0", required=True),
        Column("ti_ms", NUMBER, "ms", "inversion time", required=True),
        Column("dice_guide", NUMBER, "1", "Dice coefficient of the myocardium with that of the guide"),
        Column("displacement_mm", NUMBER, "mm", "distance of the mask's centroid from that of the guide"),
        Column("contrast", NUMBER, "1", "(blood - myocardium) / (blood + myocardium) of the mean signals"),
        Column("confidence", NUMBER, "1", "confidence of the mask, 0 to 1"),
        Column("n_pixels_myocardium", COUNT, "1", "pixels of the myocardium"),
        Column("reference_echo_index", COUNT, "1", "echo of the slice that the guide was drawn on"),
        Column("guide_origin", TEXT, "", "reader or model; empty without a guide"),
        Column("guide_score", NUMBER, "1", "how well the guide passed its checks, 0 to 1"),
        Column(
            "alignment",
            TEXT,
            "",
            "reference, aligned, still (by its masks), contradicted (by the images) or not_aligned (slice "
            "left as it is); or why not: empty, at_border, reference_unusable, implausible, unconfirmed",
            required=True,
        ),
        Column("aligned_mm", NUMBER, "mm", "mean way of the myocardium that the alignment took back"),
        Column("turn_deg", NUMBER, "degrees", "turn of the heart by the masks, clockwise"),
        Column("turn_from", TEXT, "", "what told the turn: rv or none", required=True),
        Column("scale", NUMBER, "1", "LV radius over that on the reference echo, by the masks"),
        Column("jacobian_min", NUMBER, "1", "least local change of area in the heart by the alignment"),
    ),
    "flags": (
        *_RESULT_KEYS,
        Column("code", TEXT, "", "which check", required=True),
        Column("severity", TEXT, "", "note (does not count), review or fail", required=True),
        Column("role", TEXT, "", "native or post; empty where it is about both"),
        Column("slice_index", COUNT, "1", "index of the slice; empty where it is about the scan"),
        Column("level", TEXT, "", "level of the slice"),
        Column("value", NUMBER, "", "what was found, in the unit of the check"),
        Column("threshold", NUMBER, "", "the limit it was held against, in the same unit"),
        Column("message", TEXT, "", "the flag in words", required=True),
    ),
    "longitudinal": (
        *_RESULT_KEYS,
        Column(
            "baseline_visit_id",
            TEXT,
            "",
            "visit the change is counted from: the first one; of the subject's last visit, each earlier one",
            required=True,
        ),
        Column("level", TEXT, "", "global, septal, basal, mid or apical", required=True),
        Column(
            "aha_segment", COUNT, "1", "AHA segment, 1 to 16; empty where the row is about all of a level"
        ),
        Column("t1_native_change_ms", NUMBER, "ms", "change of the mean native T1"),
        *_judged("t1_native", "ms"),
        Column("ecv_change_fraction", NUMBER, "1", "change of the extracellular volume, absolute"),
        Column("ecv_change_relative", NUMBER, "1", "the same relative to the visit it is counted from"),
        Column("ecv_change_beyond_limit", TRUTH, "", "whether the relative change reaches the trial's limit"),
        *_judged("ecv", "fraction"),
        Column("area_change_mm2", NUMBER, "mm2", "change of the myocardial area of a slice"),
        Column("thickness_change_mm", NUMBER, "mm", "change of the mean radial thickness of the wall"),
        Column(
            "overlap_dice",
            NUMBER,
            "1",
            "Dice coefficient of both visits' myocardium, LV centers and RV insertions laid upon each other",
        ),
        Column("same_scanner", TRUTH, "", "whether field strength, manufacturer and model agree"),
        Column(
            "protocol_deviations",
            TEXTS,
            "",
            "how schemes, pixels and slices of the visit differ from those of its first one, as flags",
            required=True,
        ),
        Column("same_protocol", TRUTH, "", "whether schemes and pixel size (within 10 %) agree"),
        Column("field_strength_t", NUMBER, "T", "field strength of the visit"),
        Column("baseline_field_strength_t", NUMBER, "T", "the same of the visit the change is counted from"),
        Column("scanner", TEXT, "", "manufacturer and model of the visit's scanner"),
        Column("baseline_scanner", TEXT, "", "the same of the visit the change is counted from"),
    ),
    "visits": (
        *_KEYS,
        Column("visit_date", DATE, "", "planned date", required=True),
        Column("state", TEXT, "", "done, flagged, failed, waiting or refused", required=True),
        Column("reason", TEXT, "", "why, in words"),
        Column("qc_verdict", TEXT, "", "pass, review or fail; empty without a result"),
        Column("qc_reasons", TEXTS, "", "codes of the flags that the verdict rests on", required=True),
        Column("failed_stage", TEXT, "", "stage that failed"),
        Column(
            "failure_kind", TEXT, "", "error (would come again) or passing (the machine's fault, tried again)"
        ),
        Column("upload_ids", TEXTS, "", "uploads the visit was read from", required=True),
        Column("upload_digests", TEXTS, "", "content digest of each upload", required=True),
        Column("upload_fingerprints", TEXTS, "", "digest of each upload's listing", required=True),
        Column("matching_digest", TEXT, "", "digest of the rules and plan the uploads were matched by"),
        Column("n_files", COUNT, "1", "files in the uploads"),
        Column("intake_digest", TEXT, "", "digest of the intake stage's inputs"),
        Column("segment_digest", TEXT, "", "digest of the segment stage's inputs"),
        Column("quantify_digest", TEXT, "", "digest of the quantify stage's inputs"),
        Column("summary_digest", TEXT, "", "digest of the summary stage's inputs"),
        Column("config_digest", TEXT, "", "digest of trial.toml"),
        Column("code_version", TEXT, "", "version of the code"),
        Column("device", TEXT, "", "devices that computed, joined by +; empty where all stood already"),
        Column("seconds_intake", NUMBER, "s", "time the intake stage took"),
        Column("seconds_segment", NUMBER, "s", "time the segment stage took"),
        Column("seconds_quantify", NUMBER, "s", "time the quantify stage took"),
        Column("run_id", TEXT, "", "run that published the row"),
        Column("published_at", UTC_TIME, "", "when the row was published", required=True),
    ),
}
"""Columns of each table; ``visits`` comes last because its row is the commit of a publication."""

_PYTHON_TYPES: dict[pa.DataType, tuple[type, ...]] = {
    TEXT: (str,),
    NUMBER: (float, int),
    COUNT: (int,),
    TRUTH: (bool,),
    DATE: (date,),
    LOCAL_TIME: (datetime,),
    UTC_TIME: (datetime,),
    TEXTS: (list, tuple),
}


def arrow_schema(name: str) -> pa.Schema:
    """Arrow schema of a table, with unit and meaning as metadata of each field.

    Raises
    ------
    StorageError
        If there is no such table.
    """
    return pa.schema(
        pa.field(
            column.name,
            column.type,
            nullable=not column.required,
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in _columns(name)
    )


def arrow_table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Check rows and make a table of them.

    Raises
    ------
    StorageError
        Naming table, row and column of each unknown or missing column, wrong type, NaN or missing value.
    """
    columns = _columns(name)
    problems = [
        f"row {index}, {problem}" for index, row in enumerate(rows) for problem in _problems(columns, row)
    ]
    if problems:
        raise StorageError(f"table {name}: " + "; ".join(problems))
    return pa.Table.from_pylist([dict(row) for row in rows], schema=arrow_schema(name))


def _columns(name: str) -> tuple[Column, ...]:
    if name not in TABLES:
        message = f"no table {name!r}, expected one of {', '.join(sorted(TABLES))}"
        raise StorageError(message)
    return TABLES[name]


def _problems(columns: Sequence[Column], row: Mapping[str, Any]) -> list[str]:
    names = [column.name for column in columns]
    problems = [f"column {name}: unknown" for name in row if name not in names]
    for column in columns:
        if column.name not in row:
            problems.append(f"column {column.name}: missing")
        elif row[column.name] is None:
            if column.required:
                problems.append(f"column {column.name}: is None, expected a value")
        elif not _fits(column.type, row[column.name]):
            found = f"{type(row[column.name]).__name__} {row[column.name]!r}"
            problems.append(f"column {column.name}: found {found}, expected {column.type}")
    return problems


def _fits(kind: pa.DataType, value: Any) -> bool:  # noqa: ANN401
    """Whether a value is of a column's type; bool is no number, NaN is no value, datetime is no date."""
    if not isinstance(value, _PYTHON_TYPES[kind]) or isinstance(value, bool) != (kind == TRUTH):
        return False
    if isinstance(value, datetime):
        return kind in (LOCAL_TIME, UTC_TIME) and (value.tzinfo is None) == (kind == LOCAL_TIME)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, list | tuple) or all(isinstance(item, str) for item in value)
