"""Affine alignment from masks: known shifts, turns and scales come back."""

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.registration.affine import (
    AffineLimits,
    AffineStatus,
    affine_displacement,
    register_masks,
)
from cmrcore.registration.warp import warp

PIXELS = 96


def heart(
    shift_mm: tuple[float, float] = (0.0, 0.0),
    turn_deg: float = 0.0,
    scale: float = 1.0,
    spacing_mm: tuple[float, float] = (1.5, 1.5),
    *,
    with_rv: bool = True,
) -> Float[Tensor, "label row col"]:
    """Soft masks of a round LV and an RV at its left, moved, turned clockwise and scaled about its center."""
    rows = (torch.arange(PIXELS, dtype=torch.float64) - 47.5) * spacing_mm[0] - shift_mm[0]
    cols = (torch.arange(PIXELS, dtype=torch.float64) - 47.5) * spacing_mm[1] - shift_mm[1]
    down, right = torch.meshgrid(rows, cols, indexing="ij")
    turn = math.radians(turn_deg)
    cosine, sine = math.cos(turn), math.sin(turn)
    down, right = (cosine * down - sine * right) / scale, (sine * down + cosine * right) / scale
    pixel_mm = max(spacing_mm) / scale

    def inside(distance_mm: Tensor) -> Tensor:
        return (0.5 - distance_mm / pixel_mm).clamp(0, 1)

    radius = torch.hypot(down, right)
    cavity, ventricle = inside(radius - 20.0), inside(radius - 30.0)
    rv = inside(torch.hypot(down + 8.0, right + 34.0) - 26.0) * (1 - ventricle)
    return torch.stack([ventricle - cavity, cavity, rv * float(with_rv)])


MOVED = {
    "shift": ((4.3, -6.1), 0.0, 1.0),
    "turn": ((0.0, 0.0), 8.0, 1.0),
    "turn back": ((1.0, 2.0), -12.0, 1.0),
    "scale": ((0.0, 0.0), 0.0, 1.12),
    "all": ((-7.0, 3.0), 5.0, 0.9),
}


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5), (1.2, 1.8)], ids=["square", "oblong"])
@pytest.mark.parametrize(("shift_mm", "turn_deg", "scale"), MOVED.values(), ids=MOVED.keys())
def test_known_motion_is_found(
    shift_mm: tuple[float, float], turn_deg: float, scale: float, spacing_mm: tuple[float, float]
) -> None:
    """To a twentieth of a pixel, half a degree and half a percent, oblong pixels or not."""
    moved = heart(shift_mm, turn_deg, scale, spacing_mm)
    fit = register_masks(moved[None], heart(spacing_mm=spacing_mm), spacing_mm)
    assert fit.status.tolist() == [AffineStatus.OK]
    assert fit.turn_from == ("rv",)
    assert fit.shift_mm[0].tolist() == pytest.approx(shift_mm, abs=0.08)
    assert math.degrees(fit.turn_rad.item()) == pytest.approx(turn_deg, abs=0.7)
    assert fit.scale.item() == pytest.approx(scale, abs=0.006)


def test_displacement_pulls_the_moved_masks_onto_the_reference() -> None:
    """What warps by it is the reference again, but for interpolation."""
    reference, moved = heart(), heart((5.0, -8.0), 7.0, 1.08)
    fit = register_masks(moved[None], reference, (1.5, 1.5))
    displacement = affine_displacement(fit, (PIXELS, PIXELS), (1.5, 1.5))
    aligned = warp(moved[None], displacement)[0]
    assert float((aligned[:2] - reference[:2]).abs().mean()) < 0.1 * float(
        (moved - reference)[:2].abs().mean()
    )


def test_masks_of_pixels_are_enough() -> None:
    """A drawn mask has hard edges."""
    fit = register_masks((heart((4.3, -6.1), 5.0) > 0.5).double()[None], (heart() > 0.5).double(), (1.5, 1.5))
    assert fit.shift_mm[0].tolist() == pytest.approx((4.3, -6.1), abs=0.15)
    assert math.degrees(fit.turn_rad.item()) == pytest.approx(5.0, abs=1.5)


def test_without_rv_nothing_turns() -> None:
    """A round ring says nothing of its turn, and so none is made up."""
    fit = register_masks(heart((3.0, 0.0), 9.0, with_rv=False)[None], heart(), (1.5, 1.5))
    assert fit.turn_from == ("none",)
    assert abs(math.degrees(fit.turn_rad.item())) < 0.5
    assert fit.shift_mm[0].tolist() == pytest.approx((3.0, 0.0), abs=0.1)


def test_a_ragged_mask_does_not_shear_the_heart() -> None:
    """Contours that err by a millimeter in places of their own leave the matrix near identity."""
    generator = torch.Generator().manual_seed(3)
    ragged = []
    for _ in range(20):
        noise = torch.randn(1, 1, 12, 12, generator=generator, dtype=torch.float64)
        field = torch.nn.functional.interpolate(noise, (PIXELS, PIXELS), mode="bicubic", align_corners=True)
        ragged.append(warp(heart()[None], 0.7 * torch.cat([field, field.flip(2)], 1))[0])
    fit = register_masks(torch.stack(ragged), heart(), (1.5, 1.5))
    off = fit.matrix - torch.eye(2, dtype=torch.float64)
    assert float(off.square().mean().sqrt()) < 0.02
    assert float(fit.shift_mm.norm(dim=1).mean()) < 0.5


def test_what_cannot_be_aligned_is_said_and_left_alone() -> None:
    """Empty, cut off, too far away; the others of the batch are aligned all the same."""
    empty = torch.zeros(3, PIXELS, PIXELS, dtype=torch.float64)
    cut = heart((-45.0, 0.0))
    far = heart((25.0, 20.0))
    fit = register_masks(torch.stack([empty, cut, far, heart((2.0, 0.0))]), heart(), (1.5, 1.5))
    assert fit.status.tolist() == [
        AffineStatus.EMPTY,
        AffineStatus.AT_BORDER,
        AffineStatus.IMPLAUSIBLE,
        AffineStatus.OK,
    ]
    assert not bool(affine_displacement(fit, (PIXELS, PIXELS), (1.5, 1.5))[:3].any())


@pytest.mark.parametrize(
    "reference", [torch.zeros(3, PIXELS, PIXELS, dtype=torch.float64), heart((-45.0, 0.0))]
)
def test_nothing_is_aligned_to_a_reference_without_center(reference: Tensor) -> None:
    """Empty or cut off."""
    fit = register_masks(heart()[None], reference, (1.5, 1.5))
    assert fit.status.tolist() == [AffineStatus.REFERENCE_UNUSABLE]
    assert not bool(affine_displacement(fit, (PIXELS, PIXELS), (1.5, 1.5)).any())


def test_limits_are_the_callers() -> None:
    """A scale of 12 percent is too much where 5 are allowed."""
    fit = register_masks(heart(scale=1.12)[None], heart(), (1.5, 1.5), AffineLimits(scale_fraction=0.05))
    assert fit.status.tolist() == [AffineStatus.IMPLAUSIBLE]


def test_masks_must_fit() -> None:
    """Masks without an RV channel are a mistake of the caller."""
    with pytest.raises(InvalidInputError, match="three labels"):
        register_masks(heart()[None, :2], heart()[:2], (1.5, 1.5))
