"""The sign that a magnitude image lost, from its phase image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.errors import InvalidInputError


def signed_from_phase(
    magnitude: Float[Tensor, "ti *space"],
    phase_rad: Float[Tensor, "ti *space"],
    ti_ms: Float[Tensor, " ti"] | Sequence[float],
) -> Float[Tensor, "ti *space"]:
    """Restore the sign of magnitudes, for the ``"-signed"`` models: negative where the phase is turned.

    At the longest inversion time the recovery is taken as positive, pixel by pixel, so that coil and
    off-resonance phase drop out.

    Parameters
    ----------
    magnitude
        Magnitude images [a.u.].
    phase_rad
        Phase images [rad], in the same order.
    ti_ms
        Inversion times [ms], in the order of the images.
    """
    times = torch.as_tensor(ti_ms, dtype=torch.float64)
    if magnitude.shape != phase_rad.shape or len(times) != len(magnitude):
        raise InvalidInputError(
            f"{len(times)} inversion times, magnitudes {tuple(magnitude.shape)} and phases "
            f"{tuple(phase_rad.shape)} do not belong together"
        )
    reference = phase_rad[int(times.argmax())]
    return torch.where(torch.cos(phase_rad - reference) < 0, -magnitude, magnitude)
