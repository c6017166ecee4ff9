"""Signal models of T1, T2 and T1rho mapping and their batched least-squares fits."""

from cmrcore.relaxation.decay import T1rhoFit, T2Fit, fit_t1rho, fit_t2
from cmrcore.relaxation.fit import T1Fit, fit_t1
from cmrcore.relaxation.model import FitStatus
from cmrcore.relaxation.polarity import signed_from_phase
from cmrcore.relaxation.recovery import look_locker_t1, molli_signal
from cmrcore.relaxation.region import region_curves

__all__ = [
    "FitStatus",
    "T1Fit",
    "T1rhoFit",
    "T2Fit",
    "fit_t1",
    "fit_t1rho",
    "fit_t2",
    "look_locker_t1",
    "molli_signal",
    "region_curves",
    "signed_from_phase",
]
