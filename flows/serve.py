"""Trials served: Prefect server with UI, the nightly schedules, runs on demand, the pages of reports."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import typer
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType

from flows.artifacts import REPORTS, slug
from flows.errors import SettingsError
from flows.nightly import nightly
from flows.notify import notify
from flows.reconcile import settle_lost_runs
from flows.reports_server import reports_server
from flows.rerun import rerun
from flows.server import prefect_server
from flows.site import site_settings
from flows.whatif import whatif
from storage.trial import Trial, open_trial


def serve_trials(roots: Sequence[Path], port: int) -> None:
    """Serve trials until interrupted.

    The deployments ``nightly``, ``rerun`` and ``whatif`` of each carry its name and are tagged by trial and
    site; a run of theirs that failed can be retried in the UI. Runs wait for each other, those of other
    trials too: a night has the machine for itself.

    Raises
    ------
    SettingsError
        When two trials have one name.
    """
    trials = [open_trial(root) for root in roots]
    _check_names(trials)
    site = site_settings()
    database = "on that server" if PREFECT_API_URL.value() else _database()
    pages = {trial.config.trial_id: trial.folder / REPORTS for trial in trials}
    with (
        prefect_server(ui_port=port) as api_url,
        reports_server(pages, port + 1) as own_reports_url,
        _environment("CMR_REPORTS_URL", site.reports_url or own_reports_url),
    ):
        with get_client(sync_client=True) as client:
            deployments = [made for trial in trials for made in _deployments(client, trial)]
            for trial in trials:
                settle_lost_runs(client, trial, trial_tag(trial.config.trial_id))
                notify(client, trial.config.trial_id, trial_tag(trial.config.trial_id), site)
        # Paused at the end, nights that fall due meanwhile would be lost; as it is, they run when it is back.
        runner = Runner(limit=1, pause_on_shutdown=False)
        for deployment in deployments:
            runner.add_deployment(deployment)
        _say_where(api_url, own_reports_url, trials, database)
        if asyncio.run(_ended_by_ctrl_c(runner)):
            raise KeyboardInterrupt


async def _ended_by_ctrl_c(runner: Runner) -> bool:
    """Run it; whether Ctrl-C ended it, of which the loop is told: raised just anywhere, it can be lost."""
    running = asyncio.ensure_future(runner.start())
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a script's background
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        return True
    return False


def trial_tag(trial_id: str) -> str:
    """Give the tag of all that belongs to a trial."""
    return f"trial:{trial_id}"


def _check_names(trials: Sequence[Trial]) -> None:
    names: dict[str, Trial] = {}
    for trial in trials:
        other = names.setdefault(slug(trial.config.trial_id), trial)
        if other is not trial:
            message = (
                f"{trial.root} and {other.root} are both trial {trial.config.trial_id!r} or nearly so; "
                f"served together, trials need names (trial_id) that differ in letters or digits"
            )
            raise SettingsError(message)


def _deployments(client: SyncPrefectClient, trial: Trial) -> list[RunnerDeployment]:
    """Make what a trial can be asked for; schedules that were changed in the UI stay as they are."""
    trial_id, schedule = trial.config.trial_id, trial.config.schedule
    sites = sorted({line.site_id for line in trial.plan()})
    # Names the schedule of trial.toml that a deployment last took over.
    version = f"trial.toml: {schedule.cron} {schedule.timezone}"

    def make(flow: Flow[..., Any], **scheduled: Any) -> RunnerDeployment:
        made = flow.to_deployment(
            name=trial_id,
            parameters={"root": str(trial.root)},
            tags=["cmrtrials", trial_tag(trial_id), *(f"site:{site_id}" for site_id in sites)],
            entrypoint_type=EntrypointType.MODULE_PATH,
            **scheduled,
        )
        return cast("RunnerDeployment", made)  # it is a coroutine only where an event loop runs

    standing = _standing(client, f"{nightly.name}/{trial_id}")
    if standing is not None and standing.version == version:
        kept = [
            DeploymentScheduleCreate(
                schedule=one.schedule, active=one.active, parameters=one.parameters, slug=one.slug
            )
            for one in standing.schedules
        ]
        night = make(nightly, version=version, schedules=kept, paused=standing.paused)
    else:
        # A pause holds whatever else changes.
        is_active = (
            standing is None or not standing.schedules or any(one.active for one in standing.schedules)
        )
        cron = Cron(schedule.cron, timezone=schedule.timezone, active=is_active)
        night = make(nightly, version=version, schedule=cron, paused=standing is not None and standing.paused)
    return [night, make(rerun), make(whatif)]


def _standing(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable that flow runs inherit."""
    former = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if former is None:
            del os.environ[name]
        else:
            os.environ[name] = former


def _database() -> str:
    """Say where Prefect keeps what must outlive a restart; never with a password."""
    kind, _, place = (PREFECT_API_DATABASE_CONNECTION_URL.value() or "").partition(":///")
    if not kind.startswith("sqlite"):
        return "in the database of PREFECT_API_DATABASE_CONNECTION_URL"
    is_temporary = Path(place).is_relative_to(tempfile.gettempdir())
    return place + (" (TEMPORARY: set PREFECT_HOME to a folder that lasts)" if is_temporary else "")


def _say_where(api_url: str, reports_url: str, trials: Sequence[Trial], database: str) -> None:
    """Say where to look, and what must be backed up with the trials."""
    typer.echo(f"Prefect UI: {api_url.removesuffix('/api')}")
    for trial in trials:
        schedule = trial.config.schedule
        typer.echo(
            f"trial {trial.config.trial_id}: pages {reports_url}/{trial.config.trial_id}/index.html, "
            f'nights "{schedule.cron}" {schedule.timezone} unless changed in the UI'
        )
    typer.echo(f"history of runs, schedules and automations: {database}")
    typer.echo("Ctrl-C ends it; runs that fall due meanwhile run when it is started again")
