"""Outlines of masks as paths of SVG."""

from typing import Any

import numpy as np
from contourpy import contour_generator

from tasks.report.visit_images import Crop


def outline(mask: np.ndarray[Any, Any], crop: Crop) -> str:
    """Borders of a mask as the path of an SVG whose unit is half a pixel of the crop; empty without any.

    Pixel centers lie at odd numbers, so that borders, halfway between a pixel inside and one outside, are
    whole numbers.
    """
    inside = np.pad(crop.of(mask), 1)
    lines = contour_generator(z=inside.astype(np.float32)).lines(0.5)
    return "".join(_path(np.rint(2 * (np.asarray(line) - 1) + 1).astype(int)) for line in lines)


def _path(points: np.ndarray[Any, Any]) -> str:
    """Closed path through points (x, y), of which the last is the first: corners alone, as steps."""
    steps = np.diff(points, axis=0)
    corners = points[:-1][(steps != np.roll(steps, 1, axis=0)).any(1)]
    x, y = corners[0]
    return f"M{x} {y}l" + " ".join(f"{right} {down}" for right, down in np.diff(corners, axis=0)) + "z"
