"""De-identification of DICOM headers by the basic profile of PS3.15, repeatable over a trial's years.

The profile's action table (`basic_profile.csv`) comes first; what it does not name is judged by its value
representation, so that free text, names, and dates and binary values nobody knows of do not stay by mistake.
UIDs are mapped by a keyed digest: the same UID gives the same pseudonym in every night, and nobody without
the key can go back. Nothing that is measured is read from a cleaned header.
"""

import base64
import csv
import hashlib
import hmac
import os
import re
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import DA

from storage.config_uploads import PrivacyConfig
from storage.dicom_read import PARSE_ERRORS
from storage.errors import ConfigError

KEY_VARIABLE = "CMR_PSEUDONYM_KEY"
KEY_BYTES_MIN = 32

DATE_SHIFT_MAX_DAYS = 365
"""Dates move back by 1 to so many days."""

PROFILE_TABLE = "basic_profile.csv"
METHOD = "DICOM PS3.15 basic profile, cmrtrials"

EXAMINATION_TIMES = frozenset(
    {
        "AcquisitionDate",
        "AcquisitionDateTime",
        "AcquisitionTime",
        "ContentDate",
        "ContentTime",
        "ContrastBolusStartTime",
        "ContrastBolusStopTime",
        "FrameAcquisitionDateTime",
        "FrameReferenceDateTime",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "SeriesDate",
        "SeriesTime",
        "StudyDate",
        "StudyTime",
    }
)
"""Dates and times of the examination: they stay, by the options for longitudinal temporal information."""

SAFE_TEXTS = frozenset(
    {
        "CodeMeaning",
        "CodeValue",
        "CodingSchemeDesignator",
        "CodingSchemeVersion",
        "ImagedNucleus",
        "Manufacturer",
        "ManufacturerModelName",
        "PulseSequenceName",
        "ReceiveCoilName",
        "ResonantNucleus",
        "SequenceName",
        "SoftwareVersions",
        "TransmitCoilName",
    }
)
"""Texts outside of the table that scanners write and nobody types."""

_STANDARD_UIDS = "1.2.840.10008."
_TEXTS = frozenset({"AE", "AS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_TIMES = frozenset({"DA", "DT", "TM"})
_NUMBERS = frozenset({"AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{0,16}")
_MOMENT = re.compile(r"\d{8}[\d.+-]*")
_TIME_OF_DAY = re.compile(r"[\d.:]*")
_DEPTH_MAX = 16
_DUMMIES: dict[str, Any] = {"DA": "19000101", "DT": "19000101000000", "TM": "000000", "AS": "000Y"}


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a cleaning needs to know."""

    config: PrivacyConfig
    key: bytes
    shift: timedelta


def needed_key(privacy: PrivacyConfig) -> bytes | None:
    """Read the trial's key where its rules need one, as `pseudonym_key` does; None where they do not."""
    return None if (privacy.headers, privacy.dates) == ("none", "keep") else pseudonym_key()


def key_name(privacy: PrivacyConfig) -> str | None:
    """Name the key that the trial's rules need; None where they need none.

    Raises
    ------
    ConfigError
        As `pseudonym_key`.
    """
    key = needed_key(privacy)
    return None if key is None else key_id(key)


def check_key(privacy: PrivacyConfig, expected: str | None) -> None:
    """Make sure that this process has the key of those who planned its work.

    Raises
    ------
    ConfigError
        If it has another one, or none.
    """
    if key_name(privacy) != expected:
        message = (
            f"environment: {KEY_VARIABLE} of this worker is another one than the night's; "
            f"set the same for the night and all its workers"
        )
        raise ConfigError(message)


def pseudonym_key() -> bytes:
    """Read the trial's key from the environment; it is never stored, logged or handed to a scheduler.

    Raises
    ------
    ConfigError
        If there is none, or it is no key; the message does not show it.
    """
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if not text:
        message = (
            f"environment: {KEY_VARIABLE} is missing, which [privacy] headers = 'basic' and dates = 'shift' "
            f"in trial.toml need; set it for the night and all its workers: at least {KEY_BYTES_MIN} random "
            f"bytes in hex or base64"
        )
        raise ConfigError(message)
    key = _decoded(text)
    if key is None or len(key) < KEY_BYTES_MIN:
        found = "neither hex nor base64" if key is None else f"{len(key)} bytes"
        expected = f"expected at least {KEY_BYTES_MIN} bytes in hex or base64"
        message = f"environment: {KEY_VARIABLE} is {found}, {expected}"
        raise ConfigError(message)
    return key


def key_id(key: bytes) -> str:
    """Name a key without giving it away, so that what was made with another key is noticed."""
    return _keyed(key, "key id", "").hex()[:16]


def pseudonymous_uid(uid: str, key: bytes) -> str:
    """Map a UID to one below ``2.25.``, always the same; those of the standard itself stay."""
    if uid.startswith(_STANDARD_UIDS):
        return uid
    return f"2.25.{uuid.UUID(bytes=_keyed(key, 'uid', uid)[:16], version=4).int}"


def date_shift(subject_id: str, key: bytes) -> timedelta:
    """Give the secret time by which a subject's dates move: whole days, back."""
    number = int.from_bytes(_keyed(key, "date shift", subject_id)[:8])
    return -timedelta(days=1 + number % DATE_SHIFT_MAX_DAYS)


def clean_header(dataset: Dataset, config: PrivacyConfig, key: bytes, subject_id: str) -> Dataset:
    """De-identify a header: a copy without pixels, which names the subject by its pseudonym.

    Parameters
    ----------
    dataset
        Header as read; it is left as it is.
    config
        Rules of the trial.
    key
        Secret of the trial, see `pseudonym_key`.
    subject_id
        Pseudonym of the subject.

    Returns
    -------
        The cleaned header, with what was done in (0012,0062), (0012,0063), (0012,0064) and (0028,0303).

    References
    ----------
    DICOM PS3.15, Annex E
    """
    shift = date_shift(subject_id, key) if config.dates == "shift" else timedelta()
    with warnings.catch_warnings(action="ignore"):  # pydicom's on harmless faults; they quote values
        cleaned = _clean(dataset, _Rules(config, key, shift), depth=0)
    cleaned.PatientID = subject_id
    cleaned.PatientName = subject_id
    cleaned.PatientIdentityRemoved = "YES"
    cleaned.DeidentificationMethod = METHOD
    codes = [("113100", "Basic Application Confidentiality Profile")]
    if config.dates == "shift":
        cleaned.LongitudinalTemporalInformationModified = "MODIFIED"
        codes.append(("113107", "Retain Longitudinal Temporal Information Modified Dates Option"))
    else:
        cleaned.LongitudinalTemporalInformationModified = "UNMODIFIED"
        codes.append(("113106", "Retain Longitudinal Temporal Information Full Dates Option"))
    if config.keep_private:
        codes.append(("113111", "Retain Safe Private Option"))
    cleaned.DeidentificationMethodCodeSequence = [_code(value, meaning) for value, meaning in codes]
    return cleaned


def _clean(dataset: Dataset, rules: _Rules, depth: int) -> Dataset:
    cleaned = Dataset()
    kept_blocks: set[BaseTag] = set()
    for tag in dataset.keys():  # noqa: SIM118 (iterating a Dataset reads every value, also those that cannot be)
        try:
            element = dataset[tag]
            if tag.is_private:
                kept = _clean_private(dataset, element, rules, depth)
                if kept is not None:
                    kept_blocks.add(_creator_tag(tag))
            else:
                kept = _clean_element(element, rules, depth)
        except PARSE_ERRORS:  # what cannot be read cannot be cleaned
            continue
        if kept is not None:
            cleaned.add(kept)
    for block in kept_blocks:
        cleaned.add(dataset[block])
    return cleaned


def _clean_private(dataset: Dataset, element: DataElement, rules: _Rules, depth: int) -> DataElement | None:
    """Give a private element where a rule keeps it."""
    creator = dataset.get(_creator_tag(element.tag))
    name = "" if creator is None else str(creator.value).strip()
    place = f"({element.tag.group:04x},xx{element.tag.element & 0xFF:02x})"
    if not any(name == rule.creator and place == rule.element.lower() for rule in rules.config.keep_private):
        return None
    return _clean_items(element, rules, depth) if element.VR == "SQ" else element


def _creator_tag(tag: BaseTag) -> BaseTag:
    return BaseTag(tag.group << 16 | tag.element >> 8)


def _clean_element(element: DataElement, rules: _Rules, depth: int) -> DataElement | None:
    tag = element.tag
    if tag.element == 0 or tag.group & 0xFF00 in (0x5000, 0x6000):  # group lengths; curves and overlays
        return None
    if element.keyword in EXAMINATION_TIMES:
        return _mapped(element, lambda text: _moved(text, element.VR, rules.shift))
    action = _profile().get(tag)
    if action is None:
        return _clean_unlisted(element, rules, depth)
    if action == "X":
        return None
    if element.VR == "UI":
        return _mapped(element, lambda uid: pseudonymous_uid(uid, rules.key))
    if action in ("Z", "X/Z"):
        return DataElement(element.tag, element.VR, Sequence() if element.VR == "SQ" else None)
    return _clean_items(element, rules, depth) if element.VR == "SQ" else _dummy(element)


def _clean_unlisted(element: DataElement, rules: _Rules, depth: int) -> DataElement | None:
    """Clean an element that the table does not name, by its value representation."""
    if element.VR == "UI":
        return _mapped(element, lambda uid: pseudonymous_uid(uid, rules.key))
    if element.VR == "SQ":
        return _clean_items(element, rules, depth)
    values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
    if element.VR == "CS":
        is_safe = all(_CODE_STRING.fullmatch(str(value or "")) for value in values)
    elif element.VR in _NUMBERS:
        is_safe = not any(isinstance(value, str | bytes) and value for value in values)
    else:
        is_safe = element.VR in _TEXTS and element.keyword in SAFE_TEXTS
    return element if is_safe else None


def _clean_items(element: DataElement, rules: _Rules, depth: int) -> DataElement | None:
    if depth >= _DEPTH_MAX:
        return None
    items = [_clean(item, rules, depth + 1) for item in element.value]
    return DataElement(element.tag, "SQ", Sequence(items))


def _mapped(element: DataElement, change: Callable[[str], str]) -> DataElement:
    """Change each value of an element, except where it is empty."""
    if element.is_empty:
        return element
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    changed = [change(str(value)) for value in values]
    return DataElement(element.tag, element.VR, changed if len(changed) > 1 else changed[0])


def _moved(text: str, vr: str, shift: timedelta) -> str:
    """Move a date, or a date with time; what is no whole date, or no time, is left out."""
    if vr == "TM":
        return text if _TIME_OF_DAY.fullmatch(text) else ""
    if not _MOMENT.fullmatch(text):
        return ""
    day = DA(text[:8])
    return "" if day is None else f"{day + shift:%Y%m%d}{text[8:]}"


def _dummy(element: DataElement) -> DataElement | None:
    """Give a value that says nothing."""
    if element.VR in _NUMBERS:
        return DataElement(element.tag, element.VR, 0)
    if element.VR in _TEXTS | _TIMES | {"CS"}:
        return DataElement(element.tag, element.VR, _DUMMIES.get(element.VR, "REMOVED"))
    return None


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


@cache
def _profile() -> dict[int, str]:
    """Read the profile's action by tag; curves and overlays, whose groups repeat, are settled in the code."""
    with files("storage").joinpath(PROFILE_TABLE).open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {int(row["tag"], 16): row["action"] for row in rows if "x" not in row["tag"]}


def _keyed(key: bytes, purpose: str, text: str) -> bytes:
    return hmac.new(key, f"{purpose}\0{text}".encode(errors="surrogateescape"), hashlib.sha256).digest()


def _decoded(text: str) -> bytes | None:
    """Decode hex, else base64."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None
