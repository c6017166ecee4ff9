"""What goes into the quantification of a scan and what comes out."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from cmrcore.quantify.checks import Verdict
from cmrcore.quantify.qc import Flag, HematocritLimits, QcLimits
from cmrcore.registration.align import AlignSettings

Role = Literal["native", "post"]

BloodSlice = Literal["same", "mid"]
"""Which slice's blood serves a slice's ECV."""

Value = float | int | str | bool | None
Row = dict[str, Value]
"""One row of a result table; None where there is no value."""


@dataclass(frozen=True, slots=True)
class GuideNote:
    """Where the guide of a slice came from, and how it passed its checks."""

    origin: str
    """``reader``, ``model``, or ``baseline`` for one that an earlier visit lends."""
    score: float
    """How well it passed its checks, 0-1."""
    findings: tuple[str, ...]
    """Checks that it failed, in words."""
    rejected: tuple[str, ...]
    """Guides that were tried before it: on which echo or a reader's, and why they failed."""
    overlap: float | None = None
    """Dice coefficient of a reader's left ventricle with what a network takes for it, 0-1; None where no
    network was asked or none was seen, and for a guide that a network found."""
    reader_replaced: bool = False
    """Whether a reader drew one that could not be used; why is the first of ``rejected``."""
    not_carried: str | None = None
    """Why the guide of an earlier visit could not take its place; None where none was asked for."""


@dataclass(frozen=True, slots=True)
class ReaderDecision:
    """What a reader decided about a slice of one role."""

    reader_id: str
    """Who decided."""
    decision: Literal["accept", "repeat", "exclude"]
    """Whether its numbers are used; ``repeat`` asks for the scan again besides."""
    comment: str
    """The reader's reason."""
    holds: bool
    """Whether images and masks are still those that the reader saw."""
    redraw: bool
    """Whether the reader asks for another guide, and none has come."""
    accepted: Mapping[str, float | None] = field(default_factory=dict)
    """Checks whose findings of severity ``review`` the reader has seen and accepts, and the values found;
    NaN where none was, None where any is accepted."""


@dataclass(frozen=True, slots=True)
class Series:
    """Echoes of one role with masks and geometry; slices from base to apex, echoes by inversion time."""

    echoes: Float[Tensor, "slice ti row col"]
    """Magnitudes [a.u.]."""
    ti_ms: Float[Tensor, "slice ti"]
    """Inversion times [ms], ascending in each slice."""
    acquisition_index: Int[Tensor, "slice ti"]
    """Order of acquisition, 0 first."""
    masks: Bool[Tensor, "label slice ti row col"] | None
    """Myocardium, blood pool and RV on every echo; all False in a slice without masks."""
    guide: Bool[Tensor, "label slice row col"] | None
    """Guiding mask, all False in a slice without one."""
    confidence: Float[Tensor, "slice ti"] | None
    """Confidence of each echo's mask, 0-1."""
    positions_mm: Float[Tensor, "slice 3"]
    """Center of the first pixel of each slice, patient LPS [mm]."""
    pixel_spacing_mm: tuple[float, float]
    """Distance of rows and columns [mm]."""
    orientation: tuple[float, ...]
    """Direction cosines of growing col, then of growing row, patient LPS."""
    anterior: tuple[float, float]
    """Image-plane direction (row, col) that points to the patient's anterior-superior."""
    levels: tuple[str, ...]
    """``basal``, ``mid`` or ``apical`` for each slice."""
    scheme: str
    """MOLLI scheme, such as ``"5(3)3"``."""
    reference_echo: Int[Tensor, " slice"] | None = None
    """Echo of each slice that its guide was drawn on, in whose mask statistics are read; None: the
    first-acquired one."""
    guide_notes: tuple[GuideNote | None, ...] = ()
    """What is known about the guide of each slice; empty where nothing is."""
    insertions_px: Float[Tensor, "slice 2"] | None = None
    """A reader's points (row, col) for the anterior RV insertion, NaN on a slice without one [pixel]; None
    where a reader marked nothing."""
    decisions: tuple[ReaderDecision | None, ...] = ()
    """What a reader decided about each slice; empty where no one decided anything."""
    field_strength_t: float | None = None
    """Field strength [T]; None if unknown."""
    minutes_since_contrast: float | None = None
    """Time from the contrast bolus to the first image [min]; None if unknown, or before it."""

    def reference(self) -> Int[Tensor, " slice"]:
        """Echo of each slice in whose mask statistics are read."""
        return self.acquisition_index.argmin(1) if self.reference_echo is None else self.reference_echo


@dataclass(frozen=True, slots=True)
class Hematocrit:
    """A blood sample's hematocrit."""

    fraction: float
    """Hematocrit, 0-1."""
    measured_on: datetime.date
    """Day of the sample."""
    measured_at: datetime.time | None
    """Time of the sample, local to the scan; None if not recorded."""
    source: str
    """Where the value comes from, such as ``"plan"``."""


@dataclass(frozen=True, slots=True)
class SyntheticHematocrit:
    """Regression of hematocrit on the relaxation rate of native blood: slope / T1 + intercept."""

    slope_ms: float
    """Hematocrit for each 1/ms [ms]."""
    intercept_fraction: float
    """Hematocrit at a rate of zero."""
    field_strength_t: float
    """Field strength that it was found at [T]."""
    schemes: tuple[str, ...]
    """Native schemes that it holds for."""
    source: str
    """Where it was found."""


@dataclass(frozen=True, slots=True)
class QuantifySettings:
    """What decides about the numbers of a scan."""

    t1_model: str
    """Model of `cmrcore.relaxation.fit_t1`."""
    blood_erosion_mm: float
    """How far blood pixels stay away from the pool's edge [mm]."""
    blood_slice: BloodSlice
    """Whose blood the ECV of a slice uses: its own or that of the middle mid-ventricular slice."""
    myocardium_erosion_mm: float
    """Width of the rims at both borders of the myocardium in which nothing is read [mm]; see `erode_wall`."""
    hematocrit_sd_fraction: float
    """Standard uncertainty of a hematocrit."""
    synthetic: SyntheticHematocrit
    """Hematocrit from native blood T1."""
    hematocrit: HematocritLimits
    """When a hematocrit is believed."""
    qc: QcLimits
    """When a result is flagged."""
    align: AlignSettings
    """How echoes are aligned before they are fitted."""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Maps and table rows of one scan."""

    maps: dict[str, Tensor]
    """Arrays ``[slice, row, col]``. Of each scanned role ``<role>/t1_ms``, ``t1_star_ms``, ``t1_sd_ms``,
    ``r_squared`` (float32, NaN where the fit failed) and ``status`` (int8); ``aha_segment`` (uint8, 0 where
    none) of the whole myocardium; ``ecv_fraction`` (float32) where there is one."""
    displacements: dict[str, Tensor]
    """Of each scanned role ``<role>/displacement_px``, ``[slice, ti, axis, row, col]`` (float16): where in
    the acquired echo a pixel of the aligned one lies, minus the pixel; exact to 0.008 pixels under 16. With
    both roles ``post/onto_native_px``, ``[slice, axis, row, col]`` (float16): where in the post-contrast
    reference echo a native pixel lies, minus the pixel; NaN in slices that do not lie on the same pixels."""
    scan: Row
    """Row of the table ``scans``."""
    slices: list[Row]
    """Rows of the table ``slices``."""
    segments: list[Row]
    """Rows of the table ``segments``."""
    echoes: list[Row]
    """Rows of the table ``echoes``."""
    flags: list[Flag]
    """Every raised flag, by slice."""
    verdict: Verdict
    """What the flags say about the scan."""
    readings: list[Row]
    """What the checks read of each slice of each role, flagged or not; see `SliceQuality`."""
