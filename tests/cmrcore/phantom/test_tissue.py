"""Tissues of the digital trial."""

import numpy as np
import pytest
import torch

from cmrcore.phantom.anatomy import STRUCTURES
from cmrcore.phantom.bloch import acquire
from cmrcore.phantom.ideal import ideal_t1_ms, phase_restored
from cmrcore.phantom.tissue import (
    ECV_HEALTHY_FRACTION,
    FIELD_STRENGTHS_T,
    blood,
    draw_ecv_fractions,
    myocardium,
    plasma_mmol_per_l,
    post_contrast,
    post_contrast_t1_ms,
    tissues,
)
from cmrcore.quantify import ecv_map

FIELDS = pytest.mark.parametrize("field_strength_t", FIELD_STRENGTHS_T)


@FIELDS
@pytest.mark.parametrize("ecv_fraction", [0.25, 0.6])
def test_ecv_formula_gives_back_the_tissue(field_strength_t: float, ecv_fraction: float) -> None:
    """The two-compartment relation and the ECV formula are each other's inverse, whatever the dose."""
    hematocrit = 0.41
    muscle, pool = myocardium(ecv_fraction, field_strength_t), blood(hematocrit, field_strength_t)
    ecv = ecv_map(
        torch.tensor(muscle.t1_ms, dtype=torch.float64),
        torch.tensor(post_contrast_t1_ms(muscle, 0.7, field_strength_t), dtype=torch.float64),
        pool.t1_ms,
        post_contrast_t1_ms(pool, 0.7, field_strength_t),
        hematocrit,
    )
    assert ecv.item() == pytest.approx(ecv_fraction, abs=1e-6)


@pytest.mark.parametrize(("field_strength_t", "measured_ms"), [(1.5, 995.8), (3.0, 1183.8)])
def test_molli_reads_published_native_t1_in_healthy_hearts(
    field_strength_t: float, measured_ms: float
) -> None:
    """The true T1 was chosen so that the simulated sequence reads what Granitz et al. measured with it."""
    muscle = myocardium(ECV_HEALTHY_FRACTION, field_strength_t)
    t1_ms, t2_ms, bound_fraction = torch.tensor(
        [[muscle.t1_ms], [muscle.t2_ms], [muscle.bound_fraction]], dtype=torch.float64
    )
    read = acquire("5(3)3", t1_ms, t2_ms, [900.0] * 11, bound_fraction=bound_fraction)
    signed = phase_restored(read.signal, read.times_ms)
    assert ideal_t1_ms(signed, read.times_ms, "molli").item() == pytest.approx(measured_ms, rel=0.02)


def test_blood_t1_follows_hematocrit() -> None:
    """Lu et al. give 1664 ms at 3 T and hematocrit 0.42; more cells mean shorter T1."""
    assert blood(0.42, 3.0).t1_ms == pytest.approx(1664, rel=0.01)
    assert blood(0.46, 1.5).t1_ms < blood(0.38, 1.5).t1_ms


@FIELDS
def test_amyloid_lengthens_t1_and_t2(field_strength_t: float) -> None:
    """Native T1 tracks the amyloid burden (Fontana et al.: 967 to 1097 ms), as does T2 (Kotecha et al.)."""
    healthy, amyloid = (myocardium(ecv, field_strength_t).t1_ms for ecv in (0.25, 0.54))
    assert amyloid / healthy == pytest.approx(1097 / 967, rel=0.01)
    healthy, amyloid = (myocardium(ecv, field_strength_t).t2_ms for ecv in (0.25, 0.54))
    assert amyloid / healthy == pytest.approx(54.2 / 48.9, rel=0.01)


@FIELDS
def test_gadolinium_shortens_what_it_reaches(field_strength_t: float) -> None:
    """T1 and T2 fall wherever there is extracellular space, and only there."""
    for name, tissue in tissues(field_strength_t, 0.4, 0.3).items():
        after = post_contrast(tissue, 0.5, field_strength_t)
        if name == "stomach":
            assert after.t1_ms == pytest.approx(tissue.t1_ms)
        else:
            assert after.t1_ms < tissue.t1_ms
            assert after.t2_ms < tissue.t2_ms


def test_plasma_concentration_falls_as_published() -> None:
    """8.77 kg/l times the dose at once; about 0.45 mmol/l a quarter of an hour after 0.1 mmol/kg."""
    assert plasma_mmol_per_l(0.1, 0.0) == pytest.approx(0.877)
    assert plasma_mmol_per_l(0.1, 15.0) == pytest.approx(0.4507, abs=1e-4)


@FIELDS
def test_every_structure_has_a_tissue(field_strength_t: float) -> None:
    """What the anatomy paints must have a signal."""
    named = tissues(field_strength_t, 0.4, 0.25)
    missing = set(STRUCTURES) - {"fat"} - set(named)
    assert not missing
    for tissue in named.values():
        assert 0 < tissue.t2_ms <= tissue.t1_ms < 2500


def test_lesion_differs_from_the_rest_by_its_ecv() -> None:
    """A focal deposit is myocardium with more extracellular space; without one it is like the rest."""
    focal = tissues(1.5, 0.4, 0.4, 0.6)
    assert focal["lesion"].extracellular_fraction == 0.6
    assert focal["lesion"].t1_ms > focal["myocardium"].t1_ms
    diffuse = tissues(1.5, 0.4, 0.4)
    assert diffuse["lesion"] == diffuse["myocardium"]


def test_variation_belongs_to_the_subject() -> None:
    """The same seed gives the same subject at every hematocrit, and the spread is that asked for."""
    mean = tissues(1.5, 0.4, 0.3)["blood_pool"].t1_ms
    one, later = (tissues(1.5, hct, 0.3, rng=np.random.default_rng(3)) for hct in (0.4, 0.44))
    assert one["liver"] == later["liver"]
    assert later["blood_pool"].t1_ms < one["blood_pool"].t1_ms
    drawn = [
        tissues(1.5, 0.4, 0.3, rng=np.random.default_rng(seed))["blood_pool"].t1_ms for seed in range(400)
    ]
    assert np.mean(drawn) == pytest.approx(mean, rel=0.005)
    assert np.std(drawn) / mean == pytest.approx(0.02, rel=0.15)


def test_ecv_is_drawn_within_its_group() -> None:
    """Controls 0.22-0.30, ATTR 0.35-0.65, scars denser than their surroundings."""
    rng = np.random.default_rng(5)
    controls, patients, scarred = (
        [draw_ecv_fractions(rng, group) for _ in range(200)] for group in ("control", "attr", "scar")
    )
    assert all(0.22 <= ecv <= 0.30 and lesion is None for ecv, lesion in controls)
    assert all(0.35 <= ecv <= 0.65 for ecv, _ in patients)
    focal = [(ecv, lesion) for ecv, lesion in patients if lesion is not None]
    assert 70 < len(focal) < 130
    assert all(ecv + 0.04 < lesion <= 0.75 for ecv, lesion in focal)
    assert all(lesion is not None and lesion > ecv + 0.1 for ecv, lesion in scarred)
