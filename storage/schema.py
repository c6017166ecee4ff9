"""The tables: every column with its type, unit, meaning and, where they are few, its values."""

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 2
"""Stands in every file. Raised by hand, once a release, when a column comes, goes, or means something else; a
column that is new in a table must not be required, for files of before are read that lack it."""

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
NUMBER = pa.float64()
COUNT = pa.int64()
TRUTH = pa.bool_()
DATE = pa.date32()
LOCAL_TIME = pa.timestamp("us")
UTC_TIME = pa.timestamp("us", tz="UTC")

ROLES = ("native", "post")
LEVELS = ("basal", "mid", "apical")
REGIONS = ("global", "septal", *LEVELS)
SEVERITIES = ("note", "review", "fail")
VERDICTS = ("pass", "review", "fail")
STATES = ("done", "flagged", "failed", "waiting", "refused")
STAGES = ("intake", "segment", "quantify", "summarise", "publish")
ALIGNMENTS = ("none", "affine", "refined")
GUIDE_JUDGEMENTS = ("accepted", "redraw")
DECISIONS = ("accept", "repeat", "exclude")
_UNUSABLE_MASKS = ("empty", "at_border", "reference_unusable", "implausible")
POST_ALIGNMENTS = ("aligned", "still", "contradicted", "not_aligned", *_UNUSABLE_MASKS)
ECHO_ALIGNMENTS = ("reference", *POST_ALIGNMENTS, "unconfirmed")


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
    values: tuple[str, ...] = ()
    """The only values it may have, in the order they are sorted by; any value where none are listed."""


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
    Column("level", TEXT, "", "level of the slice", required=True, values=LEVELS),
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
    Column(
        "qc_verdict", TEXT, "", "worst severity of its flags, notes aside", required=True, values=VERDICTS
    ),
    Column("qc_reasons", TEXTS, "", "codes of the flags that the verdict rests on"),
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
            "whether the change exceeds it; empty where scanner or protocol differ, and of the whole heart "
            "and septum where the slices used are of other levels",
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
        Column("n_slices", COUNT, "1", "slices of the series that has more of them, native or post-contrast"),
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
        Column("alignment_native", TEXT, "", "how the native echoes were aligned", values=ALIGNMENTS),
        Column("alignment_post", TEXT, "", "the same post-contrast", values=ALIGNMENTS),
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
            "whether the post-contrast slice was brought onto the native one, by its masks (still: it lay "
            "there) against the images (contradicted); from empty on, why its masks could not tell",
            values=POST_ALIGNMENTS,
        ),
        Column("post_dice", NUMBER, "1", "overlap of both myocardia that remained, as Dice coefficient"),
        Column("used_native", TRUTH, "", "whether the scan's native means rest on it too; not if it failed"),
        Column("used_post", TRUTH, "", "the same post-contrast"),
        Column("used_ecv", TRUTH, "", "the same of ECV"),
        *_ECV,
        *_VERDICT,
    ),
    "segments": (
        *_RESULT_KEYS,
        *_SLICE,
        Column("aha_segment", COUNT, "1", "AHA segment, 1 to 16", required=True),
        Column("aha_name", TEXT, "", "name of the segment", required=True),
        Column(
            "n_pixels",
            COUNT,
            "1",
            "pixels of the whole native myocardium in the segment; empty in a slice without",
        ),
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
        Column("role", TEXT, "", "which series", required=True, values=ROLES),
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
        Column(
            "guide_origin",
            TEXT,
            "",
            "who drew the guide, or baseline if the subject's first visit lends it; empty without one",
            values=("reader", "model", "baseline"),
        ),
        Column("guide_score", NUMBER, "1", "how well the guide passed its checks, 0 to 1"),
        Column(
            "alignment",
            TEXT,
            "",
            "what became of the echo: still, by its masks; contradicted, by the images; not_aligned, slice "
            "left as it is; from empty on, why its masks could not tell",
            required=True,
            values=ECHO_ALIGNMENTS,
        ),
        Column("aligned_mm", NUMBER, "mm", "mean way of the myocardium that the alignment took back"),
        Column("turn_deg", NUMBER, "degrees", "turn of the heart by the masks, clockwise"),
        Column("turn_from", TEXT, "", "what told the turn", required=True, values=("rv", "none")),
        Column("scale", NUMBER, "1", "LV radius over that on the reference echo, by the masks"),
        Column("jacobian_min", NUMBER, "1", "least local change of area in the heart by the alignment"),
    ),
    "flags": (
        *_RESULT_KEYS,
        Column("code", TEXT, "", "which check", required=True),
        Column(
            "severity", TEXT, "", "a finding, look at it, do not use it", required=True, values=SEVERITIES
        ),
        Column("role", TEXT, "", "which series; empty where it is about both", values=ROLES),
        Column("slice_index", COUNT, "1", "index of the slice; empty where it is about the scan"),
        Column("level", TEXT, "", "level of the slice", values=LEVELS),
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
        Column("level", TEXT, "", "whole heart, septum or a level", required=True, values=REGIONS),
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
        ),
        Column("same_protocol", TRUTH, "", "whether schemes and pixels (within the trial's tolerance) agree"),
        Column("field_strength_t", NUMBER, "T", "field strength of the visit"),
        Column("baseline_field_strength_t", NUMBER, "T", "the same of the visit the change is counted from"),
        Column("scanner", TEXT, "", "manufacturer and model of the visit's scanner"),
        Column("baseline_scanner", TEXT, "", "the same of the visit the change is counted from"),
    ),
    "reviews": (
        *_IDS,
        Column(
            "result_digest",
            TEXT,
            "",
            "digest of the result that the reader saw; published then, maybe replaced since",
            required=True,
        ),
        Column("role", TEXT, "", "which series", required=True, values=ROLES),
        Column("slice_index", COUNT, "1", "index of the slice, 0 at the base", required=True),
        Column("reader_id", TEXT, "", "who decided", required=True),
        Column(
            "guide",
            TEXT,
            "",
            "the reader's word on the guide; redraw is asked for until another guide of a reader comes",
            required=True,
            values=GUIDE_JUDGEMENTS,
        ),
        Column(
            "decision",
            TEXT,
            "",
            "accept; repeat, numbers left out and the scan asked for again; exclude, numbers left out",
            required=True,
            values=DECISIONS,
        ),
        Column("comment", TEXT, "", "the reader's reason; empty where none was given"),
        Column(
            "accepted_flags",
            TEXTS,
            "",
            "checks of severity review that the slice had raised and that the decision accepts",
            required=True,
        ),
        Column(
            "accepted_values",
            TEXTS,
            "",
            "what each of these checks had found, in the same order, as text; empty text for one without a "
            "value; a finding that grew worse is not accepted, nor one that has a value only now. Empty in "
            "reviews of former versions, which accept a check whatever it finds",
        ),
        Column(
            "slice_digest",
            TEXT,
            "",
            "digest of the images and masks that the reader saw; the decision holds while they stand",
            required=True,
        ),
        Column("guide_digest", TEXT, "", "digest of the guide that the reader saw", required=True),
        Column("decided_at", UTC_TIME, "", "when the reader decided, by the reader's clock", required=True),
        Column("recorded_at", UTC_TIME, "", "when the decision was recorded here", required=True),
        Column("recorded_by", TEXT, "", "who recorded it", required=True),
        Column("file_digest", TEXT, "", "SHA-256 of the decisions file", required=True),
    ),
    "visits": (
        *_KEYS,
        Column("visit_date", DATE, "", "planned date", required=True),
        Column("state", TEXT, "", "what became of the visit", required=True, values=STATES),
        Column("reason", TEXT, "", "why, in words"),
        Column("qc_verdict", TEXT, "", "verdict of its scan; empty without a result", values=VERDICTS),
        Column("qc_reasons", TEXTS, "", "codes of the flags that the verdict rests on"),
        Column("failed_stage", TEXT, "", "stage that failed", values=STAGES),
        Column(
            "failure_kind",
            TEXT,
            "",
            "error would come again; passing was the machine's fault and is tried again",
            values=("error", "passing"),
        ),
        Column("upload_ids", TEXTS, "", "uploads the visit was read from", required=True),
        Column("upload_digests", TEXTS, "", "content digest of each upload", required=True),
        Column("upload_fingerprints", TEXTS, "", "digest of each upload's listing", required=True),
        Column("matching_digest", TEXT, "", "digest of the rules and plan the uploads were matched by"),
        Column("n_files", COUNT, "1", "files in the uploads"),
        Column("intake_digest", TEXT, "", "digest of the intake stage's inputs"),
        Column("segment_digest", TEXT, "", "digest of the segment stage's inputs"),
        Column("quantify_digest", TEXT, "", "digest of the quantify stage's inputs"),
        Column("reviews_digest", TEXT, "", "digest of the reader's decisions it honors; empty without any"),
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

REVIEWS = "reviews"
"""The table that no night writes: a reader's decisions, which outlast the result that they were made on."""

RESULT_TABLES = tuple(name for name in TABLES if name != REVIEWS)
"""Tables that are published together, each row with the digest of the visit's published result."""
