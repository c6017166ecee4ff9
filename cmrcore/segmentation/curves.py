"""Closed curves around a region: found between pixels, smoothed, and turned back into pixels."""

import math

import contourpy
import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull

Curve = Float[np.ndarray, "_ 2"]
"""Points (row, col) of a closed curve [pixel], pixel centers at integers; the last is joined to the first."""

_MODES_MIN = 6
"""Ripples around a curve that smoothing leaves alone at least, so that a small curve keeps its size."""
_STEPS_PER_PIXEL = 2
"""Points of a smoothed curve in one pixel's length."""
_POINTS_MIN = 64
"""Least number of points of a smoothed curve: straight between them, they enclose a little less."""
_AREA_MIN = 1e-3
"""Area under which a curve is only a point or a line [square pixels]."""


def outline(field: Float[np.ndarray, "row col"], level: float) -> Curve | None:
    """Largest closed curve around the pixels above a level; None if there is none.

    Parameters
    ----------
    field
        Values on pixels; beyond its edge they count as 0.
    level
        Value of the curve, found between the pixels by linear interpolation; above 0.
    """
    padded = np.pad(field, 1)
    lines = contourpy.contour_generator(z=padded, name="serial", line_type=contourpy.LineType.Separate).lines(
        level
    )
    curves = [np.asarray(line)[:-1, ::-1] - 1.0 for line in lines if len(line) > 3]
    largest = max(curves, key=area, default=None)
    return None if largest is None or area(largest) < _AREA_MIN else largest


def area(curve: Curve) -> float:
    """Area within a closed curve [square of its unit]."""
    after = np.roll(curve, -1, axis=0)
    return abs(float((curve[:, 0] * after[:, 1] - curve[:, 1] * after[:, 0]).sum())) / 2


def convex(curve: Curve, solidity_min: float) -> Curve:
    """Convex hull of a curve that fills less than a share of it; any other curve as it is."""
    hull = ConvexHull(curve)
    # In the plane, qhull's volume is the area.
    return curve if area(curve) >= solidity_min * hull.volume else curve[hull.vertices]


def smooth(curve: Curve, spacing_mm: tuple[float, float], ripple_mm: float) -> Curve:
    r"""Periodic cubic smoothing spline through a closed curve.

    Minimizes squared distances from evenly spaced points of the curve plus a multiple of the integral of the
    squared second derivative. On even periodic knots both are circulant, so each frequency is damped by
    itself: :math:`b / (b + \lambda (2 - 2 \cos\omega)^2)` with :math:`b = (2 + \cos\omega) / 3`.

    Parameters
    ----------
    curve
        Any closed curve.
    spacing_mm
        Distance of rows and columns [mm].
    ripple_mm
        Wavelength along the curve that is damped to half [mm]; less on a small curve, which keeps its size.

    Returns
    -------
        Points of the spline, less than a pixel apart.

    References
    ----------
    Reinsch 1967, Numer Math 10:177, doi:10.1007/BF02162161
    """
    closed = np.concatenate([curve, curve[:1]]) * spacing_mm
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    length_mm = float(along[-1])
    n_points = max(_POINTS_MIN, math.ceil(_STEPS_PER_PIXEL * length_mm / min(spacing_mm)))
    even = np.arange(n_points) * (length_mm / n_points)
    points = np.stack([np.interp(even, along, closed[:, axis]) for axis in (0, 1)])

    half = 2 * math.pi / n_points * max(length_mm / ripple_mm, _MODES_MIN)
    omega = 2 * math.pi * np.fft.rfftfreq(n_points)
    stiffness = (2 + math.cos(half)) / 3 / (2 - 2 * math.cos(half)) ** 2
    share = (2 + np.cos(omega)) / 3
    damping = share / (share + stiffness * (2 - 2 * np.cos(omega)) ** 2)
    smoothed: Curve = np.fft.irfft(np.fft.rfft(points) * damping, n_points).T / spacing_mm
    return smoothed


def coverage(curve: Curve, shape: tuple[int, int]) -> Float[np.ndarray, "row col"]:
    """Share of each pixel that lies within a closed curve, 0-1, exactly.

    Parameters
    ----------
    curve
        Its points may be any distance apart, and lie beyond the image's edge.
    shape
        Rows and columns of the image.
    """
    # Pixel i spans i to i + 1 here. What lies beyond the edge is pressed onto it, where it covers nothing.
    start = np.clip(_dense(curve) + 0.5, 0, shape)
    step = np.roll(start, -1, axis=0) - start
    # A step under a pixel long crosses one line of the grid each way at most: three pieces, a pixel each.
    line = np.floor(np.maximum(start, start + step))
    with np.errstate(divide="ignore", invalid="ignore"):
        cuts = (line - start) / step
    cuts = np.where((cuts > 0) & (cuts < 1), cuts, 1.0)
    ends = np.stack([np.zeros(len(cuts)), cuts.min(1), cuts.max(1), np.ones(len(cuts))])
    middle = start + (ends[:-1] + ends[1:])[..., None] / 2 * step
    down = (ends[1:] - ends[:-1]) * step[:, 0]

    # Green's theorem, row by row: a piece covers what lies right of it, in part in its own pixel.
    pixel = np.floor(middle).astype(np.intp)
    right = down * (middle[..., 1] - pixel[..., 1])
    width = shape[1] + 2
    at = (pixel[..., 0] * width + pixel[..., 1]).ravel()
    size = (shape[0] + 1) * width
    change = np.bincount(at, (down - right).ravel(), size) + np.bincount(at + 1, right.ravel(), size)
    covered = change.reshape(-1, width)[: shape[0]].cumsum(axis=1)[:, : shape[1]]
    return np.asarray(np.abs(covered).clip(0, 1))


def _dense(curve: Curve) -> Curve:
    """Curve with points less than a pixel apart."""
    after = np.roll(curve, -1, axis=0)
    n_parts = np.ceil(1.5 * np.abs(after - curve).max(axis=1)).astype(int).clip(1)
    if (n_parts == 1).all():
        return curve
    first = np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    share = (np.arange(n_parts.sum()) - first) / np.repeat(n_parts, n_parts)
    start, step = np.repeat(curve, n_parts, axis=0), np.repeat(after - curve, n_parts, axis=0)
    return np.asarray(start + share[:, None] * step)
