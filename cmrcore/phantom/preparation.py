"""What inversion and saturation pulses make of the longitudinal magnetization."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PreparationMap:
    """Mz behind the pulse and its spoiler is offset + slope Mz."""

    offset: Float[Tensor, "tissue off"]
    """Mz that grew during the pulse."""
    slope: Float[Tensor, "tissue off"]
    """-1 for an ideal inversion, 0 for an ideal saturation."""


_PULSE_MS = 2.56
_PEAK_HZ = 626.0
"""gamma B1 of 14.7 microtesla."""
_SWEEP_HZ = 9500.0
_XI, _TAN_KAPPA = 10.0, 22.0
_N_STEPS = 128
"""Doubling them changes no efficiency by 0.001."""


def adiabatic_inversion(
    t1_ms: Float[Tensor, " tissue"],
    t2_ms: Float[Tensor, " tissue"],
    off_resonance_hz: Float[Tensor, "tissue off"],
    b1_scale: float = 1.0,
    bound_fraction: Float[Tensor, " tissue"] | None = None,
) -> PreparationMap:
    r"""Tan/tanh full passage, simulated with relaxation, off-resonance and B1.

    Decay of T2 during the pulse makes the efficiency 0.96 in myocardium and 0.99 in blood. In tissue with
    macromolecules the pulse also saturates their protons, the share `bound_fraction` of all that exchange
    with water; once both pools agree, well before the first image, what is left of -Mz is smaller by that
    share. This fast-exchange picture of magnetization transfer is a simplification (Robson et al. 2013,
    doi:10.1002/mrm.24867, show the effect). Chow et al. measured 0.91 in vivo (2012, Proc ISMRM 395).

    Parameters
    ----------
    t1_ms, t2_ms
        Relaxation times of each tissue [ms].
    off_resonance_hz
        Difference from the center frequency [Hz].
    b1_scale
        Actual over nominal B1.
    bound_fraction
        Share of protons bound to macromolecules, 0-1; none if left out.

    References
    ----------
    Kellman, Herzka and Hansen 2014, Magn Reson Med 71:1428, doi:10.1002/mrm.24793; the pulse's shape after
    Garwood and Ke 1991, J Magn Reson 94:511, doi:10.1016/0022-2364(91)90137-I
    """
    off_hz = off_resonance_hz.to(torch.float64)
    step_ms = _PULSE_MS / _N_STEPS
    e1 = torch.exp(-step_ms / t1_ms.to(torch.float64))[:, None]
    e2 = torch.exp(-step_ms / t2_ms.to(torch.float64))[:, None]
    mz = torch.stack([torch.zeros_like(off_hz), torch.ones_like(off_hz)])
    mx, my = torch.zeros_like(mz), torch.zeros_like(mz)
    kappa = math.atan(_TAN_KAPPA)
    for step in range(_N_STEPS):
        time = (step + 0.5) / _N_STEPS
        from_edge = 2 * min(time, 1 - time)
        nutation = 2e-3 * math.pi * step_ms * b1_scale * _PEAK_HZ * math.tanh(_XI * from_edge)
        sweep_hz = math.copysign(_SWEEP_HZ, 0.5 - time) * math.tan(kappa * (1 - from_edge)) / _TAN_KAPPA
        turn = 2e-3 * math.pi * step_ms * (sweep_hz + off_hz)
        angle = torch.hypot(turn, torch.full_like(turn, nutation))
        axis_x, axis_z = nutation / angle, turn / angle
        cosine, sine = torch.cos(angle), torch.sin(angle)
        along = (axis_x * mx + axis_z * mz) * (1 - cosine)
        mx, my, mz = (
            e2 * (mx * cosine - axis_z * my * sine + axis_x * along),
            e2 * (my * cosine + (axis_z * mx - axis_x * mz) * sine),
            1 + (mz * cosine + axis_x * my * sine + axis_z * along - 1) * e1,
        )
    free = torch.ones_like(e1) if bound_fraction is None else 1 - bound_fraction.to(torch.float64)[:, None]
    return PreparationMap(offset=free * mz[0], slope=free * (mz[1] - mz[0]))


def fixed_inversion(efficiency: float, like: Float[Tensor, "tissue off"]) -> PreparationMap:
    """Inversion that turns Mz into minus this fraction of itself, whatever the tissue; 1 is ideal."""
    zero = torch.zeros_like(like, dtype=torch.float64)
    return PreparationMap(offset=zero, slope=zero - efficiency)


def saturation(residual_fraction: float, like: Float[Tensor, "tissue off"]) -> PreparationMap:
    """Saturation that leaves this fraction of Mz, whatever the tissue.

    It empties bound and free protons alike, so that their exchange leaves the recovery alone. Pulses made for
    the heart leave less than 1 % (Chow et al. 2015, Magn Reson Med 73:1, doi:10.1002/mrm.25140).
    """
    zero = torch.zeros_like(like, dtype=torch.float64)
    return PreparationMap(offset=zero, slope=zero + residual_fraction)
