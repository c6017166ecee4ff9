"""Repeatability: stated, or from drawn test-retest visits of known scatter."""

import numpy as np
import pytest
from scipy import stats

from cmrcore.quantify.regions import GLOBAL, SEPTAL, Region, RegionalValues
from cmrcore.quantify.repeatability import Coefficient, computed_coefficients

MID: Region = ("mid", 8)


def retests(n_pairs: int, t1_sd_ms: float, ecv_sd: float) -> list[tuple[RegionalValues, RegionalValues]]:
    """Draw pairs of visits whose values scatter by these within-subject standard deviations."""
    rng = np.random.default_rng(3)

    def visit(t1_ms: float, ecv: float) -> RegionalValues:
        return {
            region: {
                "t1_native_ms": float(t1_ms + rng.normal(0, t1_sd_ms)),
                "ecv_fraction": float(ecv + rng.normal(0, ecv_sd)),
            }
            for region in (GLOBAL, MID)
        }

    truth = [(rng.normal(1000, 60), rng.normal(0.4, 0.1)) for _ in range(n_pairs)]
    return [(visit(*one), visit(*one)) for one in truth]


def test_computed_coefficients_are_those_of_the_scatter() -> None:
    """1.96 * sqrt(2) * within-subject SD, with the number of pairs."""
    found = computed_coefficients(retests(2000, 12.0, 0.015), 10)
    for region in (GLOBAL, MID):
        for name, sd in (("t1_native_ms", 12.0), ("ecv_fraction", 0.015)):
            assert found[name, region].value == pytest.approx(1.96 * np.sqrt(2) * sd, rel=0.05)
            assert found[name, region].n_pairs == 2000


def test_too_few_pairs_give_no_coefficient() -> None:
    """What the trial states holds there; pairs without a value do not count."""
    pairs = retests(10, 12.0, 0.015)
    assert len(computed_coefficients(pairs, 10)) == 4
    assert computed_coefficients(pairs, 11) == {}
    first, second = pairs[0]
    pairs[0] = (first, {**second, GLOBAL: {"t1_native_ms": 1000.0, "ecv_fraction": None}})
    found = computed_coefficients(pairs, 10)
    assert ("ecv_fraction", GLOBAL) not in found
    assert found["t1_native_ms", GLOBAL].n_pairs == 10
    pairs[1] = (pairs[1][0], {GLOBAL: first[GLOBAL]})
    assert ("t1_native_ms", MID) not in computed_coefficients(pairs, 10)


def test_visits_that_are_the_same_have_no_repeatability() -> None:
    """A visit that was copied says nothing about repeated measurements."""
    same: RegionalValues = {SEPTAL: {"t1_native_ms": 1000.0, "ecv_fraction": 0.4}}
    assert computed_coefficients([(same, same)] * 5, 3) == {}


def test_a_change_of_the_coefficient_has_a_p_value_of_a_twentieth() -> None:
    """Of a stated coefficient; one from few pairs leaves more to chance."""
    assert Coefficient(0.05, None).p_value(-0.05) == pytest.approx(0.05, abs=1e-3)
    assert Coefficient(0.05, 10).p_value(0.05) == pytest.approx(2 * stats.t.sf(1.96, 10))


def test_few_pairs_do_not_make_too_many_changes() -> None:
    """With the SD from ten pairs, five of 100 unchanged visits have a p-value under 0.05."""
    rng = np.random.default_rng(11)
    p_values = [
        Coefficient(1.96 * np.sqrt(np.mean(rng.normal(0, 1, 10) ** 2)), 10).p_value(float(rng.normal(0, 1)))
        for _ in range(600)
    ]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.025)
