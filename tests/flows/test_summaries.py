"""When the summaries of a night are submitted, and with which results."""

from typing import Any, cast

import pytest

from cmrcore.quantify.repeatability import Coefficient, Coefficients
from flows.results import Results
from flows.summaries import Summaries
from storage.config import TrialConfig
from storage.trial import Trial
from tasks.digests import retests_digest, summary_digests
from tasks.fanout import Failure, Fanout
from tasks.plan import NightPlan
from tests.flows.drawn_night import RESULT, ROOT, SubmittedOnly, job_of, line_of, of_subjects, plan_of
from tests.storage.drawn_uploads import demo_config

LINES = tuple(line_of(f"V{month}", month, subject) for subject in ("S01", "S02") for month in (1, 2))
THIRD = line_of("V1", 3, "S03")
STANDING = {
    (line.subject_id, line.visit_id): {"state": "done", "result_digest": f"{line.subject_id} {line.visit_id}"}
    for line in LINES
}
RETESTS = tuple(
    ((subject, "V1", f"{subject} V1"), (subject, "V2", f"{subject} V2")) for subject in ("S01", "S02")
)
COMPUTED: Coefficients = {("ecv_fraction", ("global", None)): Coefficient(0.02, 12)}


@pytest.fixture(scope="module")
def alone() -> TrialConfig:
    """Load the configuration of a trial without retests."""
    return demo_config()


@pytest.fixture(scope="module")
def retested(alone: TrialConfig) -> TrialConfig:
    """Name the second visit of a trial as a retest."""
    rules = alone.summarise.model_copy(update={"retest_visits": (("V1", "V2"),)})
    return alone.model_copy(update={"summarise": rules})


def summaries_of(config: TrialConfig, plan: NightPlan) -> tuple[SubmittedOnly, Summaries, Results]:
    """Give what submits the summaries of a night, and the results that the night adds to."""
    jobs = {job.visit.label: job for job in plan.jobs}
    results = Results(ROOT, jobs, of_subjects(*plan.recorded), plan.published)
    fanout = SubmittedOnly()
    trial = Trial(ROOT, config)
    return fanout, Summaries(trial, plan, results, cast("Fanout", fanout), 60.0), results


def digests_in(submitted: tuple[Any, ...]) -> list[str]:
    """Give the digests of the results that a summary was submitted with."""
    return [digest for _, digest in submitted[1]]


def test_a_subjects_summary_follows_its_last_visit(alone: TrialConfig) -> None:
    """It has what was computed by then, and waits for no other subject."""
    jobs = [job_of(line) for line in LINES]
    fanout, summaries, results = summaries_of(alone, plan_of(LINES, jobs))
    summaries.begin()
    results.add("S02/V1", "quantify", RESULT)
    summaries.end_visit("S02")
    assert fanout.arguments == {}
    summaries.end_visit("S02")  # which failed
    assert list(fanout.arguments) == [("S02", "summarise")]
    assert digests_in(fanout.arguments["S02", "summarise"]) == ["quantify V1"]


def test_a_subject_without_results_has_no_summary(alone: TrialConfig) -> None:
    """There is nothing to compare."""
    fanout, summaries, _ = summaries_of(alone, plan_of(LINES, [job_of(LINES[0])]))
    summaries.begin()
    summaries.end_visit("S01")
    assert fanout.arguments == {}


def test_a_subject_that_is_only_outdated_waits_for_nothing(alone: TrialConfig) -> None:
    """One that is computed as well is summarised when it ends."""
    plan = plan_of(LINES, [job_of(LINES[0])], published=STANDING, outdated_subjects=frozenset({"S01", "S02"}))
    fanout, summaries, _ = summaries_of(alone, plan)
    summaries.begin()
    assert list(fanout.arguments) == [("S02", "summarise")]
    assert digests_in(fanout.arguments["S02", "summarise"]) == ["S02 V1", "S02 V2"]


def test_retests_make_every_summary_wait_for_every_visit(retested: TrialConfig) -> None:
    """Then the repeatability of tonight's results is computed, which all are held against."""
    jobs = [job_of(line) for line in (*LINES[:2], THIRD)]
    published = {key: row for key, row in STANDING.items() if key[0] == "S02"}
    plan = plan_of(
        (*LINES, THIRD),
        jobs,
        published=published,
        retests=RETESTS[1:],
        outdated_subjects=frozenset({"S02"}),
    )
    fanout, summaries, results = summaries_of(retested, plan)
    summaries.begin()
    results.add("S01/V1", "quantify", RESULT)
    summaries.end_visit("S01")
    results.add("S01/V2", "quantify", RESULT)
    summaries.end_visit("S01")
    assert fanout.arguments == {}
    summaries.end_visit("S03")  # which failed
    ((_, pairs),) = fanout.arguments.values()
    assert [[digest for _, digest in pair] for pair in pairs] == [
        ["quantify V1", "quantify V2"],
        ["S02 V1", "S02 V2"],
    ]
    assert [visit.label for visit, _ in pairs[1]] == ["S02/V1", "S02/V2"]
    assert summaries.end_repeatability(COMPUTED) == []
    assert list(fanout.arguments)[1:] == [("S01", "summarise"), ("S02", "summarise")]
    assert fanout.arguments["S02", "summarise"][3] == COMPUTED


def test_the_same_retests_renew_only_what_else_is_new_or_outdated(retested: TrialConfig) -> None:
    """Summaries of the others rest on what they did before."""
    plan = plan_of(LINES, published=STANDING, retests=RETESTS, outdated_subjects=frozenset({"S02"}))
    fanout, summaries, _ = summaries_of(retested, plan)
    summaries.begin()
    assert list(fanout.arguments) == [("demo", "repeatability")]
    summaries.end_repeatability(COMPUTED)
    assert list(fanout.arguments)[1:] == [("S02", "summarise")]

    plan = plan_of((*LINES, THIRD), [job_of(THIRD)], published=STANDING, retests=RETESTS)
    fanout, summaries, results = summaries_of(retested, plan)
    results.add("S03/V1", "quantify", RESULT)
    summaries.end_visit("S03")
    summaries.end_repeatability(COMPUTED)
    assert list(fanout.arguments)[1:] == [("S03", "summarise")]


def test_other_retests_renew_every_summary(retested: TrialConfig) -> None:
    """The digest that is published with them says so, or the next night would do it again."""
    plan = plan_of(LINES, published=STANDING, retests=RETESTS[:1], outdated_subjects=frozenset({"S02"}))
    fanout, summaries, _ = summaries_of(retested, plan)
    results = {"V1": "S01 V1", "V2": "S01 V2"}
    before = summary_digests(retested, results, retests_digest(RETESTS[:1]))
    assert summaries.digests("S01") == before
    summaries.begin()
    summaries.end_repeatability(COMPUTED)
    assert list(fanout.arguments)[1:] == [("S01", "summarise"), ("S02", "summarise")]
    after = summary_digests(retested, results, retests_digest(RETESTS))
    assert summaries.digests("S01") == after != before


def test_without_a_pair_summaries_rest_on_what_the_trial_states(retested: TrialConfig) -> None:
    """No task is needed for that."""
    first = {key: row for key, row in STANDING.items() if key[1] == "V1"}
    plan = plan_of(LINES, published=first, outdated_subjects=frozenset({"S01"}))
    fanout, summaries, _ = summaries_of(retested, plan)
    summaries.begin()
    assert list(fanout.arguments) == [("S01", "summarise")]
    assert fanout.arguments["S01", "summarise"][3]["ecv_fraction", ("global", None)].n_pairs is None


def test_a_failed_repeatability_leaves_subjects_without_a_summary(retested: TrialConfig) -> None:
    """They are named, so that their results are published all the same."""
    plan = plan_of(LINES, published=STANDING, retests=RETESTS, outdated_subjects=frozenset({"S02"}))
    fanout, summaries, _ = summaries_of(retested, plan)
    summaries.begin()
    assert summaries.end_repeatability(Failure("error", ValueError("a broken store"))) == ["S02"]
    assert list(fanout.arguments) == [("demo", "repeatability")]
