"""Submission of Prefect tasks to Dask by resource, and their outcomes as they end."""

import queue
import time
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import httpx
from dask.base import annotate
from distributed import Future, Scheduler
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
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
    seen_s: float | None = None
    """When the cluster was first seen to execute it."""
    is_overdue: bool = False


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
        self._worked_s = time.monotonic()
        self._has_begun = False

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
            When no worker offers the resource: Dask would wait for one for ever.
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
        try:
            keys = {run.future.wrapped_future.key for run in runs}
            workers = {worker for key, (worker, _) in self._on_workers().items() if key in keys}
            self._runner.client.cancel([run.future.wrapped_future for run in runs], force=True)
            self._restart(workers)
            for run in runs:
                _record(run.future, Cancelled(message="the night was stopped"))
        except Exception:  # noqa: BLE001 (cluster or server may have gone first)
            get_run_logger().warning("what was under way could not be stopped everywhere", exc_info=True)

    def _fill(self) -> None:
        """Give the cluster what it will execute next."""
        room = PER_SLOT * sum(self._offered.values())
        while self._waiting and len(self._pending) < room:
            self._send(self._waiting.popleft())
        if not self._pending and self._suspects:
            self._send(replace(self._suspects.pop(0), is_alone=True))

    def _send(self, submission: _Submission) -> None:
        with annotate(resources={submission.resource: 1}):
            future = cast("PrefectDaskFuture[Any]", submission.task.submit(*submission.arguments))
        self._pending[future.wrapped_future] = _Run(submission, future)
        future.wrapped_future.add_done_callback(self._ended.put)

    def _connect(self) -> None:
        client = self._runner.client
        client.wait_for_workers(1, timeout=60)
        for worker in client.scheduler_info(n_workers=-1)["workers"].values():
            for name, count in worker["resources"].items():
                self._offered[name] = self._offered.get(name, 0) + int(count)
        if "GPU" not in self._offered:
            get_run_logger().info("no GPU worker in the cluster: segmentation runs on CPU workers")

    def _next_ended(self) -> Future:
        """Wait for a task run to end, and end those that take too long."""
        while True:
            if time.monotonic() - self._looked_s >= LOOK_S:
                self._stop_overdue()
                self._looked_s = time.monotonic()
            try:
                done = self._ended.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if done in self._pending:
                return done

    def _stop_overdue(self) -> None:
        """Stop task runs beyond their limit with the processes that execute them, and a night without any."""
        now_s = time.monotonic()
        on_workers = self._on_workers()
        if on_workers or self._runner.client.scheduler_info(n_workers=0)["n_workers"]:
            self._worked_s = now_s
        elif now_s - self._worked_s > WORKERLESS_S:
            raise NoWorkerError(f"the Dask cluster has had no worker for {WORKERLESS_S:.0f} s; run again")
        for future, run in self._pending.items():
            worker, is_executing = on_workers.get(future.key, ("", False))
            if not is_executing or run.is_overdue:
                continue
            if run.seen_s is None:
                run.seen_s = now_s
            elif now_s - run.seen_s > run.submission.limit_s:
                run.is_overdue = True
                get_run_logger().warning("takes too long, its worker is restarted: %s", run.submission.key)
                self._runner.client.cancel([future], force=True)
                self._restart({worker})

    def _on_workers(self) -> dict[Hashable, tuple[str, bool]]:
        """Worker of each task run that the scheduler has given to one, and whether it executes."""
        answer: dict[Hashable, tuple[str, bool]] = self._runner.client.run_on_scheduler(_assignments)
        return answer

    def _restart(self, workers: set[str]) -> None:
        if workers:
            # A worker that is gone already is what is wanted.
            with suppress(KeyError):
                self._runner.client.restart_workers(sorted(workers), timeout=RESTART_S, raise_for_error=False)

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


def _assignments(dask_scheduler: Scheduler) -> dict[Hashable, tuple[str, bool]]:
    """Look at the scheduler from within: which worker has which task, and whether it is executing it.

    What a worker executes it tells with its heartbeat, which stops where code holds the interpreter.
    """
    assigned: dict[Hashable, tuple[str, bool]] = {}
    for address, worker in dask_scheduler.workers.items():
        is_silent = time.time() - worker.last_seen > SILENT_S
        for task in worker.processing:
            assigned[task.key] = (address, is_silent or task in worker.executing)
    return assigned


def _record(future: PrefectDaskFuture[Any], state: State[Any]) -> None:
    """Tell Prefect how a task run ended whose worker cannot tell."""
    with get_client(sync_client=True) as client:
        try:
            client.set_task_run_state(future.task_run_id, state, force=True)
        except PrefectHTTPStatusError as error:
            # The worker died before it had told the server of the task run.
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
