"""Closed curves: found, smoothed and rasterized."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float

from cmrcore.segmentation.curves import Curve, area, convex, coverage, outline, smooth

SQUARE_PIXELS = (1.0, 1.0)


def circle(radius: float, center: tuple[float, float] = (24.3, 23.8), n: int = 200) -> Curve:
    """Points of a circle [pixel]."""
    angle = np.arange(n) * (2 * math.pi / n)
    return np.stack([center[0] + radius * np.sin(angle), center[1] + radius * np.cos(angle)], axis=1)


def soft_disc(radius: float, center: tuple[float, float] = (24.3, 23.8)) -> Float[np.ndarray, "row col"]:
    """Disc with a linear edge two pixels wide."""
    row, col = np.mgrid[:48, :48]
    depth = radius - np.hypot(row - center[0], col - center[1])
    return np.asarray((0.5 + depth / 2).clip(0, 1))


@given(
    radius=st.floats(2.0, 15.0),
    row=st.floats(18.0, 30.0),
    col=st.floats(18.0, 30.0),
)
def test_coverage_sums_to_the_area(radius: float, row: float, col: float) -> None:
    """Every part of a curve's inside is counted once."""
    curve = circle(radius, (row, col))
    assert coverage(curve, (48, 48)).sum() == pytest.approx(area(curve), rel=1e-9)


def test_coverage_of_a_square_is_exact() -> None:
    """Pixel centers lie at integers, so that this one ends in the middle of pixels."""
    corners = np.array([[1.0, 1.0], [1.0, 4.0], [3.25, 4.0], [3.25, 1.0]])
    expected = np.outer([0, 0.5, 1, 0.75, 0], [0, 0.5, 1, 1, 0.5, 0])
    np.testing.assert_allclose(coverage(corners, (5, 6)), expected, atol=1e-12)


def test_coverage_ends_at_the_edge() -> None:
    """A heart may be cut off by the image."""
    corners = np.array([[-9.0, -9.0], [-9.0, 2.5], [2.5, 2.5], [2.5, -9.0]])
    expected = np.zeros((5, 6))
    expected[:3, :3] = 1
    np.testing.assert_allclose(coverage(corners, (5, 6)), expected, atol=1e-12)


@given(radius=st.floats(4.0, 20.0))
def test_an_outline_is_finer_than_pixels(radius: float) -> None:
    """A soft edge says where between two pixels the contour runs."""
    curve = outline(soft_disc(radius), 0.5)
    assert curve is not None
    away = np.hypot(*(curve - (24.3, 23.8)).T) - radius
    assert np.abs(away).max() < 0.08


def test_the_largest_outline_is_taken() -> None:
    """Other curves are islands or holes."""
    field = soft_disc(12.0)
    field[2:5, 2:5] = 1
    field[22:26, 22:26] = 0
    curve = outline(field, 0.5)
    assert curve is not None
    assert area(curve) == pytest.approx(math.pi * 12**2, rel=0.01)


def test_an_outline_is_closed_at_the_edge() -> None:
    """A heart may be cut off by the image."""
    curve = outline(np.ones((10, 10)), 0.5)
    assert curve is not None
    assert area(curve) == pytest.approx(100, rel=0.01)


def test_nothing_has_no_outline() -> None:
    """An empty image gives no curve."""
    assert outline(np.zeros((10, 10)), 0.5) is None


def test_a_notched_disc_becomes_its_hull_and_a_dent_stays() -> None:
    """Only a curve much smaller than its hull is C-shaped."""
    curve = circle(10.0)
    notched = curve.copy()
    notched[:30] = notched[:30] * 0.2 + np.array([24.3, 23.8]) * 0.8
    dented = curve.copy()
    dented[:10] = dented[:10] * 0.9 + np.array([24.3, 23.8]) * 0.1
    assert area(convex(notched, 0.9)) > area(notched) / 0.9
    np.testing.assert_array_equal(convex(dented, 0.9), dented)


@pytest.mark.parametrize("radius", [2.0, 5.0, 15.0])
def test_smoothing_keeps_a_circle(radius: float) -> None:
    """Neither a large nor a small cavity may shrink."""
    smoothed = smooth(circle(radius), SQUARE_PIXELS, ripple_mm=12.0)
    assert area(smoothed) == pytest.approx(math.pi * radius**2, rel=0.01)


def test_smoothing_halves_ripples_of_its_wavelength() -> None:
    """That is what the setting says; longer ones stay, shorter ones go."""
    n_points, radius = 2000, 18.0
    angle = np.arange(n_points) * (2 * math.pi / n_points)
    for n_ripples, kept in ((10, 0.5), (5, 0.94), (20, 0.06)):
        distance = radius + 0.1 * np.cos(n_ripples * angle)
        curve = np.stack([distance * np.sin(angle), distance * np.cos(angle)], axis=1)
        smoothed = smooth(curve, SQUARE_PIXELS, ripple_mm=2 * math.pi * radius / 10)
        ripple = np.hypot(*smoothed.T)
        assert np.ptp(ripple) / 0.2 == pytest.approx(kept, abs=0.03)


def test_smoothing_knows_oblong_pixels() -> None:
    """A circle in millimeters is an ellipse in pixels, and stays that."""
    squeezed = circle(12.0) * (0.5, 1.0)
    smoothed = smooth(squeezed, (2.0, 1.0), ripple_mm=12.0)
    np.testing.assert_allclose(np.hypot(*(smoothed * (2.0, 1.0) - (24.3, 23.8)).T), 12.0, atol=0.02)
