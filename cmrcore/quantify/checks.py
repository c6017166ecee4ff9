"""The table of checks: what can be wrong with a scan, how bad it is, and which limits say so."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "review", "fail"]
Verdict = Literal["pass", "review", "fail"]

TISSUE = "tissue_*."
"""Stands for the section of trial.toml of the scan's field strength, ``tissue_1_5t`` or ``tissue_3t``."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something that can be wrong with a scan."""

    meaning: str
    """What a raised flag says."""
    unit: str | None
    """Unit of the flag's value and threshold; None where it has none."""
    severity: Severity
    """``note``: to know, does not count; ``review``: look at it; ``fail``: do not use the numbers."""
    limits: tuple[str, ...] = ()
    """Keys of trial.toml that decide, of ``[quantify.qc]`` or with their section; none for a bare fact."""


CHECKS = {
    # guide and masks
    "guide_missing": Check("a slice has no guiding mask", None, "review"),
    "guide_implausible": Check("a slice's guiding mask is not used: it is no closed ring", None, "review"),
    "guide_doubtful": Check("a slice's guiding mask failed a check, and is used", "1", "review"),
    "guide_off_heart": Check(
        "a reader's guide hardly covers what the network takes for the left ventricle (Dice)",
        "1",
        "fail",
        ("guide_overlap_min",),
    ),
    "guide_fell_back": Check(
        "a guide of a slice failed a check; that of another echo, or of the network, is used", None, "note"
    ),
    "guide_not_carried": Check(
        "the guide of a subject's first visit does not fit a slice of a later one; that of the visit is used",
        None,
        "note",
    ),
    "reader_guide_replaced": Check(
        "a reader's mask of a slice is no closed ring or its labels overlap; the network's guide is used",
        None,
        "review",
    ),
    "landmark_off_heart": Check(
        "a reader's anterior RV insertion lies too far from the myocardium; it is not used",
        "mm",
        "review",
        ("landmark_off_max_mm",),
    ),
    "mask_missing": Check("a slice with a guide has no myocardium on its reference echo", None, "review"),
    "mask_no_ring": Check("the mask on a slice's reference echo is no closed ring", "1", "fail"),
    "wall_implausible": Check(
        "mean thickness of a slice's wall is outside its limits", "mm", "fail", ("wall_min_mm", "wall_max_mm")
    ),
    "area_jumps": Check(
        "area within the epicardium over that of the slices beside it (or one over it) is too large",
        "1",
        "review",
        ("area_ratio_max",),
    ),
    "center_jumps": Check(
        "the LV's center lies too far from that of the slices beside it",
        "mm",
        "review",
        ("center_off_max_mm",),
    ),
    "masks_leave_guide": Check(
        "half of a slice's echoes have a mask that overlaps the guide by less (Dice), aligned",
        "1",
        "review",
        ("guide_dice_min",),
    ),
    "masks_disagree": Check(
        "the mask of a slice's reference echo lies apart from most others",
        "pixel",
        "review",
        ("masks_apart_max_px",),
    ),
    "wall_like_blood": Check(
        "the echoes hardly tell a slice's wall from its blood (|2 AUC - 1| of the third best echo)",
        "1",
        "review",
        ("separation_min",),
    ),
    "wall_off_heart": Check(
        "the echoes do not tell a slice's wall from its blood: masks off the heart, or images of noise",
        "1",
        "fail",
        ("separation_fail_min",),
    ),
    "mask_off_others": Check(
        "the mask that all is read in lies far from most others of its slice",
        "pixel",
        "fail",
        ("masks_apart_fail_px",),
    ),
    # alignment
    "echoes_unaligned": Check("echoes of a slice could not be aligned by their masks", "1", "note"),
    "motion_remains": Check(
        "a quarter of a slice's aligned masks overlap that of the reference echo by less (Dice)",
        "1",
        "review",
        ("aligned_dice_min",),
    ),
    "post_misaligned": Check(
        "post-contrast myocardium does not come to lie on the native one",
        "1",
        "review",
        ("align.post_dice_min",),
    ),
    "post_unaligned": Check(
        "post-contrast masks lie elsewhere than the native ones, and nothing was moved",
        "pixel",
        "review",
        ("masks_apart_max_px",),
    ),
    # fit
    "r_squared_mean": Check(
        "mean R2 in the myocardium of a slice is low, by the rule of S1", "1", "note", ("r_squared_mean_min",)
    ),
    "r_squared_pixels": Check(
        "many myocardial pixels of a slice fit badly or not at all, by the rule of S1",
        "fraction",
        "note",
        ("r_squared_pixel_min", "r_squared_low_fraction_max"),
    ),
    "fit_poor": Check(
        "too many myocardial pixels of a slice fit badly or not at all",
        "fraction",
        "review",
        ("r_squared_pixel_min", "fit_poor_fraction_max"),
    ),
    "fit_failed": Check(
        "most myocardial pixels of a slice fit badly or not at all",
        "fraction",
        "fail",
        ("r_squared_pixel_min", "fit_failed_fraction_max"),
    ),
    "inversion_implausible": Check(
        "B / A of a slice's myocardial fits is not that of an inversion: times or polarity are wrong",
        "1",
        "review",
        ("amplitude_ratio_min", "amplitude_ratio_max"),
    ),
    # myocardium
    "t1_native_implausible": Check(
        "mean native T1 of a slice is outside its limits",
        "ms",
        "fail",
        (f"{TISSUE}t1_native_min_ms", f"{TISSUE}t1_native_max_ms"),
    ),
    "t1_post_implausible": Check(
        "mean post-contrast T1 of a slice is outside its limits",
        "ms",
        "fail",
        (f"{TISSUE}t1_post_min_ms", f"{TISSUE}t1_post_max_ms"),
    ),
    "t1_scattered": Check(
        "T1 of a slice's myocardium scatters too much (half of the 16th to 84th percentile over the median)",
        "fraction",
        "review",
        ("t1_spread_max_fraction",),
    ),
    "t1_apart": Check(
        "median T1 of a slice's myocardium differs from that of the other slices",
        "fraction",
        "review",
        ("t1_apart_max_fraction",),
    ),
    # blood
    "blood_missing": Check(
        "a slice has no blood T1: no pool after erosion, or its fit failed", None, "review"
    ),
    "blood_t1_implausible": Check(
        "blood T1 of a slice is outside its limits",
        "ms",
        "fail",
        (
            f"{TISSUE}blood_t1_native_min_ms",
            f"{TISSUE}blood_t1_native_max_ms",
            f"{TISSUE}blood_t1_post_min_ms",
            f"{TISSUE}blood_t1_post_max_ms",
        ),
    ),
    "blood_fit_poor": Check("R2 of a slice's blood is too low", "1", "review", ("blood_r_squared_min",)),
    "blood_scattered": Check(
        "T1 of a slice's blood pool scatters too much (half of the 16th to 84th percentile over the median)",
        "fraction",
        "review",
        ("blood_spread_max_fraction",),
    ),
    "blood_small": Check("a slice's blood T1 rests on too few pixels", "1", "review", ("blood_pixels_min",)),
    "blood_apart": Check(
        "blood T1 of a slice differs from that of the other slices",
        "fraction",
        "review",
        ("blood_apart_max_fraction",),
    ),
    "wall_not_below_blood": Check(
        "native T1 of a slice's myocardium over that of its blood is that of blood, or of fat",
        "1",
        "fail",
        ("t1_over_blood_min", "t1_over_blood_max"),
    ),
    # both roles
    "post_missing": Check("no post-contrast series, so no ECV", None, "review"),
    "native_post_mismatch": Check(
        "native and post-contrast slice are not on the same pixels",
        "mm",
        "review",
        ("position_tolerance_mm",),
    ),
    "contrast_missing": Check(
        "post-contrast T1 is below the native one neither in a slice's myocardium nor in its blood",
        "1",
        "fail",
        ("post_over_native_max",),
    ),
    "contrast_timing": Check(
        "post-contrast images were taken too early or too late after the bolus",
        "min",
        "review",
        ("post_minutes_min", "post_minutes_max"),
    ),
    "beats_differ": Check(
        "the beat by the post-contrast inversion times differs from that by the native ones",
        "fraction",
        "review",
        ("beats_apart_max_fraction",),
    ),
    "ecv_implausible": Check(
        "mean ECV of a slice is outside its limits",
        "fraction",
        "review",
        ("ecv_min_fraction", "ecv_max_fraction"),
    ),
    # hematocrit
    "hematocrit_missing": Check("no hematocrit, so no ECV", None, "review"),
    "hematocrit_implausible": Check(
        "hematocrit is outside its limits",
        "fraction",
        "fail",
        ("hematocrit.min_fraction", "hematocrit.max_fraction"),
    ),
    "hematocrit_old": Check(
        "hematocrit was not measured close enough to the scan",
        "h or days",
        "review",
        ("hematocrit.max_hours", "hematocrit.max_days"),
    ),
    # the scan as a whole
    "no_orientation": Check("no slice shows the RV, so there are no AHA segments", None, "review"),
    "nothing_measured": Check("no native T1 in the myocardium of any slice", None, "fail"),
    "nothing_left": Check("every slice with a native T1 failed its checks", None, "fail"),
    "field_strength_without_limits": Check(
        "field strength is over 0.3 T from 1.5 and 3 T: T1 was held against no limits", "T", "review"
    ),
    "file_refused": Check("a file of the upload was left out; what remained was complete", None, "review"),
    "burned_in_annotation": Check("an image says that text is burned into its pixels", None, "review"),
    "acquisition_repeated": Check(
        "a slice was acquired more than once; one acquisition was taken", None, "review"
    ),
    "inversion_time_doubtful": Check(
        "inversion times come from an attribute that often holds something else", None, "review"
    ),
    # reader's decisions
    "reader_excluded": Check("a reader excluded a slice", None, "fail"),
    "reader_asks_repeat": Check(
        "a reader excluded a slice and asks for its scan to be repeated", None, "fail"
    ),
    "reader_asks_redraw": Check(
        "a reader asks for another guide of a slice, and no other one of a reader has come", None, "review"
    ),
    "reader_decision_lapsed": Check(
        "a reader left out a slice that has other images or masks since; it is used until decided anew",
        None,
        "review",
    ),
    # protocol
    "field_strength_differs": Check(
        "another field strength than at baseline, or after contrast", "T", "review"
    ),
    "scanner_differs": Check("another scanner than at baseline, or after contrast", None, "review"),
    "scheme_differs": Check("another acquisition scheme than at baseline", None, "review"),
    "pixels_differ": Check(
        "other pixels than at baseline", "mm", "review", ("summarise.pixel_tolerance_mm",)
    ),
    "slices_differ": Check("another number of slices than at baseline", "1", "review"),
    "slice_distances_differ": Check(
        "slices lie at other distances from the first one than at baseline",
        "mm",
        "review",
        ("summarise.slice_distance_tolerance_mm",),
    ),
    # change
    # A change is what a trial looks for: a verdict that rested on it would sort out those who changed.
    "ecv_changed": Check("global or septal ECV changed beyond its repeatability", "fraction", "note"),
}
"""Every code that a flag can have."""
