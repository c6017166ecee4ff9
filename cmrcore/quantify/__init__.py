"""Quantities of a scan: blood T1, ECV, AHA segments, statistics, quality flags, change over visits."""

from cmrcore.quantify.aha import AHA_NAMES, aha_segments, rv_insertions
from cmrcore.quantify.blood import blood_pixels, blood_t1, erode_mask
from cmrcore.quantify.checks import CHECKS, Verdict
from cmrcore.quantify.ecv import ecv_map, partition_coefficient
from cmrcore.quantify.longitudinal import (
    ChangeSettings,
    VisitFindings,
    change_rows,
    check_scanner,
    visit_flags,
)
from cmrcore.quantify.qc import Flag, HematocritLimits, QcLimits, verdict
from cmrcore.quantify.records import (
    GuideNote,
    Hematocrit,
    QuantifySettings,
    ReaderDecision,
    Row,
    ScanResult,
    Series,
    SyntheticHematocrit,
)
from cmrcore.quantify.scan import quantify_scan
from cmrcore.quantify.wall import erode_wall, erode_walls

__all__ = [
    "AHA_NAMES",
    "CHECKS",
    "ChangeSettings",
    "Flag",
    "GuideNote",
    "Hematocrit",
    "HematocritLimits",
    "QcLimits",
    "QuantifySettings",
    "ReaderDecision",
    "Row",
    "ScanResult",
    "Series",
    "SyntheticHematocrit",
    "Verdict",
    "VisitFindings",
    "aha_segments",
    "blood_pixels",
    "blood_t1",
    "change_rows",
    "check_scanner",
    "ecv_map",
    "erode_mask",
    "erode_wall",
    "erode_walls",
    "partition_coefficient",
    "quantify_scan",
    "rv_insertions",
    "verdict",
    "visit_flags",
]
