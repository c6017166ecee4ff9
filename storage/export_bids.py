"""A trial's maps and masks as a BIDS-style derivative dataset, T1 in seconds, in RAS coordinates.

BIDS knows T1map and dseg; it has no name for ECV and R2 maps of the heart, so these have suffixes of our own,
which .bidsignore tells validators of. ``R2map`` is not among them: it is BIDS's name for a relaxation rate.
"""

import csv
import gzip
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float64

from storage.arrays import read_stack, stored_roles
from storage.dicom_series import EchoStack
from storage.durable import write_durably
from storage.export_folder import MANIFEST, read_manifest
from storage.export_visit import (
    EVEN_SPACING_MM,
    MAPS,
    ExportedVisit,
    MapKind,
    drawn_by,
    guide_origins,
    is_even,
    left_out,
    read_map,
    read_masks,
    segmentation_settings,
)
from storage.geometry import StackGeometry, col_direction, row_direction, slice_normal
from storage.guide import LABELS, SEGMENT_CODES
from storage.labelled import LABEL_VALUES
from storage.schema import TABLES
from storage.series_rules import ROLES, Role

BIDS_VERSION = "1.10.0"

_MS_PER_S = 1000.0
_SUFFIXES = {"t1": "T1map", "ecv": "ECVmap", "r_squared": "Rsquaredmap"}
_UNITS = {"t1": "s", "ecv": "1", "r_squared": "1"}
_IGNORED = (MANIFEST, "*_ECVmap.*", "*_Rsquaredmap.*")
_ENTITIES: dict[Role, str] = {"native": "", "post": "_ce-gadolinium"}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MISSING = "n/a"
_NOT_QUANTITIES = (
    *("subject_id", "visit_id", "site_id", "result_digest", "qc_verdict", "qc_reasons"),
    "scan_datetime",  # BIDS has a column of its own for it
)


def bids_label(identifier: str) -> str:
    """Turn an id into a label of letters and digits that no other id has, on any file system.

    Other characters, and ``z`` itself, become ``Z`` and their two hexadecimal digits: ``S-01`` is ``SZ2d01``.
    """
    return "".join(
        letter if letter.isascii() and letter.isalnum() and letter not in "zZ" else f"Z{ord(letter):02x}"
        for letter in identifier
    )


def session_folder(exports: Path, subject_id: str, visit_id: str) -> Path:
    """Give the place of a visit's files."""
    return exports / f"sub-{bids_label(subject_id)}" / f"ses-{bids_label(visit_id)}"


def write_bids(folder: Path, visit: ExportedVisit, store: zarr.Group) -> None:
    """Write a visit's maps and masks, each with its sidecar, into the folder of its session."""
    anat = folder / "anat"
    anat.mkdir()
    stem = f"sub-{bids_label(visit.subject_id)}_ses-{bids_label(visit.visit_id)}"
    stacks = {role: read_stack(store, role) for role in stored_roles(store)}
    for kind in MAPS:
        values = read_map(store, kind)
        if values is not None:
            stack = stacks[kind.role]
            scaled = values / np.float32(_MS_PER_S) if kind.quantity == "t1" else values
            sidecar = _sidecar(visit, stack) | _map_sidecar(kind, stack)
            of_slices = _slices_used(store, kind.quantity, stack)
            name, suffix = f"{stem}{_ENTITIES[kind.role]}", _SUFFIXES[kind.quantity]
            _write_images(anat, name, suffix, scaled, stack, sidecar, of_slices)
    for role in ROLES:
        masks = read_masks(store, role) if role in stacks else None
        if masks is not None:
            labels = np.zeros(masks.shape[1:], dtype=np.uint8)
            for label, mask in zip(LABELS, masks, strict=True):
                labels[mask] = getattr(LABEL_VALUES, label)
            sidecar = _sidecar(visit, stacks[role]) | _mask_sidecar(visit, store, role)
            name = f"{stem}{_ENTITIES[role]}"
            of_slices = _slices_used(store, "t1", stacks[role])
            _write_images(anat, name, "dseg", labels, stacks[role], sidecar, of_slices)
            (anat / f"{name}_dseg.tsv").write_text(_label_table(), encoding="utf-8")


def write_index(exports: Path) -> None:
    """Write what stands above the sessions: description, participants, sessions with quantities."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for folder in sorted(exports.glob("sub-*/ses-*")):
        manifest = read_manifest(folder)
        if manifest is not None:
            found.setdefault(folder.parent.name, []).append(manifest)
    for folder in exports.glob("sub-*"):
        if folder.name not in found and not any(folder.glob("ses-*")):
            shutil.rmtree(folder)  # all its sessions were taken away
    trials = sorted({manifest["trial_id"] for sessions in found.values() for manifest in sessions})
    _write(exports / "dataset_description.json", _json(_description(trials)))
    _write(exports / "README", _README)
    _write(exports / ".bidsignore", "".join(f"{pattern}\n" for pattern in _IGNORED))
    participants = [
        {"participant_id": name, "subject_id": sessions[0]["subject_id"], "site_id": sessions[0]["site_id"]}
        for name, sessions in found.items()
    ]
    _write(exports / "participants.tsv", _tsv(("participant_id", "subject_id", "site_id"), participants))
    _write(
        exports / "participants.json",
        _json(
            {
                "subject_id": {"Description": "pseudonym of the subject in the trial"},
                "site_id": {"Description": "site of the subject"},
            }
        ),
    )
    quantities = [column for column in TABLES["scans"] if column.name not in _NOT_QUANTITIES]
    described = {
        "visit_id": {"Description": "visit of the subject in the trial"},
        "acq_time": {"Description": "start of the native series, as the trial's record gives it"},
        "state": {"Description": "state of the visit"},
        "qc_verdict": {"Description": "verdict of the quality checks"},
        "qc_reasons": {"Description": "codes of the checks that the verdict rests on"},
        "result_digest": {"Description": "digest of the published result"},
    } | {
        column.name: {"Description": column.meaning} | ({"Units": column.unit} if column.unit else {})
        for column in quantities
    }
    for name, sessions in found.items():
        rows = [
            {
                "session_id": f"ses-{bids_label(manifest['visit_id'])}",
                **manifest,
                "acq_time": manifest["scan"].get("scan_datetime"),
                **{column.name: manifest["scan"].get(column.name) for column in quantities},
            }
            for manifest in sessions
        ]
        _write(exports / name / f"{name}_sessions.tsv", _tsv(("session_id", *described), rows))
        _write(exports / name / f"{name}_sessions.json", _json(described))


def _write_images(
    folder: Path,
    stem: str,
    suffix: str,
    values: np.ndarray[Any, Any],
    stack: EchoStack,
    sidecar: Mapping[str, Any],
    of_slices: Mapping[str, Sequence[Any]],
) -> None:
    """Write one image, or one for each slice where no affine fits all of them.

    ``of_slices`` is what the sidecar says of each slice.
    """
    geometry = stack.geometry
    if is_even(geometry):
        chunks = [(stem, slice(None))]
    else:
        n_slices = len(geometry.positions_mm)
        chunks = [(f"{stem}_chunk-{index + 1}", slice(index, index + 1)) for index in range(n_slices)]
    for name, of_chunk in chunks:
        here = StackGeometry(
            geometry.positions_mm[of_chunk], geometry.orientation, geometry.pixel_spacing_mm, geometry.shape
        )
        affine = _affine(here, stack.slice_thickness_mm)
        (folder / f"{name}_{suffix}.nii.gz").write_bytes(_nifti(values[of_chunk], affine))
        own = dict(sidecar) | {"SliceLevel": list(stack.levels[of_chunk])}
        own |= {key: list(told[of_chunk]) for key, told in of_slices.items()}
        (folder / f"{name}_{suffix}.json").write_text(_json(own), encoding="utf-8")


def _affine(geometry: StackGeometry, slice_thickness_mm: float | None) -> Float64[np.ndarray, "4 4"]:
    """From indices of col, row and slice to RAS coordinates [mm]."""
    first, last = np.asarray(geometry.positions_mm[0]), np.asarray(geometry.positions_mm[-1])
    n_steps = len(geometry.positions_mm) - 1
    affine = np.eye(4)
    affine[:3, 0] = col_direction(geometry.orientation) * geometry.pixel_spacing_mm[1]
    affine[:3, 1] = row_direction(geometry.orientation) * geometry.pixel_spacing_mm[0]
    single = slice_normal(geometry.orientation) * (slice_thickness_mm or 1.0)
    affine[:3, 2] = (last - first) / n_steps if n_steps else single
    affine[:3, 3] = first
    return np.asarray(_LPS_TO_RAS @ affine)


def _nifti(values: np.ndarray[Any, Any], affine: Float64[np.ndarray, "4 4"]) -> bytes:
    import nibabel  # a third of a second, and only needed here

    image: Any = nibabel.Nifti1Image(np.asfortranarray(values.T), affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    if not np.allclose(image.get_qform(), affine, atol=EVEN_SPACING_MM):  # it cannot hold slices that shear
        image.set_qform(None, code="unknown")
    return gzip.compress(image.to_bytes(), mtime=0)


def _sidecar(visit: ExportedVisit, stack: EchoStack) -> dict[str, Any]:
    """Say where an image comes from and what is to be thought of it."""
    known = {
        "Manufacturer": stack.manufacturer,
        "ManufacturersModelName": stack.scanner_model,
        "MagneticFieldStrength": stack.field_strength_t,
        "PulseSequenceType": f"MOLLI {stack.scheme}",
        # Not InversionTime, which is a single number there.
        "InversionTimes": (stack.ti_ms / _MS_PER_S).round(7).tolist(),
        "SourceFiles": [
            [{"upload": one.upload_id, "file": one.file_number, "sha256": one.sha256} for one in of_slice]
            for of_slice in stack.sources
        ],
        "ResultDigest": visit.result_digest,
        "SoftwareVersion": visit.code_version,
        "VisitState": visit.state,
        "QCVerdict": visit.qc_verdict,
        "QCReasons": list(visit.qc_reasons),
    }
    return {name: value for name, value in known.items() if value is not None}


def _map_sidecar(kind: MapKind, stack: EchoStack) -> dict[str, Any]:
    scale = 1.0 / _MS_PER_S if kind.quantity == "t1" else 1.0
    known: dict[str, Any] = {
        "Description": kind.meaning,
        "Units": _UNITS[kind.quantity],
        "DisplayWindow": [round(limit * scale, 6) for limit in kind.window(stack.field_strength_t)],
    }
    if kind.quantity == "t1":
        known |= {
            "SkullStripped": False,
            "EstimationAlgorithm": "least squares fit of the inversion recovery, Look-Locker correction",
            "EstimationReference": "doi:10.1002/mrm.20110",
        }
    if kind.quantity == "ecv":
        known["EstimationAlgorithm"] = "(1 - hematocrit) x change of R1 in myocardium over that in blood"
    return known


def _slices_used(store: zarr.Group, quantity: str, stack: EchoStack) -> dict[str, Sequence[Any]]:
    """Say of each slice whether the scan's mean uses it, and what failed it."""
    out = left_out(store, quantity, stack.role)
    indices = range(len(stack.levels))
    return {
        "SlicesUsed": [index not in out for index in indices],
        "SliceFailures": [list(out.get(index, ())) for index in indices],
    }


def _mask_sidecar(visit: ExportedVisit, store: zarr.Group, role: Role) -> dict[str, Any]:
    return {
        "Description": "heart on the images the maps are on",
        "SnomedCt": {label: SEGMENT_CODES[label][0] for label in LABELS},
        "Manual": drawn_by(store, role) == "reader",
        "GuideOrigin": list(guide_origins(store, role)),
        "SegmentationStage": visit.segment_digest,
        "Segmentation": segmentation_settings(store),
    }


def _label_table() -> str:
    values = sorted((getattr(LABEL_VALUES, label), label) for label in LABELS)
    return _tsv(("index", "name"), [{"index": value, "name": label} for value, label in values])


def _description(trials: Sequence[str]) -> dict[str, Any]:
    return {
        "Name": f"T1 and ECV maps of trial {', '.join(trials)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "cmrtrials", "Version": version("cmrtrials")}],
    }


def _tsv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None or value in ("", []):
        return _MISSING
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    """Write a file unless it says so already."""
    data = text.encode()
    if not path.is_file() or path.read_bytes() != data:
        write_durably(path, data)


_README = """T1 maps, ECV maps and masks of the heart, exported by `cmrtrials export ROOT --bids`.

Subjects and visits keep their ids in participants.tsv and sub-*_sessions.tsv; labels of files are these ids
with every character that is no letter or digit, and z itself, written as Z and its two hexadecimal digits.

*_T1map.nii.gz         native T1 [s]; with ce-gadolinium, post-contrast T1 [s]
*_ECVmap.nii.gz        extracellular volume, fraction 0-1, on the native pixels
*_Rsquaredmap.nii.gz   coefficient of determination of the T1 fit
*_dseg.nii.gz          labels of *_dseg.tsv on the same pixels

A pixel without a value is NaN. Slices that are not evenly spaced are files of their own, chunk-1 at the base.
Each sidecar says the verdict of the quality checks and which slices the scan's means use (SlicesUsed; by
which checks or reader's decisions others are left out, SliceFailures); sub-*_sessions.tsv has the quantities
of each scan.
Dates are those of the trial's record, moved where it moves them.
"""
