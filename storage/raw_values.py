"""Values of a header's elements without an object for each; whatever is not plain is left to pydicom.

Intake looks at some forty elements an image, and pydicom's conversion of them took longer than its parsing of
the file. Plain is: numbers in decimal, ASCII text without escapes, words of two bytes, and stored pixels.
"""

import re
from functools import cache
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

_ONE_TEXT = frozenset({"CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UI"})
# In ISO IR 13 a tilde is an overline; escapes change the character set; a backslash parts values.
_PLAIN_TEXT = re.compile(rb"[ -\[\]-}]+\0?")
_PLAIN_CODES = re.compile(rb"[A-Z0-9_ \\]+")
_PLAIN_DECIMALS = re.compile(rb"[-+0-9.eE \\]+")
_PLAIN_INTEGER = re.compile(rb" *[-+]?[0-9]{1,9} *")


def element_value(dataset: pydicom.Dataset, tag: BaseTag) -> Any:  # noqa: ANN401
    """Give an element's value as pydicom does, in Python's own kinds where it is plain.

    None where it is absent or empty.
    """
    element: Any = dataset.get_item(tag, keep_deferred=True)
    if element is None:
        return None
    if isinstance(element, RawDataElement):
        vr = element.VR or _listed_vr(tag)
        if not element.value and vr != "SQ":
            return None
        value = _plain_value(vr, element.value or b"", element.is_little_endian)
        if value is not None:
            return value
    return dataset[tag].value


def _plain_value(vr: str, data: bytes, is_little_endian: bool) -> Any:  # noqa: ANN401
    """Give a plain value; None where pydicom has to look."""
    if vr in _ONE_TEXT and _PLAIN_TEXT.fullmatch(data):
        return data.decode("ascii").rstrip(" \0")
    if vr == "CS" and _PLAIN_CODES.fullmatch(data):
        return data.decode("ascii").rstrip().split("\\")
    if vr == "DS" and _PLAIN_DECIMALS.fullmatch(data):
        try:
            numbers = [float(item) for item in data.split(b"\\")]
        except ValueError:
            return None
        return numbers if len(numbers) > 1 else numbers[0]
    if vr == "IS" and _PLAIN_INTEGER.fullmatch(data):
        return int(data)
    if vr in ("OB", "OW"):
        return data
    if vr == "US" and len(data) == 2:
        return int.from_bytes(data, "little" if is_little_endian else "big")
    return None


@cache
def _listed_vr(tag: BaseTag) -> str:
    """Value representation of a standard element, for files that do not write it."""
    return dictionary_VR(tag)
