"""Simulated scans and their truth."""

import pytest
import torch

from cmrcore.phantom import SimulatedScan, acquire, simulate_scan
from cmrcore.phantom.tissue import myocardium
from cmrcore.phantom.trial import full_recovery_signal

SCHEMES = {"scheme_native": "5(3)3", "scheme_post": "4(1)3(1)2"}


@pytest.fixture(scope="module")
def scan() -> SimulatedScan:
    """First visit of the first subject."""
    return simulate_scan(7, 0, 0, **SCHEMES)


def test_the_same_seed_gives_the_same_scan(scan: SimulatedScan) -> None:
    """A trial can be made again to the last bit."""
    again = simulate_scan(7, 0, 0, **SCHEMES)
    assert torch.equal(again.native.echoes, scan.native.echoes)
    assert torch.equal(again.post.echoes, scan.post.echoes)
    assert again.truth.scan == scan.truth.scan


def test_shapes_follow_the_schemes(scan: SimulatedScan) -> None:
    """One image per slice and inversion time, in acquisition order."""
    assert scan.native.echoes.shape == (3, 8, 176, 176)
    assert scan.post.echoes.shape == (3, 9, 176, 176)
    assert scan.native.echoes.dtype == torch.float32
    assert (scan.native.ti_ms[:, 5] < scan.native.ti_ms[:, 4]).all()


def test_inversion_times_differ_between_slices(scan: SimulatedScan) -> None:
    """The heart does not beat like a clock, so each slice has its own times."""
    assert (scan.native.ti_ms[0] - scan.native.ti_ms[1]).abs().max() > 1


def test_labels_do_not_overlap(scan: SimulatedScan) -> None:
    """A pixel belongs to what fills more than half of it."""
    assert scan.labels.sum(0).max() == 1
    assert scan.labels.any(dim=(2, 3)).all()


def test_noise_has_the_promised_level(scan: SimulatedScan) -> None:
    """SNR 40 is meant at full recovery; air is Rayleigh noise, whose mean is sigma sqrt(pi/2)."""
    sigma = scan.native.echoes[:, :, :15, :15].mean().item() / (torch.pi / 2) ** 0.5
    late = scan.native.echoes[1, 4][scan.labels[0, 1]].mean().item()
    tissue = myocardium(float(scan.truth.slices[1]["ecv_fraction_true"]), scan.field_strength_t)
    t1_ms, t2_ms, bound_fraction = torch.tensor(
        [[tissue.t1_ms], [tissue.t2_ms], [tissue.bound_fraction]], dtype=torch.float64
    )
    rr_ms = [*scan.native.ti_ms[1, :5].diff().tolist(), 900.0]
    signal = acquire("5", t1_ms, t2_ms, rr_ms, bound_fraction=bound_fraction).signal
    recovered = signal[-1].abs().item() / full_recovery_signal(tissue)
    assert late / sigma / recovered == pytest.approx(40, rel=0.03)


def test_sizes_stay_and_pose_changes_between_visits(scan: SimulatedScan) -> None:
    """The same heart lies elsewhere at the next visit."""
    later = simulate_scan(7, 0, 1, **SCHEMES)
    assert later.field_strength_t == scan.field_strength_t
    for before, after in zip(scan.labels[0].sum((1, 2)), later.labels[0].sum((1, 2)), strict=True):
        assert after.item() == pytest.approx(before.item(), rel=0.05)
    assert not torch.equal(later.labels, scan.labels)
    ecv_change = later.truth.scan["ecv_fraction_true"] / scan.truth.scan["ecv_fraction_true"] - 1
    assert abs(ecv_change) < 0.04


@pytest.mark.parametrize("subject_index", range(4))
def test_values_are_those_of_patients(subject_index: int) -> None:
    """Healthy to severe amyloidosis, nothing that a scan could not show."""
    truth = simulate_scan(11, subject_index, 0, **SCHEMES)
    assert 0.34 <= truth.hematocrit_fraction <= 0.48
    values = truth.truth.scan
    assert 0.24 < values["ecv_fraction_true"] < 0.6
    assert 900 < values["t1_native_ms_ideal"] < 1400
    assert 300 < values["t1_post_ms_ideal"] < values["t1_native_ms_ideal"]
    assert values["blood_t1_post_ms_ideal"] < values["t1_post_ms_ideal"] + 150


def test_ideal_carries_the_bias_of_molli(scan: SimulatedScan) -> None:
    """MOLLI underestimates T1; the ideal shows by how much and is never corrected."""
    truth = scan.truth.scan
    assert 0.8 < truth["t1_native_ms_ideal"] / truth["t1_native_ms_true"] < 0.95


def test_true_ecv_follows_from_true_t1(scan: SimulatedScan) -> None:
    """The formula of the pipeline holds exactly for the tissue's values, slice by slice."""
    for row in scan.truth.slices:
        values = {name: float(value) for name, value in row.items() if name.endswith("_true")}
        delta_r1 = 1 / values["t1_post_ms_true"] - 1 / values["t1_native_ms_true"]
        delta_r1_blood = 1 / values["blood_t1_post_ms_true"] - 1 / values["blood_t1_native_ms_true"]
        ecv = (1 - scan.hematocrit_fraction) * delta_r1 / delta_r1_blood
        assert ecv == pytest.approx(values["ecv_fraction_true"], abs=1e-9)


def test_maps_are_empty_outside_the_heart(scan: SimulatedScan) -> None:
    """There is no truth about the liver."""
    heart = scan.labels.any(0)
    for name, image in scan.truth.maps.items():
        assert torch.isnan(image[~heart]).all(), name
    assert not torch.isnan(scan.truth.maps["ecv_fraction_true"][scan.labels[0]]).any()
