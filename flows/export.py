"""Published results as DICOM or as a BIDS-style tree (``cmrtrials export``), a visit whole or not at all."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zarr

from flows.errors import ExportError
from storage.arrays import open_store
from storage.export_bids import session_folder, write_bids, write_index
from storage.export_dicom import write_dicom
from storage.export_folder import EXPORTS, export_folder, is_current, remove_export, write_export
from storage.export_visit import ExportedVisit
from storage.tables import read_tables
from storage.trial import Trial

Kind = Literal["dicom", "bids"]
Outcome = Literal["written", "replaced", "stands", "skipped", "removed"]

_IDS = ("subject_id", "visit_id", "site_id", "result_digest")


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of one visit."""

    kind: Kind
    """Format."""
    subject_id: str
    """Subject."""
    visit_id: str
    """Visit."""
    outcome: Outcome
    """``stands``: it was exported before; ``removed``: so it was, but the visit has no result any more."""
    said: str
    """Where it lies below the root, or why it does not."""


def export_trial(
    trial: Trial, kind: Kind, subject_ids: Sequence[str] = (), visit_ids: Sequence[str] = ()
) -> list[Exported]:
    """Export the published results of a trial, or of chosen subjects and visits, into ``<root>/exports``.

    What stands and was made from the same result is left alone; visits without a result are named.

    Parameters
    ----------
    trial
        The trial.
    kind
        Format.
    subject_ids, visit_ids
        The only ones; empty for all.

    Raises
    ------
    ExportError
        If a chosen subject or visit is neither planned nor published.
    NotStoredError
        If the arrays of a published result are missing.
    """
    tables = {name: table.to_pylist() for name, table in read_tables(trial.root, ["visits", "scans"]).items()}
    published = {(row["subject_id"], row["visit_id"]): row for row in tables["visits"]}
    scans = {(row["subject_id"], row["visit_id"]): row for row in tables["scans"]}
    planned = {(line.subject_id, line.visit_id) for line in trial.plan()}
    chosen = _chosen(planned | published.keys(), subject_ids, visit_ids)
    done = []
    with export_folder(trial.folder, kind) as exports:
        for subject_id, visit_id in chosen:
            row = published.get((subject_id, visit_id))
            folder = _FOLDERS[kind](exports, subject_id, visit_id)
            if row is None or row["result_digest"] is None:
                outcome: Outcome = "removed" if remove_export(exports, folder) else "skipped"
                said = f"no published result: {'new' if row is None else row['state']}"
            else:
                visit = _visit(trial.config.trial_id, row, scans[subject_id, visit_id])
                outcome = _export(trial.folder, exports, folder, visit, kind)
                said = f"{EXPORTS}/{kind}/{folder.relative_to(exports).as_posix()}"
            done.append(Exported(kind, subject_id, visit_id, outcome, said))
        if kind == "bids":
            write_index(exports)
    return done


def _chosen(
    known: Iterable[tuple[str, str]], subject_ids: Sequence[str], visit_ids: Sequence[str]
) -> list[tuple[str, str]]:
    visits = sorted(known)
    unknown = sorted(set(subject_ids) - {subject_id for subject_id, _ in visits})
    unknown += sorted(set(visit_ids) - {visit_id for _, visit_id in visits})
    if unknown:
        message = f"neither planned in subjects.csv nor published: {', '.join(unknown)}"
        raise ExportError(message)
    return [
        (subject_id, visit_id)
        for subject_id, visit_id in visits
        if (not subject_ids or subject_id in subject_ids) and (not visit_ids or visit_id in visit_ids)
    ]


def _visit(trial_id: str, row: Mapping[str, Any], scan: Mapping[str, Any]) -> ExportedVisit:
    """Collect what the tables say of a visit with a result."""
    return ExportedVisit(
        trial_id=trial_id,
        subject_id=row["subject_id"],
        visit_id=row["visit_id"],
        site_id=row["site_id"],
        visit_date=row["visit_date"],
        result_digest=row["result_digest"],
        segment_digest=row["segment_digest"],
        state=row["state"],
        qc_verdict=row["qc_verdict"],
        qc_reasons=tuple(row["qc_reasons"]),
        code_version=row["code_version"],
        scan={name: value for name, value in scan.items() if name not in _IDS},
    )


def _export(root: Path, exports: Path, folder: Path, visit: ExportedVisit, kind: Kind) -> Outcome:
    if is_current(folder, visit, kind):
        return "stands"
    store = open_store(root, visit.subject_id, visit.visit_id, visit.result_digest)
    outcome: Outcome = "replaced" if folder.is_dir() else "written"
    write_export(exports, folder, visit, kind, lambda temporary: _WRITERS[kind](temporary, visit, store))
    return outcome


def _dicom_folder(exports: Path, subject_id: str, visit_id: str) -> Path:
    return exports / subject_id / visit_id


_FOLDERS: Mapping[Kind, Callable[[Path, str, str], Path]] = {"dicom": _dicom_folder, "bids": session_folder}
_WRITERS: Mapping[Kind, Callable[[Path, ExportedVisit, zarr.Group], None]] = {
    "dicom": write_dicom,
    "bids": write_bids,
}
