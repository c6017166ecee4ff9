"""Alignment of a post-contrast slice to the native one: by masks, if the images do not contradict."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmrcore.registration.affine import AffineLimits, AffineStatus, affine_displacement, register_masks
from cmrcore.registration.align import (
    STATES,
    AlignSettings,
    EchoState,
    SliceAlignment,
    resample,
    surroundings,
)
from cmrcore.registration.decide import CONFIRM_BLUR_PX
from cmrcore.registration.warp import blur, chain, warp
from cmrcore.relaxation import T1Fit, fit_t1

_N_LEVELS = 16
"""Levels of gray that images are compared in."""


@dataclass(frozen=True, slots=True)
class PostAlignment:
    """A post-contrast slice on the native pixels."""

    displacement_px: Float[Tensor, "2 row col"]
    """Where in the post-contrast reference echo a native pixel lies, minus the pixel (row, col) [pixel]."""
    state: EchoState
    """``aligned``, ``still``, ``contradicted`` if the images agree better where they are, so that nothing
    was moved, ``not_aligned`` if the trial aligns nothing, or why the masks could not be used."""
    refused_px: float
    """Mean way by which the masks would have moved a slice that is contradicted [pixel]; else 0."""
    way_mm: float | None
    """Mean way of the native myocardium [mm]; None without one."""
    dice: float | None
    """Overlap of both myocardia that remains after the alignment, 0-1; None without any."""
    myocardium: Bool[Tensor, "row col"]
    """Post-contrast myocardium on the native pixels."""

    @property
    def moves(self) -> bool:
        """Whether anything has to be resampled."""
        return bool(self.displacement_px.any())


def align_post(
    native_masks: Bool[Tensor, "label row col"],
    post_masks: Bool[Tensor, "label row col"],
    recovered: tuple[Float[Tensor, "row col"], Float[Tensor, "row col"]],
    pixel_spacing_mm: tuple[float, float],
    settings: AlignSettings,
) -> PostAlignment:
    """Find where the heart of the post-contrast reference echo lies on the native one.

    Parameters
    ----------
    native_masks, post_masks
        Myocardium, blood pool and RV of the reference echo of each role.
    recovered
        Settled echo of the longest inversion time of each role. The masks' alignment is used if the images
        then have more mutual information around the LV.
    pixel_spacing_mm
        Distance of rows and columns [mm].
    settings
        What is plausible; ``none`` leaves the slice where it is.
    """
    native, post = native_masks.float(), post_masks.float()
    shape = (native.shape[1], native.shape[2])
    limits = AffineLimits(settings.shift_max_mm, settings.turn_max_deg, settings.scale_max_fraction)
    fit = register_masks(post[None], native, pixel_spacing_mm, limits)
    moved_px = affine_displacement(fit, shape, pixel_spacing_mm)[0]
    spacing = moved_px.new_tensor(pixel_spacing_mm)[:, None]
    way_px = moved_px[:, native_masks[0]]
    told_px = way_px.norm(dim=0).mean().item() if way_px.shape[1] else 0.0
    if settings.method == "none" or told_px < settings.still_px:
        moved_px = torch.zeros_like(moved_px)
    images = [blur(image[None].float(), CONFIRM_BLUR_PX)[0] for image in recovered]
    around = surroundings(native_masks[:2].any(0), pixel_spacing_mm)
    pulled = warp(images[1][None, None], moved_px[None])[0, 0]
    is_contradicted = bool(moved_px.any()) and _mutual_information(
        images[0], pulled, around
    ) <= _mutual_information(images[0], images[1], around)
    if is_contradicted:
        moved_px = torch.zeros_like(moved_px)
    myocardium = warp(post[None, :1], moved_px[None])[0, 0] > 0.5
    total = int(myocardium.sum()) + int(native_masks[0].sum())
    return PostAlignment(
        displacement_px=moved_px,
        state=_state(AffineStatus(int(fit.status[0])), moved_px, is_contradicted, settings),
        refused_px=told_px if is_contradicted else 0.0,
        way_mm=(moved_px[:, native_masks[0]] * spacing).norm(dim=0).mean().item()
        if way_px.shape[1]
        else None,
        dice=2 * int((myocardium & native_masks[0]).sum()) / total if total else None,
        myocardium=myocardium,
    )


def _state(
    status: AffineStatus,
    moved_px: Float[Tensor, "2 row col"],
    is_contradicted: bool,
    settings: AlignSettings,
) -> EchoState:
    """Say what became of a post-contrast slice."""
    if settings.method == "none":
        return "not_aligned"
    if status != AffineStatus.OK:
        return STATES[status]
    if is_contradicted:
        return "contradicted"
    return "aligned" if bool(moved_px.any()) else "still"


def _mutual_information(
    first: Float[Tensor, "row col"], second: Float[Tensor, "row col"], region: Bool[Tensor, "row col"]
) -> float:
    """Mutual information of two images in a region [nats]; 0 where one has no contrast.

    Contrast agent and inversion time change what is bright. A correlation of the images asks that it stays.

    References
    ----------
    Maes et al. 1997, IEEE Trans Med Imaging 16:187, doi:10.1109/42.563664
    """
    pairs = _levels(first[region]) * _N_LEVELS + _levels(second[region])
    counts = torch.bincount(pairs, minlength=_N_LEVELS**2).double().view(_N_LEVELS, _N_LEVELS)
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    seen = joint > 0
    return (joint[seen] * (joint[seen] / apart[seen]).log()).sum().item()


def _levels(values: Float[Tensor, " pixel"]) -> Int[Tensor, " pixel"]:
    """Level of gray of each pixel, equally wide from the least value to the largest."""
    low, high = values.aminmax()
    share = (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)
    return (share * _N_LEVELS).long().clamp(max=_N_LEVELS - 1)


def fit_post(
    echoes: Float[Tensor, "ti row col"],
    ti_ms: Float[Tensor, " ti"],
    aligned: SliceAlignment,
    onto: PostAlignment,
    model: str,
) -> T1Fit:
    """Fit post-contrast T1 on native pixels: echoes as acquired, resampled once."""
    both = chain(
        aligned.displacement_px, onto.displacement_px.to(echoes.dtype).expand(len(echoes), -1, -1, -1)
    )
    return fit_t1(resample(echoes, both), ti_ms, model=model)
