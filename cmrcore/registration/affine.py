"""Affine alignment from masks alone: every image's masks onto those of a reference.

Polar coordinates about the LV's center give shift, scale and turn, as in S1; a few Gauss-Newton steps on the
blurred masks then fit all six parameters, held by a prior near the polar ones, so that a ragged mask does not
shear the heart. Contrast never matters, as no intensity is read.
"""

import enum
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.registration.polar import angular_profile, mask_center, radial_profile, turn_between
from cmrcore.registration.warp import blur, pixel_positions, sample, span

TurnSource = Literal["rv", "none"]
"""What told the turn: the RV, or nothing as the RV was not seen, and then there is none."""


class AffineStatus(enum.IntEnum):
    """Whether an image could be aligned by its masks."""

    OK = 0
    EMPTY = 1
    """No myocardium or no cavity in this image's masks."""
    AT_BORDER = 2
    """The LV's mask reaches the border of the image, so its center is not known."""
    REFERENCE_UNUSABLE = 3
    """The same of the reference."""
    IMPLAUSIBLE = 4
    """Shift, turn or scale beyond its limit."""


@dataclass(frozen=True, slots=True)
class AffineLimits:
    """What an affine alignment may come to, and how far it is believed."""

    shift_mm: float = 30.0
    """Largest shift of the LV's center [mm]."""
    turn_deg: float = 20.0
    """Largest turn, also of the search [degrees]."""
    scale_fraction: float = 0.25
    """Largest change of the LV's radius, 0-1."""
    contour_error_mm: float = 0.8
    """How far the masks' contours are trusted: their standard deviation [mm]."""


DEFAULT_LIMITS = AffineLimits()


@dataclass(frozen=True, slots=True)
class AffineFit:
    """Where a point p [mm from the reference's LV center] lies in each image: ``matrix p + shift``."""

    matrix: Float[Tensor, "n 2 2"]
    """Turn, scale and shear, in (row, col) order; identity where `status` is not OK."""
    shift_mm: Float[Tensor, "n 2"]
    """Shift (down, right) [mm]; 0 where `status` is not OK."""
    center_px: Float[Tensor, " 2"]
    """LV center of the reference (row, col) [pixel]."""
    turn_from: tuple[TurnSource, ...]
    """What told the turn of each image."""
    status: Int8[Tensor, " n"]
    """`AffineStatus` of each image."""

    @property
    def turn_rad(self) -> Float[Tensor, " n"]:
        """Turn towards larger angles, that is clockwise as the image is shown [radians]."""
        a = self.matrix
        return torch.atan2(a[:, 0, 1] - a[:, 1, 0], a[:, 0, 0] + a[:, 1, 1])

    @property
    def scale(self) -> Float[Tensor, " n"]:
        """LV radius over that of the reference."""
        area: Tensor = torch.linalg.det(self.matrix)
        return area.clamp_min(0).sqrt()


_BLUR_MM = 2.0
_CORRELATED_MM = 10.0
"""Length of contour along which a mask's errors are alike [mm]."""
_RV_WEIGHT = 0.25
_N_STEPS = 6
_TRACE = 0.01
"""Value up to which a pixel of the reference is none of its masks'."""
_SPREAD = (0.05, 0.03, 0.03, 0.03)
"""Standard deviation of scale, turn and both shears about the polar estimate."""
_LEAST_RV_MM2 = 100.0


def register_masks(
    moving: Float[Tensor, "n label row col"],
    reference: Float[Tensor, "label row col"],
    pixel_spacing_mm: tuple[float, float],
    limits: AffineLimits = DEFAULT_LIMITS,
) -> AffineFit:
    """Find the affine map from a reference's masks to those of each image.

    Parameters
    ----------
    moving
        Myocardium, blood pool and RV of each image, 0-1; probabilities give a finer edge than pixels.
    reference
        The same of the image that all shall be aligned to.
    pixel_spacing_mm
        Distance of rows and columns [mm].
    limits
        What is plausible.

    References
    ----------
    Fahmy et al. 2019, doi:10.1186/s12968-018-0516-1 (polar coordinates)
    """
    if moving.shape[1:] != reference.shape or reference.shape[0] != 3:
        raise InvalidInputError(
            f"masks of shape {tuple(moving.shape)} do not fit a reference of shape {tuple(reference.shape)}: "
            "expected three labels on the same pixels"
        )
    usable = _statuses(moving)
    reference_usable = int(_statuses(reference[None])[0]) == AffineStatus.OK
    ventricles = _ventricle(torch.cat([reference[None], moving]))
    center_px = mask_center(ventricles[:1])[0]
    if not reference_usable:
        usable = torch.full_like(usable, int(AffineStatus.REFERENCE_UNUSABLE))
        center_px = center_px.nan_to_num(0.0)
    # A guide that is carried to every echo moved nowhere; nor did the reference itself.
    differs = (moving != reference).flatten(1).any(1)
    fitted = torch.nonzero((usable == AffineStatus.OK) & differs)[:, 0]
    matrix = torch.eye(2, dtype=moving.dtype, device=moving.device).repeat(len(moving), 1, 1)
    shift_mm = moving.new_zeros(len(moving), 2)
    sources: list[TurnSource] = ["none"] * len(moving)
    if len(fitted):
        found = moving[fitted]
        matrix[fitted], shift_mm[fitted], seen = _polar_fit(found, reference, pixel_spacing_mm, limits)
        for index, has_rv in zip(fitted.tolist(), seen.tolist(), strict=True):
            sources[index] = "rv" if has_rv else "none"
        matrix[fitted], shift_mm[fitted] = _refine(
            found,
            reference,
            matrix[fitted],
            shift_mm[fitted],
            seen,
            center_px,
            pixel_spacing_mm,
            limits.contour_error_mm,
        )
    fit = AffineFit(matrix, shift_mm, center_px, tuple(sources), usable)
    return _within_limits(fit, limits)


def affine_displacement(
    fit: AffineFit, shape: tuple[int, int], pixel_spacing_mm: tuple[float, float]
) -> Float[Tensor, "n 2 row col"]:
    """Displacement that pulls each image onto the reference [pixel]."""
    spacing = fit.matrix.new_tensor(pixel_spacing_mm)[:, None, None]
    at_mm = _from_center_mm(fit.center_px, shape, spacing)
    moved_mm = torch.einsum("nij,jrc->nirc", fit.matrix, at_mm) + fit.shift_mm[:, :, None, None]
    return (moved_mm - at_mm) / spacing


def _ventricle(masks: Float[Tensor, "n label row col"]) -> Float[Tensor, "n row col"]:
    """LV with its cavity."""
    return (masks[:, 0] + masks[:, 1]).clamp(0, 1)


def _statuses(masks: Float[Tensor, "n label row col"]) -> Int8[Tensor, " n"]:
    """Whether each image's LV has a center to be aligned by."""
    ventricle = _ventricle(masks) > 0.5
    status = torch.zeros(len(masks), dtype=torch.int8, device=masks.device)
    at_border = ventricle[:, [0, -1]].any(2).any(1) | ventricle[:, :, [0, -1]].any(2).any(1)
    status[at_border] = AffineStatus.AT_BORDER
    status[~(masks[:, :2] > 0.5).flatten(2).any(2).all(1)] = AffineStatus.EMPTY
    return status


def _from_center_mm(
    center_px: Float[Tensor, " 2"], shape: tuple[int, int], spacing: Float[Tensor, "2 1 1"]
) -> Float[Tensor, "2 row col"]:
    at = pixel_positions(shape, center_px.device, center_px.dtype)
    return (at - center_px[:, None, None]) * spacing


def _polar_fit(
    moving: Float[Tensor, "n label row col"],
    reference: Float[Tensor, "label row col"],
    pixel_spacing_mm: tuple[float, float],
    limits: AffineLimits,
) -> tuple[Tensor, Tensor, Tensor]:
    """Matrix and shift from centers, radii and the RV's place, and whether both images show an RV."""
    masks = torch.cat([reference[None], moving])
    ventricles = _ventricle(masks)
    centers = mask_center(ventricles)
    spacing = moving.new_tensor(pixel_spacing_mm)
    shift_mm = (centers[1:] - centers[0]) * spacing
    reach_mm = 0.5 * min(n * s for n, s in zip(masks.shape[2:], pixel_spacing_mm, strict=True))
    outer = radial_profile(ventricles, centers, pixel_spacing_mm, reach_mm)
    inner = radial_profile(masks[:, 1], centers, pixel_spacing_mm, reach_mm)
    rv = angular_profile(masks[:, 2], centers, pixel_spacing_mm, reach_mm)
    least = _LEAST_RV_MM2 / (pixel_spacing_mm[0] * pixel_spacing_mm[1])
    area = masks[:, 2].sum((1, 2))
    has_rv = (area[1:] > least) & (area[0] > least)
    turn = torch.where(has_rv, turn_between(rv[1:], rv[0], math.radians(limits.turn_deg)), 0.0)
    # Least squares over both edges; the mean radius of an edge hardly knows of the turn.
    edges = torch.stack([outer.mean(1), inner.mean(1)], dim=1)
    scale = (edges[1:] * edges[0]).sum(1) / edges[0].square().sum()
    cosine, sine = torch.cos(turn), torch.sin(turn)
    matrix = torch.stack([cosine, sine, -sine, cosine], dim=1).view(-1, 2, 2) * scale[:, None, None]
    return matrix, shift_mm, has_rv


def _refine(
    moving: Float[Tensor, "n label row col"],
    reference: Float[Tensor, "label row col"],
    matrix: Float[Tensor, "n 2 2"],
    shift_mm: Float[Tensor, "n 2"],
    has_rv: Tensor,
    center_px: Float[Tensor, " 2"],
    pixel_spacing_mm: tuple[float, float],
    contour_error_mm: float,
) -> tuple[Tensor, Tensor]:
    """Gauss-Newton steps on the blurred masks, near the matrix they start from."""
    spacing = moving.new_tensor(pixel_spacing_mm)[:, None, None]
    margin_px = math.ceil(4 * _BLUR_MM / min(pixel_spacing_mm))
    box = span((reference > _TRACE).any(0), margin_px)
    shape = (reference.shape[1], reference.shape[2])
    at_mm = _from_center_mm(center_px, shape, spacing)[:, box[0], box[1]]
    blur_px = _BLUR_MM / math.sqrt(pixel_spacing_mm[0] * pixel_spacing_mm[1])

    def edges(masks: Float[Tensor, "n label row col"]) -> Float[Tensor, "n label row col"]:
        """LV, its cavity and RV, blurred."""
        shapes = torch.stack([_ventricle(masks), masks[:, 1], masks[:, 2]], dim=1)
        return blur(shapes.flatten(0, 1), blur_px).view(shapes.shape)

    fixed = edges(reference[None, :, box[0], box[1]])
    # Beyond it all are 0, as what is sampled there is.
    rows, cols = span((moving > 0).any(1).any(0), margin_px)
    images = edges(moving[:, :, rows, cols])
    corner_px = center_px - center_px.new_tensor([rows.start, cols.start])
    slopes = torch.stack(torch.gradient(images, dim=(2, 3)), dim=2) / spacing  # n label 2 row col, per mm
    stacked = torch.cat([images, slopes.flatten(1, 2)], dim=1)
    # Squared slopes across a blurred edge sum to 1 / (2 sqrt(pi) blur) per length of contour.
    pixel_mm2 = pixel_spacing_mm[0] * pixel_spacing_mm[1]
    trust = 2 * math.sqrt(math.pi) * _BLUR_MM * pixel_mm2 / (contour_error_mm**2 * _CORRELATED_MM)
    weights = trust * torch.stack([torch.ones_like(has_rv), torch.ones_like(has_rv), has_rv], 1)
    weights = weights.to(moving.dtype) * moving.new_tensor([1.0, 1.0, _RV_WEIGHT])
    prior, start = _prior(moving), torch.cat([matrix.flatten(1), shift_mm], dim=1)
    found = start
    for _ in range(_N_STEPS):
        now, shift = found[:, :4].view(-1, 2, 2), found[:, 4:]
        place_mm = torch.einsum("nij,jrc->nirc", now, at_mm) + shift[:, :, None, None]
        sampled = sample(stacked, place_mm / spacing + corner_px[:, None, None])
        value, slope = sampled[:, :3], sampled[:, 3:].view(len(moving), 3, 2, *sampled.shape[2:])
        basis = torch.cat([slope[:, :, :1] * at_mm, slope[:, :, 1:] * at_mm, slope], dim=2)
        design = (basis * weights[:, :, None, None, None].sqrt()).permute(0, 2, 1, 3, 4).flatten(2)
        misfit = ((fixed - value) * weights[:, :, None, None].sqrt()).flatten(1)
        normal = design @ design.transpose(1, 2) + prior
        slant = (design @ misfit[:, :, None])[:, :, 0] - (found - start) @ prior
        found = found + torch.linalg.solve(normal, slant)
    return found[:, :4].view(-1, 2, 2), found[:, 4:]


def _prior(like: Tensor) -> Float[Tensor, "6 6"]:
    """Inverse covariance of matrix and shift about the polar estimate; the shift is free to 2 mm."""
    # Rows: scale, turn, and both shears, from the matrix's four entries.
    parts = like.new_tensor(
        [[0.5, 0, 0, 0.5], [0, 0.5, -0.5, 0], [0.5, 0, 0, -0.5], [0, 0.5, 0.5, 0]]
    ) / like.new_tensor(_SPREAD).view(4, 1)
    prior = like.new_zeros(6, 6)
    prior[:4, :4] = parts.T @ parts
    prior[4, 4] = prior[5, 5] = 1 / 2.0**2
    return prior


def _within_limits(fit: AffineFit, limits: AffineLimits) -> AffineFit:
    """Put identity where an alignment is implausible or none was found."""
    finite = fit.matrix.isfinite().all(2).all(1) & fit.shift_mm.isfinite().all(1)
    plausible = (
        finite
        & (fit.shift_mm.norm(dim=1) <= limits.shift_mm)
        & (fit.turn_rad.abs() <= math.radians(limits.turn_deg))
        & ((fit.scale - 1).abs() <= limits.scale_fraction)
    )
    status = fit.status.clone()
    status[(status == AffineStatus.OK) & ~plausible] = AffineStatus.IMPLAUSIBLE
    ok = status == AffineStatus.OK
    identity = torch.eye(2, dtype=fit.matrix.dtype, device=fit.matrix.device)
    return AffineFit(
        matrix=torch.where(ok[:, None, None], fit.matrix, identity),
        shift_mm=torch.where(ok[:, None], fit.shift_mm, 0.0),
        center_px=fit.center_px,
        turn_from=fit.turn_from,
        status=status,
    )
