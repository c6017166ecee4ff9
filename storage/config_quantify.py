"""[align] and [quantify] of trial.toml: how masks and echoes become maps, numbers and flags."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from storage.config_values import Fraction, Positive, Section


class AlignConfig(Section):
    """How the echoes of a slice are aligned before they are fitted."""

    method: Literal["none", "affine", "refined"]
    """``affine``: by their masks; ``refined``: by the images too where that explains clearly more."""
    shift_max_mm: Positive
    """Largest plausible way of the LV's center [mm]."""
    turn_max_deg: Annotated[float, Field(gt=0, le=90)]
    """Largest plausible turn of the heart [degrees]."""
    scale_max_fraction: Fraction
    """Largest plausible change of the LV's radius."""
    still_px: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Echoes that moved by less are left as they are [pixel]."""
    r_squared_fall_max: Fraction
    """How much the mean R2 may fall before the masks' alignment is not believed."""
    post_dice_min: Fraction
    """Least overlap of native and aligned post-contrast myocardium for an ECV."""


class HematocritConfig(Section):
    """Which hematocrit is believed."""

    min_fraction: Fraction
    max_fraction: Fraction
    max_hours: Positive
    """Longest time between blood sample and scan [h]."""
    max_days: Annotated[int, Field(ge=0)]
    """Longest time in calendar days where the sample has no time of day [d]."""


class TissueConfig(Section):
    """T1 that myocardium and blood can have at a field strength [ms]."""

    t1_native_min_ms: Positive
    t1_native_max_ms: Positive
    t1_post_min_ms: Positive
    t1_post_max_ms: Positive
    blood_t1_native_min_ms: Positive
    blood_t1_native_max_ms: Positive
    blood_t1_post_min_ms: Positive
    blood_t1_post_max_ms: Positive


class QcConfig(Section):
    """Limits whose crossing raises a flag; `cmrcore.quantify.checks` says which flag."""

    r_squared_mean_min: Fraction
    r_squared_pixel_min: Fraction
    r_squared_low_fraction_max: Fraction
    fit_poor_fraction_max: Fraction
    """Largest share of badly fitted pixels in a slice that needs no review."""
    fit_failed_fraction_max: Fraction
    """Largest share of badly fitted pixels in a slice whose numbers are used."""
    amplitude_ratio_min: Positive
    amplitude_ratio_max: Positive
    """Largest median B / A of a slice's fits."""
    wall_min_mm: Positive
    wall_max_mm: Positive
    """Largest mean thickness of the wall [mm]."""
    area_ratio_max: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    """Largest area within the epicardium over that of the slices beside it."""
    center_off_max_mm: Positive
    """Largest distance of the LV's center from that of the slices beside it [mm]."""
    guide_overlap_min: Fraction
    """Least overlap of a reader's ventricle with what the network finds; below, its slice's numbers are left
    out."""
    landmark_off_max_mm: Positive
    """Largest distance of a reader's anterior insertion from the myocardium [mm]."""
    guide_dice_min: Fraction
    """Least median overlap of the echoes' masks with the guide."""
    aligned_dice_min: Fraction
    """Least lower quartile of the overlap of aligned masks with that of the reference echo."""
    masks_apart_max_px: Positive
    """How far a mask may lie from most others [pixel]."""
    separation_min: Fraction
    """Least separation of wall and blood on the third best echo."""
    masks_apart_fail_px: Positive
    """How far the reference echo's mask may lie before its numbers are left out [pixel]."""
    separation_fail_min: Fraction
    """Separation of wall and blood under which a slice's numbers are left out."""
    t1_spread_max_fraction: Positive
    """Largest relative scatter of T1 in the myocardium of a slice."""
    t1_apart_max_fraction: Positive
    """Largest relative difference of a slice's myocardial T1 from that of the others."""
    blood_r_squared_min: Fraction
    blood_spread_max_fraction: Positive
    """Largest relative scatter of T1 in the eroded blood pool."""
    blood_pixels_min: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Fewest pixels that blood T1 rests on."""
    blood_apart_max_fraction: Positive
    """Largest relative difference of a slice's blood T1 from that of the others."""
    t1_over_blood_min: Positive
    t1_over_blood_max: Positive
    """Largest native T1 of myocardium over that of blood."""
    post_over_native_max: Positive
    """Largest post-contrast T1 over the native one."""
    post_minutes_min: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    post_minutes_max: Positive
    """Longest time from the bolus to the post-contrast series [min]."""
    beats_apart_max_fraction: Positive
    """Largest relative difference of the beat after contrast from that before."""
    ecv_min_fraction: Fraction
    ecv_max_fraction: Fraction
    position_tolerance_mm: Positive
    """Largest distance between a native and a post-contrast slice that count as one [mm]."""
    tissue_1_5t: TissueConfig
    """At 1.5 T, give or take 0.3 T."""
    tissue_3t: TissueConfig
    """At 3 T, give or take 0.3 T; elsewhere T1 is held against nothing."""


class SyntheticHematocritConfig(Section):
    """Hematocrit from native blood T1: slope / T1 + intercept; it never enters the main ECV."""

    slope_ms: Annotated[float, Field(allow_inf_nan=False)]
    """Hematocrit for each 1/ms of relaxation rate [ms]."""
    intercept_fraction: Annotated[float, Field(allow_inf_nan=False)]
    """Hematocrit at a rate of zero."""
    field_strength_t: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Field strength that it was found at [T]; elsewhere there is none."""
    schemes: tuple[str, ...]
    """Native schemes that it holds for; others have none."""
    source: Annotated[str, Field(min_length=1)]
    """Where the coefficients come from."""


_LIMITS_IN_ORDER = (
    ("separation_fail_min", "separation_min"),
    ("masks_apart_max_px", "masks_apart_fail_px"),
    ("fit_poor_fraction_max", "fit_failed_fraction_max"),
)
"""Limits of review and fail of one finding, the lower first."""


class QuantifyConfig(Section):
    """How maps and their statistics are computed."""

    t1_model: Literal["molli", "shmolli"]
    blood_erosion_mm: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Width taken off the blood pool's edge before its mean signal is taken [mm]."""
    blood_slice: Literal["same", "mid"]
    """Whose blood the ECV of a slice uses: its own, or that of the middle mid-ventricular slice."""
    myocardium_erosion_mm: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Width of the rims at both borders of the myocardium that are not read, a quarter of it at most [mm]."""
    hematocrit_sd_fraction: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    """Standard uncertainty of a measured hematocrit, 0-1."""
    synthetic_hematocrit: SyntheticHematocritConfig
    hematocrit: HematocritConfig
    qc: QcConfig

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for section in (self.hematocrit, self.qc, self.qc.tissue_1_5t, self.qc.tissue_3t):
            values = section.model_dump()
            for key in values:
                upper = re.sub(r"(^|_)min(_|$)", r"\1max\2", key)
                if upper != key and upper in values and values[key] >= values[upper]:
                    message = f"{key} = {values[key]} is not below {upper} = {values[upper]}"
                    raise ValueError(message)
        qc = self.qc.model_dump()
        for lower, upper in _LIMITS_IN_ORDER:
            if qc[lower] > qc[upper]:
                message = (
                    f"{lower} = {qc[lower]} is above {upper} = {qc[upper]}; a review comes before a fail"
                )
                raise ValueError(message)
        return self
