"""Outlines of masks as paths of SVG."""

from typing import Any

import numpy as np
from contourpy import contour_generator

from tasks.report.visit_images import Crop


def outline(mask: np.ndarray[Any, Any], crop: Crop) -> str:
    """Borders of a mask as the path of an SVG whose unit is half a pixel of the crop; empty without any.

    Pixel centers lie at odd numbers, so that borders, halfway between a pixel inside and one outside, are
    whole numbers. No line is drawn where the crop cuts the mask.
    """
    lines = contour_generator(z=crop.of(mask).astype(np.float32)).lines(0.5)
    return "".join(_path(np.rint(2 * np.asarray(line) + 1).astype(int)) for line in lines)


def _path(points: np.ndarray[Any, Any]) -> str:
    """Path through points (x, y), closed if the last is the first: its corners alone, as steps."""
    is_closed = bool((points[0] == points[-1]).all())
    steps = np.diff(points, axis=0)
    turns = (steps[1:] != steps[:-1]).any(1)
    corners = points[np.concatenate([[True], turns, [not is_closed]])]
    x, y = corners[0]
    way = " ".join(f"{right} {down}" for right, down in np.diff(corners, axis=0))
    return f"M{x} {y}l{way}{'z' if is_closed else ''}"
