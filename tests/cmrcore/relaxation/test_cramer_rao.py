"""The spread of T1 against the least that any unbiased estimator can reach."""

import pytest
import torch
from torch import Tensor

from cmrcore.relaxation import FitStatus, T1Fit, fit_t1, look_locker_t1, molli_signal
from tests.cmrcore.relaxation.test_exactness import TI_MS

T1_MS = (300.0, 500.0, 800.0, 1200.0, 1600.0, 2000.0)
SNR = (30.0, 50.0, 100.0)
RATIO = 1.95
N_CURVES = 10_000
LEAST_HALF_DISTANCE = 2.5
AMBIGUOUS = ("5(3)3", 300.0, 100.0)
"""The only case without a sample near the null whose polarity is not certain all the same."""


def _bound_ms(t1_ms: float, ti_ms: list[float], snr: float) -> float:
    """Least standard deviation of T1 [ms], by automatic differentiation of the model."""
    times = torch.tensor(ti_ms, dtype=torch.float64)
    p = torch.tensor([1.0, RATIO, t1_ms / (RATIO - 1)], dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda q: molli_signal(times, q[0], q[1], q[2]))(p)
    gradient = torch.func.jacrev(lambda q: look_locker_t1(q[0], q[1], q[2]))(p)
    return float((gradient @ torch.linalg.inv(jacobian.T @ jacobian) @ gradient).sqrt()) / snr


def _clean(t1_ms: float, ti_ms: list[float]) -> Tensor:
    """Signed recovery with A = 1 and B/A = RATIO."""
    one = torch.ones((), dtype=torch.float64)
    times = torch.tensor(ti_ms, dtype=torch.float64)
    return molli_signal(times, one, RATIO * one, t1_ms / (RATIO - 1) * one)


def _curve(fit: T1Fit, ti_ms: list[float]) -> Tensor:
    """Signed curves of a fit at the times."""
    return molli_signal(torch.tensor(ti_ms, dtype=torch.float64), fit.a, fit.b, fit.t1_star_ms)


def _half_distance(t1_ms: float, ti_ms: list[float]) -> float:
    """Half the distance [a.u.] from the clean magnitudes to the nearest curve of another polarity.

    In noise SD it is how far noise must go for another polarity to fit better. A sample's own distance to
    the null, times (1 - its leverage)^(1/2): a sample that the curve follows anywhere tells no polarity.
    """
    order = sorted(range(len(ti_ms)), key=ti_ms.__getitem__)
    clean = _clean(t1_ms, ti_ms)
    distance = float("inf")
    for n_negative in range(len(ti_ms) + 1):
        turned = clean.abs()
        turned[order[:n_negative]] *= -1
        fit = fit_t1(turned, ti_ms, model="molli-signed")
        if n_negative != int((clean < 0).sum()) and fit.status == FitStatus.OK:
            distance = min(distance, float((turned - _curve(fit, ti_ms)).norm()))
    return distance / 2


@pytest.mark.parametrize("scheme", TI_MS)
def test_spread_is_within_three_percent_of_the_bound(scheme: str) -> None:
    """Signed curves always; magnitudes where no inversion time lies within 3 noise SD of the null.

    Nearer, magnitudes are not Gaussian, and the ratio goes up to 1.29. One case further away is ambiguous
    all the same, and has a test of its own below.
    """
    ti_ms = TI_MS[scheme]
    generator = torch.Generator().manual_seed(5)
    for t1_ms in T1_MS:
        clean, half_distance = _clean(t1_ms, ti_ms), _half_distance(t1_ms, ti_ms)
        for snr in SNR:
            noise = torch.randn(2, len(ti_ms), N_CURVES, generator=generator, dtype=torch.float64) / snr
            bound_ms = _bound_ms(t1_ms, ti_ms, snr)
            real = clean[:, None] + noise[0]
            signed = fit_t1(real, ti_ms, model="molli-signed")
            assert (signed.status == 0).all()
            assert signed.t1_ms.std().item() == pytest.approx(bound_ms, rel=0.03)
            assert signed.t1_sd_ms.square().mean().sqrt().item() == pytest.approx(bound_ms, rel=0.05)
            gap = float(clean.abs().min()) * snr
            is_ambiguous = half_distance * snr < LEAST_HALF_DISTANCE
            assert (gap > 3 and is_ambiguous) == ((scheme, t1_ms, snr) == AMBIGUOUS)
            if gap > 3 and not is_ambiguous:
                magnitude = fit_t1(torch.hypot(real, noise[1]), ti_ms)
                assert (magnitude.status == 0).all()
                assert magnitude.t1_ms.std().item() == pytest.approx(bound_ms, rel=0.03)


def test_the_case_above_the_bound_is_an_ambiguous_polarity() -> None:
    """5(3)3, T1 300 ms, SNR 100: 1.09 times the bound, though the nearest sample is 3.5 SD from the null.

    The samples at 120 and 200 ms alone tell of so short a T1, so the curve follows either sign of the second:
    another polarity is 1.9 SD away, and in 1 % of the curves it fits better than the true one. Those have a
    T1 4 bounds too low, which is the whole excess. Neither the search is to blame (the residual is the
    least), nor Rician noise (Gaussian noise without its sign gives the same): the sign is not in magnitudes.
    """
    scheme, t1_ms, snr = AMBIGUOUS
    ti_ms = TI_MS[scheme]
    clean, bound_ms = _clean(t1_ms, ti_ms), _bound_ms(t1_ms, ti_ms, snr)
    generator = torch.Generator().manual_seed(11)
    noise = torch.randn(2, len(ti_ms), 3 * N_CURVES, generator=generator, dtype=torch.float64) / snr
    real = clean[:, None] + noise[0]
    magnitudes = torch.hypot(real, noise[1])
    fit, gaussian = fit_t1(magnitudes, ti_ms), fit_t1(real.abs(), ti_ms)
    is_wrong = ((_curve(fit, ti_ms) < 0) != (clean < 0)[:, None]).any(0)
    assert fit.t1_ms.std().item() == pytest.approx(1.09 * bound_ms, rel=0.02)
    assert gaussian.t1_ms.std().item() == pytest.approx(fit.t1_ms.std().item(), rel=0.02)
    assert 0.008 < is_wrong.double().mean() < 0.016
    assert fit.t1_ms[~is_wrong].std().item() == pytest.approx(bound_ms, rel=0.03)
    assert fit.t1_ms[is_wrong].mean() < t1_ms - 3 * bound_ms

    wrong = magnitudes[:, is_wrong]
    true = fit_t1(torch.where(clean[:, None] < 0, -wrong, wrong), ti_ms, model="molli-signed")
    found_residual = (wrong - _curve(fit, ti_ms)[:, is_wrong].abs()).square().sum(0)
    true_residual = (wrong - _curve(true, ti_ms).abs()).square().sum(0)
    assert (true.status == FitStatus.OK).all()
    assert (found_residual < true_residual).all()
