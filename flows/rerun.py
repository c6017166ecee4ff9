"""The flow that runs chosen visits again."""

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.forms import Id, Reason, Root, with_form
from flows.night import run_night
from flows.reconcile import tells_its_end
from flows.site import dask_task_runner
from tasks.plan import Selection


@tells_its_end
@with_form
@flow(name="rerun", task_runner=dask_task_runner(), persist_result=False)
def rerun(
    root: Root,
    reason: Reason,
    subject_ids: Annotated[
        list[Id],
        Field(description="Subjects to run, as subjects.csv spells them. None: all."),
    ] = [],  # noqa: B006 (nobody changes it, and the form's default is what it shows)
    visit_ids: Annotated[
        list[Id],
        Field(
            description="Visits to run, such as V1. None: all. Neither subjects nor visits: what failed or "
            "was refused.",
        ),
    ] = [],  # noqa: B006
) -> State[Any]:
    """Run visits again: those named, done or not; with none named all that failed or were refused.

    What is published stays in history/, with the reason.
    """
    if subject_ids or visit_ids:
        chosen = Selection("chosen", frozenset(subject_ids), frozenset(visit_ids))
        return run_night(root, chosen, why=f"rerun: {reason}")
    return run_night(root, Selection("unsettled"), why=f"rerun: {reason}")
