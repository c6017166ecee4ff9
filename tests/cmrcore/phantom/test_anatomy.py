"""Shapes of the digital heart."""

import math

import pytest
import torch

from cmrcore.phantom.anatomy import STRUCTURES, Grid, Heart, Level, structure_fractions

GRID = Grid(n_rows=176, n_cols=160, pixel_mm=1.5)
ROUND = Heart(
    cavity_radius_mm=22.0,
    wall_mm=12.0,
    septal_excess_fraction=0.0,
    ovality_fraction=0.0,
    septum_deg=180.0,
    center_mm=(5.0, -4.0),
)


@pytest.mark.parametrize("level", ["basal", "mid", "apical"])
def test_fractions_fill_each_pixel_at_most_once(level: Level) -> None:
    """Partial volume shares a pixel out; the rest is air."""
    fractions = structure_fractions(ROUND, level, GRID)
    assert fractions.shape == (len(STRUCTURES), GRID.n_rows, GRID.n_cols)
    assert fractions.min() >= 0
    assert fractions.sum(0).max() <= 1 + 1e-12


def test_areas_are_those_of_the_circles() -> None:
    """Soft edges keep the area of a round heart to a percent."""
    fractions = structure_fractions(ROUND, "mid", GRID)
    area_mm2 = {name: fractions[index].sum().item() * 1.5**2 for index, name in enumerate(STRUCTURES)}
    assert area_mm2["blood_pool"] == pytest.approx(math.pi * 22**2, rel=0.01)
    assert area_mm2["myocardium"] == pytest.approx(math.pi * (34**2 - 22**2), rel=0.01)


def test_right_ventricle_lies_on_the_septal_side() -> None:
    """Image left at 180 degrees, as radiologists show the short axis."""
    rv = structure_fractions(ROUND, "mid", GRID)[STRUCTURES.index("rv")] > 0.5
    columns = torch.nonzero(rv)[:, 1].double()
    assert columns.mean() < GRID.n_cols / 2 - 15


def test_apex_is_smaller_than_base() -> None:
    """The ventricle tapers."""
    cavity = STRUCTURES.index("blood_pool")
    basal, mid, apical = (
        structure_fractions(ROUND, level, GRID)[cavity].sum() for level in ("basal", "mid", "apical")
    )
    assert basal > mid > apical > 0
