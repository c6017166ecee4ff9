"""Where the heart of a slice lies, from one look at a few of its echoes, and which echoes show it well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.segmentation.check import separation
from cmrcore.segmentation.contours import masks_from
from cmrcore.segmentation.frame import Frame, heart_frame, whole_frame
from cmrcore.segmentation.infer import View

Look = Callable[
    [Float[Tensor, "n row col"], tuple[float, float], Frame, View], Float[Tensor, "n label row col"]
]
"""The base network: probabilities of the labels on images [a.u.] that know nothing of each other, see
`cmrcore.segmentation.predict.base_probability`."""


@dataclass(frozen=True, slots=True)
class Heart:
    """The heart of a slice at first sight, the same for all echoes."""

    masks: Bool[Tensor, "label row col"]
    """Masks in the order of `LABELS`."""
    frame: Frame
    """Where to look closer."""


def find_heart(
    look: Look, echoes: Float[Tensor, "ti row col"], spacing_mm: tuple[float, float], n_echoes: int
) -> Heart | None:
    """Find the heart on a few echoes, from short to long inversion times; where none shows it, on the others.

    What is seen is the mean over those that show a left ventricle, or the first of them if they show it in
    different places; None if no echo shows one.

    Parameters
    ----------
    look
        The base network.
    echoes
        Magnitudes of one slice [a.u.], by inversion time.
    spacing_mm
        Distance of rows and columns [mm].
    n_echoes
        Echoes to look at first.
    """
    frame = whole_frame((echoes.shape[1], echoes.shape[2]), spacing_mm)
    n_few = min(n_echoes, len(echoes))
    few = [int((index + 0.5) * len(echoes) / n_few) for index in range(n_few)]
    others = [echo for echo in range(len(echoes)) if echo not in few]
    for chosen in filter(None, (few, others)):
        seen = look(echoes[chosen], spacing_mm, frame, "upright")
        shown = [one for one in seen if heart_frame(one, spacing_mm) is not None]
        for probability in (torch.stack(shown).mean(0), shown[0]) if shown else ():
            closer = heart_frame(probability, spacing_mm)
            if closer is not None:
                return Heart(masks_from(probability, spacing_mm), closer)
    return None


def clearest_echoes(heart: Heart, echoes: Float[Tensor, "ti row col"], n: int) -> Sequence[int]:
    """Echoes whose intensities best tell the heart's wall from its blood, ascending."""
    told_apart = [separation(echo[heart.masks[0]], echo[heart.masks[1]]) for echo in echoes]
    return sorted(sorted(range(len(echoes)), key=lambda echo: -told_apart[echo])[:n])
