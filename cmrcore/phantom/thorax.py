"""What lies around the heart in a short-axis image."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.phantom.heart import Sex
from cmrcore.phantom.shapes import Frame, column, ellipse, harmonics

_N_VESSELS = 8
_STOMACH_WALL_MM = 4.0
_BREAST_RAD = 0.35
"""Direction of the breast, from straight ahead upwards."""


@dataclass(frozen=True, slots=True)
class Thorax:
    """Size and shape of the body where the short axis cuts it; lengths in mm, places from the LV's center."""

    tilt_deg: float
    """Lean of the body's long axis to the right against upright; the chest faces left and up."""
    half_width_mm: float
    """From front to back, halved."""
    half_length_mm: float
    """From shoulder to abdomen, halved."""
    depth_mm: float
    """From the front skin to the LV's center."""
    lift_mm: float
    """How far the heart lies above the middle of the body's long axis."""
    modes: tuple[float, ...]
    """Amplitudes of the outline."""
    skin_mm: float
    """Subcutaneous fat."""
    breast_mm: float
    """Further fat in front."""
    wall_mm: float
    """Chest wall: muscle and ribs."""
    n_ribs: int
    """Ribs around the chest."""
    rib_phase: float
    """Where they begin [rad]."""
    diaphragm_mm: float
    """Gap between the LV's outer radius and the diaphragm below it."""
    diaphragm_tilt_deg: float
    """Fall of the diaphragm to the right."""
    liver_right_mm: float
    """How far the liver reaches to image right."""
    stomach_mm: tuple[float, float, float, float]
    """Place (down, right) and half axes of the stomach."""
    spleen_mm: tuple[float, float, float, float]
    """The same of the spleen, drawn as liver."""
    spine_mm: tuple[float, float]
    """Distance of the spine's center from the back's skin, and its radius."""
    spine_shift_mm: float
    """Where along the back the spine lies."""
    aorta_mm: float
    """Radius of the descending aorta."""
    aorta_deg: float
    """Where it lies around the spine."""
    has_arm: bool
    """Whether an arm is in the picture."""
    arm_mm: tuple[float, float]
    """Half axes of the arm."""
    vessels_mm: tuple[float, ...]
    """Places (down, right) of the lung's larger vessels, one after the other."""
    vessel_mm: float
    """Their radius."""


def draw_thorax(rng: np.random.Generator, sex: Sex) -> Thorax:
    """Draw a body; sizes are illustrative, chosen by eye against short-axis images."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    is_female = sex == "female"
    size = 0.92 if is_female else 1.0
    return Thorax(
        tilt_deg=between(5.0, 50.0),
        half_width_mm=size * between(100.0, 145.0),
        half_length_mm=size * between(165.0, 240.0),
        depth_mm=between(72.0, 100.0),
        lift_mm=between(-10.0, 60.0),
        modes=tuple(float(value) for value in rng.normal(0, 0.02, 6)),
        skin_mm=between(5.0, 22.0) * (1.3 if is_female else 1.0),
        breast_mm=between(5.0, 45.0) if is_female else between(0.0, 8.0),
        wall_mm=between(9.0, 20.0),
        n_ribs=int(rng.integers(10, 17)),
        rib_phase=between(0.0, 2 * math.pi),
        diaphragm_mm=between(3.0, 16.0),
        diaphragm_tilt_deg=between(-12.0, 18.0),
        liver_right_mm=between(-15.0, 60.0),
        stomach_mm=(between(55.0, 90.0), between(10.0, 60.0), between(14.0, 30.0), between(20.0, 45.0)),
        spleen_mm=(between(50.0, 90.0), between(75.0, 105.0), between(25.0, 40.0), between(14.0, 26.0)),
        spine_mm=(between(48.0, 62.0), between(17.0, 23.0)),
        spine_shift_mm=between(-30.0, 40.0),
        aorta_mm=between(8.5, 13.5),
        aorta_deg=between(-100.0, -40.0),
        has_arm=bool(rng.random() < 0.4),
        arm_mm=(between(35.0, 55.0), between(25.0, 40.0)),
        vessels_mm=tuple(
            value for _ in range(_N_VESSELS) for value in (between(-90.0, 30.0), between(25.0, 110.0))
        ),
        vessel_mm=between(0.8, 2.5),
    )


def thorax_distances(
    bodies: list[Thorax], outer_mm: Float[Tensor, "batch 1 1"], frame: Frame
) -> dict[str, Float[Tensor, "batch row col"]]:
    """Distance of every pixel from each structure outside the heart.

    Parameters
    ----------
    bodies
        One for each image.
    outer_mm
        Outer radius of the LV at its widest, above the diaphragm [mm].
    frame
        Pixels around the LV's center.
    """
    tilt = torch.deg2rad(column(bodies, "tilt_deg"))
    half_width = column(bodies, "half_width_mm")
    half_length = column(bodies, "half_length_mm")
    # Along the body's axis, upwards positive; across it, towards the front (image left and up).
    upwards = -frame.down * torch.cos(tilt) + frame.right * torch.sin(tilt)
    forwards = -frame.right * torch.cos(tilt) - frame.down * torch.sin(tilt)
    upwards = upwards + column(bodies, "lift_mm")
    forwards = forwards + half_width - column(bodies, "depth_mm")
    norm = (upwards.square() + forwards.square()).sqrt_().clamp_(min=1e-3)
    cosine, sine = forwards / norm, upwards / norm
    bend = 1 + harmonics(bodies, "modes", cosine, sine)
    body = ellipse(forwards / bend, upwards / bend, half_width, half_length)
    skin = column(bodies, "skin_mm")
    front = torch.exp(4 * (cosine * math.cos(_BREAST_RAD) + sine * math.sin(_BREAST_RAD) - 1))
    surface = body - column(bodies, "breast_mm") * front
    chest = body + skin
    cave = chest + column(bodies, "wall_mm")

    lean = torch.deg2rad(column(bodies, "diaphragm_tilt_deg"))
    floor = outer_mm + column(bodies, "diaphragm_mm")
    # Positive below the diaphragm, a shallow dome.
    under = frame.down * torch.cos(lean) - frame.right * torch.sin(lean) - floor
    under = under - 0.0012 * frame.right.square()

    ribs = torch.cos(column(bodies, "n_ribs") * torch.atan2(sine, cosine) + column(bodies, "rib_phase"))
    rib = torch.maximum((chest + 0.55 * column(bodies, "wall_mm")).abs() - 3.5, (0.5 - ribs) * 9)
    back = forwards + half_width - column(bodies, "spine_mm", 0)
    along_back = upwards - column(bodies, "lift_mm") + column(bodies, "spine_shift_mm")
    vertebra = (back.square() + along_back.square()).sqrt_()
    spine_mm, aorta_mm = column(bodies, "spine_mm", 1), column(bodies, "aorta_mm")
    turn = torch.deg2rad(column(bodies, "aorta_deg"))
    away = spine_mm + aorta_mm + 3
    beside = (back - away * torch.cos(turn)).square_() + (along_back - away * torch.sin(turn)).square_()
    aorta = beside.sqrt_() - aorta_mm
    mediastinum = torch.minimum(vertebra - spine_mm - 6, aorta - 4)
    lung = torch.maximum(torch.maximum(cave, under), -mediastinum)
    places = [
        [column(bodies, "vessels_mm", 2 * index + axis) for axis in (0, 1)] for index in range(_N_VESSELS)
    ]
    nearest = frame.squared_distance(*places[0])
    for down, right in places[1:]:
        nearest = torch.minimum(nearest, frame.squared_distance(down, right))
    vessels = torch.maximum(nearest.sqrt_() - column(bodies, "vessel_mm"), lung + 2)

    below = torch.maximum(3 - under, cave + 3)  # the diaphragm itself is thin muscle, drawn as fat
    to_right = frame.right - column(bodies, "liver_right_mm") + 0.35 * under
    liver = torch.maximum(torch.maximum(below, to_right), -mediastinum)
    organs = [
        ellipse(
            frame.down - column(bodies, name, 0) - 0.3 * floor,
            frame.right - column(bodies, name, 1),
            column(bodies, name, 2),
            column(bodies, name, 3),
        )
        for name in ("stomach_mm", "spleen_mm")
    ]
    stomach, spleen = (torch.maximum(organ, below) for organ in organs)
    arm = ellipse(
        upwards - 0.75 * half_length,
        forwards + half_width * 0.95,
        column(bodies, "arm_mm", 0),
        column(bodies, "arm_mm", 1),
    )
    absent = torch.tensor([0.0 if body.has_arm else 1e3 for body in bodies])[:, None, None]
    return {
        "subcutaneous_fat": torch.minimum(surface, arm + absent - 6),
        "muscle": torch.minimum(
            torch.maximum(chest, -cave), torch.maximum(stomach - _STOMACH_WALL_MM, below)
        ),
        "spine": torch.minimum(torch.maximum(vertebra - spine_mm, chest), rib),
        "lung": lung,
        "liver": torch.minimum(liver, spleen),
        "stomach": stomach,
        "aorta": torch.minimum(aorta, vessels),
        "arm": arm + absent,
    }
