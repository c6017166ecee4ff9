"""Masks of the heart on every echo, from a guiding mask on one."""

from cmrcore.segmentation.guide import check_guide, complete_guide
from cmrcore.segmentation.predict import LABELS, EchoMasks, Segmenter, carry_guide

__all__ = ["LABELS", "EchoMasks", "Segmenter", "carry_guide", "check_guide", "complete_guide"]
