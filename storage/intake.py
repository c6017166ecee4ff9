"""One visit's uploads, read whole: echo stacks, guiding masks, and what had to be left out."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64

from storage.bounded import BoundedReader, shared_reader
from storage.config_intake import GuideConfig, IntakeConfig
from storage.dicom_read import FileSource, Instance, describe_files, naming_the_file
from storage.dicom_series import EchoStack, IntakeResult, assemble
from storage.errors import RefusedError, RefusedFile, Remedy
from storage.guide import Guide, is_nifti, place_guide
from storage.landmarks import Landmarks, is_landmarks, place_landmarks, read_landmarks
from storage.no_image import why_no_image
from storage.plan import PlannedVisit
from storage.prepared_series import PreparedSeries
from storage.series_rules import ROLES, Role
from storage.upload import Upload, UploadFile
from storage.zipped import DAMAGED_MEMBER, is_archive

GuideMasks = Bool[np.ndarray, "label slice row col"]
SlicePoints = Float64[np.ndarray, "slice 2"]

_CONTRAST_MINUTES_MAX = 12 * 60.0
"""A bolus further back was no bolus of this examination."""


@dataclass(frozen=True, slots=True, eq=False)
class VisitIntake:
    """What a visit's uploads hold."""

    native: EchoStack
    """Native echoes."""
    post: EchoStack | None
    """Post-contrast echoes; None where none were uploaded."""
    guides: dict[Role, GuideMasks]
    """Guiding mask of each role that has one, labels in the order of `storage.guide.LABELS`."""
    insertions_px: dict[Role, SlicePoints]
    """Anterior RV insertion (row, col) on each slice of the roles that a reader marked, NaN where not."""
    refused_files: tuple[RefusedFile, ...]
    """Files that are left out, each with its reason."""
    made_good_files: tuple[RefusedFile, ...]
    """Damaged files whose image came whole in another file; nothing is missing for them."""
    other_files: frozenset[tuple[str, int]]
    """Upload and number of the files that are neither DICOM nor guide: a PDF, a text."""
    burned_in_files: tuple[str, ...]
    """Upload and file of each image in a stack that says text is burned into its pixels."""
    trigger_ms: dict[Role, tuple[float, float]]
    """Range of the delays after the R wave of each role's echoes, where they are stated [ms]."""
    prepared: tuple[PreparedSeries, ...]
    """T2 and T1rho series, which are listed and not quantified."""
    n_other_series: int
    """Series, counted per image component, that are neither native nor post-contrast."""
    study_date: date | None
    """Study date of the images."""
    minutes_since_contrast: float | None
    """From the contrast bolus to the first post-contrast image [min]; None where not stated or impossible."""


@dataclass(frozen=True, slots=True, eq=False)
class _NamedGuide:
    """A guide, and what its file's name says."""

    guide: Guide
    """The guide."""
    roles: tuple[Role, ...]
    """Roles it is for by its name; none where the name does not say."""


def intake_visit(uploads: Sequence[Upload], intake: IntakeConfig) -> VisitIntake:
    """Read all files of a visit's uploads, each in a child process with limits.

    Where two files contradict each other, that of the earlier upload stands. A file that cannot be used is
    left out with its reason; the visit goes on if what remains is complete.

    Parameters
    ----------
    uploads
        Uploads in the order of their arrival, open (`storage.upload.open_upload`).
    intake
        Rules of the trial.

    Raises
    ------
    RefusedError
        If it is not; its reason says what is missing and names the files that were left out, its ``files``
        are those files.
    UnreadableError
        If the machine cannot read a file; it may on another day.
    """
    read = _read_uploads(uploads, intake)
    try:
        _check_one_patient(read.instances)
        images = assemble(read.instances, intake, read.read_frames)
    except RefusedError as error:
        files = (*read.refused, *error.files)
        raise RefusedError(error.reason + _left_out(files), files) from None
    masks, refused_guides = _place_guides(list(read.guides.values()), images, intake.position_tolerance_mm)
    points, refused_points = _place_points(read.landmarks, images, intake.position_tolerance_mm)
    refused = (*read.refused, *images.refused_files, *refused_guides, *refused_points)
    made_good = _made_good(refused, read, images)
    return VisitIntake(
        native=images.native,
        post=images.post,
        guides=masks,
        insertions_px=points,
        refused_files=tuple(file for file in refused if file not in made_good),
        made_good_files=made_good,
        other_files=frozenset(read.others),
        burned_in_files=_burned_in(read.instances, images),
        trigger_ms=images.trigger_ms,
        prepared=images.prepared,
        n_other_series=images.n_other_series,
        study_date=images.study_date,
        minutes_since_contrast=_minutes_since_contrast(read.instances, images.post),
    )


def _minutes_since_contrast(instances: Sequence[Instance], post: EchoStack | None) -> float | None:
    """Time from the bolus that the headers state to the first post-contrast image [min].

    None where it is not stated, or where it cannot be: headers state a time of day, and one of another day,
    or of a later bolus, gives less than nothing or a day too much.
    """
    stated = [instance.contrast_at for instance in instances if instance.contrast_at is not None]
    if not stated or post is None or post.acquired_at is None:
        return None
    minutes = (post.acquired_at - min(stated)).total_seconds() / 60
    return minutes if 0 <= minutes <= _CONTRAST_MINUTES_MAX else None


def _burned_in(instances: Sequence[Instance], images: IntakeResult) -> tuple[str, ...]:
    """Name the files of the stacks that say text is burned into their pixels."""
    stacks = [stack for stack in (images.native, images.post) if stack is not None]
    taken = {source for stack in stacks for sources in stack.sources for source in sources}
    burned_in = {instance.source for instance in instances if instance.burned_in_annotation}
    ordered = sorted(taken & burned_in, key=lambda source: (source.upload_id, source.file_number))
    return tuple(f"{source}: BurnedInAnnotation is YES" for source in ordered)


def check_study_date(study_date: date | None, planned: PlannedVisit) -> None:
    """Refuse images of another day than the visit they were matched to by one of their files.

    Raises
    ------
    RefusedError
        With what was found and what is planned.
    """
    if study_date is None:
        message = f"the images are without a study date, which {planned.visit_id} must be known by"
        raise RefusedError(message)
    if not planned.covers(study_date):
        message = f"the images are of another day than the visit: {planned.describe_distance(study_date)}"
        raise RefusedError(message)


@dataclass(slots=True)
class _ReadFiles:
    """What a visit's files hold, one by one."""

    instances: list[Instance]
    """Images, in the order of arrival of their uploads."""
    guides: dict[str, _NamedGuide]
    """By the digest of its bytes: a guide that was sent twice is one guide."""
    refused: list[RefusedFile]
    """Files that cannot be used by themselves."""
    readers: dict[str, BoundedReader]
    """Who reads the files of an upload."""
    others: set[tuple[str, int]]
    """Upload and number of what is neither DICOM nor guide."""
    decoded: set[FileSource]
    """Files whose pixels could be read."""
    landmarks: dict[str, Landmarks]
    """By the digest of its bytes: a reader's points."""

    def read_frames(
        self, files: Sequence[Sequence[Instance]]
    ) -> Iterator[Float32[np.ndarray, "frame row col"] | RefusedError]:
        """Read the pixels of many files, ordered by upload."""
        for upload_id, of_upload in groupby(files, key=lambda images: images[0].source.upload_id):
            wanted = list(of_upload)
            for images, outcome in zip(wanted, self.readers[upload_id].read_frames(wanted), strict=True):
                source = images[0].source
                if isinstance(outcome, OSError):
                    with naming_the_file(source):
                        raise outcome
                if not isinstance(outcome, RefusedError):
                    self.decoded.add(source)
                yield outcome


def _read_uploads(uploads: Sequence[Upload], intake: IntakeConfig) -> _ReadFiles:
    read = _ReadFiles([], {}, [], {}, set(), set(), {})
    for upload in uploads:
        reader = read.readers[upload.upload_id] = shared_reader(upload.rules)
        sources = [FileSource(upload.upload_id, file.number, file.sha256) for file in upload.files]
        images = [
            (file.path, source)
            for file, source in zip(upload.files, sources, strict=True)
            if not (is_nifti(file.path) or is_landmarks(file.site_path) or file.is_damaged)
        ]
        found = reader.read_files(images, intake.spin_lock)
        outcomes = dict(zip((source for _, source in images), found, strict=True))
        for file, source in zip(upload.files, sources, strict=True):
            if file.is_damaged:
                read.refused.append(_refused_file(source, file.path, DAMAGED_MEMBER, "mend"))
                continue
            try:
                with naming_the_file(source):
                    _read_file(read, reader, file, source, outcomes.get(source), intake.guide)
            except RefusedError as error:
                # A guide or an archive that is sent again as it is would be refused once more.
                is_drawn = is_nifti(file.path) or is_landmarks(file.site_path)
                remedy: Remedy = "mend" if is_drawn or is_archive(file.site_path) else "send"
                read.refused.append(_refused_file(source, file.path, error.reason, remedy))
    return read


def _read_file(
    read: _ReadFiles,
    reader: BoundedReader,
    file: UploadFile,
    source: FileSource,
    found: tuple[Instance, ...] | RefusedError | OSError | None,
    rules: GuideConfig,
) -> None:
    """Sort in a file, whose images were ``found``; a guide is read here."""
    if is_nifti(file.path):
        if file.sha256 not in read.guides:
            roles = _roles_by_name(file.site_path.rpartition("/")[2], rules)
            guide = reader.read_nifti(file.path, source, rules.nifti_labels)
            read.guides[file.sha256] = _NamedGuide(guide, roles)
        return
    if is_landmarks(file.site_path):
        read.landmarks.setdefault(file.sha256, read_landmarks(file.path, source))
        return
    if isinstance(found, RefusedError | OSError):
        raise found
    if found is None:
        reason = why_no_image(file.path, file.site_path)
        if reason is not None:
            raise RefusedError(reason)
        read.others.add((source.upload_id, source.file_number))
        return
    read.instances += found
    if found[0].kind == "seg" and file.sha256 not in read.guides:
        read.guides[file.sha256] = _NamedGuide(reader.read_seg(file.path, source), ())


def _roles_by_name(name: str, rules: GuideConfig) -> tuple[Role, ...]:
    """Give the role that a NIfTI guide's name says it is for; none where it does not say."""
    patterns: dict[Role, str] = {"native": rules.nifti_native, "post": rules.nifti_post}
    named = tuple(role for role in ROLES if patterns[role] and re.search(patterns[role], name))
    if len(named) > 1:
        message = "its name fits intake.guide.nifti_native and nifti_post; make the two patterns exclusive"
        raise RefusedError(message)
    return named


def _made_good(
    refused: Sequence[RefusedFile], read: _ReadFiles, images: IntakeResult
) -> tuple[RefusedFile, ...]:
    """Give the files that cannot be decoded, but whose image came whole in another file and is used."""
    stacks = [stack for stack in (images.native, images.post) if stack is not None]
    used = {source for stack in stacks for row in stack.sources for source in row}
    uids = {instance.source: instance.sop_instance_uid for instance in read.instances}
    used_uids = {uids[source] for source in used}
    sources = {file: FileSource(file.upload_id, file.file_number, file.sha256) for file in refused}
    return tuple(
        file
        for file, source in sources.items()
        if source not in read.decoded and uids.get(source) in used_uids
    )


def _check_one_patient(instances: Sequence[Instance]) -> None:
    files: dict[str, set[FileSource]] = defaultdict(set)
    for instance in instances:
        if instance.patient_id:
            files[instance.patient_id].add(instance.source)
    if len(files) > 1:
        found = "; ".join(describe_files(of_one) for of_one in sorted(files.values(), key=len))
        message = f"the files carry {len(files)} different PatientIDs, expected one ({found})"
        raise RefusedError(message)


def _place_guides(
    guides: Sequence[_NamedGuide], images: IntakeResult, tolerance_mm: float
) -> tuple[dict[Role, GuideMasks], list[RefusedFile]]:
    """Give each role its guide; two guides for one slice of a role are both refused.

    A guide that names neither a series of the visit nor a role serves the roles that have none of their own.
    """
    stacks: dict[Role, EchoStack] = {"native": images.native}
    if images.post is not None:
        stacks["post"] = images.post
    refused: dict[Guide, str] = {}
    placed: dict[Role, list[tuple[Guide, GuideMasks]]] = {role: [] for role in ROLES}
    drawn_on: dict[Guide, list[Role]] = {}
    for named in guides:
        if named.roles and not set(named.roles) & stacks.keys():
            refused[named.guide] = f"its name is for {named.roles[0]} images, which are not in the upload"
            continue
        uids = named.guide.series_uids
        drawn_on[named.guide] = [
            role for role in stacks if role in named.roles or uids & images.series_uids[role]
        ]
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
    return masks, [
        _refused_file(guide.source, guide.path, reason, "mend") for guide, reason in refused.items()
    ]


def _place_points(
    landmarks: Mapping[str, Landmarks], images: IntakeResult, tolerance_mm: float
) -> tuple[dict[Role, SlicePoints], list[RefusedFile]]:
    """Give each role a reader's points; two files for one slice of a role are both refused."""
    stacks = [stack for stack in (images.native, images.post) if stack is not None]
    refused: dict[Landmarks, str] = {}
    placed: dict[Role, dict[Landmarks, SlicePoints]] = {stack.role: {} for stack in stacks}
    for one in landmarks.values():
        absent = {point.role for point in one.points} - {None, *placed}
        if absent:
            refused[one] = f"marks {min(map(str, absent))} images, which are not in the upload"
            continue
        for stack in stacks:
            try:
                points = place_landmarks(one, stack.role, stack.geometry, tolerance_mm)
            except RefusedError as error:
                refused[one] = f"{stack.role}: {error.reason}"
                break
            placed[stack.role][one] = points
    for role, of_role in placed.items():
        marked = {one: ~np.isnan(points[:, 0]) for one, points in of_role.items() if one not in refused}
        twice = sum(marked.values(), np.zeros(1, dtype=int)) > 1
        for one, slices in marked.items():
            if (slices & twice).any():
                refused[one] = f"{role}: another file marks the same slice; upload one point a slice"
    insertions = {}
    for role, of_role in placed.items():
        kept = [points for one, points in of_role.items() if one not in refused]
        if any(not np.isnan(points).all() for points in kept):
            insertions[role] = np.fmax.reduce(kept)
    return insertions, [
        _refused_file(one.source, one.path, reason, "mend") for one, reason in refused.items()
    ]


def _overlapping(entries: Sequence[tuple[Guide, GuideMasks]]) -> list[Guide]:
    by_slice: dict[int, list[Guide]] = defaultdict(list)
    for guide, mask in entries:
        for index in np.flatnonzero(mask.any(axis=(0, 2, 3))):
            by_slice[int(index)].append(guide)
    return [guide for guides in by_slice.values() if len(guides) > 1 for guide in guides]


def _refused_file(source: FileSource, path: Path, reason: str, remedy: Remedy) -> RefusedFile:
    reason = reason.removeprefix(f"{source}: ")
    return RefusedFile(source.upload_id, source.file_number, reason, path, source.sha256, remedy)


def _left_out(files: Sequence[RefusedFile]) -> str:
    """Name files that were left out, one reason once."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for file in files:
        numbers[file.upload_id, file.reason].append(file.file_number)
    return "".join(
        f"; left out: upload {upload_id}, file {', '.join(map(str, found))}: {reason}"
        for (upload_id, reason), found in numbers.items()
    )
