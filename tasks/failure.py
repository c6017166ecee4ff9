"""What a task run that failed is told with, and whether the next night may do better."""

from cmrcore.errors import CmrcoreError
from storage.errors import (
    AlreadyWrittenError,
    NotStoredError,
    RefusedError,
    StorageError,
    UploadChangedError,
)
from storage.objects import store_errors
from tasks.fanout import Failure, OverdueError


def may_pass(failure: Failure) -> bool:
    """Whether a failure was the machine's or the moment's fault, so that the next night may do better."""
    by_machine = isinstance(failure.error, (*store_errors(), MemoryError)) and not isinstance(
        failure.error, AlreadyWrittenError | NotStoredError | RefusedError
    )
    return failure.kind == "crashed" or by_machine or isinstance(failure.error, UploadChangedError)


def describe(failure: Failure) -> str:
    """Say why a task run failed, without paths: their names may be a patient's."""
    error = failure.error
    if failure.kind == "crashed":
        return f"the worker died ({type(error).__name__}); the next night tries again"
    if isinstance(error, OverdueError):
        return f"{error} (a visit has CMR_VISIT_MINUTES); run it again when the cause is known"
    if isinstance(error, StorageError | CmrcoreError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}; the next night tries again"
    return f"{type(error).__name__}: {error}"
