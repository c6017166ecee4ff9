"""Images of a page: cut out around the heart, small, and held by the page itself."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tasks.report.visit_colors import N_COLORS, ColorScale

Array = np.ndarray[Any, Any]

HALF_WIDTH_MM = 60.0
"""Half the side of the square around a heart that is shown [mm]."""
SIDE_MAX = 128
"""Most pixels along a side of an image; finer ones are thinned out."""
JPEG_QUALITY = 90
_WINDOW_PERCENT = (0.5, 99.5)
"""Percentiles of an echo between which its gray values lie."""


@dataclass(frozen=True, slots=True)
class Crop:
    """The part of an image that is shown."""

    rows: slice
    """Rows, with a step where the image is finer than a page needs."""
    cols: slice
    """Columns."""
    height: int
    """Rows that are shown."""
    width: int
    """Columns that are shown."""
    aspect: float
    """Width over height on the body."""

    def of(self, image: Array) -> Array:
        """Cut images, rows and columns last."""
        part: Array = image[..., self.rows, self.cols]
        return part


def heart_crop(shape: tuple[int, int], spacing_mm: tuple[float, float], heart: Array | None) -> Crop:
    """Square of fixed size around a heart's mask; the whole image where there is none."""
    spans = []
    for axis in (0, 1):
        low, high = 0, shape[axis]
        if heart is not None and heart.any():
            inside = np.flatnonzero(heart.any(1 - axis))
            half = min(round(HALF_WIDTH_MM / spacing_mm[axis]), shape[axis] // 2)
            center = min(max((inside[0] + inside[-1] + 1) // 2, half), shape[axis] - half)
            low, high = int(center) - half, int(center) + half
        step = -(-(high - low) // SIDE_MAX)
        spans.append((slice(low, high, step), len(range(low, high, step)), (high - low) * spacing_mm[axis]))
    (rows, height, height_mm), (cols, width, width_mm) = spans
    return Crop(rows, cols, height, width, width_mm / height_mm)


def map_image(values: Array, scale: ColorScale) -> str:
    """Map in the colors of its scale, as a data URI."""
    image = Image.fromarray(scale.indices(values))
    image.putpalette(scale.colors().tobytes())
    return _data_uri(image, "PNG")


def color_bar(scale: ColorScale) -> str:
    """Colors of a scale from its lower to its upper value, evenly spaced in the value, as a data URI."""
    values = np.linspace(scale.lower, scale.upper, N_COLORS)[None] / scale.per_unit
    return map_image(values, scale)


def film_strip(echoes: Array) -> str:
    """Echoes side by side in gray, each within its own window, as a data URI.

    Parameters
    ----------
    echoes
        Magnitudes, axes ``ti row col``.
    """
    gray = [_gray(echo) for echo in echoes]
    return _data_uri(Image.fromarray(np.concatenate(gray, axis=1)), "JPEG", quality=JPEG_QUALITY)


def _gray(echo: Array) -> Array:
    low, high = np.percentile(echo, _WINDOW_PERCENT)
    share = (echo - low) / max(float(high - low), float(np.finfo(np.float32).tiny))
    gray: Array = np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
    return gray


def _data_uri(image: Image.Image, kind: str, **options: int) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
