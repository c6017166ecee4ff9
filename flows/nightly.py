"""The nightly flow."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.forms import Root, with_form
from flows.night import run_night
from flows.reconcile import tells_its_end
from flows.site import dask_task_runner
from tasks.plan import Selection


@tells_its_end
@with_form
@flow(
    name="nightly",
    task_runner=dask_task_runner(),
    persist_result=False,
)
def nightly(root: Root) -> State[Any]:
    """Process what is new in a trial; a Retry also runs what failed or was refused."""
    if (flow_run.run_count or 1) > 1:
        return run_night(root, Selection("unsettled"), why="retry of a night")
    return run_night(root, Selection("new"), why="night")
