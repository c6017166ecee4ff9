"""Standard uncertainty of regional means."""

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cmrcore.quantify import ecv_map
from cmrcore.quantify.uncertainty import (
    PIXELS_PER_SAMPLE,
    CommonErrors,
    blood_error,
    ecv_noise,
    ecv_uncertainty,
    mean_noise,
)
from cmrcore.registration.warp import warp

T1_MS = (1000.0, 420.0)
BLOOD_MS = (1600.0, 330.0)
N_DRAWS = 1000


def expected_ecv(hematocrit: float) -> float:
    """ECV of these T1."""
    change = 1 / BLOOD_MS[1] - 1 / BLOOD_MS[0]
    return (1 - hematocrit) * (1 / T1_MS[1] - 1 / T1_MS[0]) / change


def drawn(sd: float, shape: tuple[int, ...], seed: int) -> Float[Tensor, "..."]:
    """Draw normal errors."""
    return sd * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ecv_errs_as_much_as_repeated_draws_say() -> None:
    """Noise in every pixel, one blood for the first two slices, another for the third, one hematocrit."""
    pixels, sds, blood_sds, hematocrit_sd = (3, 3, 4), (60.0, 15.0), (12.0, 3.0), 0.01
    native, post = (T1_MS[i] + drawn(sds[i], (N_DRAWS, *pixels), i) for i in (0, 1))
    of_two, of_one = (
        [BLOOD_MS[i] + drawn(blood_sds[i], (N_DRAWS,), 10 * s + i) for i in (0, 1)] for s in (1, 2)
    )
    hematocrit = 0.42 + drawn(hematocrit_sd, (N_DRAWS,), 30)
    means = []
    for draw in range(N_DRAWS):
        slices = [
            ecv_map(
                native[draw, index],
                post[draw, index],
                blood[0][draw].item(),
                blood[1][draw].item(),
                hematocrit[draw].item(),
            )
            for index, blood in enumerate((of_two, of_two, of_one))
        ]
        means.append(torch.stack(slices).mean().item())
    maps = [torch.full(pixels, value, dtype=torch.float64) for value in (*T1_MS, *sds)]
    noise = 0.58 * ecv_noise((maps[0], maps[1]), (maps[2], maps[3]), BLOOD_MS)
    relative = blood_error(BLOOD_MS, blood_sds)
    common = CommonErrors(
        blood=torch.full((3,), relative, dtype=torch.float64),
        blood_slice=(0, 0, 2),
        hematocrit=hematocrit_sd / 0.58,
    )
    ecv = torch.full(pixels, expected_ecv(0.42), dtype=torch.float64)
    everywhere = torch.ones(pixels, dtype=torch.bool)
    told = ecv_uncertainty(ecv, noise / math.sqrt(PIXELS_PER_SAMPLE), everywhere, common)
    assert told == pytest.approx(torch.tensor(means).std().item(), rel=0.07)


def test_neighbors_that_share_noise_count_as_fewer() -> None:
    """Images of 0.8 of the resolution both ways, filled with zeros, and shifted by half a pixel."""
    generator = torch.Generator().manual_seed(4)
    acquired = torch.randn(600, 40, 32, generator=generator)
    spectrum = torch.fft.fftshift(torch.fft.fft2(acquired), dim=(1, 2))
    filled = functional.pad(spectrum, (4, 4, 5, 5))
    images = torch.fft.ifft2(torch.fft.ifftshift(filled, dim=(1, 2))).real
    shifted = warp(images[:, None], torch.full((600, 2, 50, 40), 0.5), "cubic")[:, 0]
    region = torch.zeros(50, 40, dtype=torch.bool)
    region[10:40, 10:18] = True
    for stack in (images, shifted):
        found = stack[:, region].mean(1).std().item()
        told = mean_noise(stack.std(0), region)
        assert told is not None
        assert 0.9 < told / found < 1.35


def test_blood_that_did_not_change_has_no_relative_error() -> None:
    """The same images sent for both roles have no ECV, and do not fail the visit."""
    assert math.isnan(blood_error((1600.0, 1600.0), (10.0, 10.0)))


def test_pixels_without_value_do_not_count() -> None:
    """A failed fit adds neither noise nor weight; without any pixel there is no uncertainty."""
    sd = torch.tensor([[[3.0, math.nan, 4.0]]])
    everywhere = torch.ones(1, 1, 3, dtype=torch.bool)
    assert mean_noise(sd, everywhere) == pytest.approx(math.sqrt(PIXELS_PER_SAMPLE) * 5 / 2)
    assert mean_noise(sd, ~everywhere) is None
    ecv = torch.tensor([[[0.3, 0.3, math.nan]]])
    common = CommonErrors(blood=torch.zeros(1, dtype=torch.float64), blood_slice=(0,), hematocrit=0.0)
    told = ecv_uncertainty(ecv, torch.full((1, 1, 3), 0.02), everywhere, common)
    assert told == pytest.approx(0.02 * math.sqrt(PIXELS_PER_SAMPLE / 2))
    assert ecv_uncertainty(torch.full_like(ecv, math.nan), sd, everywhere, common) is None
