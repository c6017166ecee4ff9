"""Intake of a visit: uploads in, checked echo stacks in Zarr out."""

from contextlib import ExitStack

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.arrays import write_array, write_stack, write_store
from storage.config import IntakeConfig, PrivacyConfig
from storage.errors import RefusedError, RefusedFile, UploadChangedError
from storage.intake import VisitIntake, check_study_date, intake_visit
from storage.plan import PlannedVisit
from storage.quarantine import quarantine_file, quarantine_upload
from storage.series_rules import Role
from storage.source_headers import SourceHeader, read_source_headers, write_source_header
from storage.upload import Upload, is_unchanged, open_upload
from tasks.stage import StageResult, VisitRef, run_stage


@task(name="intake", task_run_name="intake {visit.label}", cache_policy=NO_CACHE, persist_result=False)
def intake(
    visit: VisitRef,
    planned: PlannedVisit,
    uploads: tuple[Upload, ...],
    config: IntakeConfig,
    privacy: PrivacyConfig,
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
    """

    def quarantine(files: tuple[RefusedFile, ...]) -> None:
        names = {
            (upload.upload_id, file.number): file.site_path for upload in uploads for file in upload.files
        }
        for file in files:
            quarantine_file(visit.path, file, names[file.upload_id, file.file_number])

    def read() -> tuple[VisitIntake, dict[Role, SourceHeader]]:
        with ExitStack() as stack:
            try:
                opened = [stack.enter_context(open_upload(upload)) for upload in uploads]
                taken = intake_visit(opened, config)
                check_study_date(taken.study_date, planned)
                stacks = [stack for stack in (taken.native, taken.post) if stack is not None]
                headers = read_source_headers(stacks, opened, privacy, visit.subject_id)
            except RefusedError as refused:
                quarantine(refused.files)
                for upload in uploads:
                    quarantine_upload(visit.path, upload, refused.reason)
                raise
            quarantine((*taken.refused_files, *taken.made_good_files))
            return taken, headers

    def work() -> str:
        taken, headers = read()
        for upload in uploads:
            if not is_unchanged(upload):
                message = (
                    f"upload {upload.upload_id} changed since it was planned; the next night reads it again"
                )
                raise UploadChangedError(message)
        stacks = [stack for stack in (taken.native, taken.post) if stack is not None]
        with write_store(visit.path, visit.subject_id, visit.visit_id, digest) as store:
            store.attrs["intake_digest"] = digest
            store.attrs["refused_files"] = [str(file) for file in taken.refused_files]
            store.attrs["burned_in_files"] = list(taken.burned_in_files)
            for stack in stacks:
                write_stack(store, stack)
                guide = taken.guides.get(stack.role)
                if guide is not None:
                    write_array(store, f"{stack.role}/uploaded_guide", guide, "1", "label slice row col")
            for role, header in headers.items():
                write_source_header(store, role, header)
        return (
            f"uploads={','.join(upload.upload_id for upload in uploads)} roles={len(stacks)} "
            f"echoes={sum(stack.ti_ms.size for stack in stacks)} other_series={taken.n_other_series} "
            f"refused_files={len(taken.refused_files)} made_good={len(taken.made_good_files)}"
        )

    return run_stage(visit, "intake", digest, work, force=force)
