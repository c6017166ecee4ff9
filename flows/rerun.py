"""The flow that runs chosen visits again."""

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.night import run_night
from flows.site import dask_task_runner
from tasks.plan import Selection

# A form of the Prefect UI shows titles and descriptions, and refuses what does not fit.
Root = Annotated[
    str, Field(title="Folder of the trial", description="Filled in by `cmrtrials serve`; leave it.")
]
Reason = Annotated[
    str,
    Field(
        title="Reason",
        min_length=3,
        description="Why, in a few words, and who asks; it is kept with the results and in the audit log.",
    ),
]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Subject or visit, as subjects.csv spells it."""


@flow(name="rerun", task_runner=dask_task_runner(), persist_result=False)
def rerun(
    root: Root,
    reason: Reason,
    subject_ids: Annotated[
        list[Id],
        Field(title="Subjects", description="Subjects to run, as subjects.csv spells them. None: all."),
    ] = [],  # noqa: B006 (nobody changes it, and the form's default is what it shows)
    visit_ids: Annotated[
        list[Id],
        Field(
            title="Visits",
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
