"""Intake of a visit: uploads in, checked echo stacks in Zarr out."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.arrays import write_array, write_stack, write_store
from storage.config import IntakeConfig
from storage.errors import RefusedError, RefusedFile
from storage.intake import intake_visit
from storage.quarantine import quarantine_file, quarantine_upload
from storage.upload import Upload
from tasks.stage import StageResult, VisitRef, run_stage


@task(name="intake", task_run_name="intake {visit.label}", cache_policy=NO_CACHE, persist_result=False)
def intake(
    visit: VisitRef, uploads: tuple[Upload, ...], config: IntakeConfig, digest: str, force: bool
) -> StageResult:
    """Read, check, group and store a visit's uploads.

    Raises
    ------
    RefusedError
        When the uploads hold no complete set of echoes.
    """

    def quarantine(files: tuple[RefusedFile, ...]) -> None:
        for file in files:
            quarantine_file(visit.path, file)

    def work() -> str:
        try:
            taken = intake_visit(uploads, config)
        except RefusedError as refused:
            quarantine(refused.files)
            for upload in uploads:
                quarantine_upload(visit.path, upload, refused.reason)
            raise
        quarantine(taken.refused_files)
        stacks = [stack for stack in (taken.native, taken.post) if stack is not None]
        with write_store(visit.path, visit.subject_id, visit.visit_id, digest) as store:
            store.attrs["intake_digest"] = digest
            store.attrs["refused_files"] = [str(file) for file in taken.refused_files]
            for stack in stacks:
                write_stack(store, stack)
                guide = taken.guides.get(stack.role)
                if guide is not None:
                    write_array(store, f"{stack.role}/uploaded_guide", guide, "1", "label slice row col")
        return (
            f"uploads={','.join(upload.upload_id for upload in uploads)} roles={len(stacks)} "
            f"echoes={sum(stack.ti_ms.size for stack in stacks)} other_series={taken.n_other_series} "
            f"refused_files={len(taken.refused_files)}"
        )

    return run_stage(visit, "intake", digest, work, force=force)
