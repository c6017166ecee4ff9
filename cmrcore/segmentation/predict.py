"""The interface of segmentation: echoes and a guide in, masks on every echo out."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.segmentation.check import separation

LABELS = ("myocardium", "blood_pool", "rv")
"""Order of the leading axis of every mask."""


@dataclass(frozen=True, slots=True)
class EchoMasks:
    """Masks of one slice on every echo."""

    masks: Bool[Tensor, "label ti row col"]
    """Masks in the order of `LABELS`."""
    confidence: Float[Tensor, " ti"]
    """How far the mask of each echo can be trusted, 0-1."""


class Segmenter(Protocol):
    """Anything that turns a guiding mask into masks on every echo of the slice."""

    def __call__(
        self, echoes: Float[Tensor, "ti row col"], guide: Bool[Tensor, "label row col"], alpha: float
    ) -> EchoMasks:
        """Segment every echo.

        Parameters
        ----------
        echoes
            Magnitudes of one slice [a.u.].
        guide
            Guiding mask, as drawn on one of the echoes.
        alpha
            Trade-off between fit to the image (0) and consistency with the guide (1); S1 uses 0.25.
        """
        ...


def carry_guide(
    echoes: Float[Tensor, "ti row col"], guide: Bool[Tensor, "label row col"], alpha: float
) -> EchoMasks:
    """Take the guide itself as the mask of every echo: full consistency, whatever alpha.

    Right where the heart does not move between echoes, and the reference that a model has to beat. The
    confidence of an echo is how well its intensities tell the guide's myocardium from its blood pool,
    |2 AUC - 1|: 1 when they do not overlap, near 0 where both look alike and motion would go unnoticed.
    """
    if not 0 <= alpha <= 1:
        raise InvalidInputError(f"alpha {alpha:g}: expected 0-1")
    myocardium, blood_pool, _ = guide
    confidence = torch.tensor(
        [separation(echo[myocardium], echo[blood_pool]) for echo in echoes],
        dtype=torch.float32,
        device=echoes.device,
    )
    return EchoMasks(masks=guide[:, None].expand(-1, len(echoes), -1, -1).clone(), confidence=confidence)
