"""Agreement of two measurements of the same scans: Bland-Altman, intraclass correlation, repeatability.

Intervals are at 95 % and take subjects as independent: several scans of one subject make them too narrow.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

from cmrcore.errors import InvalidInputError

IccForm = Literal["ICC(1,1)", "ICC(2,1)", "ICC(3,1)"]
"""Form of an intraclass correlation of single measurements, as Shrout & Fleiss name them.

``ICC(1,1)``: one-way random; raters differ from subject to subject. ``ICC(2,1)``: two-way random, absolute
agreement, McGraw & Wong's ICC(A,1); a bias between raters counts. ``ICC(3,1)``: two-way mixed, consistency,
their ICC(C,1); a bias does not count.
"""

Z95 = 1.96
"""Half the width of the 95 % range of a normal distribution, in standard deviations."""

_TAILS = (0.025, 0.975)
_ROUNDING = 1e-20
"""Share of the sum of squares that is nothing but rounding."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % confidence interval."""

    value: float
    """The estimate."""
    low: float
    """Lower confidence limit."""
    high: float
    """Upper confidence limit."""


@dataclass(frozen=True, slots=True)
class BlandAltman:
    """How far a tested measurement lies from a reference, in the unit of both."""

    n: int
    """Pairs."""
    bias: Estimate
    """Mean difference, tested minus reference."""
    sd: float
    """Standard deviation of the differences."""
    lower: Estimate
    """Lower limit of agreement, bias - 1.96 SD."""
    upper: Estimate
    """Upper limit of agreement, bias + 1.96 SD."""


@dataclass(frozen=True, slots=True)
class WithinSubject:
    """How far repeated measurements of one subject scatter."""

    n: int
    """Subjects."""
    sd: Estimate
    """Within-subject standard deviation, a change of mean between the repeats included."""
    repeatability_coefficient: Estimate
    """1.96 * sqrt(2) * SD: two measurements of an unchanged subject differ by less in 95 of 100."""
    coefficient_of_variation: float
    """Root mean square over the subjects of SD over mean, as a fraction."""


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line tested = intercept + slope * reference."""

    slope: Estimate
    """Slope."""
    intercept: Estimate
    """Intercept, in the unit of the measurements."""


def bland_altman(reference: Float[np.ndarray, " scan"], tested: Float[np.ndarray, " scan"]) -> BlandAltman:
    """Bias and limits of agreement with their confidence limits.

    The standard error of a limit is ``sd * sqrt(1 / n + 1.96**2 / (2 * (n - 1)))``.

    Raises
    ------
    InvalidInputError
        Under three pairs, or with a value that is no number.

    References
    ----------
    Bland & Altman 1986, Lancet 327:307, doi:10.1016/S0140-6736(86)90837-8
    Bland & Altman 1999, Stat Methods Med Res 8:135, doi:10.1177/096228029900800204
    """
    _check(reference, tested)
    difference = tested - reference
    n = len(difference)
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    t = float(stats.t.ppf(_TAILS[1], n - 1))

    def around(value: float, standard_error: float) -> Estimate:
        return Estimate(value, value - t * standard_error, value + t * standard_error)

    of_limit = sd * math.sqrt(1 / n + Z95**2 / (2 * (n - 1)))
    return BlandAltman(
        n=n,
        bias=around(bias, sd / math.sqrt(n)),
        sd=sd,
        lower=around(bias - Z95 * sd, of_limit),
        upper=around(bias + Z95 * sd, of_limit),
    )


def intraclass_correlation(ratings: Float[np.ndarray, "subject rater"], form: IccForm) -> Estimate:
    """Intraclass correlation of single measurements, in the form that is named, with its interval.

    NaN where all measurements are the same.

    Raises
    ------
    InvalidInputError
        Under three subjects or two raters, or with a value that is no number.

    References
    ----------
    Shrout & Fleiss 1979, Psychol Bull 86:420, doi:10.1037/0033-2909.86.2.420
    McGraw & Wong 1996, Psychol Methods 1:30, doi:10.1037/1082-989X.1.1.30
    """
    _check(*ratings.T)
    n, k = ratings.shape
    grand = ratings.mean()
    of_subject, of_rater = ratings.mean(1, keepdims=True) - grand, ratings.mean(0) - grand
    total = float(((ratings - grand) ** 2).sum())
    if total == 0:
        return Estimate(math.nan, math.nan, math.nan)

    def mean_square(deviation: Float[np.ndarray, "..."], freedom: int) -> float:
        squares = float((np.broadcast_to(deviation, ratings.shape) ** 2).sum())
        return squares / freedom if squares > _ROUNDING * total else 0.0

    between = mean_square(of_subject, n - 1)
    raters = mean_square(of_rater, k - 1)
    error = mean_square(ratings - grand - of_subject - of_rater, (n - 1) * (k - 1))
    within = mean_square(ratings - grand - of_subject, n * (k - 1))
    if form == "ICC(2,1)":
        return _absolute_agreement(between, raters, error, n, k)
    noise, freedom = (within, n * (k - 1)) if form == "ICC(1,1)" else (error, (n - 1) * (k - 1))
    value = (between - noise) / (between + (k - 1) * noise)
    if noise == 0:
        return Estimate(value, value, value)
    ratio = between / noise
    low = ratio / float(stats.f.ppf(_TAILS[1], n - 1, freedom))
    high = ratio * float(stats.f.ppf(_TAILS[1], freedom, n - 1))
    return Estimate(value, (low - 1) / (low + k - 1), (high - 1) / (high + k - 1))


def _absolute_agreement(between: float, raters: float, error: float, n: int, k: int) -> Estimate:
    """ICC(2,1) of mean squares, with the interval of McGraw & Wong."""
    value = (between - error) / (between + (k - 1) * error + k * (raters - error) / n)
    if error == 0 and raters == 0:
        return Estimate(value, value, value)
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    freedom = (a * raters + b * error) ** 2 / (
        (a * raters) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    below = float(stats.f.ppf(_TAILS[1], n - 1, freedom))
    above = float(stats.f.ppf(_TAILS[1], freedom, n - 1))
    noise = k * raters + (k * n - k - n) * error
    low = n * (between - below * error) / (below * noise + n * between)
    high = n * (above * between - error) / (noise + n * above * between)
    return Estimate(value, low, high)


def within_subject(repeats: Float[np.ndarray, "subject repeat"]) -> WithinSubject:
    """Within-subject standard deviation, repeatability coefficient and coefficient of variation.

    The interval is that of a variance with one degree of freedom for every repeat after the first.

    Raises
    ------
    InvalidInputError
        Under three subjects or two repeats, or with a value that is no number.

    References
    ----------
    Bland & Altman 1996, BMJ 313:744, doi:10.1136/bmj.313.7059.744 and 313:106, doi:10.1136/bmj.313.7049.106
    """
    _check(*repeats.T)
    n, k = repeats.shape
    variances, freedom = repeats.var(1, ddof=1), n * (k - 1)
    sd = math.sqrt(float(variances.mean()))
    least, most = (sd * math.sqrt(freedom / float(stats.chi2.ppf(tail, freedom))) for tail in _TAILS[::-1])
    factor = Z95 * math.sqrt(2)
    return WithinSubject(
        n=n,
        sd=Estimate(sd, least, most),
        repeatability_coefficient=Estimate(factor * sd, factor * least, factor * most),
        coefficient_of_variation=math.sqrt(float((variances / repeats.mean(1) ** 2).mean())),
    )


def least_squares(reference: Float[np.ndarray, " scan"], tested: Float[np.ndarray, " scan"]) -> Line | None:
    """Ordinary regression of the tested on the reference, which counts as free of error; None if constant.

    Raises
    ------
    InvalidInputError
        Under three pairs, or with a value that is no number.
    """
    _check(reference, tested)
    if np.ptp(reference) == 0:
        return None
    fit = stats.linregress(reference, tested)
    t = float(stats.t.ppf(_TAILS[1], len(reference) - 2))

    def around(value: float, standard_error: float) -> Estimate:
        return Estimate(float(value), float(value - t * standard_error), float(value + t * standard_error))

    return Line(around(fit.slope, fit.stderr), around(fit.intercept, fit.intercept_stderr))


def deming(reference: Float[np.ndarray, " scan"], tested: Float[np.ndarray, " scan"]) -> Line | None:
    """Deming regression with equal error in both measurements; None where they do not vary together.

    The line to look for a proportional bias with: ordinary regression bends towards zero slope where the
    reference is measured with error too. Intervals are those of the jackknife.

    Raises
    ------
    InvalidInputError
        Under three pairs, or with a value that is no number.

    References
    ----------
    Linnet 1990, Stat Med 9:1463, doi:10.1002/sim.4780091210
    """
    _check(reference, tested)
    n = len(reference)
    x, y = reference - reference.mean(), tested - tested.mean()
    without = n / (n - 1)  # of a sum of squares about the mean, what leaving a point out takes away
    xx, yy, xy = (
        np.append(total, total - without * parts)
        for parts, total in ((part, part.sum()) for part in (x * x, y * y, x * y))
    )
    if bool((xy == 0).any()):
        return None
    slopes = (yy - xx + np.hypot(yy - xx, 2 * xy)) / (2 * xy)
    x_means, y_means = (
        np.append(values.mean(), values.mean() - about / (n - 1))
        for values, about in ((reference, x), (tested, y))
    )
    t = float(stats.t.ppf(_TAILS[1], n - 2))
    estimates = []
    for found in (slopes, y_means - slopes * x_means):
        value, left_out = float(found[0]), found[1:]
        error = float((n * value - (n - 1) * left_out).std(ddof=1)) / math.sqrt(n)
        estimates.append(Estimate(value, value - t * error, value + t * error))
    return Line(*estimates)


def _check(*columns: Float[np.ndarray, " scan"]) -> None:
    """Refuse what has no statistics."""
    if len(columns) < 2 or len(columns[0]) < 3:
        message = (
            f"agreement needs two measurements of three scans, found {len(columns)} of {len(columns[0])}"
        )
        raise InvalidInputError(message)
    if not all(np.isfinite(column).all() for column in columns):
        message = "agreement of a value that is no number; leave such scans out, and count them"
        raise InvalidInputError(message)
