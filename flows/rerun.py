"""The flow that runs chosen visits again."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.night import run_night
from flows.site import dask_task_runner
from tasks.plan import Selection


@flow(name="rerun", task_runner=dask_task_runner(), persist_result=False)
def rerun(
    root: str,
    reason: str,
    subject_ids: list[str] | None = None,
    visit_ids: list[str] | None = None,
) -> State[Any]:
    """Run visits again: those named, or else all that failed or were refused.

    Parameters
    ----------
    root
        Folder of the trial, with trial.toml and subjects.csv.
    reason
        Why they run again; it is kept with the results.
    subject_ids
        Subjects to run; all when empty.
    visit_ids
        Visits to run; all when empty.
    """
    if subject_ids or visit_ids:
        chosen = Selection("chosen", frozenset(subject_ids or ()), frozenset(visit_ids or ()))
        return run_night(root, chosen, why=f"rerun: {reason}")
    return run_night(root, Selection("unsettled"), why=f"rerun: {reason}")
