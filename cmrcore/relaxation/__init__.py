"""Signal models of T1 mapping and their batched least-squares fits."""

from cmrcore.relaxation.fit import FitStatus, T1Fit, fit_t1
from cmrcore.relaxation.models import look_locker_t1, molli_signal

__all__ = ["FitStatus", "T1Fit", "fit_t1", "look_locker_t1", "molli_signal"]
