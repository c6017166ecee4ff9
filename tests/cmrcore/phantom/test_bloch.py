"""The simulated sequences against physics limits."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrcore.errors import InvalidInputError
from cmrcore.phantom.bloch import Pulses, acquire, paint
from cmrcore.phantom.readout import MOLLI_READOUT
from cmrcore.phantom.scheme import UNSATURATED_MS

T1_MS = torch.tensor([400.0, 1200.0, 1700.0], dtype=torch.float64)
T2_MS = torch.tensor([50.0, 50.0, 250.0], dtype=torch.float64)
TINY_FLIP = replace(MOLLI_READOUT, flip_deg=0.01)
IDEAL = Pulses(inversion_efficiency=1.0, saturation_residual_fraction=0.0)


def test_inversion_times_follow_the_heart() -> None:
    """Within a set TI grows by the beats that passed; each set starts one increment later."""
    rr_ms = [900.0, 950.0, 880.0, 910.0, 905.0, 900.0, 900.0, 900.0, 920.0, 890.0, 900.0]
    read = acquire("5(3)3", T1_MS, T2_MS, rr_ms)
    assert read.times_ms.tolist() == pytest.approx([120, 1020, 1970, 2850, 3760, 200, 1120, 2010])
    assert read.center_ms.tolist() == pytest.approx([0, 900, 1850, 2730, 3640, 7245, 8165, 9055])


def test_shmolli_has_the_times_of_the_scanner() -> None:
    """A measured ShMOLLI series lists 100, 1100, 2100, 3100, 4100, 180, 260 ms at 60 beats a minute."""
    read = acquire("5(1)1(1)1", T1_MS, T2_MS, [1000.0] * 9)
    assert read.times_ms.tolist() == [100, 1100, 2100, 3100, 4100, 180, 260]


def test_seconds_read_more_beats_of_a_fast_heart() -> None:
    """Nine beats of 600 ms are the first five seconds, then five of pause, then five images."""
    read = acquire("5s(3s)3s", T1_MS, T2_MS, [600.0] * 30)
    assert read.times_ms[:9].diff().tolist() == pytest.approx([600.0] * 8)
    assert read.times_ms[9].item() == 200
    assert len(read.times_ms) == 14
    assert read.center_ms[9].item() == pytest.approx(14 * 600)


def test_missed_beat_makes_a_long_gap() -> None:
    """A beat of double length moves all later times of its set, as recorded by the scanner."""
    read = acquire("5(3)3", T1_MS, T2_MS, [900.0, 1800.0, *[900.0] * 9])
    assert read.times_ms[:5].tolist() == pytest.approx([120, 1020, 2820, 3720, 4620])


def test_trigger_while_busy_is_passed_over() -> None:
    """A false trigger 150 ms after the last one finds the read-out still going on."""
    read = acquire("5(3)3", T1_MS, T2_MS, [900.0, 150.0, 750.0, *[900.0] * 9])
    assert read.times_ms[:5].tolist() == pytest.approx([120, 1020, 1920, 2820, 3720])


def test_sasha_saturates_every_image_but_the_first() -> None:
    """The unsaturated image is full recovery; later ones rise with their saturation time."""
    read = acquire("SASHA", T1_MS, T2_MS, [1000.0] * 11)
    assert read.times_ms[0] == UNSATURATED_MS
    assert read.times_ms[1:].tolist() == pytest.approx(torch.linspace(83, 720, 10).tolist())
    signal = read.signal[..., 0].real
    assert (signal[1:].diff(dim=0) > 0).all()
    assert (signal[0] > signal[1:].amax(0)).all()


def test_sasha_does_not_remember() -> None:
    """Each saturation ends the history of Mz: the same saturation time reads the same whenever it comes."""
    regular = acquire("SASHA", T1_MS, T2_MS, [1000.0] * 11, pulses=IDEAL)
    irregular = acquire("SASHA", T1_MS, T2_MS, [1000.0, 1900.0, 850.0, *[1000.0] * 8], pulses=IDEAL)
    torch.testing.assert_close(irregular.times_ms, regular.times_ms)
    torch.testing.assert_close(irregular.signal, regular.signal)


@pytest.mark.parametrize("scheme", ["5(3)3", "5(1)1(1)1"])
def test_without_read_outs_the_recovery_is_the_analytic_one(scheme: str) -> None:
    """With a vanishing flip angle and ideal inversions, the first set is 1 - 2 exp(-TI / T1)."""
    readout = replace(
        MOLLI_READOUT, flip_deg=0.001, n_catalyzation=0, center_line=0, n_lines=1, n_central=1, tr_ms=0.01
    )
    read = acquire(scheme, T1_MS, T2_MS, [800.0] * 11, readout, pulses=IDEAL)
    unit = math.sin(math.radians(0.001))
    expected = 1 - 2 * torch.exp(-read.times_ms[:5, None] / T1_MS)
    torch.testing.assert_close(read.signal[:5, :, 0].real / unit, expected, rtol=1e-3, atol=1e-3)


def test_first_sample_nulls_at_t1_ln_2() -> None:
    """An ideal inversion crosses zero at TI = T1 ln 2, whatever the read-out, as Mz = 0 has little signal."""
    times_ms = torch.tensor([120 / math.log(2)], dtype=torch.float64)
    readout = replace(TINY_FLIP, tr_ms=0.01, n_lines=2, center_line=1, n_central=1, n_catalyzation=1)
    at_null = acquire("5(3)3", times_ms, T2_MS[:1], [900.0] * 11, readout, pulses=IDEAL)
    full = at_null.signal[4, 0, 0].abs()
    assert (at_null.signal[0, 0, 0].abs() / full).item() < 1e-3


def test_first_image_is_inverted_and_late_images_recover() -> None:
    """Signal starts negative; four seconds later a T1 of 400 ms has forgotten the inversion."""
    signal = acquire("5(3)3", T1_MS, T2_MS, [1000.0] * 11).signal[..., 0].real
    assert (signal[0] < 0).all()
    never_inverted = Pulses(inversion_efficiency=-1.0)
    settled = acquire("5(3)3", T1_MS, T2_MS, [1000.0] * 11, pulses=never_inverted).signal[..., 0].real
    assert signal[4, 0].item() == pytest.approx(settled[4, 0].item(), rel=1e-3)
    assert signal[4, 2].item() < 0.95 * settled[4, 2].item()


@settings(max_examples=40, deadline=None)
@given(
    t1_ms=st.floats(100, 3000),
    t2_share=st.floats(0.01, 1),
    rr_ms=st.floats(450, 1500),
    off_hz=st.floats(-300, 300),
    b1_scale=st.floats(0.5, 1.3),
    scheme=st.sampled_from(["5(3)3", "4(1)3(1)2", "5s(3s)3s", "5(1)1(1)1", "SASHA"]),
)
def test_signal_never_exceeds_the_magnetization(
    t1_ms: float, t2_share: float, rr_ms: float, off_hz: float, b1_scale: float, scheme: str
) -> None:
    """Pulses only turn magnetization and relaxation only brings it back: nothing is larger than M0."""
    t1 = torch.tensor([t1_ms], dtype=torch.float64)
    read = acquire(
        scheme,
        t1,
        t1 * t2_share,
        [rr_ms] * 40,
        off_resonance_hz=torch.tensor([off_hz]),
        pulses=Pulses(b1_scale=b1_scale),
    )
    assert (read.signal.abs() <= 1).all()


def test_too_few_beats_are_refused() -> None:
    """A scheme that ends early would be another one."""
    with pytest.raises(InvalidInputError, match=r"8 heart beats given, scheme 5\(3\)3 needs more"):
        acquire("5(3)3", T1_MS, T2_MS, [900.0] * 8)
    with pytest.raises(InvalidInputError, match="4 heart beats given, scheme SASHA needs more"):
        acquire("SASHA", T1_MS, T2_MS, [900.0] * 4)


def test_read_out_longer_than_the_first_time_is_refused() -> None:
    """The inversion cannot come in the middle of the train."""
    with pytest.raises(InvalidInputError, match="leaves no room"):
        acquire("5(3)3", T1_MS, T2_MS, [900.0] * 11, replace(MOLLI_READOUT, center_line=60))


def test_pixels_are_sums_of_their_tissues() -> None:
    """Partial volume adds complex signals, each with its density and interpolated between off-resonances."""
    grid_hz = torch.linspace(-60, 60, 5)
    read = acquire("5(3)3", T1_MS, T2_MS, [900.0] * 11, off_resonance_hz=grid_hz)
    density = torch.tensor([0.9, 0.8, 0.5])
    fractions = torch.tensor([[0.2, 0.0], [0.3, 1.0], [0.5, 0.0]])[None, :, None, :]
    field_hz = torch.tensor([[[15.0, -500.0]]])
    images = paint(read.signal, density, fractions, field_hz, grid_hz)
    between = (read.signal[..., 2] + read.signal[..., 3]) / 2
    expected = (between * density * fractions[0, :, 0, 0]).sum(1)
    torch.testing.assert_close(images[:, 0, 0], expected.to(torch.complex64), rtol=1e-5, atol=1e-6)
    beyond = (0.8 * read.signal[:, 1, 0]).to(torch.complex64)
    torch.testing.assert_close(images[:, 0, 1], beyond, rtol=1e-5, atol=1e-6)


def test_each_image_may_have_its_own_tissues() -> None:
    """The heart moves between images: painting one by one or together is the same."""
    grid_hz = torch.tensor([-10.0, 10.0])
    read = acquire("5(3)3", T1_MS, T2_MS, [900.0] * 11, off_resonance_hz=grid_hz)
    torch.manual_seed(1)
    fractions = torch.rand(8, 3, 4, 5) * (torch.rand(8, 3, 4, 5) > 0.5)
    field_hz = 20 * torch.rand(8, 4, 5) - 10
    together = paint(read.signal, torch.ones(3), fractions, field_hz, grid_hz)
    for index in range(8):
        alone = paint(
            read.signal[index : index + 1],
            torch.ones(3),
            fractions[index : index + 1],
            field_hz[index : index + 1],
            grid_hz,
        )
        torch.testing.assert_close(alone[0], together[index])
