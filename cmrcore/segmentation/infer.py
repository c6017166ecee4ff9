"""What a network says of images of any size: through frames, and back onto the image's pixels."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.segmentation.frame import SIZE, Frame, heart_frame, look, look_mask, show, whole_frame
from cmrcore.segmentation.unet import UNet

View = Literal["upright", "left_right", "up_down", "quarter"]
"""How a network sees what a frame shows: as it is, flipped, or turned by a quarter."""

_BATCH = 16
"""Images that go through a network at once; more are slower on a CPU, as they leave its cache."""


@torch.inference_mode()
def look_twice(
    network: UNet, images: Float[Tensor, "n row col"], spacing_mm: tuple[float, float]
) -> Float[Tensor, "n label row col"]:
    """Probability of every label on images that know nothing of each other.

    The first look finds the LV; the second one shows it at its usual size. An image without an LV on the
    first look keeps what that look said.

    Parameters
    ----------
    network
        The base network.
    images
        Magnitudes [a.u.].
    spacing_mm
        Distance between rows and between columns [mm].
    """
    shape = (images.shape[1], images.shape[2])
    frame = whole_frame(shape, spacing_mm)
    first = show(_probability(network, look(images, frame, spacing_mm)), frame, spacing_mm, shape)
    frames = [heart_frame(one, spacing_mm) for one in first]
    found = [index for index, one in enumerate(frames) if one is not None]
    if not found:
        return first
    closer = [one for one in frames if one is not None]
    views = [look(images[index][None], one, spacing_mm) for index, one in zip(found, closer, strict=True)]
    for index, one, said in zip(found, closer, _probability(network, torch.cat(views)), strict=True):
        first[index] = show(said[None], one, spacing_mm, shape)[0]
    return first


@torch.inference_mode()
def look_in_frame(
    network: UNet,
    images: Float[Tensor, "n row col"],
    spacing_mm: tuple[float, float],
    frame: Frame,
    scaled_guide: Float[Tensor, "*guide row col"] | Bool[Tensor, "*guide row col"] | None = None,
    *,
    view: View = "upright",
) -> Float[Tensor, "n label row col"]:
    """Probability of every label on the echoes of one slice, all seen through one frame.

    Parameters
    ----------
    network
        The base network, or the guided one with a guide.
    images
        Magnitudes [a.u.].
    spacing_mm
        Distance between rows and between columns [mm].
    frame
        Where to look.
    scaled_guide
        The guide's myocardium times alpha, on the image's pixels: one for all, or one for each echo.
    view
        How the network sees the frame; what it says is turned back.
    """
    seen = None
    if scaled_guide is not None:
        guides = scaled_guide.reshape(-1, *scaled_guide.shape[-2:])
        seen = _turned(look_mask(guides, frame, spacing_mm), view).expand(len(images), SIZE, SIZE)
    said = _probability(network, _turned(look(images, frame, spacing_mm), view), seen)
    said = _turned(said, view, back=True)
    return show(said, frame, spacing_mm, (images.shape[1], images.shape[2]))


def _turned(values: Float[Tensor, "*n row col"], view: View, *, back: bool = False) -> Tensor:
    """Flip or turn what a frame shows, or turn it back; a flip undoes itself."""
    if view == "left_right":
        return values.flip(-1)
    if view == "up_down":
        return values.flip(-2)
    if view == "quarter":
        return values.rot90(-1 if back else 1, (-2, -1))
    return values


def _probability(network: UNet, views: Tensor, scaled_guides: Tensor | None = None) -> Tensor:
    """Run a network over views in batches that fit a CPU's cache."""
    said = []
    for start in range(0, len(views), _BATCH):
        chosen = slice(start, start + _BATCH)
        guides = None if scaled_guides is None else scaled_guides[chosen]
        said.append(network(views[chosen], guides).float().sigmoid())
    return torch.cat(said)
