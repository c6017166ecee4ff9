"""The balanced SSFP train against closed forms."""

import math
from dataclasses import replace

import pytest
import torch

from cmrcore.phantom.readout import MOLLI_READOUT, Readout, read_out, usual_readout
from cmrcore.phantom.scheme import SASHA, SHMOLLI, parse_scheme

T1_MS = torch.tensor([300.0, 600.0], dtype=torch.float64)
T2_MS = torch.tensor([50.0, 250.0], dtype=torch.float64)
OFF_HZ = torch.linspace(-400, 400, 33, dtype=torch.float64).expand(2, -1)
ONE_LINE = replace(MOLLI_READOUT, n_central=1)
LONG_TRAIN = replace(ONE_LINE, n_lines=4000, center_line=3000)


def steady_state(readout: Readout, t1_ms: torch.Tensor, t2_ms: torch.Tensor) -> torch.Tensor:
    """Magnitude at the echo, pulses alternating (Freeman and Hill 1971, doi:10.1016/0022-2364(71)90018-8)."""
    e1, e2 = (torch.exp(-readout.tr_ms / time_ms)[:, None] for time_ms in (t1_ms, t2_ms))
    flip = math.radians(readout.flip_deg)
    turn = 2 * math.pi * OFF_HZ * readout.tr_ms / 1000 + math.pi
    denominator = (1 - e1 * math.cos(flip)) * (1 - e2 * torch.cos(turn)) - e2 * (e1 - math.cos(flip)) * (
        e2 - torch.cos(turn)
    )
    behind_pulse = math.sin(flip) * (1 - e1) * torch.sqrt(1 + e2**2 - 2 * e2 * torch.cos(turn)) / denominator
    return behind_pulse * torch.sqrt(e2)


@pytest.mark.parametrize("flip_deg", [10.0, 35.0, 70.0])
def test_long_train_settles_in_the_steady_state(flip_deg: float) -> None:
    """At every off-resonance, pass band and bands."""
    readout = replace(LONG_TRAIN, flip_deg=flip_deg)
    image = read_out(readout, T1_MS, T2_MS, OFF_HZ)
    torch.testing.assert_close(
        image.signal_offset.abs(), steady_state(readout, T1_MS, T2_MS), rtol=1e-3, atol=1e-6
    )
    assert image.signal_slope.abs().max() < 1e-4


def test_bands_repeat_every_inverse_repetition_time() -> None:
    """Spins that turn once more between pulses look the same; only the echo's sign changes."""
    image = read_out(MOLLI_READOUT, T1_MS, T2_MS, OFF_HZ)
    later = read_out(MOLLI_READOUT, T1_MS, T2_MS, OFF_HZ + 1000 / MOLLI_READOUT.tr_ms)
    torch.testing.assert_close(later.signal_slope, -image.signal_slope)
    torch.testing.assert_close(later.mz_slope, image.mz_slope)


def test_bands_are_dark_with_a_large_flip_angle() -> None:
    """Half a turn between pulses of alternating sign is where the steady state has no signal."""
    image = read_out(
        LONG_TRAIN,
        T1_MS,
        T2_MS,
        torch.tensor([[0.0, 500 / MOLLI_READOUT.tr_ms]], dtype=torch.float64).expand(2, -1),
    )
    signal = image.signal_offset.abs()
    assert (signal[:, 1] < 0.12 * signal[:, 0]).all()


def test_off_resonance_of_either_sign_is_alike() -> None:
    """The phase turns the other way, the magnitude is the same."""
    image = read_out(MOLLI_READOUT, T1_MS, T2_MS, OFF_HZ)
    torch.testing.assert_close(image.signal_slope, image.signal_slope.flip(1).conj())


def test_on_resonance_the_signal_of_positive_mz_is_positive() -> None:
    """The receiver alternates with the pulses, so that magnitude images can get their sign back."""
    image = read_out(MOLLI_READOUT, T1_MS, T2_MS, torch.zeros(2, 1))
    assert (image.signal_slope.real > 0.15).all()
    assert image.signal_slope.imag.abs().max() < 1e-12


def test_start_up_pulses_calm_the_train() -> None:
    """From line to line the signal of off-resonant spins flickers without them (Deshpande et al. 2003)."""

    def flicker(readout: Readout) -> float:
        lines = [
            read_out(replace(readout, center_line=line), T1_MS, T2_MS, torch.full((2, 1), 60.0))
            for line in range(8)
        ]
        signal = torch.stack([(line.signal_offset + line.signal_slope).abs() for line in lines])
        return signal.diff(n=2, dim=0).abs().mean().item()

    none = flicker(replace(ONE_LINE, n_catalyzation=0))
    half_alpha = flicker(replace(ONE_LINE, n_catalyzation=1, catalyzation="half-alpha"))
    ramp = flicker(ONE_LINE)
    assert ramp < 0.7 * half_alpha
    assert half_alpha < 0.7 * none


def test_half_alpha_brings_spins_straight_into_the_cone() -> None:
    """On resonance, half the angle half a TR ahead leaves no flicker at all."""
    readout = replace(ONE_LINE, n_catalyzation=1, catalyzation="half-alpha")
    lines = [
        read_out(replace(readout, center_line=line), 100 * T1_MS, 1000 * T2_MS, torch.zeros(2, 1))
        for line in range(4)
    ]
    signal = torch.stack([(line.signal_offset + line.signal_slope).abs() for line in lines])
    expected = torch.full_like(signal, math.sin(math.radians(35 / 2)))
    torch.testing.assert_close(signal, expected, rtol=1e-3, atol=0)


def test_central_lines_average_the_flicker() -> None:
    """The signal hardly ripples over off-resonance, where that of one line does."""
    off_hz = torch.linspace(-80, 80, 81, dtype=torch.float64).expand(2, -1)

    def ripple(readout: Readout) -> float:
        image = read_out(readout, T1_MS, T2_MS, off_hz)
        return (image.signal_offset + image.signal_slope).abs().diff(n=2).abs().max().item()

    assert ripple(MOLLI_READOUT) < 0.15 * ripple(ONE_LINE)


def test_stronger_b1_is_a_larger_flip_angle() -> None:
    """Nothing else changes."""
    scaled = read_out(MOLLI_READOUT, T1_MS, T2_MS, OFF_HZ, b1_scale=0.8)
    smaller = read_out(replace(ONE_LINE, flip_deg=28.0), T1_MS, T2_MS, OFF_HZ)
    torch.testing.assert_close(scaled.mz_slope, smaller.mz_slope)


def test_every_scheme_has_a_readout_that_fits() -> None:
    """K-space center comes before the first image time."""
    for scheme in ("5(3)3", "4(1)3(1)2", "5s(3s)3s", SHMOLLI, SASHA):
        parsed = parse_scheme(scheme)
        assert usual_readout(parsed).before_ms < parsed.first_ms
