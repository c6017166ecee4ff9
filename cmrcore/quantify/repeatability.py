"""How much an unchanged heart's numbers differ between two visits: stated, or from test-retest visits."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import special

from cmrcore.quantify.agreement import Z95, within_subject
from cmrcore.quantify.regions import GLOBAL, LEVELS, SEPTAL, Region, RegionalValues, segment_region

CHANGES = ("t1_native_ms", "ecv_fraction")
"""Quantities whose change is held against their repeatability."""


@dataclass(frozen=True, slots=True)
class Coefficient:
    """Repeatability coefficient of one quantity in one region."""

    value: float
    """1.96 * sqrt(2) * within-subject standard deviation, in the unit of the quantity."""
    n_pairs: int | None
    """Test-retest pairs it was computed from; None where it is stated."""

    def p_value(self, change: float) -> float:
        """Two-sided p-value of a change under no true change; Student's t where few pairs gave the SD."""
        below = -abs(change) / (self.value / Z95)
        tail = special.ndtr(below) if self.n_pairs is None else special.stdtr(self.n_pairs, below)
        return float(2 * tail)


Coefficients = dict[tuple[str, Region], Coefficient]
"""Coefficient of each of `CHANGES` in each region."""


@dataclass(frozen=True, slots=True)
class StatedRepeatability:
    """Repeatability coefficients that a trial states beforehand."""

    t1_native_global_ms: float
    """Native T1 of the whole myocardium [ms]."""
    t1_native_septal_ms: float
    """Native T1 of the septum [ms]."""
    t1_native_levels_ms: tuple[float, ...]
    """Native T1 of the basal, mid and apical level [ms]."""
    t1_native_segments_ms: tuple[float, ...]
    """Native T1 of AHA segments 1 to 16 [ms]."""
    ecv_global_fraction: float
    """ECV of the whole myocardium, 0-1."""
    ecv_septal_fraction: float
    """ECV of the septum, 0-1."""
    ecv_levels_fraction: tuple[float, ...]
    """ECV of the basal, mid and apical level, 0-1."""
    ecv_segments_fraction: tuple[float, ...]
    """ECV of AHA segments 1 to 16, 0-1."""

    def coefficients(self) -> Coefficients:
        """Coefficient of each quantity and region."""
        regions = [GLOBAL, SEPTAL, *((level, None) for level in LEVELS), *map(segment_region, range(1, 17))]
        t1_ms = (self.t1_native_global_ms, self.t1_native_septal_ms)
        ecv = (self.ecv_global_fraction, self.ecv_septal_fraction)
        stated = {
            "t1_native_ms": (*t1_ms, *self.t1_native_levels_ms, *self.t1_native_segments_ms),
            "ecv_fraction": (*ecv, *self.ecv_levels_fraction, *self.ecv_segments_fraction),
        }
        return {
            (name, region): Coefficient(value, None)
            for name, values in stated.items()
            for region, value in zip(regions, values, strict=True)
        }


def computed_coefficients(
    retests: Sequence[tuple[RegionalValues, RegionalValues]], pairs_min: int
) -> Coefficients:
    """Repeatability coefficients from visits between which nothing changed.

    Parameters
    ----------
    retests
        Values of both visits of each pair; pairs without a value in a region are left out there.
    pairs_min
        Pairs that a coefficient needs, at least three; where there are fewer, there is none.
    """
    regions = sorted({region for pair in retests for region in pair[0]}, key=str)
    coefficients: Coefficients = {}
    for name, region in product(CHANGES, regions):
        both = [
            (first, second)
            for one, other in retests
            if (first := one.get(region, {}).get(name)) is not None
            and (second := other.get(region, {}).get(name)) is not None
        ]
        if len(both) >= max(pairs_min, 3):
            value = within_subject(np.array(both)).repeatability_coefficient.value
            if value > 0:
                coefficients[name, region] = Coefficient(value, len(both))
    return coefficients
