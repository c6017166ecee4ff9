"""Masks of the heart on every echo, from a guiding mask on one."""

from cmrcore.segmentation.check import GuideLimits, check_guide, complete_guide, inspect_guide
from cmrcore.segmentation.contours import ContourSettings, masks_from
from cmrcore.segmentation.guide import Guide, find_guide, reader_guide
from cmrcore.segmentation.predict import LABELS, EchoMasks, Segmenter, carry_guide

__all__ = [
    "LABELS",
    "ContourSettings",
    "EchoMasks",
    "Guide",
    "GuideLimits",
    "Segmenter",
    "carry_guide",
    "check_guide",
    "complete_guide",
    "find_guide",
    "inspect_guide",
    "masks_from",
    "reader_guide",
]
