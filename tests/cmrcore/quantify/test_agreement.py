"""Agreement statistics against published worked examples, and drawn numbers with known answers."""

import numpy as np
import pytest
from jaxtyping import Float

from cmrcore.errors import InvalidInputError
from cmrcore.quantify.agreement import (
    IccForm,
    bland_altman,
    deming,
    intraclass_correlation,
    least_squares,
    within_subject,
)

WRIGHT = np.array(
    [
        [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427.0],
        [490, 397, 512, 401, 470, 611, 415, 431, 638, 429, 420, 633, 275, 492, 165, 372, 421.0],
    ]
).T
MINI_WRIGHT = np.array(
    [
        [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451.0],
        [525, 415, 508, 444, 500, 625, 460, 390, 642, 432, 420, 605, 227, 467, 268, 370, 443.0],
    ]
).T
"""Peak expiratory flow of 17 subjects, two readings with each of two meters [l/min]: Bland & Altman 1986."""

JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7.0]])
"""Ratings of six targets by four judges: Shrout & Fleiss 1979, table 2."""


def test_bland_altman_is_that_of_the_worked_example() -> None:
    """Mean difference -2.1 l/min (95 % -22.0 to 17.8), SD 38.8, as Bland & Altman print them."""
    found = bland_altman(MINI_WRIGHT[:, 0], WRIGHT[:, 0])
    assert (found.n, round(found.bias.value, 1), round(found.sd, 1)) == (17, -2.1, 38.8)
    assert (round(found.bias.low, 1), round(found.bias.high, 1)) == (-22.0, 17.8)
    # The example takes limits at 2 SD and their error as sqrt(3 / n) SD, so 34.6 on either side of them.
    assert found.lower.value == pytest.approx(-79.7, abs=0.05 * found.sd)
    assert found.upper.value == pytest.approx(75.5, abs=0.05 * found.sd)
    for limit in (found.lower, found.upper):
        assert (limit.high - limit.low) / 2 == pytest.approx(34.6, rel=0.01)
        assert (limit.high + limit.low) / 2 == pytest.approx(limit.value)


def test_confidence_limits_of_the_limits_hold_what_they_promise() -> None:
    """The true limit lies inside of them in 95 of 100 drawn studies of 40 scans."""
    rng = np.random.default_rng(5)
    true_upper, n_studies, inside = 3.0 + 1.96 * 2.0, 300, 0
    for _ in range(n_studies):
        reference = rng.normal(100, 20, 40)
        upper = bland_altman(reference, reference + rng.normal(3.0, 2.0, 40)).upper
        inside += upper.low <= true_upper <= upper.high
    assert inside / n_studies == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(
    ("form", "value", "interval"),
    [
        ("ICC(1,1)", 0.17, (-0.13, 0.72)),
        ("ICC(2,1)", 0.29, (0.02, 0.76)),
        ("ICC(3,1)", 0.71, (0.34, 0.95)),
    ],
)
def test_intraclass_correlation_is_that_of_shrout_and_fleiss(
    form: IccForm, value: float, interval: tuple[float, float]
) -> None:
    """Each form has its own value on the same table; pingouin 0.7.0 gives these intervals."""
    found = intraclass_correlation(JUDGES, form)
    assert round(found.value, 2) == value
    assert (round(found.low, 2), round(found.high, 2)) == interval


def test_only_absolute_agreement_minds_a_bias() -> None:
    """Two readers who differ by a constant are consistent; they do not agree."""
    first = np.array([0.25, 0.30, 0.41, 0.52, 0.47])
    biased = np.stack([first, first + 0.05], axis=1)
    assert intraclass_correlation(biased, "ICC(3,1)").value == pytest.approx(1)
    # Variance of the targets over itself plus the raters' (k * 0.05^2 / 2 / k).
    spread = float(first.var(ddof=1))
    expected = spread / (spread + 0.05**2 / 2)
    assert intraclass_correlation(biased, "ICC(2,1)").value == pytest.approx(expected)
    assert intraclass_correlation(np.stack([first, first], 1), "ICC(2,1)").low == 1
    assert np.isnan(intraclass_correlation(np.ones((4, 2)), "ICC(1,1)").value)


def test_intraclass_correlation_is_the_share_of_true_variance() -> None:
    """Targets of SD 3 and noise of SD 1 have 0.9, whatever the form, where raters are alike."""
    rng = np.random.default_rng(2)
    ratings = rng.normal(0, 3, (4000, 1)) + rng.normal(0, 1, (4000, 2))
    forms: tuple[IccForm, ...] = ("ICC(1,1)", "ICC(2,1)", "ICC(3,1)")
    for form in forms:
        found = intraclass_correlation(ratings, form)
        assert found.value == pytest.approx(0.9, abs=0.01)
        assert found.low < 0.9 < found.high


def test_repeatability_is_that_of_both_peak_flow_meters() -> None:
    """Within-subject SD 15.3 and 19.9 l/min (Bland & Altman 1999, section 4); RC is 2.77 of it."""
    for readings, sd in ((WRIGHT, 15.3), (MINI_WRIGHT, 19.9)):
        found = within_subject(readings)
        assert round(found.sd.value, 1) == sd
        assert found.repeatability_coefficient.value == pytest.approx(2.7719 * found.sd.value, rel=1e-4)
        assert found.sd.low < found.sd.value < found.sd.high


def test_coefficient_of_variation_is_the_root_mean_square_over_subjects() -> None:
    """Two readings d apart have SD d / sqrt(2): 2 of 100 and 4 of 100 give sqrt((2 + 8) / 2) percent."""
    repeats = np.array([[99.0, 101.0], [198.0, 202.0], [98.0, 102.0], [196.0, 204.0]])
    assert within_subject(repeats).coefficient_of_variation == pytest.approx(np.sqrt(5) / 100)


def drawn_line(rng: np.random.Generator, n: int) -> Float[np.ndarray, "method scan"]:
    """Both methods measured with the same error; the tested one reads 10 % high and 20 low."""
    truth = rng.normal(1000, 100, n)
    return np.stack([truth, 1.1 * truth - 20]) + rng.normal(0, 50, (2, n))


def test_deming_regression_finds_the_slope_that_ordinary_regression_loses() -> None:
    """Error in the reference bends the ordinary slope to 1.1 / (1 + 50^2 / 100^2) = 0.88."""
    reference, tested = drawn_line(np.random.default_rng(1), 2000)
    ordinary, line = least_squares(reference, tested), deming(reference, tested)
    assert ordinary is not None
    assert line is not None
    assert ordinary.slope.value == pytest.approx(0.88, abs=0.03)
    assert ordinary.slope.high < 1.1
    assert line.slope.value == pytest.approx(1.1, abs=0.06)
    assert line.slope.low < 1.1 < line.slope.high
    assert line.intercept.low < -20 < line.intercept.high


def test_deming_regression_treats_both_methods_alike() -> None:
    """Turned round, it is the same line."""
    reference, tested = drawn_line(np.random.default_rng(4), 30)
    line, back = deming(reference, tested), deming(tested, reference)
    assert line is not None
    assert back is not None
    assert line.slope.value * back.slope.value == pytest.approx(1)


def test_an_exact_line_is_found_exactly() -> None:
    """Without noise both regressions agree; without spread there is no line."""
    x = np.array([1.0, 2.0, 4.0, 7.0])
    for fit in (least_squares, deming):
        line = fit(x, 3 * x - 1)
        assert line is not None
        assert (line.slope.value, line.intercept.value) == pytest.approx((3, -1))
        assert fit(np.ones(4), x) is None


@pytest.mark.parametrize(
    ("reference", "tested"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.0])),
        (np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, 3.0])),
    ],
    ids=["too-few", "not-a-number"],
)
def test_what_has_no_statistics_is_refused(
    reference: Float[np.ndarray, " scan"], tested: Float[np.ndarray, " scan"]
) -> None:
    """A statistic of two scans, or over a hole, would look like one."""
    with pytest.raises(InvalidInputError, match="agreement"):
        bland_altman(reference, tested)
