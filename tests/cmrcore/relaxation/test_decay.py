"""T2 and T1rho."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nibabel.nifti1 import Nifti1Image

from cmrcore.errors import InvalidInputError
from cmrcore.relaxation import FitStatus, fit_t1rho, fit_t2

TE_MS = [0.0, 10.0, 25.0, 40.0, 55.0, 80.0]


@pytest.mark.parametrize("model", ["2p", "3p"])
def test_decays_without_noise_give_back_t2(model: str) -> None:
    """T2 from 10 to 300 ms to 0.001 ms, the offset too."""
    t2_ms = torch.linspace(10, 300, 291, dtype=torch.float64)
    times = torch.tensor(TE_MS, dtype=torch.float64)
    b = 30.0 if model == "3p" else 0.0
    fit = fit_t2(500 * torch.exp(-times[:, None] / t2_ms) + b, TE_MS, model=model)
    assert (fit.status == FitStatus.OK).all()
    assert (fit.t2_ms - t2_ms).abs().max() < 1e-3
    assert (fit.a - 500).abs().max() < 1e-2
    assert (fit.b - b).abs().max() < 1e-2


def test_t1rho_is_the_same_decay_under_its_own_name() -> None:
    """Spin-lock times take the place of echo times."""
    signal = torch.rand(6, 50, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 1
    t2, t1rho = fit_t2(signal, TE_MS), fit_t1rho(signal, TE_MS)
    torch.testing.assert_close(t1rho.t1rho_ms, t2.t2_ms, equal_nan=True)
    torch.testing.assert_close(t1rho.t1rho_sd_ms, t2.t2_sd_ms, equal_nan=True)


def test_rising_signal_has_no_t2() -> None:
    """An endless T2 is at the bound of the search, and NaN."""
    fit = fit_t2(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), TE_MS)
    assert fit.status == FitStatus.AT_BOUND
    assert torch.isnan(fit.t2_ms)


def test_negative_decay_is_no_decay() -> None:
    """Amplitudes are positive."""
    assert fit_t2(-torch.exp(-torch.tensor(TE_MS) / 40), TE_MS).status == FitStatus.NO_SUCH_CURVE


def test_negative_echo_times_are_refused() -> None:
    """Zero is a time, less is not."""
    with pytest.raises(InvalidInputError, match="echo times must be finite and not negative"):
        fit_t2(torch.ones(3, 2), [-1.0, 10.0, 20.0])


def test_unknown_decay_model_names_the_known_ones() -> None:
    """The message tells what can be asked for."""
    with pytest.raises(InvalidInputError, match="known are '2p', '3p'"):
        fit_t1rho(torch.ones(6, 2), TE_MS, model="4p")


def test_prostate_t2_equals_the_stored_reference(real_data: Path) -> None:
    """In-vivo multi-echo spin echo: T2 to 0.05 ms wherever the reference is a minimum.

    Over 16,264 fitted pixels 43 differ by more, all of noise (peak under 7 % of the image's maximum) or with
    a T2 above 200 ms; in each of them our residual is not above the reference's. Where the signal does not
    decay at all (120 pixels of noise) the reference holds any number and we say AT_BOUND.
    """
    folder = real_data / "t2-prostate"
    images = np.asarray(Nifti1Image.from_filename(folder / "invivo_000198.nii.gz").dataobj)[:, :, 0]
    reference = np.asarray(Nifti1Image.from_filename(folder / "reference_nlls.nii.gz").dataobj)[
        :, :, 0
    ].astype(float)
    a, t2_ms = torch.from_numpy(reference[..., 0] * 4003), torch.from_numpy(reference[..., 1] * 145.2)
    signal = torch.from_numpy(np.moveaxis(images, -1, 0).copy())
    te_ms = torch.tensor([26.4 + 13.2 * i for i in range(10)], dtype=torch.float64)
    fit = fit_t2(signal, te_ms)

    def residual(amplitude: torch.Tensor, time_ms: torch.Tensor) -> torch.Tensor:
        return (signal - amplitude * torch.exp(-te_ms[:, None, None] / time_ms)).square().sum(0)

    ok = fit.status == FitStatus.OK
    far = ok & ((fit.t2_ms - t2_ms).abs() > 0.05)
    assert ok.double().mean() > 0.99
    assert far.sum() <= 43
    assert (residual(fit.a, fit.t2_ms)[far] <= residual(a, t2_ms)[far] * (1 + 1e-9)).all()
    tissue = ok & (signal.amax(0) > 200) & (t2_ms < 200)
    assert (fit.t2_ms - t2_ms)[tissue].abs().max() < 0.05
    assert tissue.sum() > 14_000
