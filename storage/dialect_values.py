"""Read what the table of dialects names from one frame's header: candidates for times, scaling, component."""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from storage.config_intake import SpinLockRule
from storage.dicom_dialect import (
    CREATOR_GE,
    CREATOR_PHILIPS_FRAME,
    CREATOR_PHILIPS_SCALE,
    DIALECTS,
    Private,
    Rescale,
    RescaleRule,
    Source,
    TimeValue,
    Vendor,
    attribute_name,
)
from storage.raw_values import element_value

Scopes = Sequence[pydicom.Dataset]
"""Where an attribute of one frame may stand, the most particular place first."""


def read_times(
    scopes: Scopes, vendor: Vendor, spin_lock: Sequence[SpinLockRule] = ()
) -> tuple[TimeValue, ...]:
    """Candidates of one frame for every time, each source's in the order of the table and of the rules."""
    of_vendor = tuple(
        TimeValue(quantity, source.name, ms)
        for quantity, sources in DIALECTS[vendor].times.items()
        for source in sources
        for ms in _source_values(scopes, source)
    )
    return of_vendor + _spin_lock_times(scopes, spin_lock)


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


def first_value(scopes: Scopes, keyword: str) -> Any:  # noqa: ANN401
    """Give the attribute's value from the first scope that has one."""
    tag = _tag(keyword)
    for scope in scopes:
        value = element_value(scope, tag)
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


def _source_values(scopes: Scopes, source: Source) -> tuple[float, ...]:
    if source.private is not None:
        return _first_numbers(_privates(scopes, source.private))
    value = first_value(scopes, source.keyword)
    if source.pattern:
        found = re.search(source.pattern, str(value or ""))
        return (float(found[1]),) if found else ()
    return numbers_of(value)


def _spin_lock_times(scopes: Scopes, rules: Sequence[SpinLockRule]) -> tuple[TimeValue, ...]:
    """Give the time that each attribute states by the first of its rules that fits it."""
    times: dict[str, float] = {}
    for rule in rules:
        value = None if rule.attribute in times else first_value(scopes, rule.attribute)
        found = None if value is None else re.search(rule.pattern, str(value))
        if found is not None:
            with suppress(ValueError, TypeError):  # what the group holds may be no number
                times[rule.attribute] = float(found["ms"]) if rule.ms is None else rule.ms
    return tuple(TimeValue("spin_lock", attribute_name(keyword), ms) for keyword, ms in times.items())


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
