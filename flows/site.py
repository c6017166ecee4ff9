"""Settings of the machine or cluster: what changes only how a night runs, never its results."""

import os
from typing import Any, cast

import dask.config
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner
from prefect_dask.task_runners import DaskTaskRunner
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.errors import SettingsError


class SiteSettings(BaseSettings):
    """Read from environment variables that begin with ``CMR_``."""

    model_config = SettingsConfigDict(env_prefix="CMR_", frozen=True)

    dask_scheduler: str | None = None
    """Address of a Dask scheduler, as in ``tcp://host:8786``; without it a night starts a cluster."""
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Worker processes of a night's own cluster."""
    visit_minutes: float = Field(default=30.0, gt=0)
    """Longest time that the stages of one visit may compute, in all [min]; then its worker is restarted."""
    reports_url: str | None = None
    """Where browsers find the pages of trials, as in ``http://127.0.0.1:4201``; `flows.serve` sets it."""
    notify_url: str | None = None
    """Webhook that is told of nights that failed or are late; none where it is not set."""
    notify_late_minutes: float = Field(default=30.0, ge=10 / 60)
    """Time that a night may be due without beginning before that is told [min]."""
    notify_long_minutes: float = Field(default=480.0, ge=10 / 60)
    """Time that a night may run before that is told [min]."""


def site_settings() -> SiteSettings:
    """Read the settings.

    Raises
    ------
    SettingsError
        When an environment variable has a value that cannot be used.
    """
    try:
        return SiteSettings()
    except ValidationError as error:
        wrong = "; ".join(
            f"CMR_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()
        )
        raise SettingsError(f"environment: {wrong}") from None


def dask_task_runner(settings: SiteSettings | None = None) -> TaskRunner[PrefectFuture[Any]]:
    """Connect to the site's Dask cluster, or start one for the night when its first task is submitted.

    Raises
    ------
    SettingsError
        When an environment variable has a value that cannot be used.
    """
    site = settings or site_settings()
    if site.dask_scheduler:
        runner = DaskTaskRunner(address=site.dask_scheduler)
    else:
        # On a machine that is short of processor time a worker falls silent though it lives, and Dask parts
        # with it for good. Its nanny knows whether it lives, and `tasks.fanout` whether it takes too long.
        dask.config.set(
            {
                "distributed.scheduler.worker-ttl": None,
                # Samples of each worker's stack, a hundred a second, kept for hours.
                "distributed.worker.profile.enabled": False,
                # Dask lets glibc return memory at every chance: 1.5 million page faults a visit, and half of
                # a stage's processor time. A worker that computes image after image needs it again at once.
                "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
                "distributed.comm.timeouts.connect": "180s",
                "distributed.comm.timeouts.tcp": "600s",
            }
        )
        runner = DaskTaskRunner(
            cluster_class="distributed.LocalCluster",
            cluster_kwargs={
                "n_workers": site.workers,
                # One thread a process: a visit that brings its worker down takes no other visit with it.
                "threads_per_worker": 1,
                "resources": {"CPU": 1},
                "preload": ["flows.worker"],
                # Who was on a worker that died is settled by `tasks.fanout`, not by more deaths.
                "scheduler_kwargs": {"allowed_failures": 0},
                "host": "127.0.0.1",
                # Without these two, HTTP servers of scheduler and workers listen on all interfaces.
                "dashboard_address": "127.0.0.1:0",
                "worker_dashboard_address": "127.0.0.1:0",
            },
        )
    return cast("TaskRunner[PrefectFuture[Any]]", runner)
