"""Masks of the heart on every echo, from a guiding mask on one."""

from cmrcore.segmentation.check import GuideLimits, check_guide, complete_guide, inspect_guide
from cmrcore.segmentation.contours import ContourSettings, masks_from
from cmrcore.segmentation.guide import Guide, choose_guide, find_guide, reader_guide
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
    "EchoMasks",
    "Guide",
    "GuideLimits",
    "GuidedSegmenter",
    "Segmenter",
    "UNet",
    "base_probability",
    "carry_guide",
    "check_guide",
    "choose_guide",
    "complete_guide",
    "find_guide",
    "inspect_guide",
    "masks_from",
    "network_from",
    "reader_guide",
]
