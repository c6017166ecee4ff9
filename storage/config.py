"""trial.toml: everything that changes results, checked when it is read.

Every key must be written: a trial's record hides no default. Only `matching.folder_pattern` and
`matching.patient_id_pattern` may be left out, where folder or PatientID are not matched.
"""

import math
import re
import tomllib
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from storage.digest import canonical_digest
from storage.errors import ConfigError, NotStoredError
from storage.place import Place
from storage.schemes import SHMOLLI, check_schemes

CONFIG_FILE = "trial.toml"


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        message = f"no regular expression: {error}"
        raise ValueError(message) from None
    return pattern


def _check_minutes(minutes: tuple[float, ...]) -> tuple[float, ...]:
    if minutes and not (len(minutes) == 2 and minutes[0] < minutes[1]):
        message = f"{list(minutes)} is no range [from, to] in minutes; [] where time says nothing"
        raise ValueError(message)
    return minutes


MinuteRange = Annotated[tuple[FiniteFloat, ...], AfterValidator(_check_minutes)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
Schemes = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(check_schemes)]
Fraction = Annotated[float, Field(ge=0, le=1)]
WeightsDigest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MatchingConfig(_Section):
    """Which upload belongs to which planned visit."""

    subject_from: Annotated[tuple[Literal["folder", "patient_id"], ...], Field(min_length=1)]
    """Sources of the subject; all that are named must agree."""
    folder_pattern: Pattern | None = None
    """The whole name of an upload's folder; its group ``subject`` is the subject."""
    patient_id_pattern: Pattern | None = None
    """The whole PatientID; its group ``subject`` is the subject."""

    @model_validator(mode="after")
    def _check_patterns(self) -> Self:
        for source in self.subject_from:
            key = f"{source}_pattern"
            if "(?P<subject>" not in (getattr(self, key) or ""):
                message = f"{key} needs a group (?P<subject>...) because subject_from names {source!r}"
                raise ValueError(message)
        return self


class PrivateElement(_Section):
    """A private element that stays in cleaned headers."""

    creator: Annotated[str, Field(min_length=1, max_length=64)]
    """Private creator, as the scanner writes it."""
    element: Annotated[str, Field(pattern=r"^\([0-9a-fA-F]{3}[13579bdfBDF],xx[0-9a-fA-F]{2}\)$")]
    """Group and element within the creator's block, as in ``(2005,xx72)``."""


class PrivacyConfig(_Section):
    """What of the DICOM headers is kept; what is measured is read before anything is cleaned."""

    headers: Literal["none", "basic"]
    """``none``: no header is stored; ``basic``: headers cleaned by the basic profile of DICOM PS3.15."""
    dates: Literal["keep", "shift"]
    """``shift``: all dates in arrays, tables and history move by one secret number of days a subject."""
    keep_private: tuple[PrivateElement, ...]
    """Private elements that stay in cleaned headers; they are not looked into."""


class UploadsConfig(_Section):
    """When an upload counts as arrived, and how much it may ask of us."""

    stable_minutes: Annotated[float, Field(ge=0)]
    """Time without a change after which an upload counts as arrived [min]; 0: at once; inf: never by time."""
    marker_file: Annotated[str, Field(pattern=r"^[^/\\]*$")]
    """File that says an upload is complete; empty for none."""
    max_files: Annotated[int, Field(gt=0)]
    """Files of one upload."""
    max_file_mib: Positive
    """Size of one file [MiB]."""
    max_total_mib: Positive
    """Size of all files of one upload, unpacked [MiB]."""
    max_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    """Unpacked size of a zip file over its own size."""
    read_seconds: Positive
    """Processor time for reading one file [s]."""
    read_memory_mib: Positive
    """Memory for reading one file [MiB]."""

    @model_validator(mode="after")
    def _check_arrival(self) -> Self:
        if self.marker_file and not self.stable_minutes:
            message = (
                "marker_file is never waited for while stable_minutes is 0; set the longest wait, or inf"
            )
            raise ValueError(message)
        if not self.marker_file and math.isinf(self.stable_minutes):
            message = "stable_minutes = inf needs a marker_file, or no upload ever arrives"
            raise ValueError(message)
        return self


class SeriesMatch(_Section):
    """How series of one kind are recognised; all that is written must fit."""

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
    """How one role's series is recognised, and what it must hold."""

    schemes: Schemes
    """Acquisition schemes that may occur; the number of images tells them apart."""


class SpinLockRule(_Section):
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


class NiftiLabels(_Section):
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


class GuideConfig(_Section):
    """How guiding masks are read."""

    nifti_labels: NiftiLabels
    nifti_native: Pattern
    """Found in the name of a NIfTI guide that is for native images alone; empty fits none."""
    nifti_post: Pattern
    """Found in the name of a NIfTI guide that is for post-contrast images alone; empty fits none."""


class IntakeConfig(_Section):
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
    """Series that are recognised and counted, so that they are taken for neither native nor post."""
    spin_lock: tuple[SpinLockRule, ...]
    """Where the images of the series ``t1rho`` state their spin-lock time; attributes in order of belief."""
    guide: GuideConfig


class SegmentConfig(_Section):
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


class AlignConfig(_Section):
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


class HematocritConfig(_Section):
    """Which hematocrit is believed."""

    min_fraction: Fraction
    max_fraction: Fraction
    max_hours: Positive
    """Longest time between blood sample and scan [h]."""
    max_days: Annotated[int, Field(ge=0)]
    """Longest time in calendar days where the sample has no time of day [d]."""


class TissueConfig(_Section):
    """T1 that myocardium and blood can have at a field strength [ms]."""

    t1_native_min_ms: Positive
    t1_native_max_ms: Positive
    t1_post_min_ms: Positive
    t1_post_max_ms: Positive
    blood_t1_native_min_ms: Positive
    blood_t1_native_max_ms: Positive
    blood_t1_post_min_ms: Positive
    blood_t1_post_max_ms: Positive


class QcConfig(_Section):
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


class SyntheticHematocritConfig(_Section):
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


class QuantifyConfig(_Section):
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


LevelValues = Annotated[tuple[Positive, ...], Field(min_length=3, max_length=3)]
SegmentValues = Annotated[tuple[Positive, ...], Field(min_length=16, max_length=16)]


class RepeatabilityConfig(_Section):
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


class SummariseConfig(_Section):
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


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no name, or a folder of names
        message = "no IANA time zone, expected a name such as 'Europe/Berlin'"
        raise ValueError(message) from None
    return name


class ScheduleConfig(_Section):
    """When a served trial runs its nights; changes no result, so it enters no digest."""

    cron: Annotated[str, Field(pattern=r"^\S+( \S+){4}$")]
    """Minute, hour, day of month, month, day of week."""
    timezone: Annotated[str, AfterValidator(_check_timezone)]
    """IANA name of the time zone, such as ``Europe/Berlin``."""


class TrialConfig(_Section):
    """All of trial.toml."""

    schema_version: Literal[1]
    trial_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    matching: MatchingConfig
    privacy: PrivacyConfig
    uploads: UploadsConfig
    intake: IntakeConfig
    segment: SegmentConfig
    align: AlignConfig
    quantify: QuantifyConfig
    summarise: SummariseConfig
    schedule: ScheduleConfig

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        schemes = {*self.intake.native.schemes, *self.intake.post.schemes}
        if self.quantify.t1_model == "shmolli" and schemes != {SHMOLLI}:
            message = (
                f"quantify.t1_model = 'shmolli' fits {SHMOLLI} alone, but the schemes of intake.native and "
                f"intake.post are {', '.join(sorted(schemes))}"
            )
            raise ValueError(message)
        return self

    def digest(self) -> str:
        """SHA-256 of all that changes results."""
        arrival = {"stable_minutes", "marker_file"}
        return canonical_digest(self.model_dump(mode="json", exclude={"schedule": True, "uploads": arrival}))


def load_config(path: Place) -> TrialConfig:
    """Read and check a trial.toml.

    Raises
    ------
    NotStoredError
        If there is no such file.
    ConfigError
        Naming every wrong key with what was found and what was expected.
    """
    try:
        return parse_config(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"{CONFIG_FILE} is missing: copy deploy/trials/demo.toml into the trial's root and adapt it"
        raise NotStoredError(message) from None
    except UnicodeDecodeError as error:
        message = f"{CONFIG_FILE} is no TOML: {error}"
        raise ConfigError(message) from None


def parse_config(text: str) -> TrialConfig:
    """Check the text of a trial.toml.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{CONFIG_FILE} is no TOML: {error}"
        raise ConfigError(message) from None
    try:
        return TrialConfig.model_validate(values)
    except ValidationError as error:
        lines = [
            _describe(detail["loc"], detail["type"], detail["input"], detail["msg"])
            for detail in error.errors()
        ]
        if any(detail["type"] == "missing" for detail in error.errors()):
            lines.append(
                "copy what is missing from deploy/trials/demo.toml of this version, and choose its values"
            )
        raise ConfigError(f"{CONFIG_FILE}: " + "; ".join(lines)) from None


def _describe(location: tuple[int | str, ...], kind: str, found: Any, expected: str) -> str:  # noqa: ANN401
    key = ".".join(str(part) for part in location)
    if kind == "missing":
        return f"{key} is missing"
    if kind == "extra_forbidden":
        return f"{key}: unknown key, remove it or check its spelling"
    if isinstance(found, dict):
        return f"{key}: {expected.removeprefix('Value error, ')}"
    if kind == "value_error":  # a check of our own, which says what is wrong, not what is expected
        return f"{key}: found {found!r}, which is wrong: {expected.removeprefix('Value error, ')}"
    return f"{key}: found {found!r}, expected: {expected}"
