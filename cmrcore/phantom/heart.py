"""The heart across its long axis: outlines of both ventricles at any level and moment of the beat.

Distances are in mm, positive outside. The origin is the center of the left ventricle (LV); angles run
clockwise from image right, so that the septum faces 180 degrees.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.phantom.shapes import Frame, Polar, column, ellipse, harmonics, smooth_minimum

HeartKind = Literal["normal", "hypertrophied", "amyloid", "dilated", "thin_apex", "small_thick"]
Sex = Literal["female", "male"]

RV_WALL_MM = 3.0
_PAPILLARY_SITES_DEG = (-50.0, 65.0)
"""Anterolateral and posteromedial papillary muscle, seen from mid-septum's opposite."""
_N_TRABECULAE = 5
_N_MODES = 6

_CAVITY_MM: dict[HeartKind, tuple[float, float]] = {
    "normal": (23.0, 28.0),
    "hypertrophied": (19.0, 25.0),
    "amyloid": (19.0, 26.0),
    "dilated": (33.0, 40.0),
    "thin_apex": (22.0, 28.0),
    "small_thick": (11.0, 17.0),
}
"""Radius of the LV cavity at end-diastole near the base, men."""
_WALL_MM: dict[HeartKind, tuple[float, float]] = {
    "normal": (7.0, 10.0),
    "hypertrophied": (12.0, 18.0),
    "amyloid": (12.0, 20.0),
    "dilated": (5.5, 9.0),
    "thin_apex": (7.0, 10.0),
    "small_thick": (12.0, 19.0),
}
_FEMALE = 0.92
"""Women's cavities and walls relative to men's."""


@dataclass(frozen=True, slots=True)
class Heart:
    """Size and shape of both ventricles at end-diastole; stays between the visits of a subject."""

    length_mm: float
    """LV from base to apex."""
    cavity_mm: float
    """Radius of the LV cavity at the base."""
    wall_mm: float
    """Mean thickness of the LV wall at the base."""
    septal_excess_fraction: float
    """How much thicker than the mean mid-septum is, and thinner the lateral wall."""
    bulge_fraction: float
    """Further thickening of one part of the wall (asymmetric hypertrophy)."""
    bulge_deg: float
    """Where that part is, from mid-septum."""
    apical_wall_fraction: float
    """Thickness at the apex over that at the base."""
    contraction_fraction: float
    """How much shorter the cavity's radius is at end-systole."""
    septum_deg: float
    """Direction of mid-septum."""
    cavity_modes: tuple[float, ...]
    """Cosine and sine amplitudes of the cavity's outline, 2 to 4 a turn, relative to its radius."""
    wall_modes: tuple[float, ...]
    """The same of the thickness."""
    twist_deg: float
    """Turn of the outline from base to apex."""
    papillary_mm: tuple[float, float]
    """Radii of the papillary muscles."""
    papillary_shift_deg: tuple[float, float]
    """How far they are off their usual sites."""
    trabeculae_deg: tuple[float, ...]
    """Directions of trabeculae at the cavity's edge."""
    trabecula_mm: float
    """Their radius."""
    outflow_deg: float
    """Where the wall opens to the outflow tract, from mid-septum towards anterior."""
    outflow_reach_fraction: float
    """How far from the base towards the apex it opens, of the LV's length."""
    rv_reach_mm: float
    """How far the RV reaches from the septum's outer edge."""
    rv_insertion_deg: float
    """Angle between mid-septum and where the RV meets the LV."""
    rv_shift_fraction: float
    """How far the RV lies below mid-septum, of the LV's outer radius."""
    rv_floor_fraction: float
    """Distance of the flat diaphragmatic wall from the LV's center, of the LV's outer radius."""
    tract_mm: float
    """Radius of the RV's outflow tract at the base."""
    root_mm: float
    """Radius of the aortic root at the base."""
    rv_modes: tuple[float, ...]
    """Amplitudes of the RV's outline."""
    fat_mm: float
    """Epicardial fat over the RV; half of it over the LV."""
    mediastinum_mm: float
    """Further fat in front, towards the chest wall."""
    groove_mm: float
    """Further fat in the grooves where the ventricles meet."""
    lesion_deg: float
    """Center of the focal lesion, from mid-septum."""
    lesion_half_width_deg: float
    """Half of its extent around the ring."""
    lesion_along_fraction: float
    """Level of its center."""
    lesion_depth: tuple[float, float]
    """From where to where in the wall it lies, 0 endocardium, 1 epicardium."""


def draw_heart(rng: np.random.Generator, kind: HeartKind, sex: Sex) -> Heart:
    """Draw a heart of a kind.

    Cavity and wall: Kawel-Boehm et al. 2020, doi:10.1186/s12968-020-00683-3 (adults, end-diastole); walls of
    amyloid hearts: Martinez-Naharro et al. 2017, doi:10.1016/j.jacc.2017.08.035. Shapes are illustrative.
    """

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def modes(spread: float) -> tuple[float, ...]:
        orders = np.repeat([2, 3, 4], 2)
        return tuple(float(value) for value in rng.normal(0, spread, _N_MODES) * (2 / orders))

    size = _FEMALE if sex == "female" else 1.0
    wall_mm = size * between(*_WALL_MM[kind])
    is_asymmetric = kind == "hypertrophied" and rng.random() < 0.5
    inner, outer = sorted((between(-0.2, 0.6), between(0.4, 1.2)))
    return Heart(
        length_mm=size * between(88.0, 105.0),
        cavity_mm=size * between(*_CAVITY_MM[kind]),
        wall_mm=wall_mm,
        septal_excess_fraction=between(-0.02, 0.15),
        bulge_fraction=between(0.3, 0.7) if is_asymmetric else 0.0,
        bulge_deg=between(-50.0, 50.0),
        apical_wall_fraction=between(0.3, 0.5) if kind == "thin_apex" else between(0.6, 0.9),
        contraction_fraction=between(0.1, 0.2) if kind == "dilated" else between(0.28, 0.45),
        septum_deg=180 + between(-25.0, 25.0),
        cavity_modes=modes(0.035),
        wall_modes=modes(0.06),
        twist_deg=between(-25.0, 25.0),
        papillary_mm=(between(3.0, 5.5), between(3.0, 5.5)),
        papillary_shift_deg=(between(-15.0, 15.0), between(-15.0, 15.0)),
        trabeculae_deg=tuple(float(angle) for angle in rng.uniform(-180, 180, _N_TRABECULAE)),
        trabecula_mm=between(0.8, 2.0),
        outflow_deg=between(35.0, 65.0),
        outflow_reach_fraction=between(0.05, 0.16),
        rv_reach_mm=size * between(26.0, 50.0),
        rv_insertion_deg=between(60.0, 78.0),
        rv_shift_fraction=between(-0.08, 0.15),
        rv_floor_fraction=between(0.85, 1.15),
        tract_mm=size * between(11.0, 17.0),
        root_mm=size * between(11.0, 15.0),
        rv_modes=modes(0.05),
        fat_mm=between(1.5, 9.0),
        mediastinum_mm=between(0.0, 14.0),
        groove_mm=between(1.0, 5.0),
        lesion_deg=between(-180.0, 180.0),
        lesion_half_width_deg=between(15.0, 60.0),
        lesion_along_fraction=between(0.1, 0.8),
        lesion_depth=(inner, max(outer, inner + 0.35)),
    )


def thicken(heart: Heart, wall_change_mm: float) -> Heart:
    """Give the heart a thicker wall (thinner where negative), outwards."""
    return replace(heart, wall_mm=max(heart.wall_mm + wall_change_mm, 3.0))


@dataclass(frozen=True, slots=True)
class Ring:
    """Radii of the LV's contours as tables over the angle, and levels they depend on."""

    inner_mm: Float[Tensor, "batch angle"]
    """Endocardium."""
    outer_mm: Float[Tensor, "batch angle"]
    """Epicardium."""
    mean_outer_mm: Float[Tensor, "batch 1 1"]
    """Mean of the epicardium's radius, which scales the RV."""


def ring(hearts: list[Heart], along: Float[Tensor, " batch"], phase: Float[Tensor, " batch"]) -> Ring:
    """Contours of the LV at a level (0 base, 1 apex) and moment (0 end-diastole, 1 end-systole)."""

    def of(name: str) -> Float[Tensor, "batch 1"]:
        return column(hearts, name)[:, 0]

    along, phase = along[:, None], phase[:, None]
    level = along.clamp(0, 1)
    septum = torch.deg2rad(of("septum_deg") + of("twist_deg") * along)
    profile = (1 - level.pow(2.3)).clamp(min=0.0).sqrt() * (1 - 0.06 * (0.3 - along).clamp(min=0))
    # Past the apex the cavity closes; what is left of the wall is drawn until it is gone, too.
    diastole_mm = of("cavity_mm") * profile
    wall_mm = of("wall_mm") * (1 - (1 - of("apical_wall_fraction")) * level.square())
    area = (diastole_mm + wall_mm).square() - diastole_mm.square()
    radius_mm = diastole_mm * (1 - of("contraction_fraction") * phase)
    # Muscle keeps its volume and shortens along the axis.
    wall_mm = (radius_mm.square() + area * (1 + 0.15 * phase)).sqrt() - radius_mm
    wall_mm = wall_mm * (1 - ((along - 1) * of("length_mm") / of("wall_mm")).clamp(0, 1))

    angle = torch.linspace(-math.pi, math.pi, Polar.N_ANGLES + 1)[None, :] - septum
    cosine, sine = torch.cos(angle), torch.sin(angle)
    shape = harmonics(hearts, "cavity_modes", cosine, sine)
    bulge = of("bulge_fraction") * torch.exp(3 * (torch.cos(angle - torch.deg2rad(of("bulge_deg"))) - 1))
    thickness = 1 + of("septal_excess_fraction") * cosine + bulge
    thickness = (thickness + harmonics(hearts, "wall_modes", cosine, sine)).clamp(min=0.35)
    opening = ((of("outflow_reach_fraction") - along) / 0.06).clamp(0, 1)
    gap = (1.6 * torch.exp(5 * (torch.cos(angle - torch.deg2rad(of("outflow_deg"))) - 1))).clamp(max=1)
    inner_mm = radius_mm * (1 + shape)
    outer_mm = inner_mm + wall_mm * thickness * (1 - opening * gap)
    return Ring(inner_mm, outer_mm, (radius_mm + wall_mm)[..., None])


def heart_distances(
    hearts: list[Heart],
    along: Float[Tensor, " batch"],
    phase: Float[Tensor, " batch"],
    frame: Frame,
) -> dict[str, Float[Tensor, "batch row col"]]:
    """Distance of every pixel from the parts of the heart, the epicardial fat among them."""
    contours = ring(hearts, along, phase)
    polar = Polar.of(frame)
    inner, outer = polar.look_up(contours.inner_mm), polar.look_up(contours.outer_mm)
    radius = frame.radius()
    lv, cavity = radius - outer, radius - inner

    level, beat = along[:, None, None], phase[:, None, None]
    rv = right_ventricle(hearts, along, phase, frame)
    groove = _grooves(hearts, level, frame, contours.mean_outer_mm)
    fat_mm = column(hearts, "fat_mm")
    both = smooth_minimum(rv + RV_WALL_MM - fat_mm / 2, lv, 4.0)
    in_front = (-0.7 * frame.right - 0.7 * frame.down) / radius.clamp(min=1.0)  # image left and up
    front_mm = column(hearts, "mediastinum_mm") * torch.exp(3 * (in_front - 1))
    fat = torch.minimum(both - fat_mm / 2 - front_mm, groove - column(hearts, "groove_mm"))
    muscle = _papillary(hearts, level, beat, frame, contours, cavity)
    root = _aortic_root(hearts, level, frame, contours.mean_outer_mm)
    return {
        "epicardial_fat": fat,
        "rv_wall": rv - RV_WALL_MM,
        "rv": torch.maximum(rv, 2 - root),  # the root has a wall
        "root": root,
        "myocardium": lv,
        "lesion": _lesion(hearts, level, frame, radius, inner, outer),
        "blood_pool": cavity,
        "papillary": torch.maximum(muscle, cavity),
    }


def right_ventricle(
    hearts: list[Heart], along: Float[Tensor, " batch"], phase: Float[Tensor, " batch"], frame: Frame
) -> Float[Tensor, "batch row col"]:
    """Distance from the RV cavity, a part of which the LV covers."""
    outer_mm = ring(hearts, along, phase).mean_outer_mm
    level, beat = along[:, None, None], phase[:, None, None]
    towards, below = _septal_axes(hearts, level, frame)
    taper = (1 - ((level - 0.15).clamp(min=0) / 0.8).square()).clamp(min=0.02).sqrt()
    # The ellipse is widest where it meets the LV, so that the RV never grows around it.
    insertion = torch.deg2rad(column(hearts, "rv_insertion_deg"))
    middle = outer_mm * torch.cos(insertion)
    half_width = outer_mm - middle + column(hearts, "rv_reach_mm") * taper * (1 - 0.25 * beat)
    half_height = outer_mm * torch.sin(insertion) * (0.5 + 0.5 * taper)
    towards, lower = towards - middle, below - column(hearts, "rv_shift_fraction") * outer_mm
    norm = (towards.square() + lower.square()).sqrt_().clamp_(min=1e-3)
    bend = 1 + harmonics(hearts, "rv_modes", towards / norm, lower / norm)
    half_width = torch.where(towards > 0, half_width, 0.6 * outer_mm)  # its other half hides behind the LV
    body = ellipse(towards / bend, lower / bend, half_width, half_height)
    floor = below - column(hearts, "rv_floor_fraction") * outer_mm * (1 - 0.25 * level)
    rv = torch.maximum(body, floor) + 40 * (level - 0.93).clamp(min=0)  # the RV ends before the apex
    # Its outflow tract passes in front of the base.
    tract_mm = column(hearts, "tract_mm") * _near_base(level, 0.18)
    center = (0.75 * outer_mm, -(outer_mm + 0.35 * tract_mm))
    tract = ((towards + middle - center[0]).square_() + (below - center[1]).square_()).sqrt_() - tract_mm
    return smooth_minimum(rv, tract + 30 * (tract_mm < 1), 6.0)


def _aortic_root(
    hearts: list[Heart], level: Float[Tensor, "batch 1 1"], frame: Frame, outer_mm: Float[Tensor, "batch 1 1"]
) -> Float[Tensor, "batch row col"]:
    """Distance from the aortic root, which leaves the LV where its wall opens."""
    septum = column(hearts, "septum_deg") + column(hearts, "twist_deg") * level
    across, around = frame.turned(torch.deg2rad(septum + column(hearts, "outflow_deg")))
    reach = column(hearts, "outflow_reach_fraction")
    root_mm = column(hearts, "root_mm") * _near_base(level, reach)
    center = outer_mm - 0.2 * root_mm
    return ((across - center).square_() + around.square()).sqrt_() - root_mm + 30 * (root_mm < 1)


def _near_base(
    level: Float[Tensor, "batch 1 1"], reach: Float[Tensor, "batch 1 1"] | float
) -> Float[Tensor, "batch 1 1"]:
    """Fall from 1 at the base to 0 at a level."""
    return ((reach - level) / 0.08).clamp(0, 1)


def _grooves(
    hearts: list[Heart], level: Float[Tensor, "batch 1 1"], frame: Frame, outer_mm: Float[Tensor, "batch 1 1"]
) -> Float[Tensor, "batch row col"]:
    """Distance from the two grooves where the ventricles meet, which hold fat."""
    towards, below = _septal_axes(hearts, level, frame)
    insertion = torch.deg2rad(column(hearts, "rv_insertion_deg"))
    across, up = 1.02 * outer_mm * torch.cos(insertion), 1.05 * outer_mm * torch.sin(insertion)
    return ((towards - across).square_() + (below.abs() - up).square_()).sqrt_() - 2.0


def _septal_axes(
    hearts: list[Heart], level: Float[Tensor, "batch 1 1"], frame: Frame
) -> tuple[Float[Tensor, "batch row col"], Float[Tensor, "batch row col"]]:
    """Coordinates from the LV's center through mid-septum, and along the septum towards inferior [mm]."""
    towards, clockwise = frame.turned(
        torch.deg2rad(column(hearts, "septum_deg") + column(hearts, "twist_deg") * level)
    )
    return towards, -clockwise


def _papillary(
    hearts: list[Heart],
    level: Float[Tensor, "batch 1 1"],
    beat: Float[Tensor, "batch 1 1"],
    frame: Frame,
    contours: Ring,
    cavity: Float[Tensor, "batch row col"],
) -> Float[Tensor, "batch row col"]:
    """Papillary muscles between mid-base and apex, and trabeculae at the edge."""
    opposite = torch.deg2rad(column(hearts, "septum_deg") + 180)
    mean_inner = contours.inner_mm.mean(1)[:, None, None]
    nearest = torch.full_like(cavity, 1e3)
    presence = ((level - 0.18) / 0.12).clamp(0, 1) * ((0.95 - level) / 0.1).clamp(0, 1)
    for index, site in enumerate(_PAPILLARY_SITES_DEG):
        shift = column(hearts, "papillary_shift_deg", index)
        angle = opposite + torch.deg2rad(site + shift)
        across, along_ring = frame.turned(angle)
        size = column(hearts, "papillary_mm", index) * presence * (1 + 0.2 * beat)
        size = torch.minimum(size, 0.42 * mean_inner)
        # From free in the cavity near the base to merged with the wall near the apex.
        distance = mean_inner - size * (1.5 - 1.2 * level.clamp(0, 1))
        nearest = torch.minimum(
            nearest, ellipse(across - distance, along_ring, 1.25 * size + 0.01, size + 0.01)
        )
    size = column(hearts, "trabecula_mm") * ((level - 0.25) / 0.2).clamp(0, 1)
    blobs = torch.full_like(cavity, 1e6)
    for index in range(_N_TRABECULAE):
        angle = opposite + torch.deg2rad(column(hearts, "trabeculae_deg", index) * 0.55)
        place = (mean_inner * torch.sin(angle), mean_inner * torch.cos(angle))
        blobs = torch.minimum(blobs, frame.squared_distance(*place))
    return smooth_minimum(nearest, blobs.sqrt_() - 2 * size, 1.0)


def _lesion(
    hearts: list[Heart],
    level: Float[Tensor, "batch 1 1"],
    frame: Frame,
    radius: Float[Tensor, "batch row col"],
    inner: Float[Tensor, "batch row col"],
    outer: Float[Tensor, "batch row col"],
) -> Float[Tensor, "batch row col"]:
    """Part of the wall with its own tissue."""
    septum = column(hearts, "septum_deg") + column(hearts, "lesion_deg")
    across, along_ring = frame.turned(torch.deg2rad(septum))
    off_rad = torch.atan2(along_ring, across).abs()
    extent = 1 - ((level - column(hearts, "lesion_along_fraction")) / 0.35).square()
    half_rad = torch.deg2rad(column(hearts, "lesion_half_width_deg")) * extent.clamp(min=0).sqrt()
    around = (off_rad - half_rad) * radius + torch.where(extent > 0, 0.0, 10.0)
    inside = torch.lerp(inner, outer, column(hearts, "lesion_depth", 0)) - radius
    outside = radius - torch.lerp(inner, outer, column(hearts, "lesion_depth", 1))
    in_wall = torch.maximum(inner - radius, radius - outer)
    return torch.stack([around, inside, outside, in_wall]).amax(0)
