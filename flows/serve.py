"""A trial served: Prefect server with UI, the nightly schedule, and runs on demand."""

from pathlib import Path
from typing import Any, cast

import prefect
from prefect import Flow
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.nightly import nightly
from flows.rerun import rerun
from flows.server import prefect_server
from storage.trial import Trial, open_trial


def serve_trial(root: Path, port: int) -> None:
    """Serve one trial until interrupted.

    The deployments ``nightly`` and ``rerun`` carry the trial's name; a run of theirs that failed can be
    retried in the UI. Runs wait for each other: a limit of one keeps two nights apart.
    """
    trial = open_trial(root)
    schedule = trial.config.schedule
    with prefect_server(ui_port=port):
        prefect.serve(
            _deployment(nightly, trial, Cron(schedule.cron, timezone=schedule.timezone)),
            _deployment(rerun, trial, None),
            limit=1,
        )


def _deployment(flow: Flow[..., Any], trial: Trial, schedule: Schedule | None) -> RunnerDeployment:
    made = flow.to_deployment(
        name=trial.config.trial_id,
        parameters={"root": str(trial.root)},
        schedule=schedule,
        tags=["cmrtrials", trial.config.trial_id],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast("RunnerDeployment", made)  # it is a coroutine only where an event loop runs
