"""Bloch simulation of MOLLI, ShMOLLI and SASHA, tissue by tissue, and the images painted from it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.phantom.preparation import (
    PreparationMap,
    adiabatic_inversion,
    fixed_inversion,
    saturation,
)
from cmrcore.phantom.readout import Readout, read_out, usual_readout
from cmrcore.phantom.scheme import UNSATURATED_MS, Scheme, parse_scheme

_LONGEST_SATURATION_FRACTION = 0.72
"""Longest saturation time over the median heart beat: the pulse must follow the R wave."""


@dataclass(frozen=True, slots=True)
class Pulses:
    """Strength of the preparation pulses and of all others."""

    b1_scale: float = 1.0
    """Actual over nominal B1 of adiabatic pulse and read-out."""
    inversion_efficiency: float | None = None
    """Mz turns into minus this fraction of itself; None simulates the adiabatic pulse."""
    saturation_residual_fraction: float = 0.005
    """What a saturation leaves of Mz, 0-1 (illustrative)."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What a scheme reads of each tissue, in acquisition order."""

    times_ms: Float[Tensor, " ti"]
    """Inversion or saturation times as the scanner records them, from pulse to k-space center [ms]."""
    center_ms: Float[Tensor, " ti"]
    """When k-space center was read, from that of the first image on [ms]."""
    signal: Complex[Tensor, "ti tissue off"]
    """Transverse magnetization at k-space center [fraction of M0]; on resonance real, of the sign of Mz."""


def acquire(
    scheme: str | Scheme,
    t1_ms: Float[Tensor, " tissue"],
    t2_ms: Float[Tensor, " tissue"],
    rr_ms: Sequence[float],
    readout: Readout | None = None,
    off_resonance_hz: Float[Tensor, "*tissue off"] | None = None,
    *,
    bound_fraction: Float[Tensor, " tissue"] | None = None,
    pulses: Pulses = Pulses(),
) -> Acquisition:
    """Signal of each tissue in each image of a scheme.

    Transverse magnetization is spoiled between beats, so preparation, recovery and read-out each act on Mz
    as an affine map. Slice profile, flow and the magnetization transfer of the read-outs are not simulated.

    Parameters
    ----------
    scheme
        Such as ``"5(3)3"``, ``"5s(3s)3s"``, ``"5(1)1(1)1"`` (ShMOLLI) or ``"SASHA"``; see `parse_scheme`.
    t1_ms, t2_ms
        Relaxation times of each tissue [ms].
    rr_ms
        Length of each heart beat [ms], from the first image on. A beat that the scanner missed is part of a
        long one, a false trigger splits one in two. A trigger that comes while the scanner is still busy is
        passed over. Beats that are left over are not used.
    readout
        Pulse train; None for the scheme's usual one.
    off_resonance_hz
        Difference from the center frequency [Hz], the same for all tissues or for each its own; None for 0.
    bound_fraction
        Share of protons bound to macromolecules, 0-1; see `adiabatic_inversion`. None for 0.
    pulses
        Strengths of the pulses.

    Raises
    ------
    InvalidInputError
        If the heart beats do not suffice, or the read-out is too long for the shortest inversion time.

    References
    ----------
    Messroghli et al. 2004, Magn Reson Med 52:141, doi:10.1002/mrm.20110
    """
    parsed = parse_scheme(scheme) if isinstance(scheme, str) else scheme
    train = usual_readout(parsed) if readout is None else readout
    if parsed.first_ms < train.before_ms:
        raise InvalidInputError(
            f"scheme {parsed.name}: its first image time of {parsed.first_ms:g} ms leaves no room for the "
            f"{train.before_ms:g} ms of read-out before k-space center"
        )
    off_hz = torch.zeros(1) if off_resonance_hz is None else off_resonance_hz
    off_hz = off_hz.to(torch.float64).broadcast_to(len(t1_ms), off_hz.shape[-1])
    shots = _saturation_shots if parsed.preparation == "saturation" else _inversion_shots
    plan = shots(parsed, list(rr_ms), train)

    recovery = t1_ms.to(torch.float64)[:, None]
    image = read_out(train, t1_ms, t2_ms, off_hz, pulses.b1_scale)
    prepared = _preparation(parsed, t1_ms, t2_ms, off_hz, bound_fraction, pulses)
    mz = torch.ones_like(off_hz)
    free_from_ms = -math.inf
    signals = []
    for shot in plan:
        start_ms = shot.center_ms - train.before_ms
        if shot.prepared_ms is not None:
            mz = _recover(mz, shot.prepared_ms - free_from_ms, recovery)
            mz = prepared.offset + prepared.slope * mz
            free_from_ms = shot.prepared_ms
        mz = _recover(mz, start_ms - free_from_ms, recovery)
        signals.append(image.signal_offset + image.signal_slope * mz)
        mz = image.mz_offset + image.mz_slope * mz
        free_from_ms = shot.center_ms + train.after_ms
    return Acquisition(
        times_ms=torch.tensor([shot.time_ms for shot in plan], dtype=torch.float64, device=t1_ms.device),
        center_ms=torch.tensor([shot.center_ms for shot in plan], dtype=torch.float64, device=t1_ms.device),
        signal=torch.stack(signals),
    )


def paint(
    signal: Complex[Tensor, "ti tissue off"],
    proton_density: Float[Tensor, " tissue"],
    fractions: Float[Tensor, "#ti tissue row col"],
    off_resonance_hz: Float[Tensor, "#ti row col"],
    grid_hz: Float[Tensor, " off"],
) -> Complex[Tensor, "ti row col"]:
    """Complex images of the tissues that fill the pixels, before coil, noise and magnitude.

    Parameters
    ----------
    signal
        That of `acquire`, whose off-resonance was `grid_hz`, plus each tissue's own.
    proton_density
        Of each tissue, 0-1.
    fractions
        Share of each pixel that each tissue fills, the same for all images or for each its own.
    off_resonance_hz
        Field map [Hz], likewise; what lies beyond the grid takes its end.
    grid_hz
        Evenly spaced, rising; at least two values. Steps of 5 Hz keep myocardial T1 within 2 ms.
    """
    n_images, (rows, cols) = len(signal), fractions.shape[-2:]
    table = (signal * proton_density[:, None]).to(torch.complex64)
    step = (off_resonance_hz - grid_hz[0]) / (grid_hz[1] - grid_hz[0])
    step = step.to(torch.float32).clamp(0, len(grid_hz) - 1).reshape(len(step), -1)
    below = step.floor().clamp(max=len(grid_hz) - 2)
    share, below = step - below, below.long()
    images = torch.zeros(n_images, rows * cols, dtype=torch.complex64, device=signal.device)
    for tissue, filled in enumerate(fractions.unbind(1)):
        of_tissue = filled.reshape(len(filled), -1).to(torch.float32)
        pixels = of_tissue.any(0).nonzero()[:, 0]
        if len(pixels) == 0:
            continue
        where, part = below[:, pixels].expand(n_images, -1), share[:, pixels]
        low, high = table[:, tissue].gather(1, where), table[:, tissue].gather(1, where + 1)
        images[:, pixels] += of_tissue[:, pixels] * (low + (high - low) * part)
    return images.reshape(n_images, rows, cols)


@dataclass(frozen=True, slots=True)
class _Shot:
    """One image of the plan."""

    center_ms: float
    """When k-space center is read [ms]."""
    prepared_ms: float | None
    """When the preparation was that belongs to this image alone, or starts its set [ms]."""
    time_ms: float
    """Recorded inversion or saturation time [ms]."""


class _Triggers:
    """Walk over heart beats that passes over triggers while the scanner is busy."""

    def __init__(self, rr_ms: list[float], scheme: str) -> None:
        self._rr_ms, self._scheme = rr_ms, scheme
        self._beat = 0
        self.center_ms = 0.0

    def left_ms(self) -> list[float]:
        """Lengths of the beats to come [ms]."""
        return self._rr_ms[self._beat :]

    def go(self, n_beats: int, room_ms: float) -> None:
        """Move on by this many beats, and further until there was room."""
        passed_ms, taken = 0.0, 0
        while taken < n_beats or passed_ms < room_ms:
            if self._beat == len(self._rr_ms):
                raise InvalidInputError(
                    f"{len(self._rr_ms)} heart beats given, scheme {self._scheme} needs more"
                )
            passed_ms += self._rr_ms[self._beat]
            self._beat += 1
            taken += 1
        self.center_ms += passed_ms


def _inversion_shots(scheme: Scheme, rr_ms: list[float], readout: Readout) -> list[_Shot]:
    """Time runs from k-space center to k-space center; the trigger delay is the same in every beat."""
    triggers = _Triggers(rr_ms, scheme.name)
    shots: list[_Shot] = []
    for index, images in enumerate(scheme.sets):
        ti_ms = scheme.first_ms + index * scheme.increment_ms
        if index > 0:
            # The beat of the last image belongs to it; the pause comes on top.
            n_pause = scheme.pauses[index - 1].n_beats(triggers.left_ms()[1:])
            triggers.go(1 + n_pause, readout.after_ms + ti_ms)
        inverted_ms = triggers.center_ms - ti_ms
        for image in range(images.n_beats(triggers.left_ms())):
            if image > 0:
                triggers.go(1, readout.after_ms + readout.before_ms)
            center_ms = triggers.center_ms
            shots.append(_Shot(center_ms, inverted_ms if image == 0 else None, center_ms - inverted_ms))
    return shots


def _saturation_shots(scheme: Scheme, rr_ms: list[float], readout: Readout) -> list[_Shot]:
    """First image without saturation, then evenly spaced saturation times."""
    n_saturated = scheme.sets[0].count - 1
    usual_ms = statistics.median(rr_ms[:n_saturated]) if rr_ms else 0.0
    longest_ms = max(_LONGEST_SATURATION_FRACTION * usual_ms, scheme.first_ms)
    step_ms = (longest_ms - scheme.first_ms) / (n_saturated - 1)
    triggers = _Triggers(rr_ms, scheme.name)
    shots = [_Shot(0.0, None, UNSATURATED_MS)]
    for image in range(n_saturated):
        ts_ms = scheme.first_ms + image * step_ms
        triggers.go(1, readout.after_ms + ts_ms)
        shots.append(_Shot(triggers.center_ms, triggers.center_ms - ts_ms, ts_ms))
    return shots


def _preparation(
    scheme: Scheme,
    t1_ms: Float[Tensor, " tissue"],
    t2_ms: Float[Tensor, " tissue"],
    off_hz: Float[Tensor, "tissue off"],
    bound_fraction: Float[Tensor, " tissue"] | None,
    pulses: Pulses,
) -> PreparationMap:
    """Simulate the pulse of the scheme."""
    if scheme.preparation == "saturation":
        return saturation(pulses.saturation_residual_fraction, off_hz)
    if pulses.inversion_efficiency is not None:
        return fixed_inversion(pulses.inversion_efficiency, off_hz)
    return adiabatic_inversion(t1_ms, t2_ms, off_hz, pulses.b1_scale, bound_fraction)


def _recover(mz: Tensor, time_ms: float, t1_ms: Tensor) -> Tensor:
    """Mz after free recovery towards 1."""
    return 1 + (mz - 1) * torch.exp(-time_ms / t1_ms)
