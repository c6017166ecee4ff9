"""Every recovery model: recovery without noise, bounds, statuses and refusals."""

import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.relaxation import FitStatus, fit_t1
from cmrcore.relaxation.fit import MODELS

TI_MS = [120.0, 1020.0, 1920.0, 2820.0, 3720.0, 200.0, 1100.0, 2000.0]
SHMOLLI_TI_MS = [100.0, 1100.0, 2100.0, 3100.0, 4100.0, 180.0, 260.0]
TS_MS = [100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0, 10_000.0]

CURVES = {
    "molli": (TI_MS, 1.9, 0.9),
    "ir-3p": (TI_MS, 1.9, 1.0),
    "ir-2p": (TI_MS, 2.0, 1.0),
    "saturation-3p": (TS_MS, 0.93, 1.0),
    "saturation-2p": (TS_MS, 1.0, 1.0),
}
"""Times, B/A, and T1 as a multiple of T1*."""


def test_the_contract_names_every_model() -> None:
    """Names that trial.toml and callers may use."""
    assert set(MODELS) == {
        *("molli", "molli-signed", "ir-2p", "ir-2p-signed", "ir-3p", "ir-3p-signed"),
        *("shmolli", "saturation-2p", "saturation-3p"),
    }


@pytest.mark.parametrize("model", [name for name in MODELS if name != "shmolli"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_curves_without_noise_give_back_t1(model: str, dtype: torch.dtype) -> None:
    """T1 from 100 to 3000 ms to 0.01 ms, and the amplitudes with it."""
    times_ms, ratio, correction = CURVES[model.removesuffix("-signed")]
    t1_ms = torch.linspace(100, 3000, 291, dtype=torch.float64)
    times = torch.tensor(times_ms, dtype=torch.float64)
    signal = 300 * (1 - ratio * torch.exp(-times[:, None] * correction / t1_ms))
    if not model.endswith("-signed"):
        signal = signal.abs()
    fit = fit_t1(signal.to(dtype), times_ms, model=model)
    assert (fit.status == FitStatus.OK).all()
    assert (fit.t1_ms - t1_ms).abs().max() < 0.01
    assert (fit.b / fit.a - ratio).abs().max() < 1e-4
    assert (fit.a - 300).abs().max() < 0.01
    assert (fit.n_samples == len(times_ms)).all()


def test_plain_inversion_recovery_is_not_corrected() -> None:
    """The same curve has another T1 when its read-outs drove it."""
    times = torch.tensor(TI_MS, dtype=torch.float64)
    signal = (1 - 1.9 * torch.exp(-times / 1000)).abs()
    assert fit_t1(signal, TI_MS, model="ir-3p").t1_ms.item() == pytest.approx(1000, abs=0.01)
    assert fit_t1(signal, TI_MS, model="molli").t1_ms.item() == pytest.approx(900, abs=0.01)


@pytest.mark.parametrize("model", ["molli", "ir-3p", "ir-2p"])
@pytest.mark.parametrize("snr", [8.0, 40.0])
def test_no_polarity_fits_better(model: str, snr: float) -> None:
    """The search over polarities is exact for each model: the signed fit of none has a smaller residual."""
    generator = torch.Generator().manual_seed(1)
    t1_ms = 100 + 2400 * torch.rand(1500, generator=generator, dtype=torch.float64)
    times = torch.tensor(sorted(TI_MS), dtype=torch.float64)
    noise = torch.randn(2, len(times), 1500, generator=generator, dtype=torch.float64) / snr
    magnitude = torch.hypot(1 - 1.95 * torch.exp(-times[:, None] / t1_ms) + noise[0], noise[1])
    fit = fit_t1(magnitude, times, model=model)

    def residual(a: torch.Tensor, b: torch.Tensor, t_ms: torch.Tensor) -> torch.Tensor:
        return (magnitude - (a - b * torch.exp(-times[:, None] / t_ms)).abs()).square().sum(0)

    ours = residual(fit.a, fit.b, fit.t1_star_ms)
    ok = fit.status == FitStatus.OK
    assert ok.double().mean() > 0.9
    for n_negative in range(len(times) + 1):
        signed = torch.where(torch.arange(len(times))[:, None] < n_negative, -magnitude, magnitude)
        other = fit_t1(signed, times, model=f"{model}-signed")
        both = ok & (other.status == FitStatus.OK)
        theirs = residual(other.a, other.b, other.t1_star_ms)
        assert (ours[both] <= theirs[both] * (1 + 1e-6)).all()


@pytest.mark.parametrize("model", ["saturation-2p", "saturation-3p"])
def test_falling_signal_is_no_saturation_recovery(model: str) -> None:
    """A decay has no T1, and says so."""
    decay = torch.exp(-torch.tensor(TS_MS, dtype=torch.float64) / 400) - 2
    fit = fit_t1(decay, TS_MS, model=model)
    assert fit.status == FitStatus.NO_SUCH_CURVE
    assert torch.isnan(fit.t1_ms)


def test_two_parameters_need_three_times() -> None:
    """A residual needs one sample more than parameters; the same time twice is one time."""
    with pytest.raises(InvalidInputError, match="2 different inversion times, the 2-parameter fit needs"):
        fit_t1(torch.ones(3, 2), [100.0, 900.0, 900.0], model="ir-2p")
    assert fit_t1(torch.rand(3, 2), [100.0, 900.0, 1900.0], model="ir-2p").t1_ms.shape == (2,)


def test_an_image_without_a_finite_sample_is_refused() -> None:
    """A lost echo is an error of the whole fit, and the message tells which."""
    signal = torch.rand(8, 5)
    signal[3] = torch.nan
    with pytest.raises(InvalidInputError, match="no finite sample in image 3 of 8"):
        fit_t1(signal, TI_MS)


@pytest.mark.parametrize(
    ("signal", "mask", "message"),
    [
        (torch.ones(8, 4, dtype=torch.int16), None, "floating point"),
        (torch.ones(8, 4), torch.ones(5, dtype=torch.bool), "mask must be bool"),
        (torch.tensor(1.0), None, "8 inversion times for 0 images"),
    ],
    ids=["integers", "mask of another shape", "no image"],
)
def test_wrong_shapes_and_types_are_refused(
    signal: torch.Tensor, mask: torch.Tensor | None, message: str
) -> None:
    """The annotations refuse them in tests, the function itself everywhere."""
    fit = getattr(fit_t1, "__wrapped__", fit_t1)
    with pytest.raises((InvalidInputError, TypeError), match=f"{message}|parameter"):
        fit(signal, TI_MS, mask=mask)


@pytest.mark.gpu
@pytest.mark.parametrize("model", [*CURVES, "shmolli"])
def test_gpu_and_cpu_agree(model: str) -> None:
    """One code for both: T1 is equal to 0.01 ms on noisy curves."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    times_ms, ratio, correction = CURVES.get(model, (SHMOLLI_TI_MS, 1.9, 0.9))
    generator = torch.Generator().manual_seed(6)
    t1_ms = 200 + 1800 * torch.rand(4096, generator=generator, dtype=torch.float64)
    times = torch.tensor(times_ms, dtype=torch.float64)
    signal = 1 - ratio * torch.exp(-times[:, None] * correction / t1_ms)
    signal = (signal + 0.02 * torch.randn(signal.shape, generator=generator, dtype=torch.float64)).abs()
    ours, theirs = fit_t1(signal, times_ms, model), fit_t1(signal.cuda(), times_ms, model)
    assert (ours.status == theirs.status.cpu()).all()
    ok = ours.status == FitStatus.OK
    assert (ours.t1_ms - theirs.t1_ms.cpu())[ok].abs().max() < 0.01
