"""[summarise] of trial.toml: what counts as a change between visits."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from storage.config_values import Fraction, Positive, Section

LevelValues = Annotated[tuple[Positive, ...], Field(min_length=3, max_length=3)]
SegmentValues = Annotated[tuple[Positive, ...], Field(min_length=16, max_length=16)]


class RepeatabilityConfig(Section):
    """How far repeated measurements of an unchanged heart differ: 1.96 * sqrt(2) * within-subject SD."""

    t1_native_global_ms: Positive
    t1_native_septal_ms: Positive
    t1_native_levels_ms: LevelValues
    """Basal, mid and apical [ms]."""
    t1_native_segments_ms: SegmentValues
    """AHA segments 1 to 16 [ms]."""
    ecv_global_fraction: Positive
    ecv_septal_fraction: Positive
    ecv_levels_fraction: LevelValues
    """Basal, mid and apical, 0-1."""
    ecv_segments_fraction: SegmentValues
    """AHA segments 1 to 16, 0-1."""


class SummariseConfig(Section):
    """What counts as a change between visits."""

    pixel_tolerance_mm: Positive
    """Largest difference of the pixel spacing from that of the baseline [mm]."""
    slice_distance_tolerance_mm: Positive
    """Largest difference of the slices' distances from those of the baseline [mm]."""
    ecv_change_relative: Fraction
    """Relative change of ECV between two visits that is marked."""
    false_discovery_rate: Annotated[float, Field(gt=0, lt=1)]
    """Share of the segments said to have changed that may be false."""
    retest_visits: tuple[tuple[str, str], ...]
    """Pairs of visits between which nothing changes; repeatability is computed from them."""
    retest_pairs_min: Annotated[int, Field(ge=3)]
    """Subjects with both visits from which on that is believed instead of ``repeatability``."""
    repeatability: RepeatabilityConfig

    @model_validator(mode="after")
    def _check_retests(self) -> Self:
        for first, second in self.retest_visits:
            if first == second:
                message = f"retest_visits names the visit {first!r} as its own retest"
                raise ValueError(message)
        return self
