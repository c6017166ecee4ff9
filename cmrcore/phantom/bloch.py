"""Bloch simulation of MOLLI with balanced SSFP read-outs, on resonance."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.errors import InvalidInputError

_SCHEME = re.compile(r"[1-9]\d*(\([1-9]\d*\)[1-9]\d*)*")


@dataclass(frozen=True, slots=True)
class MolliScheme:
    """How many heart beats are read out after each inversion, and how many pass before the next."""

    read_outs: tuple[int, ...]
    """Images after each inversion, one a beat."""
    pauses: tuple[int, ...]
    """Beats of recovery between the sets, one fewer than the sets."""

    @property
    def n_echoes(self) -> int:
        """Images in all."""
        return sum(self.read_outs)

    @property
    def n_beats(self) -> int:
        """Heart beats from the first inversion to the last image."""
        return sum(self.read_outs) + sum(self.pauses)


@dataclass(frozen=True, slots=True)
class Readout:
    """Timing of the single-shot balanced SSFP image and of the inversions, as on a clinical scanner."""

    flip_deg: float = 35.0
    """Flip angle [degrees]."""
    tr_ms: float = 2.8
    """Repetition time [ms]."""
    n_ramp: int = 10
    """Start-up pulses whose flip angle rises linearly (Deshpande et al. 2003, doi:10.1002/mrm.10311)."""
    n_lines: int = 64
    """Phase encodings, acquired in linear order; k-space center is the middle one."""
    inversion_efficiency: float = 0.91
    """Mz turns into minus this fraction of itself; in vivo 0.91 (Chow et al. 2012, Proc ISMRM 395)."""
    ti_first_ms: float = 120.0
    """Shortest inversion time, from the pulse to k-space center [ms]."""
    ti_increment_ms: float = 80.0
    """How much longer the first inversion time of each further set is [ms]."""


MOLLI_READOUT = Readout()


def parse_scheme(scheme: str) -> MolliScheme:
    """Read sets and pauses out of a scheme in beats, such as ``"5(3)3"`` or ``"4(1)3(1)2"``."""
    if not _SCHEME.fullmatch(scheme):
        raise InvalidInputError(
            f"MOLLI scheme {scheme!r}: expected images(pause in beats)images, as in '5(3)3'"
        )
    counts = [int(count) for count in re.findall(r"\d+", scheme)]
    return MolliScheme(read_outs=tuple(counts[::2]), pauses=tuple(counts[1::2]))


def molli_echoes(
    t1_ms: Float[Tensor, " tissue"],
    t2_ms: Float[Tensor, " tissue"],
    scheme: MolliScheme,
    rr_ms: Sequence[float],
    readout: Readout = MOLLI_READOUT,
) -> tuple[Float[Tensor, " ti"], Float[Tensor, "ti tissue"]]:
    """Signed transverse magnetization at k-space center of each MOLLI image.

    Transverse magnetization is spoiled between beats, so a whole read-out acts on Mz as an affine map, which
    two starting values of Mz determine. Off-resonance, slice profile, flow and magnetization transfer are not
    simulated.

    Parameters
    ----------
    t1_ms, t2_ms
        Relaxation times of each tissue [ms].
    scheme
        Sets and pauses.
    rr_ms
        Length of each heart beat [ms], from the first inversion on; `MolliScheme.n_beats` values.
    readout
        Timing and flip angle.

    Returns
    -------
        Inversion times [ms] and signal [fraction of M0], both in acquisition order.

    Raises
    ------
    InvalidInputError
        If the number of beats does not fit the scheme, or a beat is too short for its inversion and read-out.

    References
    ----------
    Messroghli et al. 2004, Magn Reson Med 52:141, doi:10.1002/mrm.20110
    """
    if len(rr_ms) != scheme.n_beats:
        raise InvalidInputError(f"{len(rr_ms)} heart beats given, the scheme has {scheme.n_beats}")
    before_ms = (readout.n_ramp + readout.n_lines // 2) * readout.tr_ms
    after_ms = (readout.n_lines - readout.n_lines // 2) * readout.tr_ms
    longest_ti_ms = readout.ti_first_ms + (len(scheme.read_outs) - 1) * readout.ti_increment_ms
    if readout.ti_first_ms < before_ms or min(rr_ms) < longest_ti_ms + after_ms:
        raise InvalidInputError(
            f"a first inversion time of {readout.ti_first_ms:g} ms and a beat of {min(rr_ms):g} ms leave no "
            f"room for a read-out of {before_ms:g} ms before and {after_ms:g} ms after k-space center"
        )

    signal_0, mz_0 = _read_out(torch.zeros_like(t1_ms), t1_ms, t2_ms, readout)
    signal_1, mz_1 = _read_out(torch.ones_like(t1_ms), t1_ms, t2_ms, readout)

    # Time runs from k-space center to k-space center; the trigger delay is the same in every beat.
    mz = torch.ones_like(t1_ms)
    since_center_ms = math.inf
    center_ms, times, signals = 0.0, [], []
    beat = 0
    for index, count in enumerate(scheme.read_outs):
        ti_ms = readout.ti_first_ms + index * readout.ti_increment_ms
        mz = _recover(mz, since_center_ms - after_ms - ti_ms, t1_ms)
        mz = -readout.inversion_efficiency * mz
        inverted_at_ms = center_ms - ti_ms
        free_ms = ti_ms - before_ms
        for image in range(count):
            mz = _recover(mz, free_ms, t1_ms)
            signals.append(signal_0 + mz * (signal_1 - signal_0))
            mz = mz_0 + mz * (mz_1 - mz_0)
            times.append(center_ms - inverted_at_ms)
            n_beats = 1
            if image == count - 1 and index < len(scheme.pauses):
                n_beats += scheme.pauses[index]
            since_center_ms = sum(rr_ms[beat : beat + n_beats])
            center_ms += since_center_ms
            beat += n_beats
            free_ms = since_center_ms - after_ms - before_ms
    return torch.tensor(times, dtype=t1_ms.dtype), torch.stack(signals)


def full_recovery_signal(
    t1_ms: Float[Tensor, " tissue"], t2_ms: Float[Tensor, " tissue"], readout: Readout = MOLLI_READOUT
) -> Float[Tensor, " tissue"]:
    """Signal at k-space center of a read-out that starts from equilibrium [fraction of M0]."""
    return _read_out(torch.ones_like(t1_ms), t1_ms, t2_ms, readout)[0]


def _recover(
    mz: Float[Tensor, " tissue"], time_ms: float, t1_ms: Float[Tensor, " tissue"]
) -> Float[Tensor, " tissue"]:
    """Mz after free recovery towards 1."""
    return 1 + (mz - 1) * torch.exp(-time_ms / t1_ms)


def _read_out(
    mz: Float[Tensor, " tissue"],
    t1_ms: Float[Tensor, " tissue"],
    t2_ms: Float[Tensor, " tissue"],
    readout: Readout,
) -> tuple[Float[Tensor, " tissue"], Float[Tensor, " tissue"]]:
    """Signal at k-space center and Mz after the read-out, for Mz before it and no transverse magnetization.

    On resonance, pulses of alternating sign turn M within one plane. The receiver alternates with them, so
    that the signal of positive Mz is positive.
    """
    e1, e2 = torch.exp(-readout.tr_ms / t1_ms), torch.exp(-readout.tr_ms / t2_ms)
    e2_half = torch.exp(-readout.tr_ms / 2 / t2_ms)
    my = torch.zeros_like(mz)
    signal = torch.zeros_like(mz)
    sign = 1.0
    for pulse in range(readout.n_ramp + readout.n_lines):
        ramp = min(1.0, (pulse + 1) / (readout.n_ramp + 1))
        flip = sign * math.radians(readout.flip_deg) * ramp
        my, mz = my * math.cos(flip) + mz * math.sin(flip), mz * math.cos(flip) - my * math.sin(flip)
        if pulse == readout.n_ramp + readout.n_lines // 2:
            signal = sign * my * e2_half
        my, mz = my * e2, 1 + (mz - 1) * e1
        sign = -sign
    return signal, mz
