"""Which attribute is believed for what, by vendor: the one table of dialects, and how it decides.

A header gives candidates, one image at a time; which of them is a series' inversion time can only be told
from all images of a slice, because the wrong attributes are there too, constant or zero (`choose_times`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydicom.datadict import tag_for_keyword

from storage.config_intake import SpinLockRule

Vendor = Literal["siemens", "philips", "ge", "other"]
Quantity = Literal["inversion_time", "t2_preparation", "spin_lock", "trigger_time"]

CREATOR_PHILIPS_SCALE = "Philips MR Imaging DD 001"
CREATOR_PHILIPS_FRAME = "Philips MR Imaging DD 005"
CREATOR_PHILIPS_TI = "Philips MR Imaging DD 006"
CREATOR_SIEMENS_FRAME = "SIEMENS MR SDI 02"
CREATOR_GE = "GEMS_PARM_01"


@dataclass(frozen=True, slots=True)
class Private:
    """One private attribute; its creator finds it, for a block may move, and the tag is its usual place."""

    tag: int
    """Usual tag."""
    creator: str
    """PrivateCreator of its block."""
    within: tuple[int, str] | None = None
    """Tag and creator of the private sequence that holds it in enhanced files; else it stands free."""


@dataclass(frozen=True, slots=True)
class Source:
    """One attribute that may hold a time."""

    name: str
    """What `ti_source` records."""
    why: str
    """Why it is believed, and at this place in the order."""
    keyword: str = ""
    """Keyword of a standard attribute."""
    private: Private | None = None
    """Private attribute, where it is none of the standard."""
    pattern: str = ""
    """Regular expression whose first group is the time, where the attribute is free text."""
    min_span_ms: float = 0.0
    """Least range over a slice's images; below it the attribute is taken for something else [ms]."""


@dataclass(frozen=True, slots=True)
class TimeValue:
    """One candidate of one image."""

    quantity: Quantity
    """What it may be."""
    source: str
    """Name of its `Source`."""
    ms: float
    """Value as written [ms]."""


_TI = Source(
    "InversionTime (0018,0082)",
    "the standard's place in classic images; Siemens and GE fill it per image",
    keyword="InversionTime",
)
_TIS = Source(
    "InversionTimes (0018,9079)",
    "the standard's place in enhanced images (dcm2niix#380); Philips pads it with 1.797e308 (dcm2niix#385)",
    keyword="InversionTimes",
)
_TI_SIEMENS = Source(
    "SIEMENS MR SDI 02 (0021,1189)",
    "Siemens XA repeats the time per frame in its own group, read so by the ShMOLLI authors' tomato",
    private=Private(0x00211189, CREATOR_SIEMENS_FRAME, within=(0x002111FE, CREATOR_SIEMENS_FRAME)),
)
_TI_COMMENT = Source(
    "ImageComments (0020,4000)",
    "Siemens MOLLI and ShMOLLI repeat the time in words (TIeff 100 ms); text, so after the numbers",
    keyword="ImageComments",
    pattern=r"TIeff\s+(\d+(?:\.\d+)?)\s*ms",
)
_TI_FRAME_COMMENT = Source(
    "FrameComments (0020,9158)",
    "the same in enhanced images",
    keyword="FrameComments",
    pattern=r"TIeff\s+(\d+(?:\.\d+)?)\s*ms",
)
_TI_PHILIPS = Source(
    "Philips MR Imaging DD 006 (2005,1572)",
    "Philips MOLLI whose (0018,0082) is absent or zero; read so by tomato and by renal MOLLI tools",
    private=Private(0x20051572, CREATOR_PHILIPS_TI, within=(0x2005140F, CREATOR_PHILIPS_FRAME)),
)
_TI_TRIGGER = Source(
    "TriggerTime (0018,1060)",
    "Look-Locker series and patched Philips software keep the time here (dcm2niix#408); last, because in "
    "others it is the delay after the R wave, which may wander by some ms",
    keyword="TriggerTime",
    min_span_ms=500.0,
)
_T2PREP_ECHO = Source(
    "EchoTime (0018,0081)",
    "T2-prepared series write the preparation as echo time; where it does not vary it is the readout's",
    keyword="EchoTime",
)
_T2PREP_EFFECTIVE = Source(
    "EffectiveEchoTime (0018,9082)", "the same in enhanced images", keyword="EffectiveEchoTime"
)
_T2PREP_PATTERN = r"T2 prep\. duration = (\d+(?:\.\d+)?) ms"
_T2PREP_COMMENT = Source(
    "ImageComments (0020,4000)",
    "Siemens writes the duration in words; the standard has T2Preparation (0018,9021), but only yes or no",
    keyword="ImageComments",
    pattern=_T2PREP_PATTERN,
)
_T2PREP_FRAME_COMMENT = Source(
    "FrameComments (0020,9158)",
    "the same in enhanced images",
    keyword="FrameComments",
    pattern=_T2PREP_PATTERN,
)
_TRIGGER = Source("TriggerTime (0018,1060)", "the standard's place in classic images", keyword="TriggerTime")
_TRIGGER_DELAY = Source(
    "NominalCardiacTriggerDelayTime (0020,9153)",
    "the standard's place in enhanced images",
    keyword="NominalCardiacTriggerDelayTime",
)

RescaleRule = Literal["philips scale slope", "real world value", "rescale"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one vendor's headers mean; each tuple is in order of belief."""

    times: dict[Quantity, tuple[Source, ...]]
    """Sources of each time but the spin-lock time: no vendor has a place for it (see `spin_lock_sources`)."""
    rescale: tuple[RescaleRule, ...]
    """From stored to meant values; the first whose attributes are there."""


_T2PREP = (_T2PREP_ECHO, _T2PREP_EFFECTIVE, _T2PREP_COMMENT, _T2PREP_FRAME_COMMENT)
_TRIGGERS = (_TRIGGER, _TRIGGER_DELAY)

DIALECTS: dict[Vendor, Dialect] = {
    "siemens": Dialect(
        times={
            "inversion_time": (_TI, _TIS, _TI_SIEMENS, _TI_COMMENT, _TI_FRAME_COMMENT, _TI_TRIGGER),
            "t2_preparation": _T2PREP,
            "trigger_time": _TRIGGERS,
        },
        rescale=("rescale", "real world value"),
    ),
    # The displayed values (rescale slope) may be stretched image by image; the scale slope takes that back,
    # so that the images of an inversion recovery can be compared: FP = DV / (RS x SS) in Philips' terms.
    "philips": Dialect(
        times={
            "inversion_time": (_TI, _TIS, _TI_PHILIPS, _TI_TRIGGER),
            "t2_preparation": (_T2PREP_ECHO, _T2PREP_EFFECTIVE),
            "trigger_time": _TRIGGERS,
        },
        rescale=("philips scale slope", "real world value", "rescale"),
    ),
    # An assumption: no public source shows a GE MOLLI header. GE fills (0018,0082) in other inversion series.
    "ge": Dialect(
        times={
            "inversion_time": (_TI, _TIS, _TI_TRIGGER),
            "t2_preparation": (_T2PREP_ECHO, _T2PREP_EFFECTIVE),
            "trigger_time": _TRIGGERS,
        },
        rescale=("rescale", "real world value"),
    ),
    "other": Dialect(
        times={
            "inversion_time": (_TI, _TIS, _TI_COMMENT, _TI_FRAME_COMMENT, _TI_TRIGGER),
            "t2_preparation": _T2PREP,
            "trigger_time": _TRIGGERS,
        },
        rescale=("rescale", "real world value"),
    ),
}
"""The table. Sources: the ShMOLLI authors' reader tomato (github.com/MRKonrad/tomato), dcm2niix's notes on
Philips (github.com/rordenlab/dcm2niix, Philips/README.md), the issues named above, and the measured ShMOLLI
series that the tests read. A vendor's newer software may do otherwise; the source that was believed is stored
with every inversion time."""


def spin_lock_sources(rules: Sequence[SpinLockRule]) -> tuple[Source, ...]:
    """Give the attributes that a trial's own rules name for the spin-lock time, in their order."""
    return tuple(
        Source(attribute_name(keyword), "the trial says so, in intake.spin_lock", keyword=keyword)
        for keyword in dict.fromkeys(rule.attribute for rule in rules)
    )


def attribute_name(keyword: str) -> str:
    """Name a standard attribute as the table does, with its tag."""
    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


DOUBTFUL_SOURCES = frozenset(
    source.name
    for dialect in DIALECTS.values()
    for sources in dialect.times.values()
    for source in sources
    if source.min_span_ms > 0
)
"""Sources that often hold something else; a header alone cannot tell."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """How stored values become those the scanner means: ``slope x stored + intercept``."""

    rule: RescaleRule
    """Attributes that say so."""
    slope: float
    """Slope [a.u.]; NaN where the attribute is no finite number."""
    intercept: float
    """Intercept [a.u.]; NaN likewise."""


def vendor_of(manufacturer: str) -> Vendor:
    """Tell the vendor from Manufacturer."""
    name = manufacturer.lower()
    if name.startswith("siemens"):
        return "siemens"
    if name.startswith("philips"):
        return "philips"
    return "ge" if re.match(r"ge\b|general electric", name) else "other"


def choose_times(
    images: Sequence[Sequence[TimeValue]], quantity: Quantity, sources: Sequence[Source], limit_ms: float
) -> tuple[str | None, list[float | None]]:
    """Decide which source gives a slice's times: the first that is plausible in every image and varies.

    Where none is in every image, the first that varies over those that have it; the others then have no time.
    A source that often holds something else (`Source.min_span_ms`) is asked last, even if it is in all.

    Parameters
    ----------
    images
        Candidates of each image of the slice.
    quantity
        Which time.
    sources
        Its sources, in order of belief: a row of the table, or the trial's own.
    limit_ms
        Longest plausible time [ms]; an inversion time is longer than zero.

    Returns
    -------
        Name of the source, None where no source varies, and the time of each image [ms].
    """
    complete_first = sorted(
        sources,
        key=lambda source: (
            source.min_span_ms > 0,
            any(_plausible(image, quantity, source.name, limit_ms) is None for image in images),
        ),
    )
    for source in complete_first:
        times = [_plausible(image, quantity, source.name, limit_ms) for image in images]
        known = [time for time in times if time is not None]
        if known and max(known) - min(known) > source.min_span_ms:
            return source.name, times
    return None, [None] * len(images)


def describe_candidates(
    images: Sequence[Sequence[TimeValue]], quantity: Quantity, sources: Sequence[Source]
) -> str:
    """Say what each source holds in a slice's images, for a refusal."""
    lines = []
    for source in sources:
        found = [
            [c.ms for c in image if (c.quantity, c.source) == (quantity, source.name)] for image in images
        ]
        values = sorted({ms for of_image in found for ms in of_image})
        n_with = sum(bool(of_image) for of_image in found)
        text = ", ".join(f"{ms:g}" for ms in values[:4]) + (", ..." if len(values) > 4 else "")
        lines.append(f"{source.name}: " + (f"{text} ms in {n_with} of {len(images)}" if values else "absent"))
    return "; ".join(lines)


def _plausible(image: Sequence[TimeValue], quantity: Quantity, source: str, limit_ms: float) -> float | None:
    """Give the one plausible time that a source holds; None where there is none, or more than one."""
    times = {
        value.ms
        for value in image
        if (value.quantity, value.source) == (quantity, source)
        and np.isfinite(value.ms)
        and (0 < value.ms <= limit_ms or (value.ms == 0 and quantity != "inversion_time"))
    }
    return times.pop() if len(times) == 1 else None
