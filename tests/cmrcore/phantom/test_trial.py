"""Simulated scans and their truth."""

from dataclasses import replace
from typing import TypedDict

import numpy as np
import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.phantom import SimulatedScan, acquire, simulate_scan
from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.course import Scanner, draw_subject, site_scanner, visit_state
from cmrcore.phantom.difficulty import DIFFICULTIES, Difficulty
from cmrcore.phantom.motion import draw_motion
from cmrcore.phantom.readout import MOLLI_READOUT, read_out
from cmrcore.phantom.tissue import tissues


class Schemes(TypedDict):
    """Schemes of a scan."""

    scheme_native: str
    scheme_post: str


SCHEMES: Schemes = {"scheme_native": "5(3)3", "scheme_post": "4(1)3(1)2"}
SCANNER = Scanner(model="X", field_strength_t=1.5, grid=Grid(n_rows=144, n_cols=160, pixel_mm=1.9))
COARSE = replace(SCANNER, grid=Grid(n_rows=72, n_cols=80, pixel_mm=3.8))
"""For what needs no image."""


@pytest.fixture(scope="module")
def clean() -> SimulatedScan:
    """First visit of a subject, with noise and nothing else."""
    return simulate_scan(7, 0, 0, **SCHEMES, difficulty="clean", scanner=SCANNER)


@pytest.fixture(scope="module")
def hard() -> SimulatedScan:
    """Take the same visit with everything that goes wrong."""
    return simulate_scan(7, 0, 0, **SCHEMES, difficulty="hard", scanner=SCANNER)


def test_the_same_seed_gives_the_same_scan(hard: SimulatedScan) -> None:
    """A trial can be made again to the last bit, and its subject given as drawn."""
    subject = draw_subject(np.random.default_rng([7, 0]))
    again = simulate_scan(7, 0, 0, **SCHEMES, difficulty="hard", scanner=SCANNER, subject=subject)
    assert torch.equal(again.native.echoes, hard.native.echoes)
    assert torch.equal(again.post.echoes, hard.post.echoes)
    assert torch.equal(again.post.displacement_mm, hard.post.displacement_mm)
    assert again.truth.scan == hard.truth.scan
    assert again.imperfections == hard.imperfections


@pytest.mark.parametrize("difficulty", ["clean", "hard"])
def test_shapes_follow_scheme_and_scanner(difficulty: str, request: pytest.FixtureRequest) -> None:
    """One image per slice and inversion time, in acquisition order, and the truth of each."""
    scan: SimulatedScan = request.getfixturevalue(difficulty)
    for role, n in ((scan.native, 8), (scan.post, 9)):
        assert role.echoes.shape == (3, n, 144, 160)
        assert role.echoes.dtype == torch.float32
        assert role.labels.shape == (3, 3, n, 144, 160)
        assert role.displacement_mm.shape == (3, n, 2, 144, 160)
        assert role.through_plane_mm.shape == role.phase_fraction.shape == role.ti_ms.shape == (3, n)
    assert (scan.native.ti_ms[:, 5] < scan.native.ti_ms[:, 4]).all()
    assert scan.post_to_native_mm.shape == (3, 2, 144, 160)
    assert scan.landmarks_px.shape == (3, 3, 2)
    assert scan.geometry.pixel_spacing_mm == (1.9, 1.9)


def test_schemes_in_seconds_give_every_slice_as_many_images() -> None:
    """How many beats fill five seconds differs; a stack needs the same number."""
    scan = simulate_scan(3, 1, 0, scheme_native="5s(3s)3s", scheme_post="4s(1s)3s(1s)2s", scanner=COARSE)
    assert len(scan.native.echoes) == 3
    assert scan.native.echoes.shape[1] in range(7, 15)


def test_inversion_times_differ_between_slices(clean: SimulatedScan) -> None:
    """The heart does not beat like a clock, so each slice has its own times."""
    assert (clean.native.ti_ms[0] - clean.native.ti_ms[1]).abs().max() > 1


def test_labels_do_not_overlap_and_are_those_of_the_first_image(hard: SimulatedScan) -> None:
    """A pixel belongs to what fills more than half of it."""
    assert hard.native.labels.sum(0).max() == 1
    assert hard.labels.any(dim=(2, 3)).all()
    assert torch.equal(hard.labels, hard.native.labels[:, :, 0])


def test_nothing_moves_in_a_clean_scan(clean: SimulatedScan) -> None:
    """Accuracy is promised for it."""
    for role in (clean.native, clean.post):
        assert not role.displacement_mm.any()
        assert not role.breathes.any()
        assert (role.labels == clean.labels[:, :, None]).all()
    assert not clean.post_to_native_mm.any()
    assert not clean.post_through_plane_mm.any()


def test_post_contrast_lies_elsewhere_in_a_hard_scan(hard: SimulatedScan) -> None:
    """Label maps of the first post-contrast image are their own."""
    assert hard.post_to_native_mm.abs().amax(dim=(1, 2, 3)).min() > 1
    assert hard.post_through_plane_mm.abs().min() > 0
    assert not torch.equal(hard.post.labels[:, :, 0], hard.labels)


def test_imperfections_change_neither_tissue_nor_heart(clean: SimulatedScan, hard: SimulatedScan) -> None:
    """The same subject, whatever the scanner makes of it."""
    assert torch.equal(clean.labels, hard.labels)
    for name, value in clean.truth.scan.items():
        if name.endswith("_true"):
            assert hard.truth.scan[name] == pytest.approx(value)


def test_noise_has_the_promised_level(clean: SimulatedScan) -> None:
    """SNR 40 is meant at full recovery of native myocardium in the middle slice; in air noise is Rayleigh."""
    echoes = clean.native.echoes
    sigma = echoes[:, :, :6, :6].mean().item() / (torch.pi / 2) ** 0.5
    subject = draw_subject(np.random.default_rng([7, 0]))
    muscle = tissues(
        1.5,
        clean.hematocrit_fraction,
        clean.visit.ecv_fraction,
        None,
        np.random.default_rng(subject.tissue_seed),
    )["myocardium"]
    t1_ms, t2_ms = (torch.tensor([time], dtype=torch.float64) for time in (muscle.t1_ms, muscle.t2_ms))
    full = read_out(MOLLI_READOUT, t1_ms, t2_ms, torch.zeros(1, 1, dtype=torch.float64))
    signal = (full.signal_offset + full.signal_slope).abs().item() * muscle.proton_density * 4000
    assert signal / sigma == pytest.approx(40, rel=0.05)
    # The myocardium of the images is as bright as that.
    rr_ms = [*clean.native.ti_ms[1, :5].diff().tolist(), 900.0]
    bound = torch.tensor([muscle.bound_fraction], dtype=torch.float64)
    latest = acquire("5", t1_ms, t2_ms, rr_ms, bound_fraction=bound).signal[-1].abs().item()
    shown = echoes[1, 4][clean.labels[0, 1]].median().item()
    assert shown / (4000 * muscle.proton_density * latest) == pytest.approx(1, rel=0.05)


def test_pose_changes_between_visits_and_sizes_follow_the_course(clean: SimulatedScan) -> None:
    """The same heart lies elsewhere at the next visit."""
    later = simulate_scan(7, 0, 1, **SCHEMES, difficulty="clean", scanner=SCANNER)
    assert not torch.equal(later.labels, clean.labels)
    ratio = later.labels[0].sum(dim=(1, 2)) / clean.labels[0].sum(dim=(1, 2))
    assert (ratio - 1).abs().max() < 0.12
    assert later.kind == clean.kind
    gained = later.truth.scan["ecv_fraction_true"] - clean.truth.scan["ecv_fraction_true"]
    assert gained == pytest.approx(later.visit.ecv_change_fraction, abs=0.004)


@pytest.mark.parametrize("subject_index", range(4))
def test_values_are_those_of_patients(subject_index: int) -> None:
    """Healthy to severe amyloidosis, nothing that a scan could not show."""
    scan = simulate_scan(11, subject_index, 0, **SCHEMES, difficulty="clean", scanner=COARSE)
    assert 0.34 <= scan.hematocrit_fraction <= 0.48
    values = scan.truth.scan
    assert 0.2 < values["ecv_fraction_true"] < 0.75
    assert 850 < values["t1_native_ms_ideal"] < 1500
    assert 200 < values["t1_post_ms_ideal"] < values["t1_native_ms_ideal"]
    assert values["blood_t1_post_ms_ideal"] < values["t1_post_ms_ideal"] + 150


def test_ideal_carries_the_bias_of_molli(clean: SimulatedScan) -> None:
    """MOLLI underestimates T1; the ideal shows by how much and is never corrected."""
    truth = clean.truth.scan
    assert 0.8 < truth["t1_native_ms_ideal"] / truth["t1_native_ms_true"] < 0.97


def test_true_ecv_follows_from_true_t1(clean: SimulatedScan) -> None:
    """The formula of the pipeline holds exactly for the tissue's values, pixel by pixel."""
    maps = clean.truth.maps
    for index, row in enumerate(clean.truth.slices):
        blood = 1 / float(row["blood_t1_post_ms_true"]) - 1 / float(row["blood_t1_native_ms_true"])
        delta_r1 = 1 / maps["post/t1_ms_true"][index] - 1 / maps["native/t1_ms_true"][index]
        within = clean.labels[0, index]
        ecv = ((1 - clean.hematocrit_fraction) * delta_r1 / blood)[within]
        torch.testing.assert_close(ecv, maps["ecv_fraction_true"][index][within], rtol=0, atol=1e-6)


def test_maps_are_empty_outside_the_heart(clean: SimulatedScan) -> None:
    """There is no truth about the liver."""
    heart = clean.labels.any(0)
    for name, image in clean.truth.maps.items():
        assert torch.isnan(image[~heart]).all(), name
    assert not torch.isnan(clean.truth.maps["ecv_fraction_true"][clean.labels[0]]).any()


def test_strengths_are_reported(clean: SimulatedScan, hard: SimulatedScan) -> None:
    """A benchmark can tell by what a scan suffers."""
    assert clean.imperfections["snr"] == 40
    assert clean.imperfections["breathing_mm"] == clean.imperfections["off_resonance_ppm"] == 0
    assert hard.imperfections["breathing_mm"] == DIFFICULTIES["hard"].motion.breathing_mm
    assert hard.imperfections["wrap_mm"] > 0
    assert hard.imperfections.keys() == clean.imperfections.keys()


def test_courses_are_those_of_treated_and_untreated_patients() -> None:
    """Untreated ATTR gains four points of ECV a year (two visits), responders lose them, controls rest."""
    subjects = [draw_subject(np.random.default_rng([0, index])) for index in range(300)]
    by_course = {
        course: [one for one in subjects if one.course == course]
        for course in ("stable", "progression", "response")
    }
    assert min(len(group) for group in by_course.values()) > 30
    gains = {
        course: np.mean([visit_state(one, 2).ecv_fraction - one.ecv_fraction for one in group])
        for course, group in by_course.items()
    }
    assert gains["progression"] == pytest.approx(0.04, abs=0.008)
    assert gains["response"] == pytest.approx(-0.04, abs=0.008)
    assert gains["stable"] == pytest.approx(0, abs=0.003)
    assert all(one.course == "stable" for one in subjects if one.kind != "amyloid")
    grown = visit_state(by_course["progression"][0], 4)
    assert grown.wall_change_mm > 0
    first = visit_state(by_course["progression"][0], 0)
    assert (first.wall_change_mm, first.ecv_change_fraction) == (0, 0)


def test_a_site_changes_its_scanner_once() -> None:
    """From the stated visit on, and then to another field strength."""
    for site in range(6):
        before, after, later = (site_scanner(5, site, visit, changes_at_visit=2) for visit in (1, 2, 3))
        assert before == site_scanner(5, site)
        assert after == later
        assert after.field_strength_t != before.field_strength_t
    assert len({site_scanner(5, site).model for site in range(12)}) > 1


@pytest.mark.parametrize(
    ("difficulty", "low", "high"), [("clean", 0.0, 0.0), ("typical", 0.48, 0.64), ("hard", 0.85, 1.0)]
)
def test_as_many_series_move_as_published(difficulty: Difficulty, low: float, high: float) -> None:
    """ARCTIC saw motion in 56 % of short-axis series; seen is what moves the heart by more than a pixel."""
    grid, rng = Grid(n_rows=64, n_cols=64, pixel_mm=4.5), np.random.default_rng(0)
    time_s = [0.0, 0.9, 1.8, 2.7, 3.6, 7.2, 8.1, 9.0]
    moved = [
        max(draw_motion(rng, DIFFICULTIES[difficulty].motion, time_s, grid, (0.0, 0.0)).excursion_mm) > 1.5
        for _ in range(500)
    ]
    assert low <= np.mean(moved) <= high


def test_impossible_schemes_are_refused() -> None:
    """A typing error must not look like a scan."""
    with pytest.raises(InvalidInputError, match="expected images"):
        simulate_scan(1, 0, 0, scheme_native="5(3", scheme_post="4(1)3(1)2")
