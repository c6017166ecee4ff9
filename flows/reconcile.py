"""Runs of which Prefect believes that they still run, though their process is gone."""

import logging
from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, Scheduled

from storage.place import Place
from storage.running import dead_nights, forget_run
from storage.trial import Trial

GONE = "its process is gone"


def settle_lost_runs(client: SyncPrefectClient, trial: Trial, tag: str) -> None:
    """Settle the runs of a trial that a runner left behind, before another takes its place.

    What it had taken on but not begun is due again, what it was cancelling is cancelled, and what died in
    its hands has crashed.
    """
    crash_dead_runs(trial.folder, dead_nights(trial.folder), logging.getLogger(__name__))
    of_trial = DeploymentFilter(tags=DeploymentFilterTags(all_=[tag]))
    for lost, settled in ((StateType.PENDING, Scheduled), (StateType.CANCELLING, Cancelled)):
        in_state = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[lost])))
        for run in client.read_flow_runs(flow_run_filter=in_state, deployment_filter=of_trial):
            client.set_flow_run_state(run.id, settled(message=GONE), force=True)


def crash_dead_runs(
    root: Place, run_ids: Sequence[str], log: "logging.Logger | logging.LoggerAdapter[logging.Logger]"
) -> None:
    """Set flow runs of a trial that died, and their task runs, to Crashed.

    A process that is killed tells nobody, and its runner may have been killed with it: without this its run
    stays Running for ever. A run that this server does not know keeps its mark for a night on its own server.
    """
    with get_client(sync_client=True) as client:
        for run_id in run_ids:
            try:
                run = client.read_flow_run(UUID(run_id))
            except (ObjectNotFound, ValueError):  # another server's, or no run's mark at all
                continue
            if run.state is None or not run.state.is_final():
                log.warning("run %s: %s, set to Crashed", run.name, GONE)
                client.set_flow_run_state(run.id, Crashed(message=GONE), force=True)
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
