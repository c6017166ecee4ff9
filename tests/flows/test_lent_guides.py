"""A night in which a subject's first visit lends its guides: who waits for whom, and what if it has none."""

import re
import shutil
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
from storage.arrays import open_store, read_notes, store_path
from storage.config import CONFIG_FILE
from storage.errors import RefusedError
from storage.plan import PlannedVisit
from storage.trial import Trial, open_trial
from tasks.fanout import Failure, Fanout
from tasks.plan import NightPlan, VisitJob, stage_digests
from tasks.publish import Publisher
from tasks.stage import GuideSource, StageResult, VisitRef
from tests.flows.trials import Cmrtrials, cut_off, published_row, states
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


@pytest.mark.slow
def test_a_night_carries_guides_and_finds_its_own_when_the_first_visit_is_gone(
    tmp_path: Path, cmrtrials: Cmrtrials
) -> None:
    """Real tasks: follow-ups are guided by the baseline, and computed again when that is refused."""
    root = tmp_path / "trial"
    options = ("--subjects", "1", "--visits", "2", "--no-faults", "--difficulty", "clean", "--guides", "none")
    assert cmrtrials("simulate", root, *options).returncode == 0
    lend_guides(root)
    night = cmrtrials("run", root, CMR_WORKERS="2")
    assert night.returncode == 0, night.stdout + night.stderr
    first, second = (published_row(root, "visits", "S01", visit_id) for visit_id in ("V1", "V2"))
    notes = read_notes(open_store(root, "S01", "V2", second["segment_digest"]), "native/guide")["guides"]
    lent = [note for note in notes if note["origin"] == "baseline"]
    assert len(lent) == 3
    assert {(note["source"]["visit_id"], note["source"]["segment_digest"]) for note in lent} == {
        ("V1", first["segment_digest"])
    }
    assert all(0 < note["source"]["score"] <= 1 for note in lent)
    echoes = pd.read_parquet(root / "tables" / "echoes" / "S01")
    assert set(echoes.loc[echoes["visit_id"] == "V1", "guide_origin"]) == {"model"}
    assert "baseline" in set(echoes.loc[echoes["visit_id"] == "V2", "guide_origin"])

    again = cmrtrials("run", root, CMR_WORKERS="2")
    assert again.returncode == 0
    assert published_row(root, "visits", "S01", "V2") == second  # nothing was new

    cut_off(root, min((root / "incoming").iterdir()).name)
    cmrtrials("run", root, CMR_WORKERS="2")
    assert states(root)["S01/V1"] in {"refused", "failed"}
    renewed = published_row(root, "visits", "S01", "V2")
    assert renewed["segment_digest"] != second["segment_digest"]
    echoes = pd.read_parquet(root / "tables" / "echoes" / "S01" / "V2.parquet")
    assert set(echoes["guide_origin"]) == {"model"}
