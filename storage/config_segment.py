"""[segment] of trial.toml: where guides come from, and how masks come to every echo."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from storage.config_values import Fraction, Section

WeightsDigest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]


class SegmentConfig(Section):
    """How masks come to every echo."""

    method: Literal["guided", "carry"]
    """``guided``: the guided network on every echo; ``carry``: the guide as it is on every echo."""
    alpha: Fraction
    """Weight of consistency with the guide against fit to the image."""
    base: WeightsDigest
    """Weights that find the guide where the upload has none, and where the heart lies on each echo, so that
    the guide follows; empty: a slice without an upload's guide stays without masks, guides stay in place."""
    guided: WeightsDigest
    """Weights of the guided network; empty where ``method`` needs none."""
    guide_from: Literal["visit", "baseline"]
    """Where a guide is from that no reader drew: ``visit``: found on the visit's own echoes; ``baseline``:
    lent by the subject's first visit and aligned, where it fits."""

    @model_validator(mode="after")
    def _check_guided(self) -> Self:
        if (self.method == "guided") != bool(self.guided):
            message = (
                'method = "guided" needs the digest of weights in guided'
                if self.method == "guided"
                else f'guided names weights that method = "{self.method}" never uses; set guided = ""'
            )
            raise ValueError(message)
        return self
