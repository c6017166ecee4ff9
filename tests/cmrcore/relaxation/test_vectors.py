"""Measured vectors with the fits that another group's library reports (see the file's "source")."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cmrcore.relaxation import FitStatus, fit_t1, fit_t2, molli_signal, signed_from_phase
from cmrcore.relaxation.model import SignalModel
from cmrcore.relaxation.models.decay import DECAY_2P
from cmrcore.relaxation.models.molli import MOLLI_SIGNED
from cmrcore.relaxation.models.saturation import SATURATION_2P, SATURATION_3P
from cmrcore.relaxation.projection import best_curve, curve_shape, search_grid
from cmrcore.relaxation.uncertainty import StandardErrors, standard_errors

RECOVERIES = [
    "myocardium, magnitude with phase",
    "blood, magnitude with phase",
    "short T1, 11 samples",
    "ShMOLLI, five samples kept",
    "SASHA, 2 parameters",
    "SASHA, 3 parameters",
]


def _case(real_data: Path, name: str) -> tuple[Tensor, list[float], dict[str, Any]]:
    """Read samples, times and the whole case."""
    cases = json.loads((real_data / "vectors.json").read_text())["cases"]
    case = next(case for case in cases if case["name"] == name)
    return torch.tensor(case["magnitude"], dtype=torch.float64), [float(t) for t in case["t"]], case


def _errors(model: SignalModel, signal: Tensor, ti_ms: list[float]) -> StandardErrors:
    """Compute the standard errors of one curve's fit."""
    times, order = torch.tensor(ti_ms, dtype=torch.float64).sort()
    grid = search_grid(model, times)
    curve = best_curve(signal[order][:, None], grid)
    fitted = curve.offset + curve.amplitude * curve_shape(model, times, curve.log_time)
    return standard_errors(grid, curve, (curve.signed - fitted).square().sum(0))


@pytest.mark.parametrize("name", RECOVERIES)
def test_recoveries_give_the_stored_parameters(real_data: Path, name: str) -> None:
    """T1 and every amplitude that is stored, to four digits, from magnitudes alone."""
    magnitude, ti_ms, case = _case(real_data, name)
    fit = fit_t1(magnitude, ti_ms, model=case["method"])
    expected = case["expected"]
    values = {"A": fit.a, "B": fit.b, "T1star": fit.t1_star_ms, "T1": fit.t1_ms, "samples": fit.n_samples}
    for key in values.keys() & expected.keys():
        assert values[key].item() == pytest.approx(expected[key], rel=1e-4)


def test_t2_gives_the_stored_parameters(real_data: Path) -> None:
    """Three T2-prepared images, the first without preparation."""
    signal, te_ms, case = _case(real_data, "T2, three echoes")
    fit = fit_t2(signal, te_ms)
    assert fit.t2_ms.item() == pytest.approx(case["expected"]["T2"], rel=1e-4)
    assert fit.a.item() == pytest.approx(case["expected"]["A"], rel=1e-4)
    assert fit.t2_sd_ms.item() == pytest.approx(case["expected"]["se"][1], rel=1e-4)


@pytest.mark.parametrize("name", RECOVERIES[:2])
def test_phase_gives_the_polarity_that_magnitudes_found(real_data: Path, name: str) -> None:
    """The measured phase turns the three first samples, as the search over polarities does."""
    magnitude, ti_ms, case = _case(real_data, name)
    phase_rad = torch.tensor(case["phase"], dtype=torch.float64) * math.pi / 4096
    signed = signed_from_phase(magnitude, phase_rad, ti_ms)
    assert int((signed < 0).sum()) == case["expected"]["flips"]
    torch.testing.assert_close(
        fit_t1(signed, ti_ms, "molli-signed").t1_ms, fit_t1(magnitude, ti_ms).t1_ms, rtol=1e-9, atol=0
    )


def _signed(real_data: Path, name: str) -> tuple[Tensor, list[float], dict[str, Any]]:
    """Signed samples, times and expectations of a case with phase."""
    magnitude, ti_ms, case = _case(real_data, name)
    phase_rad = torch.tensor(case["phase"], dtype=torch.float64) * math.pi / 4096
    return signed_from_phase(magnitude, phase_rad, ti_ms), ti_ms, case["expected"]


def test_molli_standard_errors_are_the_stored_ones(real_data: Path) -> None:
    """Standard errors of A, B and T1* to four digits."""
    signal, ti_ms, expected = _signed(real_data, RECOVERIES[0])
    errors = _errors(MOLLI_SIGNED, signal, ti_ms)
    found = [errors.offset.item(), errors.amplitude.item(), errors.apparent_ms.item()]
    assert found == pytest.approx(expected["se"], rel=1e-4)


@pytest.mark.parametrize("name", RECOVERIES[:2])
def test_stored_t1_sd_is_the_sum_without_covariance(real_data: Path, name: str) -> None:
    """Ours is the standard deviation; the stored one adds the three contributions' absolute values.

    The library takes dT1* (B/A - 1) + T1* (dB/A + B dA/A^2) (its CalculatorT1WithSignCheck), which knows no
    covariance and no squares: 158.26 ms and 675.17 ms, against 43.57 ms and 144.92 ms with both. So the
    stored number cannot be our `t1_sd_ms`; it follows to four digits from our standard errors, tested here.
    """
    signal, ti_ms, expected = _signed(real_data, name)
    errors = _errors(MOLLI_SIGNED, signal, ti_ms)
    fit = fit_t1(signal, ti_ms, model="molli-signed")
    ratio = fit.b / fit.a
    without_covariance = errors.apparent_ms * (ratio - 1) + fit.t1_star_ms / fit.a * (
        errors.amplitude + ratio * errors.offset
    )
    assert without_covariance.item() == pytest.approx(expected["T1_sd"], rel=1e-4)
    assert errors.corrected_ms.item() == pytest.approx(fit.t1_sd_ms.item(), rel=1e-9)
    assert fit.t1_sd_ms.item() < expected["T1_sd"] / 3


def test_t1_sd_is_the_spread_of_repeated_measurements(real_data: Path) -> None:
    """Noise of the fit's own size on its curve spreads T1 by `t1_sd_ms`, a quarter of the stored."""
    signal, ti_ms, expected = _signed(real_data, RECOVERIES[0])
    fit = fit_t1(signal, ti_ms, model="molli-signed")
    curve = molli_signal(torch.tensor(ti_ms, dtype=torch.float64), fit.a, fit.b, fit.t1_star_ms)
    noise_sd = ((signal - curve).square().sum() / (len(ti_ms) - 3)).sqrt()
    generator = torch.Generator().manual_seed(8)
    noise = noise_sd * torch.randn(len(ti_ms), 20_000, generator=generator, dtype=torch.float64)
    repeated = fit_t1(curve[:, None] + noise, ti_ms, model="molli-signed")
    assert (repeated.status == FitStatus.OK).all()
    assert fit.t1_sd_ms.item() == pytest.approx(43.57, abs=0.01)
    assert repeated.t1_ms.std().item() == pytest.approx(fit.t1_sd_ms.item(), rel=0.03)
    assert expected["T1_sd"] > 3 * repeated.t1_ms.std().item()


@pytest.mark.parametrize(
    ("name", "model"),
    [(RECOVERIES[4], SATURATION_2P), (RECOVERIES[5], SATURATION_3P), ("T2, three echoes", DECAY_2P)],
    ids=["saturation-2p", "saturation-3p", "t2-2p"],
)
def test_standard_errors_are_the_stored_ones(real_data: Path, name: str, model: SignalModel) -> None:
    """Standard errors to four digits, or to the last digit stored."""
    signal, time_ms, case = _case(real_data, name)
    errors = _errors(model, signal, time_ms)
    found = [errors.amplitude.item(), errors.apparent_ms.item()]
    if model is SATURATION_3P:
        found.insert(0, errors.offset.item())
    assert found == pytest.approx(case["expected"]["se"], rel=1e-4)
