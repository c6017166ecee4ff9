"""The planned visit of an upload, by the rules of trial.toml; a disagreement is refused, never guessed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from storage.config import MatchingConfig
from storage.errors import RefusedError
from storage.plan import PlannedVisit
from storage.upload import Upload, reading_error


@dataclass(frozen=True, slots=True)
class Match:
    """The planned visit an upload belongs to."""

    subject_id: str
    """Planned subject."""
    visit_id: str
    """Planned visit."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why an upload belongs to no planned visit."""

    reason: str
    """What was found, without the site's names."""


def match_upload(upload: Upload, plan: Sequence[PlannedVisit], matching: MatchingConfig) -> Match | Mismatch:
    """Find the planned visit of an upload: subject by the sources that `matching` names, visit by study date.

    All named sources must agree; anything else is a `Mismatch`, never a guess.

    Raises
    ------
    RefusedError
        If a file that is needed for it cannot be read.
    UploadChangedError
        If the upload has changed since it was read.
    """
    identity = _first_identity(upload, needs_patient_id="patient_id" in matching.subject_from)
    if identity is None:
        return Mismatch("no DICOM file with PatientID and StudyDate was found")
    patient_id, study_date = identity
    named: dict[str, str] = {"folder": _folder_subject(upload.path.name, matching), "patient_id": patient_id}
    titles = {"folder": "folder", "patient_id": "PatientID"}
    planned = {visit.subject_id for visit in plan}
    unknown = [titles[source] for source in matching.subject_from if named[source] not in planned]
    if unknown:
        return Mismatch(f"{' and '.join(unknown)}: no planned subject; check subjects.csv and the upload")
    subjects = {named[source] for source in matching.subject_from}
    if len(subjects) > 1:
        return Mismatch("folder gives a planned subject, PatientID gives another one")
    return _match_visit(subjects.pop(), study_date, plan)


def _first_identity(upload: Upload, *, needs_patient_id: bool) -> tuple[str, date] | None:
    from storage.dicom_read import FileSource, is_dicom, read_identity  # pydicom takes a third of a second

    for file in upload.files:
        try:
            if not is_dicom(file.path):
                continue
            source = FileSource(upload.upload_id, file.number, file.sha256)
            patient_id, study_date = read_identity(file.path, source)
        except OSError as error:
            raise reading_error(error, file.number, upload.path, upload.fingerprint) from None
        except RefusedError:
            continue  # intake reads every file again and refuses this one with its reason
        if study_date is not None and (patient_id or not needs_patient_id):
            return patient_id, study_date
    return None


def _folder_subject(name: str, matching: MatchingConfig) -> str:
    """Give the subject a folder's name holds, empty where it holds none."""
    found = re.fullmatch(matching.folder_pattern, name) if matching.folder_pattern else None
    return str(found["subject"] or "") if found else ""


def _match_visit(subject_id: str, study_date: date, plan: Sequence[PlannedVisit]) -> Match | Mismatch:
    visits = [visit for visit in plan if visit.subject_id == subject_id]
    covering = [visit for visit in visits if visit.covers(study_date)]
    if len(covering) == 1:
        return Match(subject_id, covering[0].visit_id)
    if covering:
        names = ", ".join(visit.visit_id for visit in covering)
        return Mismatch(f"study date {study_date} lies in the windows of several visits: {names}")
    windows = ", ".join(f"{visit.visit_id} {visit.visit_date} +- {visit.window_days} d" for visit in visits)
    return Mismatch(f"study date {study_date} lies in no planned window: {windows}")
