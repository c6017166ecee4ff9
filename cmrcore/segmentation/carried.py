"""The guide carried across visits: what an earlier visit's guide looks like on a later visit's slice.

Patients lie differently from visit to visit, so absolute positions say nothing: slices are paired by their
distance from the middle of the stack, and in the plane the earlier guide is laid with its LV center on that
of the guide that the later visit found for itself, turned so that the RV lies on the same side.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy import ndimage
from torch import Tensor

from cmrcore.dice import dice_coefficients
from cmrcore.segmentation.check import GuideLimits, inspect_guide, separation
from cmrcore.segmentation.contours import holes, masks_from
from cmrcore.segmentation.guide import Guide, Lent

_Matrix = Float64[np.ndarray, "2 2"]


@dataclass(frozen=True, slots=True)
class CarryLimits:
    """Under which conditions an earlier visit's guide is believed to fit."""

    apart_max_mm: float = 5.0
    """Largest difference of two slices' distances from the middle of their stacks [mm]."""
    tilt_max_deg: float = 30.0
    """Largest angle between the planes of the two visits in the patient [degrees]."""
    turn_max_deg: float = 40.0
    """Largest turn in the plane that the RV's side asks for, beyond that of the planes [degrees]."""
    overlap_min: float = 0.75
    """Least Dice coefficient of the two visits' left ventricles, once aligned."""


@dataclass(frozen=True, slots=True)
class Planes:
    """Where a stack of parallel slices lies in the patient."""

    positions_mm: tuple[tuple[float, float, float], ...]
    """Center of the first pixel of each slice, patient LPS [mm]."""
    orientation: tuple[float, ...]
    """Direction cosines of growing col, then of growing row, patient LPS."""
    spacing_mm: tuple[float, float]
    """Distance of rows and columns [mm]."""


@dataclass(frozen=True, slots=True)
class EarlierGuides:
    """Guides of one series of an earlier visit."""

    masks: Bool[Tensor, "label slice row col"]
    """Guides in the order of `LABELS`, each on the reference echo of its slice."""
    known: tuple[Lent | None, ...]
    """What is known of the guide of each slice; None where it has none that passed its checks."""
    planes: Planes
    """Where they lie."""


def guide_from_earlier(
    own: Guide,
    image: Float[Tensor, "row col"],
    planes: Planes,
    index: int,
    earlier: EarlierGuides | None,
    limits: CarryLimits = CarryLimits(),
) -> Guide:
    """Let an earlier visit's guide take the place of the one that a visit found for itself.

    The result belongs to the same echo as the own guide. Its score is the separation of wall and blood in
    the image times the Dice coefficient of the two left ventricles. Where there is nothing to carry, or what
    is carried does not fit, the own guide stays and says why in ``not_carried``. A reader's guide stays as it
    is.

    Parameters
    ----------
    own
        The visit's own guide.
    image
        Magnitudes of the echo that it belongs to [a.u.].
    planes, index
        Where the visit's slices lie, and which one this is.
    earlier
        Guides of the same role of an earlier visit; None where it has none.
    limits
        What it must keep to, besides what any guide must.
    """
    if own.origin == "reader":
        return own
    if earlier is None:
        return replace(own, not_carried="it has none for this series")
    found = _pair(planes, index, earlier, limits)
    if isinstance(found, str):
        return replace(own, not_carried=found)
    masks = _lay(own.masks, planes, earlier.masks[:, found.slice_index], earlier.planes, limits)
    if isinstance(masks, str):
        return replace(own, not_carried=masks)
    findings = inspect_guide(masks, image, planes.spacing_mm, GuideLimits())
    if findings:
        return replace(own, not_carried=f"aligned, {'; '.join(findings)}")
    overlap = float(dice_coefficients(masks[0] | masks[1], own.masks[0] | own.masks[1]))
    if overlap < limits.overlap_min:
        message = (
            f"aligned, its left ventricle covers the own one by {overlap:.2f} (Dice coefficient), expected "
            f"at least {limits.overlap_min:g}"
        )
        return replace(own, not_carried=message)
    score = separation(image[masks[0]], image[masks[1]]) * overlap
    # Why other echoes were passed over says nothing of this guide; why a reader's was, does.
    rejected = own.rejected if own.reader_replaced else ()
    return replace(
        own, masks=masks, origin="baseline", score=score, findings=(), rejected=rejected, lent=found
    )


def _pair(planes: Planes, index: int, earlier: EarlierGuides, limits: CarryLimits) -> Lent | str:
    """Earlier guide at the same place in the stack, or why there is none."""
    normal, earlier_normal = _normal(planes), _normal(earlier.planes)
    cosine = float(normal @ earlier_normal)
    tilt_deg = math.degrees(math.acos(min(abs(cosine), 1.0)))
    if tilt_deg > limits.tilt_max_deg:
        return f"its slices are tilted by {tilt_deg:.0f} degrees, expected at most {limits.tilt_max_deg:g}"
    here_mm = _from_middle(planes, normal)[index]
    apart_mm = np.abs(_from_middle(earlier.planes, math.copysign(1.0, cosine) * earlier_normal) - here_mm)
    nearest = int(apart_mm.argmin())
    if apart_mm[nearest] > limits.apart_max_mm:
        return (
            f"its slices lie elsewhere in the stack, the nearest one {apart_mm[nearest]:.1f} mm off, "
            f"expected at most {limits.apart_max_mm:g} mm"
        )
    return earlier.known[nearest] or f"its slice {nearest} has no guide that passed its checks"


def _lay(
    own: Bool[Tensor, "label row col"],
    planes: Planes,
    earlier: Bool[Tensor, "label from_row from_col"],
    earlier_planes: Planes,
    limits: CarryLimits,
) -> Bool[Tensor, "label row col"] | str:
    """Earlier masks on the own pixels, LV center on LV center and RV on the same side, or why not."""
    ventricles = [_filled(masks[0]) for masks in (own, earlier)]
    if not ventricles[0].any():
        return "the own guide has no myocardium"
    centers = [np.argwhere(one).mean(0) for one in ventricles]
    to_earlier = _in_plane(planes, earlier_planes)
    sides = [
        _towards_rv(masks[2], center, where.spacing_mm)
        for masks, center, where in zip((own, earlier), centers, (planes, earlier_planes), strict=True)
    ]
    if sides[0] is not None and sides[1] is not None:
        turn = _turn(to_earlier @ sides[0], sides[1])
        turn_deg = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
        if abs(turn_deg) > limits.turn_max_deg:
            return (
                f"its RV lies turned by {abs(turn_deg):.0f} degrees, expected at most {limits.turn_max_deg:g}"
            )
        to_earlier = turn @ to_earlier
    # Pixels here -> mm from the own center -> mm from the earlier center -> pixels there.
    matrix = np.diag(1 / np.asarray(earlier_planes.spacing_mm)) @ to_earlier @ np.diag(planes.spacing_mm)
    laid = [
        ndimage.affine_transform(
            one.astype(np.float32),
            matrix,
            offset=centers[1] - matrix @ centers[0],
            output_shape=tuple(own.shape[1:]),
            order=1,
        )
        for one in (earlier[0].numpy(), _cavity(earlier[0]), earlier[2].numpy())
    ]
    return masks_from(torch.from_numpy(np.stack(laid)), planes.spacing_mm)


def _in_plane(planes: Planes, earlier: Planes) -> _Matrix:
    """Rotation or reflection that turns (down, right) of one plane into that of another in the patient."""
    axes = [np.reshape(one.orientation, (2, 3))[::-1] for one in (planes, earlier)]
    # Planes that are tilted against each other foreshorten; the nearest orthogonal matrix does not.
    left, _, right = np.linalg.svd(axes[1] @ axes[0].T)
    return np.asarray(left @ right)


def _turn(here: Float64[np.ndarray, " 2"], there: Float64[np.ndarray, " 2"]) -> _Matrix:
    """Rotation that turns one direction into another."""
    cosine, sine = here @ there, here[0] * there[1] - here[1] * there[0]
    return np.array([[cosine, -sine], [sine, cosine]]) / math.hypot(cosine, sine)


def _towards_rv(
    rv: Bool[Tensor, "row col"], center: Float64[np.ndarray, " 2"], spacing_mm: tuple[float, float]
) -> Float64[np.ndarray, " 2"] | None:
    """Way from the LV's center to the middle of the RV (down, right) [mm]; None without an RV."""
    pixels = np.argwhere(rv.numpy())
    return (pixels.mean(0) - center) * np.asarray(spacing_mm) if len(pixels) else None


def _normal(planes: Planes) -> Float64[np.ndarray, " 3"]:
    return np.asarray(np.cross(planes.orientation[:3], planes.orientation[3:]))


def _from_middle(planes: Planes, normal: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, " slice"]:
    """Distance of each slice along a normal from the middle of its stack [mm]."""
    along_mm = np.asarray(planes.positions_mm, dtype=np.float64) @ normal
    return np.asarray(along_mm - (along_mm.min() + along_mm.max()) / 2)


def _cavity(myocardium: Bool[Tensor, "row col"]) -> Bool[np.ndarray, "row col"]:
    """Pixels that the wall encloses."""
    return np.asarray(holes(myocardium.numpy()))


def _filled(myocardium: Bool[Tensor, "row col"]) -> Bool[np.ndarray, "row col"]:
    return np.asarray(myocardium.numpy() | _cavity(myocardium))
