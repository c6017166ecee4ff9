"""Inversion recovery whose read-outs leave the recovery alone, so that T1 needs no correction."""

from dataclasses import replace

from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.relaxation.model import FitStatus, SignalModel, has_amplitude


def is_inversion(
    offset: Float[Tensor, " pixel"], amplitude: Float[Tensor, " pixel"]
) -> Bool[Tensor, " pixel"]:
    """Accept B > A > 0: the recovery starts negative and ends positive."""
    return (amplitude > offset) & (offset > 0)


INVERSION_3P = SignalModel(
    name="ir-3p",
    constant=None,
    slope=-1.0,
    is_magnitude=True,
    range_ms=(10.0, 10_000.0),
    is_valid=is_inversion,
    invalid_status=FitStatus.NOT_AN_INVERSION,
)
"""S = A - B exp(-TI / T1): the inversion may be imperfect."""

INVERSION_2P = replace(INVERSION_3P, name="ir-2p", constant=1.0, slope=-2.0, is_valid=has_amplitude)
"""S = A (1 - 2 exp(-TI / T1)): a perfect inversion from equilibrium."""

INVERSION_3P_SIGNED = replace(INVERSION_3P, name="ir-3p-signed", is_magnitude=False)
"""`INVERSION_3P` of signed samples."""

INVERSION_2P_SIGNED = replace(INVERSION_2P, name="ir-2p-signed", is_magnitude=False)
"""`INVERSION_2P` of signed samples."""
