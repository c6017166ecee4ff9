"""T1 of every pixel from an inversion or saturation recovery."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int8
from torch import Tensor

from cmrcore.relaxation.curve import fit_signal, named_model
from cmrcore.relaxation.models import inversion, molli, saturation
from cmrcore.relaxation.shmolli import shmolli_fit

_RECOVERIES = {
    model.name: model
    for model in (
        molli.MOLLI,
        molli.MOLLI_SIGNED,
        inversion.INVERSION_2P,
        inversion.INVERSION_2P_SIGNED,
        inversion.INVERSION_3P,
        inversion.INVERSION_3P_SIGNED,
        saturation.SATURATION_2P,
        saturation.SATURATION_3P,
        molli.SHMOLLI,
    )
}

MODELS = tuple(_RECOVERIES)
"""Names that `fit_t1` knows."""


@dataclass(frozen=True, slots=True)
class T1Fit:
    """Maps of a T1 fit; NaN wherever `status` is not `FitStatus.OK`."""

    t1_ms: Float[Tensor, "*space"]
    """T1, with Look-Locker correction for MOLLI and ShMOLLI [ms]."""
    t1_star_ms: Float[Tensor, "*space"]
    """Apparent recovery time [ms]; T1 itself where no correction applies."""
    a: Float[Tensor, "*space"]
    """Amplitude A of S = A - B exp(-t/T1*) [a.u.]."""
    b: Float[Tensor, "*space"]
    """Amplitude B [a.u.]; 2 A in ``"ir-2p"``, A in ``"saturation-2p"``."""
    r_squared: Float[Tensor, "*space"]
    """Coefficient of determination of the acquired magnitudes against the magnitude of the fitted curve."""
    r_squared_signed: Float[Tensor, "*space"]
    """The same of signed samples (polarity restored for magnitudes); near 1 even where blood contaminates."""
    t1_sd_ms: Float[Tensor, "*space"]
    """Standard deviation of T1 from the fit's residual [ms]."""
    status: Int8[Tensor, "*space"]
    """`FitStatus` of each pixel."""
    n_samples: Int8[Tensor, "*space"]
    """Samples that the fit used, 0 where there is no fit; only ``"shmolli"`` chooses."""


def fit_t1(
    signal: Float[Tensor, "ti *space"],
    ti_ms: Float[Tensor, " ti"] | Sequence[float],
    model: str = "molli",
    mask: Bool[Tensor, "*space"] | None = None,
) -> T1Fit:
    """T1 of every pixel by least squares, exact over all polarities.

    Parameters
    ----------
    signal
        Samples [a.u.], one image per inversion or saturation time; magnitudes, but signed for the models that
        end in ``"-signed"`` (see `signed_from_phase`).
    ti_ms
        Inversion or saturation times [ms], in the order of the images; they need not be sorted.
    model
        ``"molli"``: three parameters (`molli_signal`) with `look_locker_t1`; ``"ir-2p"`` and ``"ir-3p"``: the
        same curve without correction, with B = 2 A or B free; each also ``"-signed"``. ``"shmolli"``:
        ``"molli"`` of 5, 6 or 7 samples (`shmolli_fit`). ``"saturation-2p"`` and ``"saturation-3p"``: B = A
        or B free.
    mask
        Pixels to fit; all when None.

    Returns
    -------
        Maps in the signal's precision.

    Raises
    ------
    InvalidInputError
        If the model is unknown, the times do not fit the images or too few of them differ (three are needed
        for two parameters, four for three), an image has no finite sample, or magnitudes are negative.
    """
    declared = named_model(model, _RECOVERIES, quantity="T1")
    prepare = shmolli_fit if declared is molli.SHMOLLI else None
    fitted = fit_signal(signal, ti_ms, declared, mask, kind="inversion", prepare=prepare)
    return T1Fit(
        t1_ms=fitted.time_ms,
        t1_star_ms=fitted.apparent_ms,
        a=fitted.offset + (declared.constant or 0) * fitted.amplitude,
        b=-declared.slope * fitted.amplitude,
        r_squared=fitted.r_squared,
        r_squared_signed=fitted.r_squared_signed,
        t1_sd_ms=fitted.time_sd_ms,
        status=fitted.status,
        n_samples=fitted.n_samples,
    )
