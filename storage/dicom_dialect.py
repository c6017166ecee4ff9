"""Which attribute is believed for what, by vendor: the one table of dialects, and how it is read.

A header gives candidates, one image at a time; which of them is a series' inversion time can only be told
from all images of a slice, because the wrong attributes are there too, constant or zero (`choose_times`).
"""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

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
    """Sources of each time. No attribute is known to hold a spin-lock time, so none is believed."""
    rescale: tuple[RescaleRule, ...]
    """From stored to meant values; the first whose attributes are there."""


_T2PREP = (_T2PREP_ECHO, _T2PREP_EFFECTIVE, _T2PREP_COMMENT, _T2PREP_FRAME_COMMENT)
_TRIGGERS = (_TRIGGER, _TRIGGER_DELAY)

DIALECTS: dict[Vendor, Dialect] = {
    "siemens": Dialect(
        times={
            "inversion_time": (_TI, _TIS, _TI_SIEMENS, _TI_COMMENT, _TI_FRAME_COMMENT, _TI_TRIGGER),
            "t2_preparation": _T2PREP,
            "spin_lock": (),
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
            "spin_lock": (),
            "trigger_time": _TRIGGERS,
        },
        rescale=("philips scale slope", "real world value", "rescale"),
    ),
    # An assumption: no public source shows a GE MOLLI header. GE fills (0018,0082) in other inversion series.
    "ge": Dialect(
        times={
            "inversion_time": (_TI, _TIS, _TI_TRIGGER),
            "t2_preparation": (_T2PREP_ECHO, _T2PREP_EFFECTIVE),
            "spin_lock": (),
            "trigger_time": _TRIGGERS,
        },
        rescale=("rescale", "real world value"),
    ),
    "other": Dialect(
        times={
            "inversion_time": (_TI, _TIS, _TI_COMMENT, _TI_FRAME_COMMENT, _TI_TRIGGER),
            "t2_preparation": _T2PREP,
            "spin_lock": (),
            "trigger_time": _TRIGGERS,
        },
        rescale=("rescale", "real world value"),
    ),
}
"""The table. Sources: README of this room; Tomato (MRKonrad/tomato), dcm2niix and its issues."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """How stored values become those the scanner means: ``slope x stored + intercept``."""

    rule: RescaleRule
    """Attributes that say so."""
    slope: float
    """Slope [a.u.]; NaN where the attribute is no finite number."""
    intercept: float
    """Intercept [a.u.]; NaN likewise."""


Scopes = Sequence[pydicom.Dataset]
"""Where an attribute of one frame may stand, the most particular place first."""


def vendor_of(manufacturer: str) -> Vendor:
    """Tell the vendor from Manufacturer."""
    name = manufacturer.lower()
    if name.startswith("siemens"):
        return "siemens"
    if name.startswith("philips"):
        return "philips"
    return "ge" if re.match(r"ge\b|general electric", name) else "other"


def read_times(scopes: Scopes, vendor: Vendor) -> tuple[TimeValue, ...]:
    """Candidates of one frame for every time, each source's in the order of the table."""
    return tuple(
        TimeValue(quantity, source.name, ms)
        for quantity, sources in DIALECTS[vendor].times.items()
        for source in sources
        for ms in _source_values(scopes, source)
    )


def read_component_code(scopes: Scopes, vendor: Vendor) -> str | None:
    """Give GE's own word for the part of the complex image; its ImageType often says no more than OTHER."""
    if vendor != "ge":
        return None
    numbers = _first_numbers(_privates(scopes, Private(0x0043102F, CREATOR_GE)))
    return (
        {0: "M", 1: "P", 2: "R", 3: "I"}.get(int(numbers[0])) if numbers and np.isfinite(numbers[0]) else None
    )


def read_rescale(scopes: Scopes, vendor: Vendor) -> Rescale:
    """Give the first rule of the table whose attributes are there; identity where none is."""
    rules: dict[RescaleRule, Callable[[Scopes], Rescale | None]] = {
        "philips scale slope": _scale_slope,
        "real world value": _real_world,
        "rescale": _rescale,
    }
    for rule in DIALECTS[vendor].rescale:
        found = rules[rule](scopes)
        if found is not None:
            return found
    return Rescale("rescale", 1.0, 0.0)


def choose_times(
    images: Sequence[Sequence[TimeValue]], quantity: Quantity, vendor: Vendor, limit_ms: float
) -> tuple[str | None, list[float | None]]:
    """Decide which source gives a slice's times: the first that is plausible in every image and varies.

    Where none is in every image, the first that varies over those that have it; the others then have no time.

    Parameters
    ----------
    images
        Candidates of each image of the slice.
    quantity, vendor
        Row and column of the table.
    limit_ms
        Longest plausible time [ms]; an inversion time is longer than zero.

    Returns
    -------
        Name of the source, None where no source varies, and the time of each image [ms].
    """
    complete_first = sorted(
        DIALECTS[vendor].times[quantity],
        key=lambda source: any(
            _plausible(image, quantity, source.name, limit_ms) is None for image in images
        ),
    )
    for source in complete_first:
        times = [_plausible(image, quantity, source.name, limit_ms) for image in images]
        known = [time for time in times if time is not None]
        if known and max(known) - min(known) > source.min_span_ms:
            return source.name, times
    return None, [None] * len(images)


def describe_candidates(images: Sequence[Sequence[TimeValue]], quantity: Quantity, vendor: Vendor) -> str:
    """Say what each source of the table holds in a slice's images, for a refusal."""
    lines = []
    for source in DIALECTS[vendor].times[quantity]:
        found = [
            [c.ms for c in image if (c.quantity, c.source) == (quantity, source.name)] for image in images
        ]
        values = sorted({ms for of_image in found for ms in of_image})
        n_with = sum(bool(of_image) for of_image in found)
        text = ", ".join(f"{ms:g}" for ms in values[:4]) + (", ..." if len(values) > 4 else "")
        lines.append(f"{source.name}: " + (f"{text} ms in {n_with} of {len(images)}" if values else "absent"))
    return "; ".join(lines)


def first_value(scopes: Scopes, keyword: str) -> Any:  # noqa: ANN401
    """Give the attribute's value from the first scope that has one."""
    tag = _tag(keyword)
    for scope in scopes:
        if tag in scope:  # far quicker than to ask by name, where most are absent
            value = scope[tag].value
            if value is not None and value != "":
                return value
    return None


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def numbers_of(value: Any) -> tuple[float, ...]:  # noqa: ANN401
    """Give a value's numbers as floats, finite or not; nothing where it is empty."""
    if value is None or value == "":
        return ()
    if isinstance(value, bytes):  # a private attribute whose type the file does not say
        return _numbers_in_bytes(value)
    return tuple(float(item) for item in (value if isinstance(value, MultiValue | list) else [value]))


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


def _source_values(scopes: Scopes, source: Source) -> tuple[float, ...]:
    if source.private is not None:
        return _first_numbers(_privates(scopes, source.private))
    value = first_value(scopes, source.keyword)
    if source.pattern:
        found = re.search(source.pattern, str(value or ""))
        return (float(found[1]),) if found else ()
    return numbers_of(value)


def _privates(scopes: Scopes, attribute: Private) -> Iterator[Any]:
    """Give the values of a private attribute, in its own sequence first."""
    for scope in scopes:
        if attribute.within is not None:
            for item in _private(scope, *attribute.within) or ():
                if isinstance(item, pydicom.Dataset):
                    yield _private(item, attribute.tag, attribute.creator)
        yield _private(scope, attribute.tag, attribute.creator)


def _private(dataset: pydicom.Dataset, tag: int, creator: str) -> Any:  # noqa: ANN401
    """Find a private attribute by its creator; by its usual tag where the creators were stripped."""
    group, block, offset = tag >> 16, (tag >> 8) & 0xFF, tag & 0xFF
    creators = [key.elem for key in dataset.keys() if key.group == group and 0x10 <= key.elem <= 0xFF]  # noqa: SIM118
    for element in creators:
        if str(dataset[group, element].value).strip() == creator:
            return _value(dataset, group, element << 8 | offset)
    return None if block in creators else _value(dataset, group, block << 8 | offset)


def _value(dataset: pydicom.Dataset, group: int, element: int) -> Any:  # noqa: ANN401
    return dataset[group, element].value if (group, element) in dataset else None


def _first_numbers(values: Iterator[Any]) -> tuple[float, ...]:
    """Give the numbers of the first private value that has some; one of another kind is as good as absent."""
    for value in values:
        with suppress(TypeError, ValueError):
            if numbers := numbers_of(value):
                return numbers
    return ()


def _numbers_in_bytes(value: bytes) -> tuple[float, ...]:
    if len(value) == 8:
        return struct.unpack("<d", value)
    return struct.unpack("<f", value) if len(value) == 4 else ()


def _first_number(value: Any, absent: float) -> float:  # noqa: ANN401
    """Give a value's only finite number, NaN where it is something else."""
    if value is None or value == "":
        return absent
    numbers = numbers_of(value)
    return numbers[0] if len(numbers) == 1 and np.isfinite(numbers[0]) else np.nan


def _rescale(scopes: Scopes) -> Rescale | None:
    slope, intercept = (first_value(scopes, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope is None and intercept is None:
        return None
    return Rescale("rescale", _first_number(slope, 1.0), _first_number(intercept, 0.0))


def _scale_slope(scopes: Scopes) -> Rescale | None:
    attribute = Private(0x2005100E, CREATOR_PHILIPS_SCALE, within=(0x2005140F, CREATOR_PHILIPS_FRAME))
    scale = next(iter(_first_numbers(_privates(scopes, attribute))), np.nan)
    displayed = _rescale(scopes) or Rescale("rescale", 1.0, 0.0)
    if not np.isfinite(scale) or scale <= 0 or displayed.slope == 0:
        return None
    return Rescale("philips scale slope", 1 / scale, displayed.intercept / (displayed.slope * scale))


def _real_world(scopes: Scopes) -> Rescale | None:
    """Give the first linear mapping to real-world values."""
    for mapping in first_value(scopes, "RealWorldValueMappingSequence") or ():
        slope, intercept = mapping.get("RealWorldValueSlope"), mapping.get("RealWorldValueIntercept")
        if slope is not None and intercept is not None:
            return Rescale("real world value", _first_number(slope, 1.0), _first_number(intercept, 0.0))
    return None
