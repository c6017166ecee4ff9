"""Summaries that rest on the retests of all subjects wait for them; without retests nobody waits."""

import shutil
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from prefect import Task
from prefect.logging import disable_run_logger

from cmrcore.quantify.repeatability import Coefficient, Coefficients
from flows.night import Night
from storage.plan import PlannedVisit
from storage.trial import Trial, open_trial
from tasks.digests import retests_digest, summary_digests
from tasks.fanout import Failure, Fanout
from tasks.plan import NightPlan, VisitJob
from tasks.publish import Publisher
from tasks.stage import StageResult, VisitRef
from tests.storage.drawn_uploads import DEMO_CONFIG

COMPUTED: Coefficients = {("ecv_fraction", ("global", None)): Coefficient(0.02, 12)}


@dataclass
class DrawnFanout:
    """Cluster whose task runs end in the order in which they were submitted, with outcomes made up here."""

    repeatability: Coefficients | Failure
    """Outcome of the task of that name."""
    submitted: list[tuple[str, str]] = field(default_factory=list)
    """Whose task runs were submitted, and which."""
    arguments: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)
    """What they were submitted with."""

    def submit(
        self, key: Hashable, _task: Task[..., Any], _resource: str, *arguments: Any, limit_s: float
    ) -> None:
        """Note a task run."""
        assert limit_s > 0
        name = cast("tuple[str, str]", key)
        self.submitted.append(name)
        self.arguments[name] = arguments

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        ended = 0
        while ended < len(self.submitted):
            name, stage = self.submitted[ended]
            ended += 1
            if stage == "repeatability":
                yield (name, stage), self.repeatability
            elif stage == "summarise":
                yield (name, stage), {visit.visit_id: [] for visit, _ in self.arguments[name, stage][1]}
            else:
                yield (name, stage), StageResult("digest", 1.0, "cpu")


@dataclass
class DrawnPublisher:
    """Writes nothing, and remembers the digest of every summary it was given."""

    computed: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Visits computed tonight: digest and failure of the summary."""
    renewed: dict[str, str] = field(default_factory=dict)
    """Visits published again for another summary."""
    run_id: str = "run"
    """Of the night."""

    def result(
        self, job: VisitJob, _stages: object, _rows: object, digest: str, summary_failure: str | None = None
    ) -> None:
        """Remember a computed visit."""
        self.computed[job.visit.label] = (digest, summary_failure)

    def summary(self, visit: VisitRef, _recorded: object, _row: object, _rows: object, digest: str) -> None:
        """Remember a renewed visit."""
        self.renewed[visit.label] = digest


def visit_ref(trial: Trial, subject_id: str, visit_id: str) -> VisitRef:
    """Give a visit."""
    return VisitRef(str(trial.root), subject_id, visit_id, "01")


def planned(subject_id: str, visit_id: str, month: int) -> PlannedVisit:
    """Give a line of the plan."""
    return PlannedVisit(subject_id, visit_id, "01", date(2026, month, 1), 7, None, None, None)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Trial with retests: V1 and V1R."""
    shutil.copy(DEMO_CONFIG, tmp_path / "trial.toml")
    text = (tmp_path / "trial.toml").read_text()
    assert "retest_visits = []" in text
    (tmp_path / "trial.toml").write_text(
        text.replace("retest_visits = []", 'retest_visits = [["V1", "V1R"]]')
    )
    return open_trial(tmp_path)


def night_of(
    trial: Trial, repeatability: Coefficients | Failure = COMPUTED
) -> tuple[DrawnFanout, DrawnPublisher]:
    """Run a night in which S01 has new V1 and V1R, S02 a new V2, and S03 nothing new."""
    lines = tuple(
        planned(subject, visit, month)
        for subject in ("S01", "S02", "S03")
        for visit, month in (("V1", 1), ("V1R", 2), ("V2", 8))
    )
    new = {("S01", "V1"), ("S01", "V1R"), ("S02", "V2")}
    jobs = tuple(
        VisitJob(
            visit_ref(trial, line.subject_id, line.visit_id),
            line,
            line,
            (),
            {"intake": "i", "segment": "s", "quantify": f"new-{line.subject_id}-{line.visit_id}"},
            force=False,
            guide_source=None,
            digests_by=lambda _: {},
        )
        for line in lines
        if (line.subject_id, line.visit_id) in new
    )
    stands = [("S02", "V1"), ("S03", "V1"), ("S03", "V1R"), ("S03", "V2")]
    published = {
        (subject, visit): {"state": "done", "result_digest": f"old-{subject}-{visit}"}
        for subject, visit in stands
    }
    of_s03 = ((("S03", "V1", "old-S03-V1"), ("S03", "V1R", "old-S03-V1R")),)
    plan = NightPlan(lines, None, {}, published, jobs, (), frozenset(), of_s03, (), {}, (), (), (), (), {})
    fanout, publisher = DrawnFanout(repeatability), DrawnPublisher()
    with disable_run_logger():
        Night(trial, plan, cast("Publisher", publisher), cast("Fanout", fanout), 60.0).run()
    return fanout, publisher


def test_summaries_wait_for_every_retest(trial: Trial) -> None:
    """Then all subjects are held against the same repeatability, those without anything new too."""
    fanout, publisher = night_of(trial)
    stages = [stage for _, stage in fanout.submitted]
    assert (
        stages == ["intake"] * 3 + ["segment"] * 3 + ["quantify"] * 3 + ["repeatability"] + ["summarise"] * 3
    )
    (pairs,) = fanout.arguments["demo", "repeatability"][1:]
    assert [[digest for _, digest in pair] for pair in pairs] == [
        ["new-S01-V1", "new-S01-V1R"],
        ["old-S03-V1", "old-S03-V1R"],
    ]
    for subject in ("S01", "S02", "S03"):
        assert fanout.arguments[subject, "summarise"][3] == COMPUTED
    assert publisher.computed.keys() == {"S01/V1", "S01/V1R", "S02/V2"}
    assert publisher.renewed.keys() == {"S02/V1", "S03/V1", "S03/V1R", "S03/V2"}
    # As the next night will find them, so that it has nothing to do.
    retests = tuple(
        ((subject, "V1", f"{age}-{subject}-V1"), (subject, "V1R", f"{age}-{subject}-V1R"))
        for subject, age in (("S01", "new"), ("S03", "old"))
    )
    of_s03 = {visit: f"old-S03-{visit}" for visit in ("V1", "V1R", "V2")}
    assert publisher.renewed["S03/V2"] == summary_digests(trial.config, of_s03, retests_digest(retests))["V2"]


def test_results_are_published_although_the_repeatability_failed(trial: Trial) -> None:
    """Each visit says why it has no summary; what was published stays as it is."""
    _, publisher = night_of(trial, Failure("error", ValueError("a broken store")))
    assert publisher.computed.keys() == {"S01/V1", "S01/V1R", "S02/V2"}
    assert all("a broken store" in (failure or "") for _, failure in publisher.computed.values())
    assert publisher.renewed == {}


def test_without_retests_a_subject_waits_for_nobody(trial: Trial) -> None:
    """Its summary follows its own last visit, held against what the trial states."""
    text = (trial.root / "trial.toml").read_text()
    (trial.root / "trial.toml").write_text(text.replace('[["V1", "V1R"]]', "[]"))
    fanout, publisher = night_of(open_trial(trial.root))
    assert ("demo", "repeatability") not in fanout.submitted
    assert ("S03", "summarise") not in fanout.submitted
    stated = fanout.arguments["S01", "summarise"][3]
    assert stated["ecv_fraction", ("global", None)] == Coefficient(0.05, None)
    assert publisher.renewed.keys() == {"S02/V1"}
