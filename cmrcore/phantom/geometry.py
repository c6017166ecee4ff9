"""Where the short-axis slices of a simulated scan lie in the patient."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.phantom.anatomy import Grid

_TO_BASE_LPS = (-0.62, 0.60, 0.50)
"""From apex to base in patient coordinates (left, posterior, superior): right, posterior, superior."""
_ANTERIOR_LPS = (0.0, -1.0, 1.0)
"""The wall that radiologists show on top of a short-axis image faces anterior and superior."""


@dataclass(frozen=True, slots=True)
class SliceGeometry:
    """Planes of a short-axis stack as DICOM states them, base first."""

    positions_mm: Float[Tensor, "slice 3"]
    """Center of the first pixel of each slice, patient LPS [mm] (ImagePositionPatient)."""
    orientation: tuple[float, float, float, float, float, float]
    """Unit vectors along a row (columns increase), then along a column (rows increase), patient LPS."""
    pixel_spacing_mm: tuple[float, float]
    """Distance of rows, then of columns [mm]."""
    slice_thickness_mm: float
    """Nominal thickness [mm]."""


def short_axis_geometry(
    grid: Grid, turn_deg: float, center_mm: tuple[float, float, float], offsets_mm: tuple[float, ...]
) -> SliceGeometry:
    """Stack across the long axis, anterior on top and septum to the left.

    Parameters
    ----------
    grid
        In-plane pixels.
    turn_deg
        In-plane turn of the image frame against upright [degrees].
    center_mm
        Where the stack's center lies, patient LPS [mm].
    offsets_mm
        Position of each slice from there towards the base [mm], in descending order.
    """
    normal = torch.nn.functional.normalize(torch.tensor(_TO_BASE_LPS, dtype=torch.float64), dim=0)
    anterior = torch.tensor(_ANTERIOR_LPS, dtype=torch.float64)
    down = -torch.nn.functional.normalize(anterior - (anterior @ normal) * normal, dim=0)
    right = torch.linalg.cross(down, normal)
    turn = math.radians(turn_deg)
    along_row = math.cos(turn) * right + math.sin(turn) * down
    along_col = math.cos(turn) * down - math.sin(turn) * right

    half_row, half_col = (grid.n_rows - 1) / 2 * grid.pixel_mm, (grid.n_cols - 1) / 2 * grid.pixel_mm
    corner = torch.tensor(center_mm, dtype=torch.float64) - half_col * along_row - half_row * along_col
    offsets = torch.tensor(offsets_mm, dtype=torch.float64)
    row_x, row_y, row_z = along_row.tolist()
    col_x, col_y, col_z = along_col.tolist()
    return SliceGeometry(
        positions_mm=corner + offsets[:, None] * normal,
        orientation=(row_x, row_y, row_z, col_x, col_y, col_z),
        pixel_spacing_mm=(grid.pixel_mm, grid.pixel_mm),
        slice_thickness_mm=8.0,
    )
