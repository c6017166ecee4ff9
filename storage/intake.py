"""One visit's uploads, read whole: echo stacks, guiding masks, and what had to be left out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from storage.config import IntakeConfig
from storage.dicom_pixels import read_frames
from storage.dicom_read import FileSource, Instance, naming_the_file, read_file
from storage.dicom_series import EchoStack, IntakeResult, assemble
from storage.errors import RefusedError, RefusedFile
from storage.guide import Guide, is_nifti, place_guide, read_nifti, read_seg
from storage.series_rules import ROLES, Role
from storage.upload import Upload

GuideMasks = Bool[np.ndarray, "label slice row col"]


@dataclass(frozen=True, slots=True, eq=False)
class VisitIntake:
    """What a visit's uploads hold."""

    native: EchoStack
    """Native echoes."""
    post: EchoStack | None
    """Post-contrast echoes; None where none were uploaded."""
    guides: dict[Role, GuideMasks]
    """Guiding mask of each role that has one, labels in the order of `storage.guide.LABELS`."""
    refused_files: tuple[RefusedFile, ...]
    """Files that are left out, each with its reason."""
    n_other_series: int
    """Series, counted per image component, that no rule asks for."""
    study_date: date | None
    """Study date of the images."""


def intake_visit(uploads: Sequence[Upload], intake: IntakeConfig) -> VisitIntake:
    """Read all files of a visit's uploads.

    A file that cannot be used is left out with its reason; the visit goes on if what remains is complete.

    Raises
    ------
    RefusedError
        If it is not; its reason says what is missing and names the files that were left out, its ``files``
        are those files.
    UnreadableError
        If the machine cannot read a file; it may on another day.
    """
    refused: list[RefusedFile] = []
    instances: list[Instance] = []
    guides: dict[str, Guide] = {}  # by the digest of its bytes: a guide that was sent twice is one guide
    for upload in sorted(uploads, key=lambda one: one.upload_id):
        for file in upload.files:
            source = FileSource(upload.upload_id, file.number, file.sha256)
            try:
                with naming_the_file(source):
                    if is_nifti(file.path):
                        guide = read_nifti(file.path, source, intake.guide.nifti_labels)
                        guides.setdefault(file.sha256, guide)
                        continue
                    found = read_file(file.path, source)
                    if found is None:
                        continue
                    instances.extend(found)
                    if found[0].kind == "seg":
                        guides.setdefault(file.sha256, read_seg(file.path, source))
            except RefusedError as error:
                refused.append(_refused_file(source, file.path, error.reason))
    try:
        _check_one_patient(instances)
        images = assemble(instances, intake, read_frames)
    except RefusedError as error:
        files = (*refused, *error.files)
        raise RefusedError(error.reason + _left_out(files), files) from None
    masks, refused_guides = _place_guides(list(guides.values()), images, intake.position_tolerance_mm)
    return VisitIntake(
        native=images.native,
        post=images.post,
        guides=masks,
        refused_files=(*refused, *images.refused_files, *refused_guides),
        n_other_series=images.n_other_series,
        study_date=images.study_date,
    )


def _check_one_patient(instances: Sequence[Instance]) -> None:
    n_patients = len({instance.patient_id for instance in instances if instance.patient_id})
    if n_patients > 1:
        message = f"the files carry {n_patients} different PatientIDs, expected one"
        raise RefusedError(message)


def _place_guides(
    guides: Sequence[Guide], images: IntakeResult, tolerance_mm: float
) -> tuple[dict[Role, GuideMasks], list[RefusedFile]]:
    """Give each role its guide; two guides for one slice of a role are both refused.

    A guide that names no series of the visit serves the roles that have none of their own.
    """
    stacks: dict[Role, EchoStack] = {"native": images.native}
    if images.post is not None:
        stacks["post"] = images.post
    refused: dict[Guide, str] = {}
    placed: dict[Role, list[tuple[Guide, GuideMasks]]] = {role: [] for role in ROLES}
    drawn_on = {
        guide: [role for role in stacks if guide.series_uids & images.series_uids[role]] for guide in guides
    }
    unserved = [role for role in stacks if not any(role in roles for roles in drawn_on.values())]
    for guide, own_roles in drawn_on.items():
        roles = own_roles or unserved
        reasons = (
            [] if roles else ["its series is not in the upload, and every series has a guide of its own"]
        )
        for role in roles:
            try:
                placed[role].append((guide, place_guide(guide, stacks[role].geometry, tolerance_mm)))
            except RefusedError as error:
                reasons.append(f"{role}: {error.reason.removeprefix(f'{guide.source}: ')}")
        if len(reasons) >= max(len(roles), 1):
            refused[guide] = "; ".join(reasons)
    for role, entries in placed.items():
        for guide in _overlapping(entries):
            refused[guide] = f"{role}: another guide is for the same slice; upload one guide a slice"
    masks: dict[Role, GuideMasks] = {}
    for role, entries in placed.items():
        kept = [mask for guide, mask in entries if guide not in refused]
        if kept:
            masks[role] = np.logical_or.reduce(kept)
    return masks, [_refused_file(guide.source, guide.path, reason) for guide, reason in refused.items()]


def _overlapping(entries: Sequence[tuple[Guide, GuideMasks]]) -> list[Guide]:
    by_slice: dict[int, list[Guide]] = defaultdict(list)
    for guide, mask in entries:
        for index in np.flatnonzero(mask.any(axis=(0, 2, 3))):
            by_slice[int(index)].append(guide)
    return [guide for guides in by_slice.values() if len(guides) > 1 for guide in guides]


def _refused_file(source: FileSource, path: Path, reason: str) -> RefusedFile:
    reason = reason.removeprefix(f"{source}: ")
    return RefusedFile(source.upload_id, source.file_number, reason, path, source.sha256)


def _left_out(files: Sequence[RefusedFile]) -> str:
    """Name files that were left out, one reason once."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for file in files:
        numbers[file.upload_id, file.reason].append(file.file_number)
    return "".join(
        f"; left out: upload {upload_id}, file {', '.join(map(str, found))}: {reason}"
        for (upload_id, reason), found in numbers.items()
    )
