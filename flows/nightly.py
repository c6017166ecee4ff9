"""The nightly flow."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.night import run_night
from flows.site import dask_task_runner
from tasks.plan import Selection


@flow(
    name="nightly",
    task_runner=dask_task_runner(),
    persist_result=False,
)
def nightly(root: str) -> State[Any]:
    """Process what is new in a trial; a Retry also runs what failed or was refused.

    Parameters
    ----------
    root
        Folder of the trial, with trial.toml and subjects.csv.
    """
    if (flow_run.run_count or 1) > 1:
        return run_night(root, Selection("unsettled"), why="retry of a night")
    return run_night(root, Selection("new"), why="night")
