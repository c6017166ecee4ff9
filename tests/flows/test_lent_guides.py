"""A night in which a subject's first visit lends its guides: who waits for whom, and what if it has none."""

import re
import shutil
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from prefect import Task
from prefect.logging import disable_run_logger

from flows.night import Night
from flows.simulate import Recipe, simulate_trial
from storage.arrays import open_store, read_notes, store_path
from storage.config import CONFIG_FILE
from storage.errors import RefusedError, StorageError
from storage.plan import PlannedVisit
from storage.trial import Trial, open_trial
from tasks.digests import stage_digests
from tasks.fanout import Failure, Fanout
from tasks.plan import NightPlan, Selection, VisitJob, plan_night
from tasks.publish import Publisher
from tasks.stage import GuideSource, StageResult, VisitRef
from tests.flows.trials import cut_off, published_row, states
from tests.storage.drawn_uploads import DEMO_CONFIG

VISITS = ("V1", "V2", "V3")
REFUSED = Failure("error", RefusedError("no images"))


@dataclass
class DrawnFanout:
    """Cluster whose task runs end in the order in which they were submitted, some of them badly."""

    failures: dict[tuple[str, str], Failure]
    """What fails, by visit and stage."""
    submitted: list[tuple[str, str]] = field(default_factory=list)
    """Whose task runs were submitted, and which."""
    sources: dict[str, GuideSource | None] = field(default_factory=dict)
    """Whose guides each visit was segmented with."""

    def submit(
        self, key: Hashable, _task: Task[..., Any], _resource: str, *arguments: Any, limit_s: float
    ) -> None:
        """Note a task run."""
        assert limit_s > 0
        name = cast("tuple[str, str]", key)
        self.submitted.append(name)
        if name[1] == "segment":
            self.sources[name[0]] = arguments[-1]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        ended = 0
        while ended < len(self.submitted):
            name = self.submitted[ended]
            ended += 1
            value = StageResult("", 1.0, "cpu") if name[1] != "summarise" else dict.fromkeys(VISITS, ())
            yield name, self.failures.get(name, value)


@dataclass
class DrawnPublisher:
    """Writes nothing, and remembers what it was given."""

    results: dict[str, str] = field(default_factory=dict)
    """Result digests of the visits that were computed."""
    failed: list[str] = field(default_factory=list)
    """Visits that failed or were refused."""
    run_id: str = "run"
    """Of the night."""

    def result(self, job: VisitJob, *_: object, **__: object) -> None:
        """Remember a computed visit."""
        self.results[job.visit.visit_id] = job.digests["quantify"]

    def failure(self, job: VisitJob, *_: object) -> None:
        """Remember a visit without a result."""
        self.failed.append(job.visit.visit_id)

    def summary(self, *_: object) -> None:
        """Renew nothing."""


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Trial in which the first visit of a subject lends its guides."""
    shutil.copy(DEMO_CONFIG, tmp_path / "trial.toml")
    lend_guides(tmp_path)
    return open_trial(tmp_path)


def lend_guides(root: Path) -> None:
    """Let a trial carry guides across visits."""
    file = root / CONFIG_FILE
    text, n_changed = re.subn(
        r'^guide_from = "visit"', 'guide_from = "baseline"', file.read_text(), flags=re.M
    )
    assert n_changed == 1
    file.write_text(text)


def line_of(visit_id: str) -> PlannedVisit:
    """Give a line of the plan; visits are a month apart."""
    return PlannedVisit("S01", visit_id, "01", date(2026, int(visit_id[1:]), 1), 7, None, None, None)


def digests_of(trial: Trial, visit_id: str, source: GuideSource | None = None) -> dict[Any, str]:
    """Give the digests of a visit."""
    return stage_digests(trial.config, line_of(visit_id), [visit_id], None, source)


def source_of(trial: Trial, visit_id: str) -> GuideSource:
    """Give a visit that finds its own guides as the source of others."""
    return GuideSource(visit_id, digests_of(trial, visit_id)["segment"])


def night_of(
    trial: Trial,
    failures: dict[tuple[str, str], Failure],
    *,
    force: bool = False,
    standing: tuple[str, ...] = (),
) -> tuple[DrawnFanout, DrawnPublisher]:
    """Run a night with three new visits of a subject, but for those whose guides stand."""
    first = source_of(trial, "V1")
    jobs = tuple(
        VisitJob(
            VisitRef(str(trial.root), "S01", visit_id, "01"),
            line_of(visit_id),
            line_of(visit_id),
            (),
            digests_of(trial, visit_id, source),
            force,
            source,
            partial(stage_digests, trial.config, line_of(visit_id), [visit_id], None),
        )
        for visit_id, source in zip(VISITS, (None, first, first), strict=True)
        if visit_id not in standing
    )
    lenders = {("S01", visit_id): GuideSource(visit_id, "standing") for visit_id in standing}
    lines = tuple(map(line_of, VISITS))
    plan = NightPlan(lines, None, {}, {}, jobs, (), frozenset(), (), (), {}, (), (), (), (), lenders)
    fanout, publisher = DrawnFanout(failures), DrawnPublisher()
    with disable_run_logger():
        Night(trial, plan, cast("Publisher", publisher), cast("Fanout", fanout), 60.0).run()
    return fanout, publisher


def test_later_visits_wait_for_the_guides_of_the_first(trial: Trial) -> None:
    """Its segmentation has ended before theirs is submitted; intake waits for nobody."""
    fanout, publisher = night_of(trial, {})
    stages = [name for name in fanout.submitted if name[1] in ("intake", "segment")]
    assert stages == [
        *((f"S01/{visit_id}", "intake") for visit_id in VISITS),
        *((f"S01/{visit_id}", "segment") for visit_id in VISITS),
    ]
    assert fanout.submitted.index(("S01/V1", "quantify")) > fanout.submitted.index(("S01/V1", "segment"))
    first = source_of(trial, "V1")
    assert fanout.sources == {"S01/V1": None, "S01/V2": first, "S01/V3": first}
    assert publisher.results["V3"] == digests_of(trial, "V3", first)["quantify"]


@pytest.mark.parametrize("stage", ["intake", "segment"])
def test_the_next_visit_lends_where_the_first_has_no_guides(trial: Trial, stage: str) -> None:
    """Digests say so: they are those of a subject whose first visit is not there."""
    fanout, publisher = night_of(trial, {("S01/V1", stage): REFUSED})
    second = source_of(trial, "V2")
    assert {label: fanout.sources[label] for label in ("S01/V2", "S01/V3")} == {
        "S01/V2": None,
        "S01/V3": second,
    }
    assert publisher.failed == ["V1"]
    assert publisher.results == {
        "V2": digests_of(trial, "V2")["quantify"],
        "V3": digests_of(trial, "V3", second)["quantify"],
    }


def test_the_last_visit_finds_its_own_guides_where_no_other_has_any(trial: Trial) -> None:
    """Two failures, one after the other, leave nobody who waits."""
    failures = {("S01/V1", "segment"): REFUSED, ("S01/V2", "segment"): REFUSED}
    fanout, publisher = night_of(trial, failures)
    assert fanout.sources["S01/V3"] is None
    assert publisher.results == {"V3": digests_of(trial, "V3")["quantify"]}


def test_a_visit_that_failed_before_is_passed_over(trial: Trial) -> None:
    """The second visit fails while the first is still being read; the third must not wait for it."""
    failures = {("S01/V2", "intake"): REFUSED, ("S01/V1", "segment"): REFUSED}
    fanout, publisher = night_of(trial, failures)
    assert fanout.sources["S01/V3"] is None
    assert publisher.results.keys() == {"V3"}


def test_guides_that_stand_are_lent_where_the_first_visit_fails(trial: Trial) -> None:
    """The second visit is not computed tonight: the third takes what stands of it."""
    fanout, _ = night_of(trial, {("S01/V1", "intake"): REFUSED}, standing=("V2",))
    assert fanout.sources == {"S01/V3": GuideSource("V2", "standing")}


def test_a_rerun_that_fails_still_lends_what_stands(trial: Trial) -> None:
    """A dead worker says nothing against guides that were made from the same inputs."""
    first = source_of(trial, "V1")
    store_path(trial.root, "S01", "V1", first.segment_digest).mkdir(parents=True)
    fanout, _ = night_of(trial, {("S01/V1", "segment"): REFUSED}, force=True)
    assert fanout.sources == {"S01/V1": None, "S01/V2": first, "S01/V3": first}


def test_a_failed_measurement_takes_no_guides_away(trial: Trial) -> None:
    """They were made and stand, whatever comes after."""
    fanout, _ = night_of(trial, {("S01/V1", "quantify"): REFUSED})
    assert fanout.sources["S01/V3"] == source_of(trial, "V1")


class LocalFanout:
    """Cluster that runs the real tasks one by one in this process."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Hashable, Task[..., Any], tuple[Any, ...]]] = deque()

    def submit(
        self, key: Hashable, task: Task[..., Any], _resource: str, *arguments: Any, limit_s: float
    ) -> None:
        """Queue a task run."""
        assert limit_s > 0
        self._waiting.append((key, task, arguments))

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        while self._waiting:
            key, task, arguments = self._waiting.popleft()
            try:
                yield key, task.fn(*arguments)
            except StorageError as error:
                yield key, Failure("error", error)


def run_night(trial: Trial) -> tuple[str, ...]:
    """Run a night as it is, but for the cluster; give the visits that it computed."""
    with disable_run_logger():
        plan = plan_night(trial, Selection())
        publisher = Publisher(trial.root, trial.config, plan.matching, "run", "tester", "test")
        Night(trial, plan, publisher, cast("Fanout", LocalFanout()), 3600.0).run()
    return tuple(job.visit.visit_id for job in plan.jobs)


@pytest.mark.slow
def test_a_night_carries_guides_and_finds_its_own_when_the_first_visit_is_gone(tmp_path: Path) -> None:
    """Follow-ups are guided by the baseline, and computed again when that is refused."""
    root = tmp_path / "trial"
    recipe = Recipe(n_subjects=1, n_visits=2, seed=1, guides="none")
    simulate_trial(root, recipe, on_visit=lambda _: None)
    lend_guides(root)
    trial = open_trial(root)
    assert run_night(trial) == ("V1", "V2")
    first, second = (published_row(root, "visits", "S01", visit_id) for visit_id in ("V1", "V2"))
    notes = read_notes(open_store(root, "S01", "V2", second["segment_digest"]), "native/guide")["guides"]
    assert [note["origin"] for note in notes] == ["baseline"] * 3
    for index, note in enumerate(notes):
        source = note["source"]
        assert (source["visit_id"], source["segment_digest"]) == ("V1", first["segment_digest"])
        assert (source["slice_index"], source["origin"]) == (index, "model")
        assert 0 < source["score"] <= 1
    origins = {visit_id: origins_of(root, visit_id) for visit_id in ("V1", "V2")}
    assert origins == {"V1": {"model"}, "V2": {"baseline"}}

    assert run_night(trial) == ()

    cut_off(root, min((root / "incoming").iterdir()).name)
    assert run_night(trial) == ("V1", "V2")
    assert states(root)["S01/V1"] == "refused"
    assert origins_of(root, "V2") == {"model"}
    assert published_row(root, "visits", "S01", "V2")["segment_digest"] != second["segment_digest"]

    assert run_night(trial) == ()


def origins_of(root: Path, visit_id: str) -> set[str]:
    """Where the published guides of a visit come from."""
    return set(pd.read_parquet(root / "tables" / "echoes" / "S01" / f"{visit_id}.parquet")["guide_origin"])
