"""The MOLLI simulation against physics limits."""

import math

import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.phantom.bloch import MolliScheme, Readout, full_recovery_signal, molli_echoes, parse_scheme
from cmrcore.relaxation import fit_t1

T1_MS = torch.tensor([400.0, 1200.0, 1700.0], dtype=torch.float64)
T2_MS = torch.tensor([50.0, 50.0, 250.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("scheme", "n_echoes", "n_beats"),
    [("5(3)3", 8, 11), ("4(1)3(1)2", 9, 11), ("3(3)3(3)5", 11, 17), ("5(1)1(1)1", 7, 9)],
)
def test_scheme_counts_images_and_beats(scheme: str, n_echoes: int, n_beats: int) -> None:
    """The scheme string is the protocol: images, with pauses in brackets."""
    parsed = parse_scheme(scheme)
    assert (parsed.n_echoes, parsed.n_beats) == (n_echoes, n_beats)


@pytest.mark.parametrize("scheme", ["", "5(3)", "(3)5", "5s(3s)3s", "5(0)3", "5 (3) 3"])
def test_unreadable_scheme_is_refused(scheme: str) -> None:
    """Pauses in seconds or half a scheme would be another sequence."""
    with pytest.raises(InvalidInputError, match="expected images"):
        parse_scheme(scheme)


def test_inversion_times_follow_the_heart() -> None:
    """Within a set TI grows by the beats that passed; each set starts one increment later."""
    rr_ms = [900.0, 950.0, 880.0, 910.0, 905.0, 900.0, 900.0, 900.0, 920.0, 890.0, 900.0]
    ti_ms, _ = molli_echoes(T1_MS, T2_MS, parse_scheme("5(3)3"), rr_ms)
    assert ti_ms.tolist() == pytest.approx([120, 1020, 1970, 2850, 3760, 200, 1120, 2010])


def test_first_image_is_inverted_and_late_images_recover() -> None:
    """Signal starts negative and ends near that of full recovery."""
    _, signal = molli_echoes(T1_MS, T2_MS, parse_scheme("5(3)3"), [1000.0] * 11)
    assert (signal[0] < 0).all()
    full = full_recovery_signal(T1_MS, T2_MS)
    assert signal[4, 0].item() == pytest.approx(full[0].item(), rel=0.05)


def test_without_read_outs_the_recovery_is_exact() -> None:
    """With a vanishing flip angle and perfect inversion nothing drives the recovery, and T1* is T1."""
    readout = Readout(flip_deg=0.01, inversion_efficiency=1.0)
    scheme = MolliScheme(read_outs=(8,), pauses=())
    ti_ms, signal = molli_echoes(T1_MS, T2_MS, scheme, [700.0] * 8, readout)
    fit = fit_t1(signal, ti_ms, model="molli-signed")
    torch.testing.assert_close(fit.t1_star_ms, T1_MS, rtol=1e-4, atol=0)
    torch.testing.assert_close(fit.t1_ms, T1_MS, rtol=0.02, atol=0)


def test_read_out_settles_in_the_steady_state() -> None:
    """A long train ends in the closed form of balanced SSFP on resonance (Scheffler and Lehnhardt 2003)."""
    readout = Readout(n_lines=12_000)
    e1, e2 = torch.exp(-readout.tr_ms / T1_MS), torch.exp(-readout.tr_ms / T2_MS)
    flip = math.radians(readout.flip_deg)
    steady = math.sin(flip) * (1 - e1) / (1 - (e1 - e2) * math.cos(flip) - e1 * e2)
    signal = full_recovery_signal(T1_MS, T2_MS, readout)
    torch.testing.assert_close(signal, steady * torch.exp(-readout.tr_ms / 2 / T2_MS), rtol=1e-4, atol=0)


def test_wrong_number_of_beats_is_refused() -> None:
    """Every beat of the scheme has a length of its own."""
    with pytest.raises(InvalidInputError, match="8 heart beats given, the scheme has 11"):
        molli_echoes(T1_MS, T2_MS, parse_scheme("5(3)3"), [900.0] * 8)


def test_beat_without_room_for_the_read_out_is_refused() -> None:
    """A heart too fast for the sequence must not give negative recovery times."""
    with pytest.raises(InvalidInputError, match="leave no room"):
        molli_echoes(T1_MS, T2_MS, parse_scheme("5(3)3"), [250.0] * 11)
