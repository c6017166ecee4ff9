"""Submission of Prefect tasks to Dask by resource, and their outcomes as they end."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import httpx
from dask.base import annotate
from distributed import as_completed
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.states import Crashed
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

Resource = Literal["CPU", "GPU"]


class NoWorkerError(RuntimeError):
    """No worker of the cluster offers a resource that the night needs."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task run gave no value."""

    kind: Literal["error", "crashed"]
    """``error``: its code raised, and will again; ``crashed``: its worker died, and it may pass next time."""
    error: BaseException
    """What was raised."""


@dataclass(frozen=True, slots=True)
class _Submission:
    """What was asked of the cluster, so that it can be asked again."""

    key: Hashable
    task: Task[..., Any]
    resource: Resource
    arguments: tuple[Any, ...]
    is_alone: bool
    """Whether nothing else was under way when it was submitted."""


class Fanout:
    """The task runs of one night that are under way on the cluster.

    Iterate to receive ``(key, value or Failure)`` in the order in which task runs end; more may be submitted
    while iterating. The Dask future is released as soon as its outcome is taken, so that the death of a
    worker does not run finished tasks again.

    A dying worker takes all it had been given with it, and Dask cannot say which task run was to blame. So
    each of these runs once more, alone, when all others have ended: the innocent ones end well, and what
    brings down a worker again is a failure.
    """

    def __init__(self, runner: DaskTaskRunner) -> None:
        self._runner = runner
        self._pending: dict[Any, tuple[_Submission, PrefectDaskFuture[Any]]] = {}
        self._suspects: list[_Submission] = []
        self._completed: Any = None
        self._offered: frozenset[str] = frozenset()

    def submit(self, key: Hashable, task: Task[..., Any], resource: Resource, *args: Any) -> None:
        """Submit a task run to the workers that offer a resource; without a GPU worker to a CPU worker.

        Raises
        ------
        NoWorkerError
            When no worker offers the resource: Dask would wait for one for ever.
        """
        if self._completed is None:
            self._connect()
        if resource == "GPU" and "GPU" not in self._offered:
            resource = "CPU"
        if resource not in self._offered:
            offered = ", ".join(sorted(self._offered)) or "none"
            raise NoWorkerError(
                f"no Dask worker offers the resource {resource} (offered: {offered}); "
                f'start workers with: dask worker ADDRESS --nthreads 1 --resources "{resource}=1"'
            )
        self._send(_Submission(key, task, resource, args, is_alone=False))

    def __iter__(self) -> Iterator[tuple[Any, Any | Failure]]:
        while self._pending or self._suspects:
            if not self._pending:
                self._send(replace(self._suspects.pop(0), is_alone=True))
            done = next(self._completed)
            submission, future = self._pending.pop(done)
            outcome = self._take(future)
            done.release()
            if isinstance(outcome, Failure) and outcome.kind == "crashed" and not submission.is_alone:
                get_run_logger().warning("its worker died, runs again alone: %s", submission.key)
                self._suspects.append(submission)
            else:
                yield submission.key, outcome

    def _send(self, submission: _Submission) -> None:
        with annotate(resources={submission.resource: 1}):
            future = cast("PrefectDaskFuture[Any]", submission.task.submit(*submission.arguments))
        self._pending[future.wrapped_future] = (submission, future)
        self._completed.add(future.wrapped_future)

    def _connect(self) -> None:
        client = self._runner.client
        client.wait_for_workers(1, timeout=60)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self._offered = frozenset(name for worker in workers for name in worker["resources"])
        self._completed = as_completed([], loop=client.loop)
        if "GPU" not in self._offered:
            get_run_logger().info("no GPU worker in the cluster: segmentation runs on CPU workers")

    def _take(self, future: PrefectDaskFuture[Any]) -> object:
        lost = future.wrapped_future.exception()
        if lost is not None:
            self._record_crash(future)
            return Failure("crashed", lost)
        state = future.wrapped_future.result()
        value = state.result(raise_on_failure=False)
        if state.is_completed():
            return value
        return Failure("crashed" if state.is_crashed() else "error", value)

    def _record_crash(self, future: PrefectDaskFuture[Any]) -> None:
        """Tell Prefect that the worker died: without this the task run stays Running for ever."""
        with get_client(sync_client=True) as client:
            try:
                client.set_task_run_state(
                    future.task_run_id, Crashed(message="its Dask worker was killed"), force=True
                )
            except PrefectHTTPStatusError as error:
                # The worker died before it had told the server of the task run.
                if error.response.status_code != httpx.codes.NOT_FOUND:
                    raise
