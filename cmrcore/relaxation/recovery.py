"""The recovery that MOLLI samples, and the correction for what its read-outs do to it."""

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.errors import InvalidInputError


def molli_signal(
    ti_ms: Float[Tensor, " ti"],
    a: Float[Tensor, "*space"],
    b: Float[Tensor, "*space"],
    t1_star_ms: Float[Tensor, "*space"],
) -> Float[Tensor, "ti *space"]:
    r"""Three-parameter Look-Locker recovery, signed.

    .. math:: S(TI) = A - B \exp(-TI / T_1^*)

    Parameters
    ----------
    ti_ms
        Inversion times [ms], as acquired (not nominal), in any order.
    a, b
        Fit amplitudes [a.u.]; ``b > a > 0`` for an inversion.
    t1_star_ms
        Apparent recovery time [ms]. See `look_locker_t1` for the corrected T1.

    Returns
    -------
        Signed signal [a.u.].

    Raises
    ------
    InvalidInputError
        If ``ti_ms`` is empty.

    References
    ----------
    Messroghli et al. 2004, Magn Reson Med 52:141, doi:10.1002/mrm.20110
    """
    if ti_ms.numel() == 0:
        raise InvalidInputError("no inversion times: a recovery needs at least one")
    time = ti_ms.reshape(-1, *(1 for _ in range(t1_star_ms.ndim)))
    return a - b * torch.exp(-time / t1_star_ms)


def look_locker_t1(
    a: Float[Tensor, "*space"], b: Float[Tensor, "*space"], t1_star_ms: Float[Tensor, "*space"]
) -> Float[Tensor, "*space"]:
    r"""T1 [ms] from the apparent recovery, corrected for the read-outs that drive it.

    .. math:: T_1 = T_1^* (B / A - 1)

    References
    ----------
    Deichmann and Haase 1992, J Magn Reson 96:608, doi:10.1016/0022-2364(92)90347-A
    """
    return t1_star_ms * (b / a - 1)
