"""Planes of a simulated stack in the patient."""

import pytest
import torch

from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.geometry import SliceGeometry, short_axis_geometry

GRID = Grid(n_rows=176, n_cols=160, pixel_mm=1.5)
CENTER_MM = (45.0, -40.0, 5.0)


@pytest.fixture
def geometry() -> SliceGeometry:
    """Upright stack of three slices."""
    return short_axis_geometry(GRID, turn_deg=0.0, center_mm=CENTER_MM, offsets_mm=(20.0, 0.0, -20.0))


def axes(geometry: SliceGeometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions along a row and along a column."""
    orientation = torch.tensor(geometry.orientation, dtype=torch.float64)
    return orientation[:3], orientation[3:]


def test_axes_are_orthonormal(geometry: SliceGeometry) -> None:
    """DICOM demands unit vectors at right angles."""
    row, col = axes(geometry)
    assert row.norm().item() == pytest.approx(1)
    assert col.norm().item() == pytest.approx(1)
    assert (row @ col).item() == pytest.approx(0, abs=1e-12)


def test_first_slice_is_the_base(geometry: SliceGeometry) -> None:
    """The base lies right, posterior and superior of the apex, along the slices' normal."""
    row, col = axes(geometry)
    to_base = geometry.positions_mm[0] - geometry.positions_mm[-1]
    assert to_base[0] < 0 < min(to_base[1], to_base[2])
    torch.testing.assert_close(torch.linalg.cross(row, col), to_base / to_base.norm())


def test_image_is_shown_as_usual(geometry: SliceGeometry) -> None:
    """Anterior-superior on top, the septum (patient's right) on the left."""
    row, col = axes(geometry)
    assert row[0] > 0.5
    assert col[1] > 0 > col[2]


def test_image_center_is_where_it_was_asked(geometry: SliceGeometry) -> None:
    """ImagePositionPatient is the center of the first pixel, not a corner of the image."""
    row, col = axes(geometry)
    center = geometry.positions_mm[1] + 1.5 * (159 / 2 * row + 175 / 2 * col)
    torch.testing.assert_close(center, torch.tensor(CENTER_MM, dtype=torch.float64))
