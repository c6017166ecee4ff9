"""Who lends guides to whom, and how the digests of a follow-up say so before anything is computed."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from storage import Trial, open_trial
from storage.arrays import store_path
from storage.tables import publish
from tasks.matching import matching_digests
from tasks.plan import Selection, VisitJob, plan_night
from tasks.publish import Publisher
from tasks.stage import GuideSource
from tests.storage.drawn_rows import visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG, NATIVE, POST, write_series

PLAN = """\
subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,hematocrit_time,site_id
S01,W52,2026-09-04,7,,,,01
S01,W0,2026-03-04,7,,,,01
S01,W26,2026-06-04,7,,,,01
S02,W0,2026-03-05,7,,,,02
"""
"""Visits of a subject that do not stand in the order of their dates."""
DAYS = {"W0": 0, "W26": 92, "W52": 184}


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Trial whose first visits lend guides; all three visits of S01 have been uploaded."""
    text = re.sub(r'^guide_from = "visit"', 'guide_from = "baseline"', DEMO_CONFIG.read_text(), flags=re.M)
    (tmp_path / "trial.toml").write_text(text)
    (tmp_path / "subjects.csv").write_text(PLAN)
    for visit_id in DAYS:
        upload(tmp_path, visit_id)
    return open_trial(tmp_path)


@pytest.fixture(autouse=True)
def outside_of_a_run() -> Iterator[None]:
    """Let what publishes log nowhere."""
    with disable_run_logger():
        yield


def upload(root: Path, visit_id: str) -> None:
    """Write one slice of a visit's native series, which is enough to plan with."""
    for number, series in enumerate((NATIVE, POST)):
        moment = series.started_at + timedelta(days=DAYS[visit_id])
        short = replace(series, slice_numbers=(0,), started_at=moment, uid_seed=f"{visit_id}{number}")
        write_series(root / "incoming" / f"S01_{visit_id}", short)


def jobs_of(trial: Trial, selection: Selection | None = None) -> dict[str, VisitJob]:
    """Give the jobs of a night by visit."""
    return {job.visit.visit_id: job for job in plan_night(trial, selection or Selection()).jobs}


def source_by(job: VisitJob) -> GuideSource:
    """Give a job as the source of others' guides."""
    return GuideSource(job.visit.visit_id, job.digests["segment"])


def publish_done(trial: Trial, job: VisitJob) -> None:
    """Publish a job as done, with the store of its guides."""
    row = visit_row(
        visit_id=job.visit.visit_id,
        visit_date=job.recorded.visit_date,
        upload_digests=[one.content_digest for one in job.uploads],
        upload_fingerprints=[one.fingerprint for one in job.uploads],
        matching_digest=matching_digests(trial.config.matching, trial.plan())["S01"],
        segment_digest=job.digests["segment"],
        result_digest=job.digests["quantify"],
    )
    publish(trial.folder, row, {}, "tester", "test")
    store_path(trial.folder, "S01", job.visit.visit_id, job.digests["segment"]).mkdir(parents=True)


def publish_failure(trial: Trial, job: VisitJob, stage: str) -> None:
    """Publish that a job failed in a stage, for good."""
    matching = matching_digests(trial.config.matching, trial.plan())
    publisher = Publisher(trial.folder, trial.config, matching, "run", "tester", "test")
    publisher.failure(job, "failed", stage, "error", "for a reason")


def test_the_first_visit_by_date_lends_to_all_later_ones(trial: Trial) -> None:
    """Whatever the order of the plan; a follow-up's digests cover those of the guides that it is lent."""
    jobs = jobs_of(trial)
    first = source_by(jobs["W0"])
    assert {visit_id: job.guide_source for visit_id, job in jobs.items()} == {
        "W0": None,
        "W26": first,
        "W52": first,
    }
    alone = jobs["W26"].guided_by(None)
    assert alone.guide_source is None
    assert alone.digests["intake"] == jobs["W26"].digests["intake"]
    for stage in ("segment", "quantify"):
        assert alone.digests[stage] != jobs["W26"].digests[stage]


def test_a_trial_that_carries_no_guides_has_no_lender(trial: Trial) -> None:
    """Visits of a subject depend on each other only where trial.toml says so."""
    shutil.copy(DEMO_CONFIG, trial.folder / "trial.toml")
    plan = plan_night(open_trial(trial.folder), Selection())
    assert [job.guide_source for job in plan.jobs] == [None] * 3
    assert plan.standing == {}


def test_a_settled_subject_has_nothing_to_do(trial: Trial) -> None:
    """The next night derives the same digests from what stands."""
    for job in jobs_of(trial).values():
        publish_done(trial, job)
    plan = plan_night(trial, Selection())
    assert plan.jobs == ()
    assert {visit_id for _, visit_id in plan.standing} == DAYS.keys()


def test_a_new_upload_of_the_first_visit_computes_the_later_ones_again(trial: Trial) -> None:
    """Their guides follow from it, as if their own images were others."""
    before = jobs_of(trial)
    for job in before.values():
        publish_done(trial, job)
    next((trial.folder / "incoming" / "S01_W0").iterdir()).unlink()
    after = jobs_of(trial)
    assert after.keys() == before.keys()
    assert after["W52"].guide_source == source_by(after["W0"]) != source_by(before["W0"])
    assert after["W52"].digests["intake"] == before["W52"].digests["intake"]


def test_a_first_visit_that_comes_late_computes_the_later_ones_again(trial: Trial) -> None:
    """Until then the first that is there lends its guides."""
    shutil.move(trial.folder / "incoming" / "S01_W0", trial.folder / "late")
    jobs = jobs_of(trial)
    assert jobs["W26"].guide_source is None
    assert jobs["W52"].guide_source == source_by(jobs["W26"])
    for job in jobs.values():
        publish_done(trial, job)
    shutil.move(trial.folder / "late", trial.folder / "incoming" / "S01_W0")
    assert {job.guide_source for job in jobs_of(trial).values()} == {None, source_by(jobs_of(trial)["W0"])}


@pytest.mark.parametrize("stage", ["intake", "segment"])
def test_a_visit_that_failed_lends_nothing_until_it_runs_again(trial: Trial, stage: str) -> None:
    """The night after a refused baseline plans what that night did, so nothing runs twice."""
    jobs = jobs_of(trial)
    publish_failure(trial, jobs["W0"], stage)
    alone = jobs["W26"].guided_by(None)
    publish_done(trial, alone)
    publish_done(trial, jobs["W52"].guided_by(source_by(alone)))
    assert jobs_of(trial) == {}
    retried = jobs_of(trial, Selection("unsettled"))
    assert retried.keys() == DAYS.keys()
    assert retried["W52"].guide_source == source_by(jobs["W0"])


def test_a_visit_whose_measurement_failed_lends_its_guides(trial: Trial) -> None:
    """They stand."""
    jobs = jobs_of(trial)
    publish_failure(trial, jobs["W0"], "quantify")
    store_path(trial.folder, "S01", "W0", jobs["W0"].digests["segment"]).mkdir(parents=True)
    assert {visit_id: job.guide_source for visit_id, job in jobs_of(trial).items()} == {
        "W26": source_by(jobs["W0"]),
        "W52": source_by(jobs["W0"]),
    }


def test_a_result_whose_upload_is_gone_still_lends(trial: Trial) -> None:
    """A site's folder may be cleared away: the published guides stand, and nothing is new."""
    jobs = jobs_of(trial)
    for job in jobs.values():
        publish_done(trial, job)
    shutil.rmtree(trial.folder / "incoming" / "S01_W0")
    plan = plan_night(trial, Selection())
    assert plan.jobs == ()
    assert plan.standing["S01", "W0"] == source_by(jobs["W0"])
    assert plan.outdated == ()
