"""Extracellular volume fraction from native and post-contrast T1."""

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.errors import InvalidInputError

_COEFFICIENT_MAX = 2.0


def partition_coefficient(
    t1_native_ms: Float[Tensor, "*space"],
    t1_post_ms: Float[Tensor, "*space"],
    blood_t1_native_ms: float,
    blood_t1_post_ms: float,
) -> Float[Tensor, "*space"]:
    r"""Partition coefficient of gadolinium between myocardium and blood.

    .. math:: \lambda = \Delta R_{1,myo} / \Delta R_{1,blood}, \ \Delta R_1 = 1/T_1^{post} - 1/T_1^{native}

    Parameters
    ----------
    t1_native_ms, t1_post_ms
        Myocardial T1 [ms] on the same pixels.
    blood_t1_native_ms, blood_t1_post_ms
        T1 of the blood pool [ms].

    Returns
    -------
        NaN where a T1 is missing or not positive, where the coefficient lies outside 0 to 2 (an ECV of 1 at a
        hematocrit of 0.5), and everywhere if the blood's T1 did not shorten.
    """
    delta_r1_blood = _rate(torch.tensor(blood_t1_post_ms)) - _rate(torch.tensor(blood_t1_native_ms))
    if not delta_r1_blood > 0:
        return torch.full_like(t1_native_ms, torch.nan)
    coefficient = (_rate(t1_post_ms) - _rate(t1_native_ms)) / delta_r1_blood.item()
    return _within(coefficient, _COEFFICIENT_MAX)


def ecv_map(
    t1_native_ms: Float[Tensor, "*space"],
    t1_post_ms: Float[Tensor, "*space"],
    blood_t1_native_ms: float,
    blood_t1_post_ms: float,
    hematocrit_fraction: float,
) -> Float[Tensor, "*space"]:
    r"""Extracellular volume fraction, 0-1.

    .. math:: ECV = (1 - Hct) \lambda

    with the partition coefficient of `partition_coefficient`, NaN where that is and outside 0-1: a misfit
    pixel left in a mean can be thousands of times its neighbors, and clipped it would be taken for tissue.

    Raises
    ------
    InvalidInputError
        If the hematocrit is not a fraction between 0 and 1.

    References
    ----------
    Arheden et al. 1999, Radiology 211:698, doi:10.1148/radiology.211.3.r99jn41698
    """
    if not 0 <= hematocrit_fraction <= 1:
        raise InvalidInputError(f"hematocrit {hematocrit_fraction:g}: expected a fraction, 0-1")
    coefficient = partition_coefficient(t1_native_ms, t1_post_ms, blood_t1_native_ms, blood_t1_post_ms)
    return _within((1 - hematocrit_fraction) * coefficient, 1.0)


def _within(values: Float[Tensor, "*space"], highest: float) -> Float[Tensor, "*space"]:
    """Leave out what lies below 0 or above the highest value."""
    return torch.where((values >= 0) & (values <= highest), values, torch.nan)


def _rate(t1_ms: Float[Tensor, "*space"]) -> Float[Tensor, "*space"]:
    """R1 [1/ms], NaN where T1 is not positive."""
    return torch.where(t1_ms > 0, 1 / t1_ms, torch.nan)
