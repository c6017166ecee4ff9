"""Saturation recovery (SASHA): nothing is negative, so no polarity is lost.

Chow et al. 2014, Magn Reson Med 71:2082, doi:10.1002/mrm.24878
"""

from dataclasses import replace

from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.relaxation.model import FitStatus, SignalModel, has_amplitude


def is_saturation(
    offset: Float[Tensor, " pixel"], amplitude: Float[Tensor, " pixel"]
) -> Bool[Tensor, " pixel"]:
    """Accept A > 0 and B > 0: the signal rises to a positive end."""
    return (offset > 0) & (amplitude > 0)


SATURATION_3P = SignalModel(
    name="saturation-3p",
    constant=None,
    slope=-1.0,
    is_magnitude=False,
    range_ms=(10.0, 10_000.0),
    is_valid=is_saturation,
    invalid_status=FitStatus.NO_SUCH_CURVE,
)
"""S = A - B exp(-TS / T1)."""

SATURATION_2P = replace(SATURATION_3P, name="saturation-2p", constant=1.0, is_valid=has_amplitude)
"""S = A (1 - exp(-TS / T1)): a perfect saturation. An image without saturation has a very long TS."""
