"""Intake of a visit: uploads in, checked echo stacks in Zarr out."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.arrays import write_array, write_stack, write_store
from storage.config_intake import IntakeConfig
from storage.config_uploads import PrivacyConfig
from storage.deidentify import check_key, needed_key
from storage.dicom_series import EchoStack
from storage.errors import RefusedError, RefusedFile, UploadChangedError
from storage.intake import VisitIntake, check_study_date, intake_visit
from storage.plan import PlannedVisit
from storage.quarantine import quarantine_file, quarantine_upload
from storage.recorded_dates import recorded_shift, recorded_stack
from storage.series_rules import Role
from storage.source_headers import SourceHeader, read_source_headers, write_source_header
from storage.upload import Upload, is_unchanged, open_upload
from tasks.stage import StageResult, VisitRef, run_stage


@dataclass(frozen=True, slots=True, eq=False)
class TakenVisit:
    """What is stored of a visit's uploads."""

    images: VisitIntake
    """What they hold, with the dates of the headers."""
    stacks: tuple[EchoStack, ...]
    """Its stacks, with the dates of the record."""
    headers: dict[Role, SourceHeader]
    """Cleaned headers, where the trial keeps them."""


@task(name="intake", task_run_name="intake {visit.label}", cache_policy=NO_CACHE, persist_result=False)
def intake(
    visit: VisitRef,
    planned: PlannedVisit,
    uploads: tuple[Upload, ...],
    config: IntakeConfig,
    privacy: PrivacyConfig,
    key_name: str | None,
    digest: str,
    force: bool,
) -> StageResult:
    """Read, check, group and store a visit's uploads.

    Raises
    ------
    RefusedError
        When the uploads hold no complete set of echoes, or those of another day.
    UploadChangedError
        When an upload is no longer the one that was planned.
    ConfigError
        When this worker's key is not the one ``key_name`` names.
    """
    check_key(privacy, key_name)

    def quarantine(files: Sequence[RefusedFile]) -> None:
        names = {
            (upload.upload_id, file.number): file.site_path for upload in uploads for file in upload.files
        }
        for file in files:
            quarantine_file(visit.path, file, names[file.upload_id, file.file_number])

    def work() -> str:
        try:
            taken = take_visit(visit.subject_id, planned, uploads, config, privacy, quarantine)
        except RefusedError as refused:
            for upload in uploads:
                quarantine_upload(visit.path, upload, refused.reason)
            raise
        for upload in uploads:
            if not is_unchanged(upload):
                message = (
                    f"upload {upload.upload_id} changed since it was planned; the next night reads it again"
                )
                raise UploadChangedError(message)
        images = taken.images
        with write_store(visit.path, visit.subject_id, visit.visit_id, digest) as store:
            store.update_attributes(
                {
                    "intake_digest": digest,
                    "refused_files": [str(file) for file in images.refused_files],
                    "burned_in_files": list(images.burned_in_files),
                    "minutes_since_contrast": images.minutes_since_contrast,
                }
            )
            for stack in taken.stacks:
                write_stack(store, stack)
                guide = images.guides.get(stack.role)
                if guide is not None:
                    write_array(store, f"{stack.role}/uploaded_guide", guide, "1", "label slice row col")
                points = images.insertions_px.get(stack.role)
                if points is not None:
                    origin = {"origin": "reader"}
                    write_array(store, f"{stack.role}/insertions_px", points, "pixel", "slice axis", origin)
            for role, header in taken.headers.items():
                write_source_header(store, role, header)
        return (
            f"uploads={','.join(upload.upload_id for upload in uploads)} roles={len(taken.stacks)} "
            f"echoes={sum(stack.ti_ms.size for stack in taken.stacks)} other_series={images.n_other_series} "
            f"refused_files={len(images.refused_files)} made_good={len(images.made_good_files)}"
        )

    return run_stage(visit, "intake", digest, work, force=force)


def take_visit(
    subject_id: str,
    planned: PlannedVisit,
    uploads: Sequence[Upload],
    config: IntakeConfig,
    privacy: PrivacyConfig,
    leave_out: Callable[[Sequence[RefusedFile]], None],
) -> TakenVisit:
    """Read and check a visit's uploads without writing: what a night takes, and what a look ahead shows.

    Parameters
    ----------
    subject_id, planned
        The visit.
    uploads
        Uploads in the order of their arrival.
    config, privacy
        Rules of the trial.
    leave_out
        Told the files that are left out, or for which the visit is refused, while they can be read.

    Raises
    ------
    RefusedError
        When the uploads hold no complete set of echoes, or those of another day.
    UploadChangedError, UnreadableError
        When they cannot be read now.
    ConfigError
        When the rules need a key and the environment has none.
    """
    key = needed_key(privacy)
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(open_upload(upload)) for upload in uploads]
            images = intake_visit(opened, config)
            check_study_date(images.study_date, planned)
            stacks = [stack for stack in (images.native, images.post) if stack is not None]
            headers = read_source_headers(stacks, opened, privacy, key, subject_id)
        except RefusedError as refused:
            leave_out(refused.files)
            raise
        leave_out((*images.refused_files, *images.made_good_files))
    shift = recorded_shift(privacy, key, subject_id)
    return TakenVisit(images, tuple(recorded_stack(stack, shift) for stack in stacks), headers)
