"""Task runs on a real Dask cluster: values, failures, a killed worker, missing resources."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from uuid import UUID

import pytest
from distributed import LocalCluster, Nanny, Scheduler, SpecCluster
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, SettingsContext
from prefect.runtime import task_run
from prefect.task_runners import TaskRunner
from prefect.testing.utilities import prefect_test_harness
from prefect_dask.task_runners import DaskTaskRunner

from flows.site import SiteSettings, dask_task_runner
from tasks.fanout import PER_SLOT, Failure, Fanout, NoWorkerError, _look

pytestmark = pytest.mark.slow

Answer = TypeVar("Answer")

LIMIT_S = 300.0
"""More than any task here takes, on a busy machine too [s]."""


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """Prefect server with a database of its own; workers find it through the environment."""
    from prefect.settings import PREFECT_API_URL

    with prefect_test_harness(server_startup_timeout=90):
        os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
        yield
        del os.environ["PREFECT_API_URL"]


@pytest.fixture
def cluster(server: None) -> Iterator[str]:  # noqa: ARG001 (before its workers start)
    """Address of a cluster as a night starts one, for each test: a killed worker may not come back."""
    own = cast("DaskTaskRunner", dask_task_runner(SiteSettings(workers=1)))
    with LocalCluster(**own.cluster_kwargs) as started:
        yield started.scheduler_address


@pytest.fixture
def runner(cluster: str) -> TaskRunner[Any]:
    """Task runner on the test's cluster."""
    return cast("TaskRunner[Any]", DaskTaskRunner(address=cluster))


@task(cache_policy=NO_CACHE, persist_result=False)
def double(value: int) -> int:
    """Give twice the value."""
    return 2 * value


@task(cache_policy=NO_CACHE, persist_result=False)
def refuse(reason: str) -> None:
    """Fail as code does that meets what it cannot use."""
    raise ValueError(reason)


@task(name="dies", cache_policy=NO_CACHE, persist_result=False)
def die() -> None:
    """Take the worker process down, once the server knows of the task run."""
    time.sleep(3)
    os.kill(os.getpid(), signal.SIGKILL)


@task(name="hangs", cache_policy=NO_CACHE, persist_result=False)
def hang() -> None:
    """Hold the interpreter as a decoder in C may: no thread or heartbeat of this process gets through."""
    re.match(r"(a+)+$", "a" * 64 + "b")


@task(name="sleeps", cache_policy=NO_CACHE, persist_result=False)
def sleep_for(seconds: float) -> int:
    """Take long without computing."""
    time.sleep(seconds)
    return os.getpid()


@task(name="settings", cache_policy=NO_CACHE, persist_result=False)
def was_sent_settings() -> tuple[bool, str]:
    """Tell whether Prefect's settings came with the task run, and its id."""
    return SettingsContext.__var__.get(None) is not None, str(task_run.id)


def run_in_flow(body: Callable[[Fanout], Answer], runner: TaskRunner[Any]) -> Answer:
    """Give a body of submissions the fan-out of a flow run."""
    answers: list[Answer] = []

    @flow(name="fanout", task_runner=runner, persist_result=False)
    def fan() -> None:
        context = FlowRunContext.get()
        assert context is not None
        assert isinstance(context.task_runner, DaskTaskRunner)
        answers.append(body(Fanout(context.task_runner)))

    fan()
    return answers[0]


def test_values_and_failures_come_back_by_key_and_more_can_be_submitted(runner: TaskRunner[Any]) -> None:
    """A failing task run is an outcome among others; a follow-up is submitted while the rest runs."""

    def body(fanout: Fanout) -> dict[Any, Any]:
        for value in range(3):
            fanout.submit(value, double, "CPU", value, limit_s=LIMIT_S)
        fanout.submit("bad", refuse, "CPU", "cannot use it", limit_s=LIMIT_S)
        outcomes = {}
        for key, outcome in fanout:
            outcomes[key] = outcome
            if key == 2:
                fanout.submit("again", double, "CPU", outcome, limit_s=LIMIT_S)
        return outcomes

    outcomes = run_in_flow(body, runner)
    bad = outcomes.pop("bad")
    assert outcomes == {0: 0, 1: 2, 2: 4, "again": 8}
    assert isinstance(bad, Failure)
    assert bad.kind == "error"
    assert str(bad.error) == "cannot use it"


@pytest.mark.parametrize("has_server", [True, False], ids=["workers know the server", "they do not"])
def test_settings_travel_only_to_workers_that_need_them(
    monkeypatch: pytest.MonkeyPatch, has_server: bool
) -> None:
    """They take most of what a task run costs; but without them a worker must find the same server."""
    if not has_server:
        monkeypatch.delenv("PREFECT_API_URL")

    def body(fanout: Fanout) -> tuple[bool, str]:
        fanout.submit("sent", was_sent_settings, "CPU", limit_s=LIMIT_S)
        ((_, answer),) = fanout
        return cast("tuple[bool, str]", answer)

    was_sent, run_id = run_in_flow(body, dask_task_runner(SiteSettings(workers=1)))
    assert was_sent != has_server
    with get_client(sync_client=True) as client:
        state = client.read_task_run(UUID(run_id)).state
    assert state is not None
    assert state.is_completed()


def test_gpu_work_runs_on_cpu_workers_where_there_is_no_gpu_worker(runner: TaskRunner[Any]) -> None:
    """Dask would wait for a GPU worker for ever."""

    def body(fanout: Fanout) -> list[tuple[Any, Any]]:
        fanout.submit("segment", double, "GPU", 21, limit_s=LIMIT_S)
        return list(fanout)

    assert run_in_flow(body, runner) == [("segment", 42)]


def test_a_cluster_without_any_worker_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its scheduler answers, but nobody will ever compute."""
    monkeypatch.setattr("tasks.fanout.ARRIVE_S", 1.0)
    kwargs = {"n_workers": 0, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    runner: TaskRunner[Any] = DaskTaskRunner(cluster_class="distributed.LocalCluster", cluster_kwargs=kwargs)
    with pytest.raises(NoWorkerError, match=r"no worker, and none came within 1 s; start workers with: dask"):
        run_in_flow(lambda fanout: fanout.submit("first", double, "CPU", 1, limit_s=LIMIT_S), runner)


def test_a_cluster_without_the_resource_is_an_error_that_says_what_to_do() -> None:
    """Workers started without resources would leave the night waiting for ever."""
    runner: TaskRunner[Any] = DaskTaskRunner(
        cluster_kwargs={"n_workers": 1, "dashboard_address": "127.0.0.1:0"}
    )

    def body(fanout: Fanout) -> None:
        with pytest.raises(NoWorkerError, match='--resources "CPU=1"'):
            fanout.submit("intake", double, "CPU", 1, limit_s=LIMIT_S)

    run_in_flow(body, runner)


def test_a_killed_worker_is_a_crash_of_that_task_run_only(runner: TaskRunner[Any]) -> None:
    """Prefect is told, or it would stay Running for ever; what waited on that worker gets its value."""

    def body(fanout: Fanout) -> dict[Any, Any]:
        fanout.submit("poison", die, "CPU", limit_s=LIMIT_S)
        for value in range(3):
            fanout.submit(value, double, "CPU", value, limit_s=LIMIT_S)
        return dict(fanout)

    outcomes = run_in_flow(body, runner)
    poison = outcomes.pop("poison")
    assert outcomes == {0: 0, 1: 2, 2: 4}
    assert poison.kind == "crashed"
    with get_client(sync_client=True) as client:
        dead = [run for run in client.read_task_runs() if run.name.startswith("dies")]
    assert len(dead) == 2  # with the others, and once more alone
    assert all(run.state is not None and run.state.is_crashed() for run in dead)


def test_a_task_run_that_takes_too_long_is_stopped_and_costs_nobody_else(runner: TaskRunner[Any]) -> None:
    """The limit holds for code that sleeps; what waited on the same worker gets its value."""

    def body(fanout: Fanout) -> dict[Any, Any]:
        fanout.submit("slow", sleep_for, "CPU", 600.0, limit_s=4.0)
        for value in range(3):
            fanout.submit(value, double, "CPU", value, limit_s=LIMIT_S)
        return dict(fanout)

    started = time.monotonic()
    outcomes = run_in_flow(body, runner)
    slow = outcomes.pop("slow")
    assert time.monotonic() - started < 120
    assert outcomes == {0: 0, 1: 2, 2: 4}
    assert slow.kind == "overdue"
    assert str(slow.error) == "stopped after 0.0667 minutes, its limit"
    with get_client(sync_client=True) as client:
        (run,) = (run for run in client.read_task_runs() if run.name.startswith("sleeps"))
    assert run.state is not None
    assert (run.state.type.value, run.state.name) == ("FAILED", "TimedOut")


def test_the_limit_holds_for_code_that_lets_nothing_else_run(runner: TaskRunner[Any]) -> None:
    """A regular expression that explodes holds the interpreter: such a worker falls silent."""

    def body(fanout: Fanout) -> dict[Any, Any]:
        fanout.submit("stuck", hang, "CPU", limit_s=4.0)
        fanout.submit("fine", double, "CPU", 1, limit_s=LIMIT_S)
        return dict(fanout)

    outcomes = run_in_flow(body, runner)
    assert outcomes["fine"] == 2
    assert outcomes["stuck"].kind == "overdue"


def test_the_cluster_is_given_only_what_it_will_execute_next_and_follow_ups_first(
    runner: TaskRunner[Any],
) -> None:
    """Thousands of visits wait here, not on the scheduler; a visit that was begun is ended first."""

    def body(fanout: Fanout) -> tuple[list[Any], int]:
        for value in range(12):
            fanout.submit(value, double, "CPU", value, limit_s=LIMIT_S)
        ended, n_most = [], 0
        for key, _ in fanout:
            n_most = max(n_most, len(fanout._pending) + 1)
            ended.append(key)
            if key == 0:
                fanout.submit("follows", double, "CPU", 1, limit_s=LIMIT_S)
        return ended, n_most

    ended, n_most = run_in_flow(body, runner)
    assert n_most == PER_SLOT
    assert len(ended) == 13
    assert ended.index("follows") <= PER_SLOT


def test_an_abandoned_night_leaves_nothing_running(runner: TaskRunner[Any]) -> None:
    """What executes is stopped within seconds, and Prefect knows."""
    worker_s: list[float] = []

    def body(fanout: Fanout) -> None:
        fanout.submit("long", sleep_for, "CPU", 600.0, limit_s=LIMIT_S)
        for value in range(3):
            fanout.submit(value, sleep_for, "CPU", 600.0, limit_s=LIMIT_S)
        fanout._fill()
        while not any(is_executing for _, is_executing in fanout._look().assigned.values()):
            time.sleep(0.2)
        started = time.monotonic()
        fanout.abandon()
        worker_s.append(time.monotonic() - started)
        assert not fanout._look().assigned
        assert list(fanout) == []

    before = time.time()
    run_in_flow(body, runner)
    assert worker_s[0] < 15
    with get_client(sync_client=True) as client:
        runs = [
            run
            for run in client.read_task_runs()
            if run.name.startswith("sleeps") and run.created and run.created.timestamp() > before
        ]
    assert runs
    assert {run.state.name for run in runs if run.state} == {"Cancelled"}


def test_a_night_whose_cluster_lost_its_workers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that Dask parts with for good is not started again, and the rest would wait for ever."""
    monkeypatch.setattr("tasks.fanout.WORKERLESS_S", 4.0)

    def body(fanout: Fanout) -> None:
        client = fanout._runner.client
        for value in range(3):
            fanout.submit(value, double, "CPU", value, limit_s=LIMIT_S)
        client.retire_workers(list(client.scheduler_info()["workers"]))
        with pytest.raises(NoWorkerError, match="no worker with the resource CPU for 4 s"):
            list(fanout)
        fanout.abandon()

    run_in_flow(body, dask_task_runner(SiteSettings(workers=1)))


def test_work_of_a_gpu_worker_that_is_gone_runs_on_a_cpu_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask would wait for another GPU worker for ever, though CPU workers are there."""
    monkeypatch.setattr("tasks.fanout.WORKERLESS_S", 4.0)
    workers = {
        name: {"cls": Nanny, "options": {"nthreads": 1, "resources": {name: 1}, "host": "127.0.0.1"}}
        for name in ("CPU", "GPU")
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    with SpecCluster(workers=workers, scheduler=scheduler) as cluster:
        runner: TaskRunner[Any] = DaskTaskRunner(address=cluster.scheduler_address)

        def body(fanout: Fanout) -> list[tuple[Any, Any]]:
            fanout.submit("first", double, "GPU", 1, limit_s=LIMIT_S)
            outcomes = []
            for outcome in fanout:
                outcomes.append(outcome)
                if outcome[0] == "first":
                    client = fanout._runner.client
                    known = client.scheduler_info()["workers"].items()
                    client.retire_workers([address for address, one in known if "GPU" in one["resources"]])
                    fanout.submit("second", double, "GPU", 2, limit_s=LIMIT_S)
            return outcomes

        assert run_in_flow(body, runner) == [("first", 2), ("second", 4)]


@pytest.mark.parametrize(("silent_s", "expected"), [(0.0, [False, False]), (60.0, [True, False])])
def test_a_silent_worker_executes_what_it_was_given_first(silent_s: float, expected: list[bool]) -> None:
    """Code may hold its interpreter before it could tell; what waits there is not blamed."""

    @dataclass(frozen=True)
    class Task:
        key: str

    processing = {Task("first"): 1.0, Task("second"): 1.0}
    worker = SimpleNamespace(
        resources={"CPU": 1.0}, executing={}, processing=processing, last_seen=time.time() - silent_s
    )
    look = _look(cast("Scheduler", SimpleNamespace(workers={"tcp://one": worker})))
    assert look.offered == {"CPU": 1}
    assert [is_executing for _, is_executing in look.assigned.values()] == expected
