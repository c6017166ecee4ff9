"""Submission of Prefect tasks to Dask by resource, and their outcomes as they end."""

import os
import queue
import time
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import httpx
from dask.base import annotate
from distributed import Future, Scheduler
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import SettingsContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Crashed, Failed
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

Resource = Literal["CPU", "GPU"]

PER_SLOT = 2
"""Task runs given to the cluster for each that it can execute: one works, the next is ready."""
LOOK_S = 2.0
"""How often the cluster is asked what it executes [s]."""
SILENT_S = 15.0
"""A worker not heard of for so long executes what it was given: code may hold its interpreter [s]."""
WORKERLESS_S = 180.0
"""Longest time without any worker; one that died is back in seconds, on a busy machine in minutes [s]."""
ARRIVE_S = 60.0
"""Longest wait for the first worker [s]."""
RESTART_S = 10.0
"""Longest wait for a worker's process to end; its nanny kills it before [s]."""


class NoWorkerError(RuntimeError):
    """No worker of the cluster offers a resource that the night needs."""


class OverdueError(RuntimeError):
    """A task run was stopped because it took longer than it may."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task run gave no value."""

    kind: Literal["error", "crashed", "overdue"]
    """``error``: its code raised, and will again; ``crashed``: its worker died, and it may pass next time;
    ``overdue``: it was stopped at its time limit."""
    error: BaseException
    """What was raised."""


@dataclass(frozen=True, slots=True)
class _Submission:
    """What was asked of the cluster, so that it can be asked again."""

    key: Hashable
    task: Task[..., Any]
    resource: Resource
    arguments: tuple[Any, ...]
    limit_s: float
    is_alone: bool
    """Whether nothing else was under way when it was submitted."""


@dataclass(slots=True)
class _Run:
    """A submission that the cluster has."""

    submission: _Submission
    future: PrefectDaskFuture[Any]
    seen: tuple[str, float] | None = None
    """Worker that was seen to execute it, and since when."""
    is_overdue: bool = False


@dataclass(frozen=True, slots=True)
class _Look:
    """What the scheduler knows of its workers."""

    offered: dict[str, int]
    """How often each resource is offered."""
    assigned: dict[Hashable, tuple[str, bool]]
    """Worker of each task that was given to one, and whether it executes it."""


class _SettingsAtHome(SettingsContext):
    """Settings of a flow that do not travel with its task runs.

    To write Prefect's settings down takes 23 ms of processor time a submission, and to build them again 41 ms
    of the worker, which has the same ones from its environment: two visits a second would need half a core.
    """

    def serialize(self, include_secrets: bool = True) -> dict[str, Any]:  # noqa: ARG002 (as Prefect's)
        """Give nothing: a worker that is sent no settings uses its own."""
        return {}


class Fanout:
    """The task runs of one night that are under way on the cluster.

    Iterate to receive ``(key, value or Failure)`` in the order in which task runs end; more may be submitted
    while iterating, and goes first: it ends what was begun. The cluster is given only as many task runs as it
    will execute next, so that thousands of visits cost it nothing while they wait. A Dask future is released
    as soon as its outcome is taken, so that the death of a worker does not run finished tasks again.

    A dying worker takes all it had been given with it, and Dask cannot say which task run was to blame. So
    each of these runs once more, alone, when all others have ended: the innocent ones end well, and what
    brings down a worker again is a failure. A task run that takes longer than its limit ends with its
    worker's process, whatever it is doing; what else that worker had is treated as after a death.
    """

    def __init__(self, runner: DaskTaskRunner) -> None:
        self._runner = runner
        self._waiting: deque[_Submission] = deque()
        self._pending: dict[Future, _Run] = {}
        self._suspects: list[_Submission] = []
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._offered: dict[str, int] = {}
        self._looked_s = time.monotonic()
        self._offered_s: dict[Resource, float] = {}
        self._has_begun = False
        self._has_settings = False

    def submit(
        self, key: Hashable, task: Task[..., Any], resource: Resource, *args: Any, limit_s: float
    ) -> None:
        """Ask for a task run on a worker that offers a resource; without a GPU worker on a CPU worker.

        Parameters
        ----------
        key
            Names the outcome.
        task, args
            What runs.
        resource
            What its worker must offer.
        limit_s
            Time after which it is stopped, counted from when a worker is seen to execute it [s].

        Raises
        ------
        NoWorkerError
            When no worker offers the resource, or there is none at all: Dask would wait for one for ever.
        """
        if not self._offered:
            self._connect()
        if resource == "GPU" and "GPU" not in self._offered:
            resource = "CPU"
        if resource not in self._offered:
            offered = ", ".join(sorted(self._offered)) or "none"
            raise NoWorkerError(
                f"no Dask worker offers the resource {resource} (offered: {offered}); "
                f'start workers with: dask worker ADDRESS --nthreads 1 --resources "{resource}=1"'
            )
        submission = _Submission(key, task, resource, args, limit_s, is_alone=False)
        if self._has_begun:
            self._waiting.appendleft(submission)
        else:
            self._waiting.append(submission)

    def __iter__(self) -> Iterator[tuple[Any, Any | Failure]]:
        """Give outcomes as they come.

        Raises
        ------
        NoWorkerError
            When the cluster has lost all its workers and no other comes.
        """
        self._has_begun = True
        while self._waiting or self._pending or self._suspects:
            self._fill()
            done = self._next_ended()
            run = self._pending.pop(done)
            outcome = self._take(run)
            done.release()
            submission = run.submission
            if isinstance(outcome, Failure) and outcome.kind == "crashed" and not submission.is_alone:
                get_run_logger().warning("its worker died, runs again alone: %s", submission.key)
                self._suspects.append(submission)
            else:
                yield submission.key, outcome

    def abandon(self) -> None:
        """Stop what is under way, wherever it executes: the night is over before its time.

        What cannot be reached any more is told to the log alone: why the night ends is the caller's to say.
        """
        self._waiting.clear()
        self._suspects.clear()
        runs, self._pending = list(self._pending.values()), {}
        if not runs:
            return
        keys = {run.future.wrapped_future.key for run in runs}
        try:
            workers = {worker for key, (worker, _) in self._look().assigned.items() if key in keys}
            self._runner.client.cancel([run.future.wrapped_future for run in runs], force=True)
            self._restart(workers)
        except Exception:  # noqa: BLE001 (the cluster may have gone first)
            get_run_logger().warning("what was under way could not be stopped everywhere", exc_info=True)
        # Last, or a worker that still lives says afterwards that it runs.
        for run in runs:
            try:
                _record(run.future, Cancelled(message="the night was stopped"))
            except Exception:  # noqa: BLE001 (and the server too)
                get_run_logger().warning("the Prefect server does not hear that the night was stopped")
                break

    def _fill(self) -> None:
        """Give the cluster what it will execute next."""
        room = PER_SLOT * sum(self._offered.values())
        while self._waiting and len(self._pending) < room:
            self._send(self._waiting.popleft())
        if not self._pending and self._suspects:
            self._send(replace(self._suspects.pop(0), is_alone=True))

    def _send(self, submission: _Submission) -> None:
        with annotate(resources={submission.resource: 1}), self._settings():
            future = cast("PrefectDaskFuture[Any]", submission.task.submit(*submission.arguments))
        self._pending[future.wrapped_future] = _Run(submission, future)
        future.wrapped_future.add_done_callback(self._ended.put)

    def _settings(self) -> AbstractContextManager[object]:
        """Leave out Prefect's settings where workers have what they need of them."""
        here = SettingsContext.get()
        if not self._has_settings or here is None:
            return nullcontext()
        return _SettingsAtHome.model_construct(profile=here.profile, settings=here.settings)

    def _connect(self) -> None:
        try:
            self._runner.client.wait_for_workers(1, timeout=ARRIVE_S)
        except TimeoutError:
            raise NoWorkerError(
                f"the Dask cluster has no worker, and none came within {ARRIVE_S:.0f} s; "
                f'start workers with: dask worker ADDRESS --nthreads 1 --resources "CPU=1"'
            ) from None
        self._offered = self._look().offered
        # Of a worker with another server, or with none, Prefect would not hear.
        urls = self._runner.client.run(os.getenv, PREFECT_API_URL.name).values()
        self._has_settings = all(url == PREFECT_API_URL.value() for url in urls)
        with suppress(KeyError):  # a scheduler started without it
            # Its page /status needs bokeh, which is not among the packages; this one is always there.
            link = self._runner.client.dashboard_link.replace("/status", "/info/main/workers.html")
            get_run_logger().info("Dask dashboard: %s", link)
        if "GPU" not in self._offered:
            get_run_logger().info("no GPU worker in the cluster: segmentation runs on CPU workers")

    def _next_ended(self) -> Future:
        """Wait for a task run to end, and end those that take too long."""
        while True:
            if time.monotonic() - self._looked_s >= LOOK_S:
                self._supervise()
                self._looked_s = time.monotonic()
            try:
                done = self._ended.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if done in self._pending:
                return done

    def _supervise(self) -> None:
        """Stop what takes too long, and wait for ever for no worker."""
        look = self._look()
        self._offered = look.offered or self._offered
        for future, run in list(self._pending.items()):
            self._check_worker(future, run, look.offered)
            worker, is_executing = look.assigned.get(future.key, ("", False))
            if not is_executing:
                run.seen = None
            elif run.seen is None or run.seen[0] != worker:
                run.seen = (worker, time.monotonic())
            elif time.monotonic() - run.seen[1] > run.submission.limit_s and not run.is_overdue:
                run.is_overdue = True
                get_run_logger().warning("takes too long, its worker is restarted: %s", run.submission.key)
                self._runner.client.cancel([future], force=True)
                self._restart({worker})

    def _check_worker(self, future: Future, run: _Run, offered: dict[str, int]) -> None:
        """See that a worker is there that a task run may use: GPU work goes to CPU workers in the end.

        Raises
        ------
        NoWorkerError
            When there has been none for too long.
        """
        resource, now_s = run.submission.resource, time.monotonic()
        if resource in offered:
            self._offered_s[resource] = now_s
        elif now_s - self._offered_s.setdefault(resource, now_s) > WORKERLESS_S:
            if resource == "CPU" or "CPU" not in offered:
                raise NoWorkerError(
                    f"the Dask cluster has had no worker with the resource {resource} for "
                    f"{WORKERLESS_S:.0f} s; run again when it has"
                )
            get_run_logger().warning("its GPU worker is gone, runs on a CPU worker: %s", run.submission.key)
            del self._pending[future]
            self._runner.client.cancel([future], force=True)
            _record(run.future, Cancelled(message="its GPU worker is gone"))
            self._send(replace(run.submission, resource="CPU"))

    def _look(self) -> _Look:
        look: _Look = self._runner.client.run_on_scheduler(_look)
        return look

    def _restart(self, workers: set[str]) -> None:
        """End the processes of workers; those that have no nanny to start them again are given up."""
        client = self._runner.client
        known = client.scheduler_info(n_workers=-1)["workers"]
        with_nanny = [worker for worker in sorted(workers) if worker in known and known[worker]["nanny"]]
        if with_nanny:
            with suppress(KeyError):  # gone meanwhile, which is what is wanted
                client.restart_workers(with_nanny, timeout=RESTART_S, raise_for_error=False)
        for worker in sorted(workers.intersection(known).difference(with_nanny)):
            get_run_logger().warning("a worker without nanny is given up: start workers with their nanny")
            client.run_on_scheduler(_give_up, worker=worker)

    def _take(self, run: _Run) -> object:
        if run.is_overdue:
            minutes = run.submission.limit_s / 60
            error = OverdueError(f"stopped after {minutes:.3g} minutes, its limit")
            _record(run.future, Failed(name="TimedOut", message=str(error)))
            return Failure("overdue", error)
        lost = run.future.wrapped_future.exception()
        if lost is not None:
            # Without this the task run stays Running for ever.
            _record(run.future, Crashed(message="its Dask worker was killed"))
            return Failure("crashed", lost)
        state = run.future.wrapped_future.result()
        value = state.result(raise_on_failure=False)
        if state.is_completed():
            return value
        return Failure("crashed" if state.is_crashed() else "error", value)


def _look(dask_scheduler: Scheduler) -> _Look:
    """Look at the scheduler from within.

    What a worker executes it tells with its heartbeat, which stops where code holds the interpreter: of a
    silent worker that told nothing, the task that it was given first.
    """
    offered: dict[str, int] = {}
    assigned: dict[Hashable, tuple[str, bool]] = {}
    for address, worker in dask_scheduler.workers.items():
        for name, count in worker.resources.items():
            offered[name] = offered.get(name, 0) + int(count)
        executing = set(worker.executing).intersection(worker.processing)
        if not executing and time.time() - worker.last_seen > SILENT_S:
            executing = set(list(worker.processing)[:1])
        for task in worker.processing:
            assigned[task.key] = (address, task in executing)
    return _Look(offered, assigned)


async def _give_up(dask_scheduler: Scheduler, worker: str) -> None:
    """Part with a worker that cannot be restarted."""
    await dask_scheduler.remove_worker(worker, stimulus_id="cmrtrials-overdue")


def _record(future: PrefectDaskFuture[Any], state: State[Any]) -> None:
    """Tell Prefect how a task run ended whose worker cannot tell."""
    with get_client(sync_client=True) as client:
        try:
            client.set_task_run_state(future.task_run_id, state, force=True)
        except PrefectHTTPStatusError as error:
            # The worker died before it had told the server of the task run.
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
