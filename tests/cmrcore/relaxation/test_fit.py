"""The T1 fit against known curves and brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.relaxation import FitStatus, fit_t1, molli_signal

TI_MS = {
    "5(3)3": [120.0, 1020.0, 1920.0, 2820.0, 3720.0, 200.0, 1100.0, 2000.0],
    "4(1)3(1)2": [120.0, 1020.0, 1920.0, 2820.0, 200.0, 1100.0, 2000.0, 280.0, 1180.0],
    "3(3)3(3)5": [120.0, 1020.0, 1920.0, 200.0, 1100.0, 2000.0, 280.0, 1180.0, 2080.0, 2980.0, 3880.0],
}
SCHEMES = pytest.mark.parametrize("ti_ms", TI_MS.values(), ids=TI_MS.keys())


def noise_free(
    t1_ms: Float[Tensor, "*space"], ti_ms: list[float], ratio: float = 1.95, a: float = 300.0
) -> Float[Tensor, "ti *space"]:
    """Signed recoveries with B/A = ratio whose corrected T1 is given."""
    amplitude = torch.full_like(t1_ms, a)
    return molli_signal(
        torch.tensor(ti_ms, dtype=torch.float64), amplitude, ratio * amplitude, t1_ms / (ratio - 1)
    )


@SCHEMES
@pytest.mark.parametrize("ratio", [1.7, 1.95, 2.2])
def test_magnitudes_without_noise_give_back_t1(ti_ms: list[float], ratio: float) -> None:
    """Polarity is lost in magnitudes, T1 from 100 to 3000 ms is not."""
    t1_ms = torch.linspace(100, 3000, 581, dtype=torch.float64)
    fit = fit_t1(noise_free(t1_ms, ti_ms, ratio).abs(), ti_ms)
    assert (fit.status == FitStatus.OK).all()
    assert (fit.t1_ms - t1_ms).abs().max() < 0.01
    assert (fit.r_squared > 1 - 1e-9).all()


@SCHEMES
def test_single_precision_is_enough(ti_ms: list[float]) -> None:
    """Images are stored as float32, which must not cost accuracy."""
    t1_ms = torch.linspace(100, 3000, 581, dtype=torch.float64)
    fit = fit_t1(noise_free(t1_ms, ti_ms).abs().to(torch.float32), ti_ms)
    assert fit.t1_ms.dtype == torch.float32
    assert (fit.t1_ms - t1_ms).abs().max() < 0.01


def test_signed_and_magnitude_fits_agree_without_noise() -> None:
    """The ideal of the digital trial uses signed data, the pipeline magnitudes."""
    t1_ms = torch.linspace(200, 2500, 50, dtype=torch.float64)
    signal = noise_free(t1_ms, TI_MS["5(3)3"])
    signed = fit_t1(signal, TI_MS["5(3)3"], model="molli-signed")
    magnitude = fit_t1(signal.abs(), TI_MS["5(3)3"])
    torch.testing.assert_close(signed.t1_ms, magnitude.t1_ms, atol=1e-6, rtol=0)


def noisy_curves(ti_ms: list[float], n: int, snr: float, seed: int) -> Float[Tensor, "ti pixel"]:
    """Rician magnitudes over the physiological range of T1."""
    generator = torch.Generator().manual_seed(seed)
    t1_ms = 200 + 1800 * torch.rand(n, generator=generator, dtype=torch.float64)
    signal = noise_free(t1_ms, ti_ms)
    real, imaginary = (
        torch.randn(signal.shape, generator=generator, dtype=torch.float64) * 300 / snr for _ in range(2)
    )
    return torch.hypot(signal + real, imaginary)


@SCHEMES
@pytest.mark.parametrize("snr", [10.0, 40.0])
def test_no_polarity_fits_better(ti_ms: list[float], snr: float) -> None:
    """The search is exact: brute force over every number of negative samples finds no smaller residual."""
    magnitude = noisy_curves(ti_ms, 2000, snr, seed=1)
    fit = fit_t1(magnitude, ti_ms)
    order = np.argsort(ti_ms)
    best = torch.full((2000,), torch.inf, dtype=torch.float64)
    for n_negative in range(len(ti_ms) + 1):
        signed = magnitude.clone()
        signed[order[:n_negative]] *= -1
        other = fit_t1(signed, ti_ms, model="molli-signed")
        best = torch.fmin(best, _residual(magnitude, ti_ms, other.a, other.b, other.t1_star_ms))
    ok = fit.status == FitStatus.OK
    ours = _residual(magnitude, ti_ms, fit.a, fit.b, fit.t1_star_ms)
    assert ok.float().mean() > 0.8
    assert (ours[ok] <= best[ok] * (1 + 1e-6)).all()


def _residual(
    magnitude: Tensor, ti_ms: list[float], a: Tensor, b: Tensor, t1_star_ms: Tensor
) -> Float[Tensor, " pixel"]:
    """Sum of squared differences between magnitudes and the magnitude of the fitted curve."""
    fitted = molli_signal(torch.tensor(ti_ms, dtype=torch.float64), a, b, t1_star_ms)
    return (magnitude - fitted.abs()).square().sum(0)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e5), seed=st.integers(0, 1000))
def test_scaling_and_permuting_leave_t1_alone(scale: float, seed: int) -> None:
    """T1 knows neither the receiver's gain nor the order of images and pixels."""
    ti_ms = TI_MS["3(3)3(3)5"]
    curves = noisy_curves(ti_ms, 30, snr=30, seed=4)
    fit = fit_t1(curves, ti_ms)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randperm(len(ti_ms), generator=generator)
    pixels = torch.randperm(30, generator=generator)
    other = fit_t1(scale * curves[images][:, pixels], [ti_ms[i] for i in images.tolist()])
    torch.testing.assert_close(other.t1_ms, fit.t1_ms[pixels], rtol=1e-6, atol=0, equal_nan=True)


def test_r_squared_of_magnitudes_sees_what_signed_hides() -> None:
    """Wrong late echoes lower the magnitude R2 of a post-contrast curve, and hardly the signed one."""
    ti_ms = TI_MS["4(1)3(1)2"]
    curve = noise_free(torch.tensor([450.0], dtype=torch.float64), ti_ms).abs()
    curve[[1, 5]] *= 0.6
    fit = fit_t1(curve, ti_ms)
    assert fit.r_squared.item() < 0.95 < fit.r_squared_signed.item()


def test_mask_selects_what_is_fitted() -> None:
    """Pixels outside the mask cost nothing and say so."""
    signal = noise_free(torch.full((4, 5), 1000.0, dtype=torch.float64), TI_MS["5(3)3"]).abs()
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[1, 2:4] = True
    fit = fit_t1(signal, TI_MS["5(3)3"], mask=mask)
    assert ((fit.status == FitStatus.NOT_FITTED) == ~mask).all()
    assert (torch.isnan(fit.t1_ms) == ~mask).all()
    torch.testing.assert_close(fit.t1_ms[mask], torch.full((2,), 1000.0, dtype=torch.float64))


CURVES_THAT_WILL_NOT_FIT = {
    "air": ([0.0] * 8, FitStatus.NO_SIGNAL),
    "constant": ([0.1] * 8, FitStatus.NO_SIGNAL),
    "nothing finite": ([float("nan")] * 8, FitStatus.NO_SIGNAL),
    "not a number": ([1.0, 2.0, float("nan"), 4.0, 5.0, 6.0, 7.0, 8.0], FitStatus.TOO_FEW_SAMPLES),
    "infinite": ([1.0, 2.0, float("inf"), 4.0, 5.0, 6.0, 7.0, 8.0], FitStatus.TOO_FEW_SAMPLES),
}


@pytest.mark.parametrize(
    ("samples", "status"), CURVES_THAT_WILL_NOT_FIT.values(), ids=CURVES_THAT_WILL_NOT_FIT.keys()
)
def test_a_pixel_that_will_not_fit_is_nan_with_a_status(samples: list[float], status: FitStatus) -> None:
    """A failed pixel never becomes zero, and its neighbor is fitted."""
    signal = torch.tensor(samples, dtype=torch.float64)
    good = noise_free(torch.tensor([900.0], dtype=torch.float64), TI_MS["5(3)3"]).abs()
    fit = fit_t1(torch.cat([signal[:, None], good], dim=1), TI_MS["5(3)3"])
    assert fit.status.tolist() == [status, FitStatus.OK]
    assert fit.n_samples.tolist() == [0, 8]
    for image in (fit.t1_ms, fit.t1_star_ms, fit.a, fit.b, fit.r_squared, fit.r_squared_signed, fit.t1_sd_ms):
        assert torch.isnan(image).tolist() == [True, False]


def test_a_decay_is_not_an_inversion() -> None:
    """Signal that falls with TI has B < 0, whose T1 would be negative."""
    ti_ms = TI_MS["5(3)3"]
    decay = torch.exp(-torch.tensor(ti_ms, dtype=torch.float64) / 800) + 1
    fit = fit_t1(decay, ti_ms, model="molli-signed")
    assert fit.status == FitStatus.NOT_AN_INVERSION
    assert torch.isnan(fit.t1_ms)


def test_a_recovery_slower_than_the_search_is_at_bound() -> None:
    """A signed line through zero wants an endless T1*: the end of the search is no measurement."""
    ti_ms = TI_MS["5(3)3"]
    line = torch.tensor(ti_ms, dtype=torch.float64) - 2000
    fit = fit_t1(line, ti_ms, model="molli-signed")
    assert fit.status == FitStatus.AT_BOUND
    assert torch.isnan(fit.t1_ms)


def test_one_voxel_is_enough() -> None:
    """Space may be empty: blood is a single curve."""
    fit = fit_t1(noise_free(torch.tensor(1600.0, dtype=torch.float64), TI_MS["5(3)3"]).abs(), TI_MS["5(3)3"])
    assert fit.t1_ms.shape == ()
    assert fit.t1_ms.item() == pytest.approx(1600, abs=0.01)


def test_unknown_model_names_the_known_ones() -> None:
    """The message tells what can be asked for."""
    with pytest.raises(InvalidInputError, match=r"'look-locker'.*'molli', 'molli-signed'.*'shmolli'"):
        fit_t1(torch.ones(8, 2), TI_MS["5(3)3"], model="look-locker")


def test_wrong_number_of_times_is_refused() -> None:
    """Every image needs its own inversion time."""
    with pytest.raises(InvalidInputError, match="8 inversion times for 9 images"):
        fit_t1(torch.ones(9, 2), TI_MS["5(3)3"])


def test_three_different_times_are_refused() -> None:
    """Three parameters cannot be checked against three samples."""
    with pytest.raises(InvalidInputError, match="3 different inversion times"):
        fit_t1(torch.ones(4, 2), [100.0, 900.0, 900.0, 1800.0])


@pytest.mark.parametrize("time_ms", [float("nan"), float("inf"), -5.0, 0.0])
def test_impossible_times_are_refused(time_ms: float) -> None:
    """A vendor's placeholder for "none" must not enter the fit."""
    with pytest.raises(InvalidInputError, match="finite and above 0 ms"):
        fit_t1(torch.ones(5, 2), [100.0, 900.0, 1700.0, 2500.0, time_ms])


def test_negative_magnitudes_are_refused() -> None:
    """Signed data in the magnitude model is a mistake of the caller."""
    with pytest.raises(InvalidInputError, match="use 'molli-signed'"):
        fit_t1(-torch.ones(8, 2), TI_MS["5(3)3"])
