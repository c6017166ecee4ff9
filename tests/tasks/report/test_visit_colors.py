"""How the values of maps become colors."""

import math

import numpy as np
import pytest

from tasks.report.visit_colors import (
    ECV,
    N_COLORS,
    R_SQUARED,
    T1_WINDOWS_MS,
    color_table,
    log_share,
    t1_scale,
)


def test_above_the_knee_the_share_grows_with_the_logarithm() -> None:
    """From upper / e on, equal ratios are equal steps of color."""
    lower, upper = 500.0, 1800.0
    knee = upper / math.e
    values = knee * np.array([1.1, 1.21, 1.331])
    first, second, third = log_share(values, lower, upper)
    assert second - first == pytest.approx(third - second)
    toe = (knee - lower) / (2 * knee - lower)
    assert first == pytest.approx(toe + (1 - toe) * math.log(1.1))


def test_below_the_knee_the_share_grows_with_the_value() -> None:
    """The toe is straight, begins at 0 and has the slope of the curve where both meet."""
    lower, upper = 100.0, 1000.0
    knee = upper / math.e
    ends = log_share(np.array([lower, (lower + knee) / 2, knee, upper]), lower, upper)
    toe = (knee - lower) / (2 * knee - lower)
    assert ends == pytest.approx([0.0, toe / 2, toe, 1.0])
    around = log_share(np.array([knee - 1e-3, knee, knee + 1e-3]), lower, upper)
    assert np.diff(around)[0] == pytest.approx(np.diff(around)[1], rel=1e-5)


def test_a_window_that_begins_at_zero_has_a_toe_of_half_the_colors() -> None:
    """The slopes of line and logarithm agree there for one share alone."""
    assert log_share(np.array([1000.0 / math.e]), 0.0, 1000.0) == pytest.approx(0.5)


def test_a_window_above_the_knee_has_no_toe() -> None:
    """It is logarithmic from its lower end on."""
    shares = log_share(np.array([500.0, math.sqrt(500.0 * 1000.0), 1000.0]), 500.0, 1000.0)
    assert shares == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize("scale", [t1_scale("native", 1.5)[0], ECV, R_SQUARED], ids=["t1", "ecv", "r2"])
def test_black_is_only_what_has_no_value(scale: object) -> None:
    """What lies under the window has the first color of the table, not the one of nothing."""
    from tasks.report.visit_colors import ColorScale

    assert isinstance(scale, ColorScale)
    below, above = (scale.lower - 1) / scale.per_unit, (scale.upper + 1) / scale.per_unit
    values = np.array(
        [np.nan, np.inf, below, scale.lower / scale.per_unit, scale.upper / scale.per_unit, above]
    )
    assert scale.indices(values).tolist() == [0, 0, 1, 1, N_COLORS - 1, N_COLORS - 1]
    assert scale.colors()[0].tolist() == [0, 0, 0]
    assert scale.css(None) == "#000000"
    assert scale.css(below) == "#{:02x}{:02x}{:02x}".format(*scale.colors()[1]) != "#000000"


def test_lipari_is_the_table_of_the_recommendation() -> None:
    """First and last valid colors as its authors give them, to a byte."""
    table = color_table("lipari")
    assert table.shape == (256, 3)
    assert np.abs(table[1].astype(int) - [3, 20, 38]).max() <= 3
    assert np.abs(table[-1].astype(int) - [253, 245, 218]).max() <= 1


def test_linear_scales_are_linear() -> None:
    """An ECV of a half lies in the middle of its table."""
    assert ECV.indices(np.array([0.5])).tolist() == [128]
    assert ECV.text(0.283) == "28.3"
    assert R_SQUARED.words() == "lapaz reversed, linear, 0.80 to 1.00"


@pytest.mark.parametrize(
    ("field_strength_t", "field"), [(1.494, "1.5 T"), (2.89, "3 T"), (None, "3 T")], ids=["1.5", "3", "?"]
)
def test_windows_follow_the_field_strength(field_strength_t: float | None, field: str) -> None:
    """An unknown one has the wider window."""
    scale, named = t1_scale("post", field_strength_t)
    assert named == field
    assert (scale.lower, scale.upper) == T1_WINDOWS_MS["post", field]
