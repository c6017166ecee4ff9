"""Transverse decay after a preparation or echo time: T2, and T1rho with its spin-lock time."""

from dataclasses import replace

from cmrcore.relaxation.model import FitStatus, SignalModel, has_amplitude

DECAY_2P = SignalModel(
    name="2p",
    constant=0.0,
    slope=1.0,
    is_magnitude=False,
    range_ms=(1.0, 10_000.0),
    is_valid=has_amplitude,
    invalid_status=FitStatus.NO_SUCH_CURVE,
)
"""S = A exp(-TE / T2)."""

DECAY_3P = replace(DECAY_2P, name="3p", constant=None)
"""S = A exp(-TE / T2) + B: with what does not decay, such as the recovery during read-out, or noise."""
