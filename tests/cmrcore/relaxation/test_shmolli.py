"""ShMOLLI's choice of samples, on the measured phantom and on drawn curves."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.relaxation import FitStatus, fit_t1

TI_MS = [100.0, 1100.0, 2100.0, 3100.0, 4100.0, 180.0, 260.0]
VIALS = {
    (129, 153): (2652.1, 5),
    (131, 185): (1369.4, 5),
    (130, 217): (3629.2, 5),
    (162, 152): (810.2, 5),
    (163, 184): (1065.1, 5),
    (164, 218): (1311.4, 5),
    (195, 155): (300.6, 7),
    (195, 185): (1302.0, 5),
    (197, 217): (560.4, 5),
}
"""Center (row, column) of each vial: mean T1 [ms] within 7 pixels of the map that the scanner's own ShMOLLI
made of the same images (MRKonrad/tomato, test data, IM-0003-0002; whole ms, cut off), and its most frequent
choice of samples (IM-0004-0005)."""


@pytest.fixture(scope="module")
def phantom(real_data: Path) -> tuple[list[float], Tensor]:
    """Inversion times and magnitudes of the nine-vial phantom."""
    folder = real_data / "shmolli-phantom" / "magnitude"
    files = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    images = np.stack([file.pixel_array.astype(np.float32) for file in files])
    return [float(file.InversionTime) for file in files], torch.from_numpy(images)


def _disc(center: tuple[int, int]) -> Tensor:
    """Pixels within 7 of a vial's center."""
    row, column = torch.meshgrid(torch.arange(288), torch.arange(384), indexing="ij")
    return (row - center[0]) ** 2 + (column - center[1]) ** 2 <= 49


def test_nine_vials_agree_with_the_scanner(phantom: tuple[list[float], Tensor]) -> None:
    """Mean T1 to 1 ms, of which the scanner's map loses half by cutting off, with the scanner's choice."""
    ti_ms, images = phantom
    fit = fit_t1(images, ti_ms, model="shmolli")
    for center, (t1_ms, n_samples) in VIALS.items():
        vial = _disc(center)
        assert (fit.status[vial] == FitStatus.OK).all()
        assert fit.t1_ms[vial].mean().item() == pytest.approx(t1_ms + 0.5, abs=0.5)
        assert fit.n_samples[vial].mode().values.item() == n_samples


def test_long_t1_needs_the_choice(phantom: tuple[list[float], Tensor]) -> None:
    """All seven samples together are more than 10 % low in every vial above 1 s."""
    ti_ms, images = phantom
    plain = fit_t1(images, ti_ms, model="molli")
    for center, (t1_ms, _) in VIALS.items():
        if t1_ms > 1000:
            assert plain.t1_ms[_disc(center)].mean() < 0.9 * t1_ms


def test_a_bottle_of_short_t1_keeps_all_samples(phantom: tuple[list[float], Tensor]) -> None:
    """T1 of 89 ms: one early sample would not tell, the later inversions found everything recovered."""
    ti_ms, images = phantom
    fit = fit_t1(images.double(), ti_ms, model="shmolli")
    assert fit.t1_ms[_disc((165, 315))].median().item() == pytest.approx(89.4, abs=1)
    assert fit.n_samples[_disc((165, 315))].mode().values == 7


def test_incomplete_recovery_between_inversions_is_left_out() -> None:
    """Curves of a long T1 whose second and third inversion start too low give the first inversion's T1."""
    times = torch.tensor(TI_MS, dtype=torch.float64)
    noise = 0.002 * torch.randn(7, 200, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    signal = 1 - 1.95 * torch.exp(-times[:, None] * 0.95 / 1400) + noise
    signal[5:] *= torch.tensor([0.75, 0.55])[:, None]
    fit = fit_t1(signal.abs(), TI_MS, model="shmolli")
    assert (fit.n_samples == 5).all()
    assert fit.t1_ms.mean().item() == pytest.approx(1400, rel=0.01)
    assert fit_t1(signal.abs(), TI_MS, model="molli").t1_ms.mean() < 1300


@pytest.mark.parametrize(
    "ti_ms", [TI_MS[:6], [120.0, 1020.0, 1920.0, 2820.0, 200.0, 1100.0, 2000.0]], ids=["six", "4(1)3"]
)
def test_other_schemes_are_refused(ti_ms: list[float]) -> None:
    """The choice knows one scheme only, 5(1)1(1)1."""
    with pytest.raises(InvalidInputError, match="needs seven inversion times"):
        fit_t1(torch.ones(len(ti_ms), 2), ti_ms, model="shmolli")
