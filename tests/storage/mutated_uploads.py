"""Files as no scanner writes them: sound ones, mutated; and what intake makes of them."""

import gzip
import json
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from storage.bounded import shared_reader
from storage.config import TrialConfig
from storage.config_uploads import PrivacyConfig
from storage.dicom_read import FileSource, is_dicom
from storage.dicom_write import write_guide_nifti, write_guide_seg
from storage.errors import RefusedError, RefusedFile
from storage.intake import intake_visit
from storage.matching import match_upload
from storage.plan import PlannedVisit
from storage.quarantine import REASON_FILE, quarantine_file, quarantine_upload
from storage.upload import INCOMING, Upload, hash_upload, list_uploads, open_upload
from storage.vendor_write import Flavor, Syntax
from tests.storage.drawn_uploads import (
    NATIVE,
    SCANNED_AT,
    SHAPE,
    demo_config,
    drawn_masks,
    on_slices,
    stack_geometry,
    write_visit,
)
from tests.storage.vendor_series import write_flavor

FILES_A_VISIT = 50
ZIP_SHARE = 0.1

SCANNED: tuple[tuple[Flavor, Syntax], ...] = (
    ("siemens-ve", "jpeg-lossless"),
    ("siemens-xa", "explicit"),
    ("siemens-xa", "jpeg-2000"),
    ("philips", "jpeg-ls"),
    ("philips-enhanced", "explicit"),
    ("philips-enhanced", "rle"),
    ("ge", "deflated"),
)
"""Flavors and transfer syntaxes of the scanners' files."""

SHORT = on_slices(NATIVE, 0)
"""Series of the scanners' files: enhanced ones hold it in one file."""

FRAME = (64, 64)
"""Rows and columns of files in JPEG 2000, which has no smaller ones."""

LARGE_SHARE = 0.1
"""Share of the visits with such files."""

KEY = bytes(range(32))
PRIVACY = PrivacyConfig(headers="basic", dates="shift", keep_private=())

Mutation = Callable[[bytes, np.random.Generator], bytes]


@dataclass(slots=True)
class FuzzReport:
    """What became of mutated files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of files by what became of them: ``taken``, ``no image``, ``refused``."""
    unforeseen: Counter[str] = field(default_factory=Counter)
    """Reasons that only the border of the child process knew: crashes, hangs, errors nobody expected."""
    crashes: list[str] = field(default_factory=list)
    """Errors that would have ended intake, each with the seed of its files."""

    @property
    def n_files(self) -> int:
        """Files that are accounted for."""
        return self.outcomes.total()


def fuzz(folder: Path, n_files: int, seed: int) -> FuzzReport:
    """Mutate files, a visit's worth at a time, and take them in as a night does.

    Parameters
    ----------
    folder
        Empty folder to work in.
    n_files
        Number of mutated files; every tenth is a zip file.
    seed
        Seed of all that is drawn; visit number ``i`` depends on ``[seed, i]`` alone.
    """
    config = demo_config()
    config = config.model_copy(
        update={
            "uploads": config.uploads.model_copy(
                update={"read_seconds": 5.0, "read_memory_mib": 512.0, "max_total_mib": 64.0}
            )
        }
    )
    report = FuzzReport()
    sound = folder / "sound"
    seeds = write_seeds(sound)
    visits = folder / "visits"
    for index, start in enumerate(range(0, n_files, FILES_A_VISIT)):
        rng = np.random.default_rng([seed, index])
        root = visits / str(index)
        n_mutated = min(FILES_A_VISIT, n_files - start)
        n_zips = round(ZIP_SHARE * n_mutated)
        _write_mutated(root, sound, seeds, n_mutated - n_zips, n_zips, rng)
        before = report.n_files
        try:
            _take_in(root, config, report)
        except Exception as error:  # noqa: BLE001 (what ends intake is what this looks for)
            report.crashes.append(f"seed {seed}, visit {index}: {type(error).__name__}: {error}")
        if not report.crashes and report.n_files - before != n_mutated:
            report.crashes.append(f"seed {seed}, visit {index}: files are not accounted for")
        shutil.rmtree(root)
    return report


def write_seeds(folder: Path) -> dict[str, bytes]:
    """Write a sound visit, and give one file of each kind by its ending."""
    files = write_visit(folder / "S01_a")
    image = files["native"][0]
    guide = folder / "guide.dcm"
    write_guide_seg(guide, drawn_masks(), files["native"][::8], "native")
    labels = demo_config().intake.guide.nifti_labels.model_dump()
    write_guide_nifti(folder / "guide.nii", drawn_masks(), stack_geometry(), labels)
    dataset = pydicom.dcmread(image)
    dataset.SeriesDescription = "T2*w localizer"
    dataset.add_new(0x00091001, "SQ", [pydicom.Dataset()])
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(folder / "implicit.dcm", implicit_vr=True, little_endian=True)
    packed = pydicom.dcmread(image)
    packed.compress(RLELossless)
    packed.save_as(folder / "rle.dcm")
    scanned = {
        f"{flavor}_{syntax}.dcm": write_flavor(
            folder / f"{flavor}_{syntax}", flavor, SHORT, syntax, FRAME if syntax == "jpeg-2000" else SHAPE
        )[0]
        for flavor, syntax in SCANNED
    }
    with zipfile.ZipFile(folder / "upload.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in files["native"][:4]:
            zipped.write(file, f"S01_a/{file.name}")
    nifti = (folder / "guide.nii").read_bytes()
    return {
        "native.dcm": image.read_bytes(),
        "post.dcm": files["post"][0].read_bytes(),
        "seg.dcm": guide.read_bytes(),
        "implicit.dcm": (folder / "implicit.dcm").read_bytes(),
        "rle.dcm": (folder / "rle.dcm").read_bytes(),
        "a.nii": nifti,
        "b.nii.gz": gzip.compress(nifti, mtime=0),
        **{name: path.read_bytes() for name, path in scanned.items()},
        "upload.zip": (folder / "upload.zip").read_bytes(),
    }


def mutate(name: str, data: bytes, rng: np.random.Generator) -> bytes:
    """Mutate a file one to three times, in ways that fit its kind."""
    mutations = DICOM_MUTATIONS if name.endswith(".dcm") else ANY_MUTATIONS
    for _ in range(rng.integers(1, 4)):
        data = mutations[rng.integers(len(mutations))](data, rng)
    if name.endswith(".nii.gz") and rng.random() < 0.5:  # else a packed file breaks at its checksum
        return gzip.compress(mutate("a.nii", gzip.decompress(gzip.compress(data, mtime=0)), rng), mtime=0)
    return data


def _write_mutated(
    root: Path, sound: Path, seeds: dict[str, bytes], n_files: int, n_zips: int, rng: np.random.Generator
) -> None:
    folder = root / INCOMING / "S01_a"
    shutil.copytree(sound / "S01_a", folder)
    is_large = rng.random() < LARGE_SHARE  # one grid a visit, or all of it is refused at once
    kinds = [name for name in seeds if not name.endswith(".zip") and ("2000" in name) == is_large]
    for number in range(n_files):
        name = kinds[rng.integers(len(kinds))]
        (folder / f"mutated_{number:04d}_{name}").write_bytes(mutate(name, seeds[name], rng))
    for number in range(n_zips):
        data = mutate("upload.zip", seeds["upload.zip"], rng)
        (root / INCOMING / f"S02_{number:04d}.zip").write_bytes(data)


def _take_in(root: Path, config: TrialConfig, report: FuzzReport) -> None:
    """Do with a trial what the plan of a night and its intake task do."""
    plan = {"S01": [PlannedVisit("S01", "V1", "01", SCANNED_AT.date(), 7, None, None, None)]}
    for listing in list_uploads(root, config.uploads):
        try:
            upload = hash_upload(listing)
            match_upload(upload, plan, config.matching)
        except RefusedError as error:
            _count(report, "refused", error.reason)
            continue
        if listing.path.suffix == ".zip":
            _count(report, "taken", "")
        else:
            _take_in_visit(root, upload, config, report)


def _take_in_visit(root: Path, upload: Upload, config: TrialConfig, report: FuzzReport) -> None:
    refused: tuple[RefusedFile, ...]
    others: frozenset[tuple[str, int]] = frozenset()
    with open_upload(upload) as opened:
        _read_headers(opened)
        try:
            taken = intake_visit([opened], config.intake)
            refused = (*taken.refused_files, *taken.made_good_files)
            others = taken.other_files
        except RefusedError as error:
            refused = error.files
            quarantine_upload(root, upload, error.reason)
        for file in refused:
            site_path = upload.files[file.file_number - 1].site_path
            folder = quarantine_file(root, file, site_path)
            if not json.loads((folder / REASON_FILE).read_bytes())["reason"]:
                report.crashes.append("refused without a reason")
    reasons = {file.file_number: file.reason for file in refused}
    for one in upload.files:
        if "mutated_" not in one.site_path:
            continue
        if one.number in reasons:
            _count(report, "refused", reasons[one.number])
        else:
            _count(report, "no image" if (upload.upload_id, one.number) in others else "taken", "")


def _read_headers(upload: Upload) -> None:
    """Clean the header of every mutated file; of those that are taken, intake does."""
    reader = shared_reader(upload.rules)
    for file in upload.files:
        if "mutated_" in file.site_path and is_dicom(file.path):
            source = FileSource(upload.upload_id, file.number, file.sha256)
            with suppress(RefusedError):
                reader.read_header(file.path, source, PRIVACY, KEY, "S01", "all")


def _count(report: FuzzReport, outcome: str, reason: str) -> None:
    report.outcomes[outcome] += 1
    if any(text in reason for text in ("it cannot be read (", "its reader", "reading it")):
        report.unforeseen[reason] += 1


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    if changed.size:
        places = rng.integers(0, changed.size, rng.integers(1, 20))
        changed[places] = rng.integers(0, 256, places.size)
    return changed.tobytes()


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, len(data) + 1)]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(0, len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 64))) + data[place:]


def _remove(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(0, len(data) + 1))
    return data[:place] + data[place + int(rng.integers(1, 64)) :]


def _repeat(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    return data[:end] + data[start:end] * int(rng.integers(1, 4)) + data[end:]


def _number(data: bytes, rng: np.random.Generator) -> bytes:
    """Write a number that overflows something over two to eight bytes."""
    numbers = (b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 4, b"\xff" * 8, b"\0\0\0\x80", b"\xff\xff")
    number = numbers[rng.integers(len(numbers))]
    place = int(rng.integers(0, max(len(data) - len(number), 0) + 1))
    return data[:place] + number + data[place + len(number) :]


def _noise(data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(0, 2 * len(data) + 2)))


def _header_only(data: bytes, rng: np.random.Generator) -> bytes:
    """Noise after a prefix that says DICOM."""
    return data[:132] + rng.bytes(int(rng.integers(0, 2000)))


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _set_value(data: bytes, rng: np.random.Generator) -> bytes:
    """Give an attribute that intake reads a value that no scanner writes."""
    tags = (
        (0x00280010, b"US"), (0x00280011, b"US"), (0x00280008, b"IS"), (0x00280100, b"US"),
        (0x00280002, b"US"), (0x00280103, b"US"), (0x00180082, b"DS"), (0x00200032, b"DS"),
        (0x00200037, b"DS"), (0x00280030, b"DS"), (0x00281052, b"DS"), (0x00281053, b"DS"),
        (0x00080020, b"DA"), (0x00080032, b"TM"), (0x0008002A, b"DT"), (0x00080008, b"CS"),
        (0x0008103E, b"LO"), (0x00080005, b"CS"), (0x00200013, b"IS"), (0x00080018, b"UI"),
        (0x0008103E, b"SQ"), (0x00280004, b"CS"), (0x00180087, b"DS"), (0x00080016, b"UI"),
    )  # fmt: skip
    values = (
        b"\xff\xff", b"\0\0", b"", b"nan", b"inf ", b"1e400 ", b"-1", b"\\\\\\\\", b"99999999999999999999",
        b"\x1b$B\xff\xfe", b"ISO 2022 IR 87", b"20269999", b"0000", b"\xff" * 64, b"1\\2\\3\\4\\5\\6\\7",
        b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.1.4.1.1.4.1", b"\xed\xa0\x80",
    )  # fmt: skip
    tag, vr = tags[rng.integers(len(tags))]
    value = values[rng.integers(len(values))]
    found = data.find(struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr, 132)
    if found < 0 or vr == b"SQ":
        return data + _element(tag, vr, value)
    (length,) = struct.unpack_from("<H", data, found + 6)
    return data[:found] + _element(tag, vr, value) + data[found + 8 + length :]


def _deep(data: bytes, rng: np.random.Generator) -> bytes:
    """Append sequences in sequences, more than Python nests calls."""
    depth = int(rng.choice([10, 300, 2000, 20_000]))
    opened = (
        struct.pack("<HH", 0x0040, 0x0275) + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    )
    place = data.find(struct.pack("<HH", 0x7FE0, 0x0010))
    return data[:place] + opened * depth + data[place:] if place > 0 else data + opened * depth


ANY_MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _flip,
    _cut,
    _insert,
    _remove,
    _repeat,
    _number,
    _number,
    _noise,
)
DICOM_MUTATIONS: tuple[Mutation, ...] = (
    *ANY_MUTATIONS,
    _header_only,
    _set_value,
    _set_value,
    _set_value,
    _set_value,
    _deep,
)
