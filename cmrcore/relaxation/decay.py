"""T2 and T1rho of every pixel from a decay."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int8
from torch import Tensor

from cmrcore.relaxation.curve import fit_signal, named_model
from cmrcore.relaxation.models.decay import DECAY_2P, DECAY_3P

_DECAYS = {model.name: model for model in (DECAY_2P, DECAY_3P)}


@dataclass(frozen=True, slots=True)
class T2Fit:
    """Maps of a T2 fit; NaN wherever `status` is not `FitStatus.OK`."""

    t2_ms: Float[Tensor, "*space"]
    """T2 [ms]."""
    a: Float[Tensor, "*space"]
    """Amplitude A of S = A exp(-TE/T2) + B [a.u.]."""
    b: Float[Tensor, "*space"]
    """Offset B [a.u.]; zero in ``"2p"``."""
    r_squared: Float[Tensor, "*space"]
    """Coefficient of determination."""
    t2_sd_ms: Float[Tensor, "*space"]
    """Standard deviation of T2 from the fit's residual [ms]."""
    status: Int8[Tensor, "*space"]
    """`FitStatus` of each pixel."""


@dataclass(frozen=True, slots=True)
class T1rhoFit:
    """Maps of a T1rho fit; NaN wherever `status` is not `FitStatus.OK`."""

    t1rho_ms: Float[Tensor, "*space"]
    """T1rho [ms]."""
    a: Float[Tensor, "*space"]
    """Amplitude A of S = A exp(-TSL/T1rho) + B [a.u.]."""
    b: Float[Tensor, "*space"]
    """Offset B [a.u.]; zero in ``"2p"``."""
    r_squared: Float[Tensor, "*space"]
    """Coefficient of determination."""
    t1rho_sd_ms: Float[Tensor, "*space"]
    """Standard deviation of T1rho from the fit's residual [ms]."""
    status: Int8[Tensor, "*space"]
    """`FitStatus` of each pixel."""


def fit_t2(
    signal: Float[Tensor, "te *space"],
    te_ms: Float[Tensor, " te"] | Sequence[float],
    model: str = "2p",
    mask: Bool[Tensor, "*space"] | None = None,
) -> T2Fit:
    """T2 of every pixel by least squares on the samples, not on their logarithms.

    Parameters
    ----------
    signal
        Samples [a.u.], one image per echo or preparation time.
    te_ms
        Echo or T2-preparation times [ms], zero included, in the order of the images.
    model
        ``"2p"``: S = A exp(-TE/T2); ``"3p"``: with an offset B.
    mask
        Pixels to fit; all when None.

    Returns
    -------
        Maps in the signal's precision.

    Raises
    ------
    InvalidInputError
        If the model is unknown, the times do not fit the images or too few of them differ (three are needed
        for two parameters, four for three), or an image has no finite sample.
    """
    fitted = fit_signal(signal, te_ms, named_model(model, _DECAYS, quantity="decay"), mask, kind="echo")
    return T2Fit(
        t2_ms=fitted.time_ms,
        a=fitted.amplitude,
        b=fitted.offset,
        r_squared=fitted.r_squared,
        t2_sd_ms=fitted.time_sd_ms,
        status=fitted.status,
    )


def fit_t1rho(
    signal: Float[Tensor, "tsl *space"],
    tsl_ms: Float[Tensor, " tsl"] | Sequence[float],
    model: str = "2p",
    mask: Bool[Tensor, "*space"] | None = None,
) -> T1rhoFit:
    """T1rho of every pixel from spin-lock times [ms]; all else is as in `fit_t2`."""
    fitted = fit_signal(signal, tsl_ms, named_model(model, _DECAYS, quantity="decay"), mask, kind="spin-lock")
    return T1rhoFit(
        t1rho_ms=fitted.time_ms,
        a=fitted.amplitude,
        b=fitted.offset,
        r_squared=fitted.r_squared,
        t1rho_sd_ms=fitted.time_sd_ms,
        status=fitted.status,
    )
