"""The interface of segmentation: echoes and a guide in, masks on every echo out; and what fills it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmrcore.dice import dice_coefficients
from cmrcore.errors import InvalidInputError
from cmrcore.segmentation.check import separation
from cmrcore.segmentation.contours import masks_from
from cmrcore.segmentation.follow import heart_ways_px, translate, ways_px
from cmrcore.segmentation.frame import Frame, heart_frame
from cmrcore.segmentation.guide import Guide
from cmrcore.segmentation.heart import Look
from cmrcore.segmentation.infer import View, look_in_frame
from cmrcore.segmentation.unet import UNet

LABELS = ("myocardium", "blood_pool", "rv")
"""Order of the leading axis of every mask."""
FOLLOW_MM = 1.5
"""Way of the heart from which on the guide may follow it; the base network's own centers err by less [mm]."""
STIRRED_MM = 0.5
"""Way of the mask itself from which on the base network is asked: a third of `FOLLOW_MM` [mm]."""


@dataclass(frozen=True, slots=True)
class EchoMasks:
    """Masks of one slice on every echo."""

    masks: Bool[Tensor, "label ti row col"]
    """Masks in the order of `LABELS`."""
    confidence: Float[Tensor, " ti"]
    """How far the mask of each echo can be trusted, 0-1."""
    agreement: Float[Tensor, " ti"]
    """Dice coefficient of each echo's myocardium with that of the guide, 0-1."""


class Segmenter(Protocol):
    """Anything that turns a guiding mask into masks on every echo of the slice."""

    def __call__(
        self,
        echoes: Float[Tensor, "ti row col"],
        spacing_mm: tuple[float, float],
        guide: Guide,
        alpha: float,
    ) -> EchoMasks:
        """Segment every echo.

        Parameters
        ----------
        echoes
            Magnitudes of one slice [a.u.].
        spacing_mm
            Distance between rows and between columns [mm].
        guide
            Guiding mask, as drawn on one of the echoes.
        alpha
            Trade-off between fit to the image (0) and consistency with the guide (1); S1 uses 0.25.

        Raises
        ------
        InvalidInputError
            If alpha is not within 0-1.
        """
        ...


def carry_guide(
    echoes: Float[Tensor, "ti row col"], spacing_mm: tuple[float, float], guide: Guide, alpha: float
) -> EchoMasks:
    """Take the guide itself as the mask of every echo: full consistency, whatever alpha.

    Right where the heart does not move between echoes, and the reference that a model has to beat. The
    confidence of an echo is how well its intensities tell the guide's myocardium from its blood pool,
    |2 AUC - 1|: 1 when they do not overlap, near 0 where both look alike and motion would go unnoticed.
    """
    del spacing_mm  # of the protocol; a copied mask needs no scale
    _check_alpha(alpha)
    myocardium, blood_pool, _ = guide.masks
    told_apart = [separation(echo[myocardium], echo[blood_pool]) for echo in echoes]
    confidence = torch.tensor(told_apart, device=echoes.device)
    masks = guide.masks[:, None].expand(-1, len(echoes), -1, -1).clone()
    return EchoMasks(masks, confidence, _agreement(masks[0], guide))


@dataclass(frozen=True, slots=True)
class GuidedSegmenter:
    """The guided network of S1: every echo is read with the guide, scaled by alpha, beside it.

    The frame is laid about the guide's LV; all echoes of the slice go through the network at once. The
    confidence of an echo is the Dice coefficient of its myocardium with the probability it was drawn from: 1
    where the network was sure of every pixel and the smooth contours changed nothing.

    A guide holds the mask of a heart that moved: at alpha 0.25 it follows about half of the way. So the base
    network looks at the echoes whose masks moved by more than `STIRRED_MM`. One on which it sees the heart
    more than `FOLLOW_MM` off is read again with the guide moved there, and the reading of higher confidence
    stays. S1 reads every echo with the guide where it was drawn.
    """

    network: UNet
    """Guided network in eval mode, on the device where it shall run."""
    look: Look | None = None
    """The base network, which tells where the heart lies; None: the guide stays where it was drawn."""

    def __call__(
        self,
        echoes: Float[Tensor, "ti row col"],
        spacing_mm: tuple[float, float],
        guide: Guide,
        alpha: float,
    ) -> EchoMasks:
        """Segment every echo; a guide without an LV gives empty masks. See `Segmenter`."""
        _check_alpha(alpha)
        frame = heart_frame(guide.masks, spacing_mm)
        if frame is None:
            nothing = torch.zeros(len(LABELS), *echoes.shape, dtype=torch.bool, device=echoes.device)
            zeros = torch.zeros(len(echoes), device=echoes.device)
            return EchoMasks(nothing, zeros, zeros.clone())
        scaled_guide = alpha * guide.masks[0].to(echoes.device, torch.float32)
        masks, confidence = self._read(echoes, spacing_mm, frame, scaled_guide)
        if self.look is not None and alpha > 0:
            away, way_px = _away(self.look, masks, echoes, spacing_mm, frame, guide.echo)
            if len(away):
                moved = translate(scaled_guide.expand(len(away), -1, -1), way_px)
                again, sure = self._read(echoes[away], spacing_mm, frame, moved)
                is_surer = sure > confidence[away]
                masks[:, away[is_surer]] = again[:, is_surer]
                confidence[away[is_surer]] = sure[is_surer]
        return EchoMasks(masks, confidence, _agreement(masks[0], guide))

    def _read(
        self,
        echoes: Float[Tensor, "ti row col"],
        spacing_mm: tuple[float, float],
        frame: Frame,
        scaled_guide: Float[Tensor, "*guide row col"],
    ) -> tuple[Bool[Tensor, "label ti row col"], Float[Tensor, " ti"]]:
        """Masks of echoes, read with one guide or with one each, and how sure the network is of them."""
        device = _device(self.network)
        with _half_on_gpu(device):
            found = look_in_frame(
                self.network, echoes.to(device), spacing_mm, frame, scaled_guide.to(device)
            ).to(echoes.device)
        masks = torch.stack([masks_from(one, spacing_mm) for one in found], dim=1)
        return masks, _certainty(found[:, 0], masks[0])


def _away(
    look: Look,
    masks: Bool[Tensor, "label ti row col"],
    echoes: Float[Tensor, "ti row col"],
    spacing_mm: tuple[float, float],
    frame: Frame,
    reference: int,
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 2"]]:
    """Echoes on which the heart lies elsewhere, and its way there [pixel]."""
    stirred = _length_mm(ways_px(masks, reference), spacing_mm) > STIRRED_MM
    stirred |= ~masks[:2].flatten(2).any(2).any(0)
    stirred[reference] = False
    asked = torch.cat([torch.tensor([reference], device=stirred.device), stirred.nonzero()[:, 0]])
    if len(asked) == 1:
        return asked[1:], torch.zeros(0, 2, device=stirred.device)
    way_px = heart_ways_px(look, echoes[asked], spacing_mm, frame, 0)
    is_away = _length_mm(way_px, spacing_mm) > FOLLOW_MM
    return asked[is_away], way_px[is_away]


def _length_mm(way_px: Float[Tensor, "n 2"], spacing_mm: tuple[float, float]) -> Float[Tensor, " n"]:
    length: Tensor = (way_px * way_px.new_tensor(spacing_mm)).norm(dim=1)
    return length


def base_probability(
    network: UNet,
    images: Float[Tensor, "n row col"],
    spacing_mm: tuple[float, float],
    frame: Frame,
    view: View,
) -> Float[Tensor, "n label row col"]:
    """Probability of every label on images through one frame, computed where the network is.

    Parameters
    ----------
    network
        Base network in eval mode, on the device where it shall run.
    images
        Magnitudes [a.u.].
    spacing_mm
        Distance between rows and between columns [mm].
    frame
        Where to look.
    view
        How the network sees the frame.
    """
    device = _device(network)
    with _half_on_gpu(device):
        return look_in_frame(network, images.to(device), spacing_mm, frame, view=view).to(images.device)


def _half_on_gpu(device: torch.device) -> torch.autocast:
    """Let a GPU compute with bfloat16; a CPU keeps float32, whose masks do not hang on the last bits.

    Results of a CPU are the same to the last bit only on the same number of threads, see
    `cmrcore.threads.one_thread`.
    """
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")


def _device(network: UNet) -> torch.device:
    return next(network.parameters()).device


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise InvalidInputError(f"alpha {alpha:g}: expected 0-1")


def _certainty(
    probability: Float[Tensor, "ti row col"], mask: Bool[Tensor, "ti row col"]
) -> Float[Tensor, " ti"]:
    """Dice coefficient of masks with the probabilities they were drawn from; 0 for an empty mask."""
    shared = (probability * mask).sum((1, 2))
    return 2 * shared / (probability.sum((1, 2)) + mask.sum((1, 2))).clamp_min(1.0)


def _agreement(walls: Bool[Tensor, "ti row col"], guide: Guide) -> Float[Tensor, " ti"]:
    """Dice coefficient of each wall with the guide's; 0 where both are empty."""
    return dice_coefficients(walls, guide.masks[0]).nan_to_num().float()
