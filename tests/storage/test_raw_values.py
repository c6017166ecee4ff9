"""Plain values of a header are those that pydicom reads."""

from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from storage.raw_values import element_value
from storage.vendor_write import Flavor
from tests.storage.vendor_series import write_flavor

FLAVORS: tuple[Flavor, ...] = ("siemens-ve", "siemens-xa", "philips", "philips-enhanced", "ge")
TAGS = {"DS": 0x00180082, "IS": 0x00200013, "CS": 0x00080008, "LO": 0x0008103E, "TM": 0x00080032}


def _comparable(value: object) -> object:
    if isinstance(value, MultiValue | list):
        return [_comparable(item) for item in value]
    if isinstance(value, float):
        return float(value)
    return None if value == "" else value


def test_pixels_are_given_as_they_are_stored() -> None:
    """Of either byte order; whoever looks into them knows the transfer syntax."""
    tag = Tag(0x7FE00010)
    for vr in ("OW", "OB"):
        assert element_value(_raw(tag, vr, b"\1\2\3\4"), tag) == b"\1\2\3\4"
        assert element_value(_raw(tag, vr, b""), tag) is None


def _raw(tag: BaseTag, vr: str | None, data: bytes) -> pydicom.Dataset:
    return pydicom.Dataset({tag: RawDataElement(tag, vr, len(data), data, 0, vr is None, True)})


def _read(dataset: pydicom.Dataset, tag: BaseTag, *, plainly: bool) -> object:
    try:
        return _comparable(element_value(dataset, tag) if plainly else dataset[tag].value)
    except (ValueError, TypeError, OverflowError) as error:
        return type(error)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_every_value_of_a_scanners_header_is_pydicoms(tmp_path: Path, flavor: Flavor) -> None:
    """Of each element, whether it is plain or not."""
    path = write_flavor(tmp_path, flavor)[0]
    plain, whole = (pydicom.dcmread(path, stop_before_pixels=True) for _ in range(2))
    tags = list(whole.keys())
    assert len(tags) > 30
    for tag in tags:
        assert _comparable(element_value(plain, tag)) == _comparable(whole[tag].value)


@given(
    vr=st.sampled_from(sorted(TAGS)),
    data=st.binary(max_size=24) | st.text("0123456789+-.eE \\\0AZ_~a", max_size=24).map(str.encode),
    is_implicit=st.booleans(),
)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_give_the_value_or_error_of_pydicom(vr: str, data: bytes, is_implicit: bool) -> None:
    """A stranger's value is refused where it was refused before."""
    tag = Tag(TAGS[vr])
    written = None if is_implicit else vr
    plain, whole = _raw(tag, written, data), _raw(tag, written, data)
    assert _read(plain, tag, plainly=True) == _read(whole, tag, plainly=False)
