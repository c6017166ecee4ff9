"""Short-axis anatomy of the digital trial: smooth shapes with partial volume, contiguous along the heart.

Every shape is a function of the level along the left ventricle (LV), the moment of the beat and the place in
the plane, so that slices, visits and motion show one and the same subject.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.phantom.heart import (
    Heart,
    HeartKind,
    Sex,
    draw_heart,
    heart_distances,
    right_ventricle,
    ring,
    thicken,
)
from cmrcore.phantom.shapes import Frame, column
from cmrcore.phantom.thorax import Thorax, draw_thorax, thorax_distances

__all__ = ["STRUCTURES", "Anatomy", "Grid", "HeartKind", "Sex", "View"]

STRUCTURES: tuple[str, ...] = (
    "subcutaneous_fat",
    "muscle",
    "spine",
    "lung",
    "liver",
    "stomach",
    "arm",
    "epicardial_fat",
    "rv_wall",
    "rv",
    "aorta",
    "myocardium",
    "lesion",
    "blood_pool",
    "papillary",
)
"""What a pixel may hold, each painted over those before it. ``subcutaneous_fat`` is all fat outside the
pericardium, ``spine`` all marrow, ``aorta`` all vessels, ``liver`` liver and spleen."""

_CHUNK = 4
"""Images drawn at once: their maps stay in the processor's cache."""
_CUSP_MM = 1.0
"""The RV ends in a cusp; where it is thinner than this, no reader would see it."""
_KINDS: tuple[HeartKind, ...] = ("normal", "hypertrophied", "amyloid", "dilated", "thin_apex", "small_thick")


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One subject's heart and chest."""

    kind: HeartKind
    """What kind of heart."""
    sex: Sex
    """Sex of the subject."""
    heart: Heart
    """Both ventricles and what belongs to them."""
    thorax: Thorax
    """What lies around."""


@dataclass(frozen=True, slots=True)
class View:
    """Plane, moment and frame of one image."""

    along_fraction: float
    """Level along the LV: 0 base, 1 apex; below 0 the outflow tract."""
    phase_fraction: float = 0.0
    """0 end-diastole, 1 end-systole."""
    shift_mm: tuple[float, float] = (0.0, 0.0)
    """LV center relative to the image's center (down, right) [mm]."""
    turn_deg: float = 0.0
    """Turn of the body in the image, clockwise [degrees]."""


@dataclass(frozen=True, slots=True)
class Grid:
    """In-plane pixel grid."""

    n_rows: int
    """Image height."""
    n_cols: int
    """Image width."""
    pixel_mm: float
    """Side of the square pixels [mm]."""


def draw_anatomy(rng: np.random.Generator, kind: HeartKind | None = None, sex: Sex | None = None) -> Anatomy:
    """Draw a subject; kind and sex are drawn where they are not given."""
    kind = kind or _KINDS[int(rng.integers(len(_KINDS)))]
    sex = sex or ("female" if rng.random() < 0.5 else "male")
    return Anatomy(kind, sex, draw_heart(rng, kind, sex), draw_thorax(rng, sex))


def remodel(anatomy: Anatomy, wall_change_mm: float) -> Anatomy:
    """Give the LV a thicker wall at a later visit (thinner where negative) [mm]."""
    return replace(anatomy, heart=thicken(anatomy.heart, wall_change_mm))


def structure_fractions(
    anatomies: Sequence[Anatomy],
    views: Sequence[View],
    grid: Grid,
    displacement_mm: Float[Tensor, "batch 2 row col"] | None = None,
) -> Float[Tensor, "batch structure row col"]:
    """Share of each pixel that each of `STRUCTURES` fills; what is left of 1 is air.

    Parameters
    ----------
    anatomies, views
        Subject, plane and moment of each image.
    grid
        Pixels, the same in all images.
    displacement_mm
        Where the tissue that a pixel shows lies in the image without motion, relative to the pixel (down,
        right) [mm]; shapes are evaluated there, nothing is resampled.
    """
    fractions = torch.empty(len(views), len(STRUCTURES), grid.n_rows, grid.n_cols, dtype=torch.float32)
    for start in range(0, len(views), _CHUNK):
        part = slice(start, start + _CHUNK)
        displaced = None if displacement_mm is None else displacement_mm[part]
        frame = _frame(views[part], grid, displaced)
        along, phase = _levels(views[part])
        hearts = [one.heart for one in anatomies[part]]
        widest_mm = ring(hearts, along.clamp(0.2, 0.6), torch.zeros_like(phase)).outer_mm.amax(1)
        distance = thorax_distances([one.thorax for one in anatomies[part]], widest_mm[:, None, None], frame)
        distance |= heart_distances(hearts, along, phase, frame)
        distance["aorta"] = torch.minimum(distance["aorta"], distance.pop("root"))
        left = torch.ones_like(frame.down)
        for index in reversed(range(len(STRUCTURES))):
            cover = (0.5 - distance[STRUCTURES[index]] / grid.pixel_mm).clamp_(0, 1)
            left = left - torch.mul(left, cover, out=fractions[part, index])
    return fractions


def labels(fractions: Float[Tensor, "batch structure row col"]) -> Bool[Tensor, "batch label row col"]:
    """Masks of LV myocardium, LV blood pool and RV: pixels filled by more than half.

    The lesion is myocardium; papillary muscles and trabeculae belong to the blood pool, as a reader's smooth
    endocardial contour includes them (Schulz-Menger et al. 2020, doi:10.1186/s12968-020-00610-6).
    """

    def filled(*names: str) -> Float[Tensor, "batch row col"]:
        return fractions[:, [STRUCTURES.index(name) for name in names]].sum(1)

    masks = (filled("myocardium", "lesion"), filled("blood_pool", "papillary"), filled("rv"))
    return torch.stack(masks, dim=1) > 0.5


def landmarks(anatomies: Sequence[Anatomy], views: Sequence[View], grid: Grid) -> Float[Tensor, "batch 3 2"]:
    """Anterior and inferior RV insertion on the LV's epicardium, and LV center, as (row, col) [pixel].

    An insertion is where the outer contour of the LV leaves the RV cavity; NaN where the RV does not reach
    the LV.
    """
    along, phase = _levels(views)
    hearts = [one.heart for one in anatomies]
    outer_mm = ring(hearts, along, phase).outer_mm
    angle = torch.linspace(-math.pi, math.pi, outer_mm.shape[1])[None, None, :]
    radius = outer_mm[:, None, :]
    epicardium = Frame(radius * torch.sin(angle), radius * torch.cos(angle))
    inside = (right_ventricle(hearts, along, phase, epicardium) < -_CUSP_MM)[:, 0]
    septum = torch.deg2rad(
        column(hearts, "septum_deg")[:, 0] + column(hearts, "twist_deg")[:, 0] * along[:, None]
    )
    # Clockwise from mid-septum; anterior lies that way on an upright image.
    around = torch.remainder(angle[0] - septum + math.pi, 2 * math.pi) - math.pi
    far = torch.full_like(around, torch.nan)
    anterior = torch.where(inside, around, far).nan_to_num(-math.inf).amax(1)
    inferior = torch.where(inside, around, far).nan_to_num(math.inf).amin(1)
    points = []
    for offset in (anterior, inferior):
        at = offset + septum[:, 0]
        place = (torch.remainder(at + math.pi, 2 * math.pi)) / (2 * math.pi) * (outer_mm.shape[1] - 1)
        nearest = place.nan_to_num(0, 0, 0).round().long().clamp(0, outer_mm.shape[1] - 1)
        reach = outer_mm.gather(1, nearest[:, None])[:, 0]
        points.append(torch.stack([reach * torch.sin(at), reach * torch.cos(at)], dim=1))
    points.append(torch.zeros_like(points[0]))
    placed = _to_image(torch.stack(points, dim=1), views)
    middle = torch.tensor([(grid.n_rows - 1) / 2, (grid.n_cols - 1) / 2])
    return placed / grid.pixel_mm + middle


def _levels(views: Sequence[View]) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Level and moment of each image."""
    along = torch.tensor([view.along_fraction for view in views], dtype=torch.float32)
    return along, torch.tensor([view.phase_fraction for view in views], dtype=torch.float32)


def _frame(
    views: Sequence[View], grid: Grid, displacement_mm: Float[Tensor, "batch 2 row col"] | None
) -> Frame:
    """Pixels in the frame of the body, around the LV's center."""
    down = _axis_mm(grid.n_rows, grid.pixel_mm)[None, :, None] - column(views, "shift_mm", 0)
    right = _axis_mm(grid.n_cols, grid.pixel_mm)[None, None, :] - column(views, "shift_mm", 1)
    if displacement_mm is not None:
        down, right = down + displacement_mm[:, 0], right + displacement_mm[:, 1]
    turn = torch.deg2rad(column(views, "turn_deg"))
    cosine, sine = torch.cos(turn), torch.sin(turn)
    return Frame(down * cosine - right * sine, right * cosine + down * sine)


def _to_image(
    points: Float[Tensor, "batch point 2"], views: Sequence[View]
) -> Float[Tensor, "batch point 2"]:
    """Turn points around the LV's center into the image's frame (down, right) [mm]."""
    turn = torch.deg2rad(column(views, "turn_deg"))[:, 0]
    cosine, sine = torch.cos(turn), torch.sin(turn)
    down, right = points[..., 0], points[..., 1]
    shift = torch.tensor([view.shift_mm for view in views], dtype=torch.float32)
    turned = torch.stack([down * cosine + right * sine, right * cosine - down * sine], dim=-1)
    return turned + shift[:, None, :]


def _axis_mm(n_pixels: int, pixel_mm: float) -> Float[Tensor, " pixel"]:
    """Pixel centers along one axis relative to the image's center [mm]."""
    return (torch.arange(n_pixels, dtype=torch.float32) - (n_pixels - 1) / 2) * pixel_mm
