"""Tissues of the digital trial."""

import pytest
import torch

from cmrcore.phantom.bloch import molli_echoes, parse_scheme
from cmrcore.phantom.tissue import (
    ECV_HEALTHY_FRACTION,
    FIELD_STRENGTHS_T,
    blood,
    myocardium,
    post_contrast_t1_ms,
    surroundings,
)
from cmrcore.quantify import ecv_map
from cmrcore.relaxation import fit_t1

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
    t1_ms, t2_ms = (torch.tensor([time], dtype=torch.float64) for time in (muscle.t1_ms, muscle.t2_ms))
    ti_ms, signal = molli_echoes(t1_ms, t2_ms, parse_scheme("5(3)3"), [900.0] * 11)
    assert fit_t1(signal, ti_ms, model="molli-signed").t1_ms.item() == pytest.approx(measured_ms, rel=0.03)


def test_blood_t1_follows_hematocrit() -> None:
    """Lu et al. give 1664 ms at 3 T and hematocrit 0.42; more cells mean shorter T1."""
    assert blood(0.42, 3.0).t1_ms == pytest.approx(1664, rel=0.01)
    assert blood(0.46, 1.5).t1_ms < blood(0.38, 1.5).t1_ms


@FIELDS
def test_amyloid_lengthens_native_t1(field_strength_t: float) -> None:
    """Native T1 tracks the amyloid burden (Fontana et al.: 967 to 1097 ms)."""
    healthy, amyloid = (myocardium(ecv, field_strength_t).t1_ms for ecv in (0.25, 0.54))
    assert amyloid / healthy == pytest.approx(1097 / 967, rel=0.01)


@FIELDS
def test_gadolinium_shortens_every_t1(field_strength_t: float) -> None:
    """No tissue is without extracellular space."""
    for tissue in surroundings(field_strength_t).values():
        assert post_contrast_t1_ms(tissue, 0.7, field_strength_t) < tissue.t1_ms
