"""De-identified headers."""

import json
import warnings
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence

from storage.config_uploads import PrivacyConfig, PrivateElement
from storage.deidentify import (
    KEY_VARIABLE,
    SAFE_TEXTS,
    clean_header,
    date_shift,
    key_id,
    pseudonym_key,
    pseudonymous_uid,
)
from storage.errors import ConfigError

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
SECRET = "DOE^JANE"
PHILIPS = PrivateElement(creator="Philips MR Imaging DD 005", element="(2005,xx72)")
BASIC = PrivacyConfig(headers="basic", dates="shift", keep_private=())

TEXTS = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR"}
"""Value representations that anybody may have typed into."""


def _header(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _clean(dataset: Dataset, rules: PrivacyConfig = BASIC, key: bytes = KEY, subject: str = "S01") -> Dataset:
    return clean_header(dataset, rules, key, subject)


def test_no_text_that_anybody_can_type_stays_under_any_public_attribute() -> None:
    """Every text attribute of the standard's dictionary is planted at once, at the top and in a sequence."""
    dataset, item = Dataset(), Dataset()
    planted = 0
    for tag, (vr, *_rest, keyword) in DicomDictionary.items():
        if vr in TEXTS and keyword not in SAFE_TEXTS and tag > 0x0007FFFF:
            for place in (dataset, item):
                with warnings.catch_warnings(action="ignore"):  # a name is no URL, and no title of a machine
                    place.add_new(tag, vr, SECRET)
            planted += 1
    dataset.AnatomicRegionSequence = [item]
    text = json.dumps(_clean(dataset).to_json_dict())
    assert planted > 500
    assert SECRET not in text
    assert "DOE" not in text


def test_no_date_but_those_of_the_examination_stays() -> None:
    """A birth date in whatever attribute is a name's best friend."""
    dataset = Dataset()
    for tag, (vr, *_rest) in DicomDictionary.items():
        if vr in {"DA", "DT"} and tag > 0x0007FFFF:
            dataset.add_new(tag, vr, "19610523" + ("101500" if vr == "DT" else ""))
    dataset.StudyDate = "20260304"
    cleaned = _clean(dataset, PrivacyConfig(headers="basic", dates="keep", keep_private=()))
    kept = {element.keyword for element in cleaned if "19610523" in str(element.value)}
    assert kept == {
        "AcquisitionDate",
        "AcquisitionDateTime",
        "ContentDate",
        "FrameAcquisitionDateTime",
        "FrameReferenceDateTime",
        "InstanceCreationDate",
        "SeriesDate",
    }
    assert cleaned.StudyDate == "20260304"


def test_the_subject_is_named_by_its_pseudonym_and_the_method_is_said() -> None:
    """Whoever receives the header can see what was done to it."""
    cleaned = _clean(_header(PatientName=SECRET, PatientID="H4711", PatientBirthDate="19610523"))
    assert (cleaned.PatientName, cleaned.PatientID, cleaned.PatientBirthDate) == ("S01", "S01", None)
    assert cleaned.PatientIdentityRemoved == "YES"
    assert "PS3.15" in cleaned.DeidentificationMethod
    assert [code.CodeValue for code in cleaned.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert cleaned.LongitudinalTemporalInformationModified == "MODIFIED"


def test_what_the_scanner_measured_stays() -> None:
    """Geometry, times and the scanner's make are what a header is kept for."""
    header = _header(
        InversionTime="180",
        MagneticFieldStrength="3",
        ImageType=["ORIGINAL", "PRIMARY", "M"],
        ImagePositionPatient=[1, 2, 3],
        Manufacturer="Acme",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4",
        AcquisitionTime="103000.5",
    )
    cleaned = _clean(header)
    for element in header:
        assert cleaned[element.tag].value == element.value


def test_the_original_is_left_as_it_is() -> None:
    """Times are read from it, before and after."""
    header = _header(PatientName=SECRET, StudyDate="20260304")
    before = header.to_json()
    _clean(header)
    assert header.to_json() == before


def test_uids_are_mapped_the_same_everywhere_and_by_key() -> None:
    """References keep pointing at what they pointed at; another trial's key gives other ones."""
    reference = _header(ReferencedSOPInstanceUID="1.2.3", ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    header = _header(SOPInstanceUID="1.2.3", SeriesInstanceUID="1.2.4", ReferencedImageSequence=[reference])
    cleaned = _clean(header)
    assert cleaned.SOPInstanceUID == cleaned.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    assert cleaned.SOPInstanceUID == pseudonymous_uid("1.2.3", KEY)
    assert cleaned.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
    others = {pseudonymous_uid(uid, key) for uid in ("1.2.3", "1.2.4") for key in (KEY, OTHER_KEY)}
    assert len(others) == 4


@given(st.from_regex(r"[1-9][0-9]{0,5}(\.[1-9][0-9]{0,5}){1,8}", fullmatch=True), st.binary(min_size=32))
def test_a_pseudonymous_uid_is_valid(uid: str, key: bytes) -> None:
    """At most 64 characters, no leading zero."""
    mapped = pseudonymous_uid(uid, key)
    assert mapped == uid or (mapped.startswith("2.25.") and len(mapped) <= 64 and mapped[5] != "0")


def test_intervals_outlive_the_shift_of_dates() -> None:
    """Within a subject all dates move by the same days; a time of day stays."""
    first = _clean(_header(StudyDate="20260304", AcquisitionDateTime="20260304103000.5+0100"))
    second = _clean(_header(StudyDate="20260903"))
    assert first.StudyDate == f"{_day('20260304') + date_shift('S01', KEY):%Y%m%d}"
    assert str(first.AcquisitionDateTime) == f"{first.StudyDate}103000.5+0100"
    assert _day(second.StudyDate) - _day(first.StudyDate) == _day("20260903") - _day("20260304")


def _day(text: str) -> Any:  # noqa: ANN401
    return date.fromisoformat(text)


def test_subjects_and_trials_shift_by_days_of_their_own() -> None:
    """From one known date no other subject's follows; nobody moves by nothing, or into the future."""
    shifts = {date_shift(f"S{number:03}", KEY) for number in range(100)}
    assert len(shifts) > 60
    assert all(timedelta(days=-365) <= shift <= timedelta(days=-1) for shift in shifts)
    assert date_shift("S001", KEY) != date_shift("S001", OTHER_KEY)


@pytest.mark.parametrize("text", ["2026", "20261399", "Jane", ""])
def test_what_is_no_whole_date_is_left_out(text: str) -> None:
    """It cannot be moved, and may be a name."""
    header = Dataset()
    header.add_new("AcquisitionDateTime", "DT", "")
    header["AcquisitionDateTime"]._value = text
    assert not _clean(header).get("AcquisitionDateTime")


def test_private_elements_go_unless_a_rule_keeps_them() -> None:
    """By creator and element, whichever block the scanner reserved."""
    header = Dataset()
    for creator in (PHILIPS.creator, "SOMEBODY ELSE"):
        block = header.private_block(0x2005, creator, create=True)
        block.add_new(0x72, "FL", 180.0)
        block.add_new(0x73, "LO", SECRET)
    kept = _clean(header, PrivacyConfig(headers="basic", dates="keep", keep_private=(PHILIPS,)))
    private = [element for element in kept if element.tag.is_private]
    assert [element.value for element in private] == [PHILIPS.creator, 180.0]
    assert "113111" in [code.CodeValue for code in kept.DeidentificationMethodCodeSequence]
    assert not [element for element in _clean(header) if element.tag.is_private]


def test_names_deep_in_sequences_are_found() -> None:
    """Functional groups nest; a sequence deeper than any of the standard is cut."""
    inner = _header(PatientName=SECRET, InversionTimes=[100.0])
    for _ in range(40):
        inner = _header(MRModifierSequence=[inner], OperatorsName=SECRET)
    cleaned = _clean(inner)
    depth = 0
    while "MRModifierSequence" in cleaned:
        cleaned = cleaned.MRModifierSequence[0]
        assert cleaned.get("OperatorsName", "") != SECRET
        depth += 1
    assert depth == 16


def test_a_value_of_the_wrong_kind_is_removed() -> None:
    """A name in a number or a code gets past a table that goes by tags."""
    header = Dataset()
    for keyword in ("EchoTime", "InstanceNumber", "ScanOptions", "BodyPartExamined"):
        header.add_new(keyword, "LO", SECRET)
        header[keyword].VR = dictionary_VR(keyword)
    assert SECRET not in _clean(header).to_json()


def test_curves_overlays_and_pixels_go() -> None:
    """Pictures of text, and labels of them."""
    header = Dataset()
    header.add_new(0x60020010, "US", 4)
    header.add_new(0x60021500, "LO", SECRET)
    header.add_new(0x50000010, "US", 4)
    header.add_new(0x7FE00010, "OW", b"\0\0")
    left = {int(element.tag) for element in _clean(header)} & {0x60020010, 0x60021500, 0x50000010, 0x7FE00010}
    assert not left


def test_a_cleaned_header_is_json_and_back() -> None:
    """Stores keep it so."""
    header = _header(StudyDate="20260304", DeviceSerialNumber="77", ImagePositionPatient=[1.5, 2, 3])
    header.ContentSequence = Sequence([_header(TextValue=SECRET)])
    cleaned = _clean(header)
    assert Dataset.from_json(json.dumps(cleaned.to_json_dict())) == cleaned


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(None, "CMR_PSEUDONYM_KEY is missing, .*32 random bytes", id="missing"),
        pytest.param("  ", "is missing", id="empty"),
        pytest.param("00ff" * 7, "is 14 bytes, expected at least 32", id="short"),
        pytest.param("not a key!", "is neither hex nor base64", id="junk"),
        pytest.param("schlüssel", "is neither hex nor base64", id="no-ascii"),
    ],
)
def test_a_key_that_is_none_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, text: str | None, message: str
) -> None:
    """A weak key looks like privacy."""
    if text is None:
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(KEY_VARIABLE, text)
    with pytest.raises(ConfigError, match=message) as refused:
        pseudonym_key()
    assert not (text or "").strip() or (text or "") not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [KEY.hex(), KEY.hex().upper(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="],
    ids=["hex", "upper-case", "base64"],
)
def test_a_key_is_written_in_hex_or_base64(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Both are what key generators print."""
    monkeypatch.setenv(KEY_VARIABLE, text)
    assert pseudonym_key() == KEY


def test_a_key_has_a_name_of_its_own() -> None:
    """A store tells which key it was made with, and not the key."""
    assert key_id(KEY) != key_id(OTHER_KEY)
    assert len(key_id(KEY)) == 16
