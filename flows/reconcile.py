"""Runs of which Prefect believes that they still run, though their process is gone.

A run is marked in its trial from its begin until the server has been told how it ended. A mark that nobody
holds is that of a run that died, or of one that could not tell: the next run tells in its place.
"""

import logging
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, Scheduled

from storage.config import CONFIG_FILE
from storage.place import Place
from storage.running import Mark, dead_nights, forget_run, mark_running, running_nights
from storage.trial import Trial

AnyFlow = TypeVar("AnyFlow", bound=Flow[..., Any])

GONE = "its process is gone"

_marks: dict[str, Mark] = {}
"""Marks of this process's runs."""


def tells_its_end(flow: AnyFlow) -> AnyFlow:
    """Mark a flow's runs from when the server knows that they run until it knows how they ended.

    A server that is gone by then cannot be told: Prefect calls nothing, and the mark stays.
    """
    flow.on_running(set_mark)
    for register in (flow.on_completion, flow.on_failure, flow.on_crashed, flow.on_cancellation):
        register(remove_mark)
    return flow


def keep_marked(root: Path, run_id: str) -> None:
    """Mark a run as alive until `remove_mark`, or the end of this process, where that is not done."""
    if run_id not in _marks:
        _marks[run_id] = mark_running(root, run_id)


def set_mark(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's)
    """Mark a run that begins, where it has a trial."""
    root = Path(flow_run.parameters["root"])
    if (root / CONFIG_FILE).is_file():
        keep_marked(root, str(flow_run.id))


def remove_mark(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 (Prefect's)
    """Take off the mark of a run of this process; Prefect calls it in the runner's process, too."""
    mark = _marks.pop(str(flow_run.id), None)
    if mark is not None:
        mark.remove()


def settle_lost_runs(client: SyncPrefectClient, trial: Trial, tag: str) -> None:
    """Settle the runs of a trial that a runner left behind, before another takes its place.

    What it had taken on but not begun is due again, what it was cancelling is cancelled, and what died in
    its hands has crashed. A run that goes on without it, cancelled or not, bears a mark and keeps its state.
    """
    crash_dead_runs(trial.root, logging.getLogger(__name__))
    of_trial = DeploymentFilter(tags=DeploymentFilterTags(all_=[tag]))
    for lost, settled in (
        (StateType.PENDING, Scheduled),
        (StateType.CANCELLING, Cancelled),
        (StateType.RUNNING, Crashed),  # dead before it had its mark
    ):
        in_state = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[lost])))
        runs = client.read_flow_runs(flow_run_filter=in_state, deployment_filter=of_trial)
        alive = running_nights(trial.root)  # after the question: what is Running by then has its mark
        for run in runs:
            if str(run.id) not in alive:
                client.set_flow_run_state(run.id, settled(message=GONE), force=True)


def crash_dead_runs(root: Place, log: "logging.Logger | logging.LoggerAdapter[logging.Logger]") -> None:
    """Set flow runs of a trial that died, what-ifs too, and their task runs, to Crashed; or to Cancelled.

    A process that is killed tells nobody, and its runner may have been killed with it: without this its run
    stays Running for ever. A run that this server does not know keeps its mark for a night on its own server.
    """
    with get_client(sync_client=True) as client:
        for run_id in dead_nights(root):
            try:
                run = client.read_flow_run(UUID(run_id))
            except (ObjectNotFound, ValueError):  # another server's, or no run's mark at all
                continue
            if run.state is None or not run.state.is_final():
                settled = Cancelled if run.state is not None and run.state.is_cancelling() else Crashed
                log.warning("run %s: %s, set to %s", run.name, GONE, settled.__name__)
                client.set_flow_run_state(run.id, settled(message=GONE), force=True)
            _crash_tasks(client, run.id)
            forget_run(root, run_id)


def _crash_tasks(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    offset = 0
    while page := client.read_task_runs(flow_run_filter=of_run, offset=offset):
        for run in page:
            if run.state is None or not run.state.is_final():
                client.set_task_run_state(run.id, Crashed(message=GONE), force=True)
        offset += len(page)
