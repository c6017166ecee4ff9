"""Masks of the heart on every echo, from a guiding mask on one."""

from cmrcore.segmentation.carried import EarlierGuides, Planes, guide_from_earlier
from cmrcore.segmentation.check import GuideLimits, check_guide, complete_guide, inspect_guide
from cmrcore.segmentation.contours import ContourSettings, masks_from
from cmrcore.segmentation.guide import Guide, Lent, choose_guide, find_guide, reader_guide
from cmrcore.segmentation.networks import network_from
from cmrcore.segmentation.predict import (
    LABELS,
    EchoMasks,
    GuidedSegmenter,
    Segmenter,
    base_probability,
    carry_guide,
)
from cmrcore.segmentation.unet import UNet

__all__ = [
    "LABELS",
    "ContourSettings",
    "EarlierGuides",
    "EchoMasks",
    "Guide",
    "GuideLimits",
    "GuidedSegmenter",
    "Lent",
    "Planes",
    "Segmenter",
    "UNet",
    "base_probability",
    "carry_guide",
    "check_guide",
    "choose_guide",
    "complete_guide",
    "find_guide",
    "guide_from_earlier",
    "inspect_guide",
    "masks_from",
    "network_from",
    "reader_guide",
]
