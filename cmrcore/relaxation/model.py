"""What a signal model must declare for the one solver of this package."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from jaxtyping import Bool, Float
from torch import Tensor


class FitStatus(IntEnum):
    """What became of a pixel's fit; only `OK` has values."""

    OK = 0
    AT_BOUND = 1
    """The best time constant lies at the end of the search range."""
    NO_SIGNAL = 2
    """All samples are the same, or none is finite."""
    NOT_AN_INVERSION = 3
    """No recovery with B > A > 0 describes the samples."""
    NOT_FITTED = 4
    """Outside the mask."""
    TOO_FEW_SAMPLES = 5
    """Some samples are not finite, so that fewer than the model was given remain."""
    NO_SUCH_CURVE = 6
    """No saturation recovery or decay of positive amplitude describes the samples."""


@dataclass(frozen=True, slots=True)
class SignalModel:
    r"""A curve with one time constant T, S(t) = offset + amplitude (constant + slope exp(-t / T)).

    The amplitude is positive by convention, `slope` has the curve's sign. What else separates the models
    is what they hold fixed and what they call a valid curve.
    """

    name: str
    """What a caller asks for."""
    constant: float | None
    """Constant part of the shape; None: the offset is fitted, and the shape has no constant of its own."""
    slope: float
    """Factor of the exponential in the shape."""
    is_magnitude: bool
    """Whether the samples lost their sign, so that every polarity is searched."""
    range_ms: tuple[float, float]
    """Search range of T [ms]; a best fit at either end is no measurement."""
    is_valid: Callable[[Float[Tensor, " pixel"], Float[Tensor, " pixel"]], Bool[Tensor, " pixel"]]
    """Whether an offset and an amplitude make a curve of this model."""
    invalid_status: FitStatus
    """Status of a pixel without a valid curve."""
    has_read_out_correction: bool = False
    """Whether T is an apparent time, to be corrected by `look_locker_t1`."""

    @property
    def n_parameters(self) -> int:
        """Fitted parameters: amplitude and time, with or without an offset."""
        return 3 if self.constant is None else 2


def has_amplitude(
    offset: Float[Tensor, " pixel"], amplitude: Float[Tensor, " pixel"]
) -> Bool[Tensor, " pixel"]:
    """Accept any curve of positive amplitude, whatever its offset."""
    return (amplitude > 0) & offset.isfinite()
