"""The planned visit of an upload, by the rules of trial.toml; a disagreement is refused, never guessed."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from storage.config_uploads import MatchingConfig
from storage.errors import RefusedError
from storage.plan import PlannedVisit
from storage.upload import Upload, open_upload, reading_error
from storage.zipped import DAMAGED_MEMBER

_TITLES = {"folder": "folder", "patient_id": "PatientID"}


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
    """What disagrees, without the site's names."""
    found: dict[str, str] = field(repr=False)
    """Folder, PatientID and StudyDate as the site wrote them; for quarantine/ only."""


def match_upload(
    upload: Upload, planned: Mapping[str, Sequence[PlannedVisit]], matching: MatchingConfig
) -> Match | Mismatch:
    """Find the planned visit of an upload: subject by the sources that `matching` names, visit by study date.

    All named sources must agree; anything else is a `Mismatch`, never a guess.

    Parameters
    ----------
    upload
        The upload.
    planned
        Lines of subjects.csv by subject, see `storage.plan.by_subject`.
    matching
        Rules of the trial.

    Raises
    ------
    RefusedError
        If a file that is needed for it cannot be read.
    UploadChangedError
        If the upload has changed since it was read.
    """
    identity = _first_identity(upload, needs_patient_id="patient_id" in matching.subject_from)
    folder = upload.name
    if isinstance(identity, str):
        return Mismatch(identity, {"folder": folder})
    patient_id, study_date = identity
    found = {"folder": folder, "PatientID": patient_id, "StudyDate": str(study_date)}
    named = {
        "folder": _subject(folder, matching.folder_pattern),
        "PatientID": _subject(patient_id, matching.patient_id_pattern),
    }
    sources = [_TITLES[source] for source in matching.subject_from]
    unknown = [source for source in sources if named[source] not in planned]
    if unknown:
        reason = f"{' and '.join(unknown)}: no planned subject; check subjects.csv and the upload"
        return Mismatch(reason, found)
    if len({named[source] for source in sources}) > 1:
        # Both are planned pseudonyms, so they may be told.
        return Mismatch("; ".join(f"{source} gives {named[source]}" for source in sources), found)
    subject_id = named[sources[0]]
    match = _match_visit(subject_id, study_date, planned[subject_id])
    return Mismatch(match, found) if isinstance(match, str) else match


def _first_identity(upload: Upload, *, needs_patient_id: bool) -> tuple[str, date] | str:
    """Give PatientID and StudyDate of the first file that has them, or else the reason why none has."""
    from storage.bounded import shared_reader  # pydicom takes a third of a second
    from storage.dicom_read import FileSource, is_dicom
    from storage.no_image import why_no_image

    no_images: Counter[str] = Counter()
    with open_upload(upload) as opened:
        for file in opened.files:
            if file.is_damaged:
                no_images[DAMAGED_MEMBER] += 1
                continue
            try:
                if not is_dicom(file.path):
                    no_images.update(filter(None, [why_no_image(file.path, file.site_path)]))
                    continue
                source = FileSource(upload.upload_id, file.number, file.sha256)
                identity = shared_reader(upload.rules).read_identity(file.path, source)
            except OSError as error:
                raise reading_error(error, file.number, upload.path, upload.fingerprint) from None
            except RefusedError:
                continue  # intake reads every file again and refuses this one with its reason
            if identity is None:
                continue
            patient_id, study_date = identity
            if study_date is not None and (patient_id or not needs_patient_id):
                return patient_id, study_date
    n_files = len(upload.files)
    counts = "".join(f"; {count} of {n_files} files: {reason}" for reason, count in no_images.items())
    return f"no DICOM file with PatientID and StudyDate was found{counts}"


def _subject(text: str, pattern: str | None) -> str:
    """Give the subject that a folder's name or a PatientID holds, empty where it holds none."""
    found = re.fullmatch(pattern, text) if pattern else None
    return str(found["subject"] or "") if found else ""


def _match_visit(subject_id: str, study_date: date, visits: Sequence[PlannedVisit]) -> Match | str:
    """Give the one visit of a subject whose window holds the study date, or else why there is none."""
    covering = [visit for visit in visits if visit.covers(study_date)]
    if len(covering) == 1:
        return Match(subject_id, covering[0].visit_id)
    if covering:
        names = ", ".join(visit.visit_id for visit in covering)
        return f"subject {subject_id}: the study date lies in the windows of several visits: {names}"
    windows = ", ".join(f"{visit.visit_id} {visit.visit_date} +- {visit.window_days} d" for visit in visits)
    return f"subject {subject_id}: the study date lies in no planned window: {windows}"
