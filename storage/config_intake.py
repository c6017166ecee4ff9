"""[intake] of trial.toml: how series are recognized and read, and how guides are."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from storage.config_values import Pattern, Positive, Section
from storage.schemes import check_schemes


def _check_minutes(minutes: tuple[float, ...]) -> tuple[float, ...]:
    if minutes and not (len(minutes) == 2 and minutes[0] < minutes[1]):
        message = f"{list(minutes)} is no range [from, to] in minutes; [] where time says nothing"
        raise ValueError(message)
    return minutes


MinuteRange = Annotated[tuple[FiniteFloat, ...], AfterValidator(_check_minutes)]
Schemes = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(check_schemes)]


class SeriesMatch(Section):
    """How series of one kind are recognized; all that is written must fit."""

    description: Pattern
    """Found in SeriesDescription; empty fits all."""
    protocol: Pattern
    """Found in ProtocolName; empty fits all."""
    image_type: Pattern
    r"""Found in ImageType, its values joined by ``\``; empty fits all."""
    minutes_since_contrast: MinuteRange
    """From and to, counted from the contrast bolus that the headers state [min]; empty fits all."""
    minutes_since_first: MinuteRange
    """From and to, counted from the first image that fits the patterns of a rule [min]; empty fits all."""


class SeriesRule(SeriesMatch):
    """How one role's series is recognized, and what it must hold."""

    schemes: Schemes
    """Acquisition schemes that may occur; the number of images tells them apart."""


class SpinLockRule(Section):
    """Where a T1rho image states its spin-lock time, for which DICOM has no attribute."""

    attribute: Literal[
        "SeriesDescription",
        "ProtocolName",
        "SequenceName",
        "ImageComments",
        "FrameComments",
        "EchoTime",
        "EffectiveEchoTime",
        "InversionTime",
        "TriggerTime",
        "InstanceNumber",
        "AcquisitionNumber",
        "TemporalPositionIdentifier",
        "TemporalPositionIndex",
    ]
    """Attribute, by the standard's keyword."""
    pattern: Pattern
    """Found in the attribute, read as text; its group ``ms`` is the time, where ``ms`` does not say it."""
    ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Time of an image that fits a pattern without that group [ms]."""

    @model_validator(mode="after")
    def _check_time(self) -> Self:
        if ("(?P<ms>" in self.pattern) == (self.ms is not None):
            message = (
                r"needs the time either as a group of the pattern, (?P<ms>\d+), or as a number, ms = 20.0"
            )
            raise ValueError(message)
        return self


class NiftiLabels(Section):
    """Voxel values of a NIfTI guide."""

    rv: Annotated[int, Field(gt=0)]
    myocardium: Annotated[int, Field(gt=0)]
    blood_pool: Annotated[int, Field(gt=0)]

    @model_validator(mode="after")
    def _check_distinct(self) -> Self:
        if len({self.rv, self.myocardium, self.blood_pool}) < 3:
            message = "two labels have the same value"
            raise ValueError(message)
        return self


class GuideConfig(Section):
    """How guiding masks are read."""

    nifti_labels: NiftiLabels
    nifti_native: Pattern
    """Found in the name of a NIfTI guide that is for native images alone; empty fits none."""
    nifti_post: Pattern
    """Found in the name of a NIfTI guide that is for post-contrast images alone; empty fits none."""


class IntakeConfig(Section):
    """How an upload becomes echo stacks."""

    slices: Annotated[int, Field(ge=0)]
    """Slices a series must have; 0 for any number."""
    inversion_time_max_ms: Positive
    """Longest inversion time that is believed [ms]."""
    position_tolerance_mm: Positive
    """Distance along the normal within which two images are of one slice [mm]."""
    repeats: Literal["last_complete", "refuse"]
    """A slice acquired twice: ``last_complete`` takes the last that is complete, and names the others."""
    native: SeriesRule
    post: SeriesRule
    other: dict[Literal["t2", "t1rho", "stress", "rest"], SeriesMatch]
    """Series that are recognized and counted, so that they are taken for neither native nor post."""
    spin_lock: tuple[SpinLockRule, ...]
    """Where the images of the series ``t1rho`` state their spin-lock time; attributes in order of belief."""
    guide: GuideConfig
