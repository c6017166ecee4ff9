"""Single-shot balanced SSFP images: what they read of Mz, and what they leave of it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cmrcore.phantom.scheme import SASHA, SHMOLLI, Scheme


@dataclass(frozen=True, slots=True)
class Readout:
    """Timing and pulses of one single-shot image, as on a clinical scanner."""

    flip_deg: float
    """Flip angle [degrees]."""
    tr_ms: float
    """Repetition time [ms]; the echo is at its middle."""
    n_lines: int
    """Phase encodings, acquired in linear order."""
    center_line: int
    """Which of them is the center of k-space, from 0; less than half with partial Fourier."""
    n_catalyzation: int
    """Start-up pulses; 1 for a half-alpha pulse."""
    n_central: int = 8
    """Lines around the center whose mean is the image's signal: structures of the heart's size live there,
    and the flicker of off-resonant spins from line to line cancels, as it does in images."""
    catalyzation: Literal["ramp", "half-alpha"] = "ramp"
    """Flip angles rise linearly over `n_catalyzation` pulses (Deshpande et al. 2003,
    doi:10.1002/mrm.10311), or half the flip angle half a TR ahead (Deimling and Heid 1994)."""

    @property
    def before_ms(self) -> float:
        """From the first pulse to the pulse of k-space center [ms]."""
        lead = self.n_catalyzation if self.catalyzation == "ramp" else 0.5
        return (lead + self.center_line) * self.tr_ms

    @property
    def after_ms(self) -> float:
        """From that pulse to the end [ms]."""
        return (self.n_lines - self.center_line) * self.tr_ms


MOLLI_READOUT = Readout(flip_deg=35.0, tr_ms=2.7, n_lines=56, center_line=24, n_catalyzation=5)
SHMOLLI_READOUT = Readout(flip_deg=35.0, tr_ms=2.1, n_lines=76, center_line=38, n_catalyzation=8)
SASHA_READOUT = Readout(flip_deg=70.0, tr_ms=2.6, n_lines=64, center_line=24, n_catalyzation=5)


def usual_readout(scheme: Scheme) -> Readout:
    """Read-out with which the scheme is run."""
    return {SASHA: SASHA_READOUT, SHMOLLI: SHMOLLI_READOUT}.get(scheme.name, MOLLI_READOUT)


@dataclass(frozen=True, slots=True)
class ReadoutMap:
    """A read-out of spins without transverse magnetization is affine in their Mz: offset + slope Mz."""

    signal_offset: Complex[Tensor, "tissue off"]
    """Signal of Mz = 0 [fraction of M0]."""
    signal_slope: Complex[Tensor, "tissue off"]
    """Signal per Mz."""
    mz_offset: Float[Tensor, "tissue off"]
    """What is left of Mz = 0."""
    mz_slope: Float[Tensor, "tissue off"]
    """What is left per Mz."""


def read_out(
    readout: Readout,
    t1_ms: Float[Tensor, " tissue"],
    t2_ms: Float[Tensor, " tissue"],
    off_resonance_hz: Float[Tensor, "tissue off"],
    b1_scale: float = 1.0,
) -> ReadoutMap:
    """Bloch simulation of the pulse train, one step a pulse.

    The pulses alternate in sign, and the receiver with them: on resonance, positive Mz gives a positive real
    signal. The pulses are instantaneous and hit the whole slice alike.
    """
    t1, t2 = t1_ms.to(torch.float64)[:, None], t2_ms.to(torch.float64)[:, None]
    off_hz = off_resonance_hz.to(torch.float64)
    start = torch.stack([torch.zeros_like(off_hz), torch.ones_like(off_hz)])
    mx, my, mz = torch.zeros_like(start), torch.zeros_like(start), start
    half = _precession(readout.tr_ms / 2, t1, t2, off_hz)
    full = _precession(readout.tr_ms, t1, t2, off_hz)

    signal = torch.zeros(start.shape, dtype=torch.complex128, device=start.device)
    sign = 1.0
    center = readout.n_catalyzation + readout.center_line
    central = range(center - readout.n_central // 2, center - readout.n_central // 2 + readout.n_central)
    for pulse in range(readout.n_catalyzation + readout.n_lines):
        share = min(1.0, (pulse + 1) / (readout.n_catalyzation + 1))
        is_half = readout.catalyzation == "half-alpha" and pulse == 0
        flip = sign * math.radians(readout.flip_deg) * b1_scale * share
        my, mz = my * math.cos(flip) + mz * math.sin(flip), mz * math.cos(flip) - my * math.sin(flip)
        if pulse in central:
            at_echo = _evolve(mx, my, mz, half)
            signal += sign / readout.n_central * torch.complex(at_echo[1], -at_echo[0])
        mx, my, mz = _evolve(mx, my, mz, half if is_half else full)
        sign = -sign
    return ReadoutMap(
        signal_offset=signal[0],
        signal_slope=signal[1] - signal[0],
        mz_offset=mz[0],
        mz_slope=mz[1] - mz[0],
    )


_Precession = tuple[Tensor, Tensor, Tensor]


def _precession(
    time_ms: float,
    t1_ms: Float[Tensor, "tissue 1"],
    t2_ms: Float[Tensor, "tissue 1"],
    off_resonance_hz: Float[Tensor, "tissue off"],
) -> _Precession:
    """Cosine and sine of the turn, each with T2 decay, and T1 decay."""
    angle = 2 * math.pi * off_resonance_hz * time_ms / 1000
    decay = torch.exp(-time_ms / t2_ms)
    return decay * torch.cos(angle), decay * torch.sin(angle), torch.exp(-time_ms / t1_ms)


def _evolve(mx: Tensor, my: Tensor, mz: Tensor, precession: _Precession) -> tuple[Tensor, Tensor, Tensor]:
    """Free precession and relaxation."""
    cosine, sine, e1 = precession
    return mx * cosine - my * sine, mx * sine + my * cosine, 1 + (mz - 1) * e1
