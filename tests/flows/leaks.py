"""What the privacy tests plant in an upload, and how they search what a night leaves behind."""

import gzip
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pydicom
import zarr
from pydicom._dicom_dict import DicomDictionary

from storage.deidentify import SAFE_TEXTS

MARK = "ZQXPLANT"
"""Begins every planted text; too long to stand in measured values by chance."""

BIRTH_DATES = ("19610523", "1961-05-23")

BEGINNING = 8
"""Bytes of a secret that are looked for first: hundreds of identifiers share theirs, few texts have it."""

TEXTS = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}


def plant_in_dicom(path: Path, subject_id: str) -> set[str]:
    """Fill every text attribute of the standard that is free, private ones and nested ones; give the UIDs."""
    dataset = pydicom.dcmread(path)
    with warnings.catch_warnings(action="ignore"):
        for tag, (vr, *_rest, keyword) in DicomDictionary.items():
            if vr in TEXTS and tag > 0x0007FFFF and tag not in dataset and keyword not in SAFE_TEXTS:
                dataset.add_new(
                    tag, vr, f"{MARK}{keyword}"[:16] if vr in {"AE", "SH"} else f"{MARK}^{keyword}"
                )
        dataset.PatientID = f"{subject_id} {MARK}H4711"
        dataset.PatientName = f"{MARK}DOE^JANE"
        dataset.PatientBirthDate = BIRTH_DATES[0]
        dataset.AccessionNumber = f"{MARK}998877"
        dataset.SeriesDescription = f"{dataset.get('SeriesDescription', '')} {MARK} Jane"
        dataset.ImageComments = f"{MARK} born {BIRTH_DATES[1]}"
        item = pydicom.Dataset()
        item.OperatorsName, item.PatientBirthDate, item.TextValue = (
            f"{MARK}^OP",
            BIRTH_DATES[0],
            f"{MARK} Jane",
        )
        inner = pydicom.Dataset()
        inner.AnatomicRegionSequence = [item]
        dataset.AnatomicRegionSequence = [item, inner]
        block = dataset.private_block(0x2005, f"{MARK} PRIVATE", create=True)
        block.add_new(0x72, "LO", f"{MARK}private")
        block.add_new(0x73, "UN", f"{MARK}unknown".encode())
        block.add_new(0x74, "SQ", [item])
        dataset.save_as(path)
    keywords = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    return {str(dataset[keyword].value) for keyword in keywords if keyword in dataset}


def plant_in_nifti(path: Path) -> None:
    """Fill what a NIfTI header has room for."""
    image: Any = nibabel.load(path)
    image.header["descrip"] = f"{MARK}DOE^JANE {BIRTH_DATES[0]}".encode()
    image.header["aux_file"] = f"{MARK}.par".encode()
    image.header["intent_name"] = f"{MARK}intent".encode()
    image.header["db_name"] = f"{MARK}db".encode()
    comment = nibabel.nifti1.Nifti1Extension("comment", f"{MARK} Jane, born {BIRTH_DATES[1]}".encode())
    image.header.extensions.append(comment)
    nibabel.save(image, path)


def date_forms(day: date) -> set[str]:
    """Ways in which a date may be written down, those of Python's own records among them."""
    parts = f"({day.year}, {day.month}, {day.day}"
    return {f"{day:%Y%m%d}", f"{day:%Y-%m-%d}", f"date{parts}", f"datetime{parts}"}


def leaks(texts: Iterator[tuple[str, bytes]], secrets: set[str]) -> list[str]:
    """Name the places in which a secret stands, in whatever case and encoding."""
    by_beginning: dict[bytes, dict[bytes, str]] = {}
    for secret in secrets:
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            form = secret.lower().encode(encoding)
            by_beginning.setdefault(form[:BEGINNING], {})[form] = secret
    return [
        f"{place}: {secret}"
        for place, text in ((place, data.lower()) for place, data in texts)
        for beginning, forms in by_beginning.items()
        if beginning in text
        for form, secret in forms.items()
        if form in text
    ]


def everything_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all that stands in a folder: names, bytes, and what is behind compression or database pages."""
    for path in sorted(folder.rglob("*")):
        place = str(path.relative_to(folder))
        yield f"name of {place}", place.encode(errors="replace")
        if path.name.endswith(".zarr"):
            yield from _arrays_in(path)
        if not path.is_file():
            continue
        yield place, path.read_bytes()
        if path.suffix == ".gz":
            yield f"content of {place}", gzip.decompress(path.read_bytes())
        if path.suffix == ".parquet":
            table = pq.ParquetFile(path).read(use_threads=False)
            yield f"rows of {place}", repr((table.schema, table.to_pylist())).encode()
        elif path.suffix in {".db", ".sqlite"}:
            with closing(sqlite3.connect(path)) as connection:
                for line in connection.iterdump():
                    yield f"dump of {place}", line.encode(errors="replace")


def _arrays_in(path: Path) -> Iterator[tuple[str, bytes]]:
    group = zarr.open_group(path, mode="r")
    yield f"attributes of {path.name}", repr(dict(group.attrs)).encode()
    for name, member in group.members(max_depth=None):
        yield f"attributes of {path.name}/{name}", repr(dict(member.attrs)).encode()
        if isinstance(member, zarr.Array):
            yield f"values of {path.name}/{name}", np.asarray(member[...]).tobytes()
