"""MOLLI: an inversion recovery that the read-outs drive (`molli_signal`, `look_locker_t1`)."""

from dataclasses import replace

from cmrcore.relaxation.models.inversion import INVERSION_3P

MOLLI = replace(INVERSION_3P, name="molli", has_read_out_correction=True)
"""Three parameters A, B, T1* of magnitudes; T1 by `look_locker_t1`."""

MOLLI_SIGNED = replace(MOLLI, name="molli-signed", is_magnitude=False)
"""The same of signed samples."""

SHMOLLI = replace(MOLLI, name="shmolli")
"""The same of 5, 6 or 7 samples, by `shmolli_fit`."""
