"""The yardstick fit, against scipy and against measured data."""

import ast
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
import torch
from scipy.optimize import least_squares

import cmrcore.phantom.ideal
import cmrcore.phantom.truth
from cmrcore.phantom.bloch import acquire
from cmrcore.phantom.ideal import (
    ideal_blood_t1_ms,
    ideal_ecv_fraction,
    ideal_model,
    ideal_t1_ms,
    ideal_wall,
    phase_restored,
)
from cmrcore.quantify import erode_wall
from tests.cmrcore.hearts import drawn_heart

TI_MS = torch.tensor([120.0, 1020, 1920, 2820, 3720, 200, 1100, 2000], dtype=torch.float64)
T1_MS = torch.logspace(1.8, 3.5, 60, dtype=torch.float64)


def curves(a: float, b: float, times_ms: torch.Tensor) -> torch.Tensor:
    """Curves A - B exp(-t / T) of many T."""
    return a - b * torch.exp(-times_ms[:, None] / T1_MS)


def test_exact_curves_are_fitted_exactly() -> None:
    """The curve's own parameters come back, with the read-out correction of MOLLI."""
    signed = curves(0.9, 1.7, TI_MS)
    torch.testing.assert_close(
        ideal_t1_ms(signed, TI_MS, "molli"), T1_MS * (1.7 / 0.9 - 1), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(ideal_t1_ms(signed, TI_MS, "saturation"), T1_MS, rtol=1e-6, atol=0)


def test_fit_agrees_with_scipy() -> None:
    """Where the curve is not of the model, as from a real sequence, both find the same least squares."""
    rng = np.random.default_rng(4)
    t1_ms = torch.from_numpy(rng.uniform(200, 2000, 40))
    t2_ms = torch.from_numpy(rng.uniform(30, 200, 40))
    read = acquire("5(3)3", t1_ms, t2_ms, rng.uniform(700, 1100, 11).tolist())
    signed = phase_restored(read.signal, read.times_ms)[..., 0]
    signed = signed + torch.from_numpy(rng.normal(0, 0.005, signed.shape))
    ours = ideal_t1_ms(signed, read.times_ms, "molli")
    times = read.times_ms.numpy()
    for pixel in range(40):
        samples = signed[:, pixel].numpy()

        def residual(x: np.ndarray, samples: np.ndarray = samples) -> np.ndarray:
            return np.asarray(x[0] - x[1] * np.exp(-times / np.exp(x[2])) - samples)

        fits = [least_squares(residual, (0.3, 0.6, np.log(start)), xtol=1e-14) for start in (200, 800, 2000)]
        a, b, log_time = min(fits, key=lambda fit: fit.cost).x
        assert ours[pixel].item() == pytest.approx(np.exp(log_time) * (b / a - 1), rel=1e-5)


def test_what_is_no_recovery_has_no_t1() -> None:
    """A falling or constant signal is NaN, not a number."""
    falling = -curves(0.9, 1.7, TI_MS)
    assert ideal_t1_ms(falling, TI_MS, "molli").isnan().all()
    assert ideal_t1_ms(torch.ones(8, 3), TI_MS, "molli").isnan().all()


def test_shape_of_space_is_kept() -> None:
    """A voxel, a slice or a stack."""
    signed = curves(0.9, 1.7, TI_MS)
    assert ideal_t1_ms(signed.reshape(8, 3, 20), TI_MS, "molli").shape == (3, 20)
    assert ideal_t1_ms(signed[:, 0], TI_MS.tolist(), "molli").shape == ()


def test_sign_comes_back_from_the_phase() -> None:
    """Whatever the phase of coil and off-resonance, early samples are negative."""
    read = acquire("5(3)3", T1_MS, T1_MS / 10, [900.0] * 11)
    turned = read.signal * torch.exp(1j * torch.linspace(-3, 3, 60, dtype=torch.float64))[:, None]
    torch.testing.assert_close(phase_restored(turned, read.times_ms), read.signal.real)


@pytest.mark.parametrize(
    ("scheme", "model"),
    [("SASHA", "saturation"), ("5(1)1(1)1", "shmolli"), ("5(3)3", "molli"), ("5s(3s)3s", "molli")],
)
def test_scheme_decides_the_fit(scheme: str, model: str) -> None:
    """As the scanners evaluate them."""
    assert ideal_model(scheme) == model


VIALS = {
    (129, 153): 2652.1,
    (131, 185): 1369.4,
    (130, 217): 3629.2,
    (162, 152): 810.2,
    (163, 184): 1065.1,
    (164, 218): 1311.4,
    (195, 155): 300.6,
    (195, 185): 1302.0,
    (197, 217): 560.4,
}
"""Center (row, column) of each vial: mean T1 [ms] within 7 pixels of the map that the scanner's own ShMOLLI
made of the same images (MRKonrad/tomato, test data, IM-0003-0002; cut off to whole ms)."""


def test_shmolli_of_measured_vials_agrees_with_the_scanner(real_data: Path) -> None:
    """The conditional fit of signed samples gives the scanner's own values, from 300 to 3629 ms."""
    magnitudes, phases = (
        [pydicom.dcmread(path) for path in sorted((real_data / "shmolli-phantom" / kind).glob("*.dcm"))]
        for kind in ("magnitude", "phase")
    )
    times_ms = torch.tensor([float(one.InversionTime) for one in magnitudes], dtype=torch.float64)
    magnitude, phase = (
        torch.from_numpy(np.stack([one.pixel_array.astype(float) for one in files]))
        for files in (magnitudes, phases)
    )
    row, column = torch.meshgrid(torch.arange(288), torch.arange(384), indexing="ij")
    for (center_row, center_column), t1_ms in VIALS.items():
        vial = (row - center_row) ** 2 + (column - center_column) ** 2 <= 49
        signal = torch.polar(magnitude[:, vial], phase[:, vial] * 2 * np.pi / 4096)
        ideal = ideal_t1_ms(phase_restored(signal, times_ms), times_ms, "shmolli")
        assert ideal.mean().item() == pytest.approx(t1_ms + 0.5, rel=0.005), (center_row, center_column)


def test_blood_is_averaged_away_from_the_edge() -> None:
    """A rim of other signal within the erosion does not matter; a pool too small has no value."""
    pool = torch.zeros(40, 40, dtype=torch.bool)
    pool[10:30, 10:30] = True
    signed = (0.9 - 1.7 * torch.exp(-TI_MS / 1000))[:, None, None].expand(8, 40, 40).clone()
    signed[:, 10:12] = 5.0
    papillary = torch.zeros_like(pool)
    papillary[18:22, 14:18] = True
    signed[:, papillary] = -3.0
    measure = partial(
        ideal_blood_t1_ms, without=papillary, model="molli", erosion_mm=3.0, pixel_spacing_mm=(1.5, 1.5)
    )
    t1_ms = measure(signed, TI_MS, pool)
    assert t1_ms == pytest.approx(1000 * (1.7 / 0.9 - 1), rel=1e-6)
    small = torch.zeros_like(pool)
    small[20:23, 20:23] = True
    assert np.isnan(measure(signed, TI_MS, small))


@pytest.mark.parametrize("outer", [15.0, 17.0, 22.0])
@pytest.mark.parametrize("erosion_mm", [0.0, 1.5, 5.0])
def test_the_ideal_wall_is_that_of_the_pipeline(outer: float, erosion_mm: float) -> None:
    """Two codes for one rule, so that both read the same pixels of a true mask."""
    wall, pool, _ = drawn_heart(outer=outer)
    found = ideal_wall(wall, pool, erosion_mm=erosion_mm, pixel_spacing_mm=(1.5, 1.3))
    assert torch.equal(found, erode_wall(wall, pool, erosion_mm, (1.5, 1.3)))
    none = torch.zeros_like(wall)
    assert torch.equal(ideal_wall(wall, none, erosion_mm=1.5, pixel_spacing_mm=(1.5, 1.3)), wall)


def test_ecv_formula() -> None:
    """Half the blood's change of R1 at hematocrit 0.4 is ECV 0.3."""
    ecv = ideal_ecv_fraction(torch.tensor([1000.0]), torch.tensor([500.0]), 2000.0, 400.0, 0.4)
    assert ecv.item() == pytest.approx(0.6 * (0.002 - 0.001) / (0.0025 - 0.0005))


@pytest.mark.parametrize("module", [cmrcore.phantom.ideal, cmrcore.phantom.truth], ids=["ideal", "truth"])
def test_yardstick_does_not_use_what_it_measures(module: ModuleType) -> None:
    """Ideal values must not come from the code under test."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    own = {name for name in imported if name.startswith("cmrcore")}
    assert own <= {"cmrcore.phantom.ideal", "cmrcore.phantom.scheme"}
