"""The plan of a night: what is new, what is settled, what belongs to nobody."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from storage import Trial, open_trial
from storage.errors import PlanError
from storage.quarantine import quarantine_upload
from storage.tables import publish
from tasks.digests import retests_digest, stage_digests, summary_digests
from tasks.matching import matching_digests
from tasks.plan import Selection, plan_night
from tasks.publish import Publisher
from tasks.published import retest_pairs
from tests.storage.drawn_rows import visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG, NATIVE, POST, write_series, write_visit

PLAN = """\
subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,hematocrit_time,site_id
S01,V1,2026-03-04,7,0.42,2026-03-04,,01
S01,V2,2026-09-04,7,,,,01
S02,V1,2026-03-05,7,0.40,2026-03-05,09:00,02
"""
NEW = Selection()


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Trial of three planned visits; the first visit of S01 has been uploaded."""
    shutil.copy(DEMO_CONFIG, tmp_path / "trial.toml")
    (tmp_path / "subjects.csv").write_text(PLAN)
    write_visit(tmp_path / "incoming" / "S01_a")
    return open_trial(tmp_path)


@pytest.fixture(autouse=True)
def outside_of_a_run() -> Iterator[None]:
    """Let what publishes log nowhere."""
    with disable_run_logger():
        yield


def publisher_of(trial: Trial) -> Publisher:
    """Give the only writer of a trial's tables."""
    matching = matching_digests(trial.config.matching, trial.plan())
    return Publisher(trial.folder, trial.config, matching, "run", "tester", "test")


def publish_done(trial: Trial) -> None:
    """Publish the only job of the night as done, with a summary that follows from it."""
    (job,) = plan_night(trial, NEW).jobs
    digest = job.digests["quantify"]
    row = visit_row(
        visit_date=job.recorded.visit_date,
        upload_digests=[upload.content_digest for upload in job.uploads],
        upload_fingerprints=[upload.fingerprint for upload in job.uploads],
        matching_digest=matching_digests(trial.config.matching, trial.plan())["S01"],
        quantify_digest=digest,
        result_digest=digest,
        summary_digest=summary_digests(trial.config, {"V1": digest})["V1"],
    )
    publish(trial.folder, row, {}, "tester", "test")


def publish_failure(trial: Trial, kind: str) -> None:
    """Publish that the only job of the night failed."""
    (job,) = plan_night(trial, NEW).jobs
    publisher_of(trial).failure(job, "failed", "quantify", kind, "for a reason")


def job_labels(trial: Trial, selection: Selection = NEW) -> list[str]:
    """Visits that a night would compute."""
    return [job.visit.label for job in plan_night(trial, selection).jobs]


def test_an_upload_is_computed_and_a_visit_without_one_waits(trial: Trial) -> None:
    """Every planned visit is either a job or gets a row that says why not."""
    plan = plan_night(trial, NEW)
    assert [job.visit.label for job in plan.jobs] == ["S01/V1"]
    assert [waiting.visit.label for waiting in plan.waiting] == ["S01/V2", "S02/V1"]


def test_a_deterministic_failure_is_old_news_until_someone_asks(trial: Trial) -> None:
    """What raised will raise again; a rerun or a retry runs it all the same."""
    publish_failure(trial, "error")
    assert job_labels(trial) == []
    (job,) = plan_night(trial, Selection("unsettled")).jobs
    assert job.force


def test_a_passing_failure_is_tried_again_the_next_night(trial: Trial) -> None:
    """A dead worker or a full disk says nothing about the visit."""
    publish_failure(trial, "passing")
    assert job_labels(trial) == ["S01/V1"]


def test_a_touched_upload_with_the_same_content_is_nothing_new(trial: Trial) -> None:
    """Times on disk do not change results."""
    publish_failure(trial, "error")
    for file in (trial.folder / "incoming" / "S01_a").iterdir():
        os.utime(file)
    assert job_labels(trial) == []


def test_a_mended_upload_is_computed_again(trial: Trial) -> None:
    """Another content is another digest."""
    publish_failure(trial, "error")
    next((trial.folder / "incoming" / "S01_a").iterdir()).unlink()
    assert job_labels(trial) == ["S01/V1"]


def test_a_published_upload_is_not_read_again(trial: Trial) -> None:
    """Same names, sizes and times: a night over thousands of old files only lists them."""
    publish_failure(trial, "error")
    for file in (trial.folder / "incoming" / "S01_a").iterdir():
        times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        file.write_bytes(bytes(file.stat().st_size))
        os.utime(file, ns=times)
    plan = plan_night(trial, NEW)
    assert plan.jobs == ()
    assert plan.stray == ()


def test_a_renamed_upload_is_looked_at_again(trial: Trial) -> None:
    """The name of its folder may say whose it is: a corrected one must not stay with the wrong subject."""
    (trial.folder / "trial.toml").write_text(
        DEMO_CONFIG.read_text().replace('["folder", "patient_id"]', '["folder"]')
    )
    trial = open_trial(trial.folder)
    publish_done(trial)
    assert job_labels(trial) == []
    incoming = trial.folder / "incoming"
    (incoming / "S01_a").rename(incoming / "S02_a")
    assert job_labels(trial) == ["S02/V1"]


def test_two_uploads_are_told_apart_by_more_than_sizes_and_times(trial: Trial) -> None:
    """A site's software may name, pad and date all exports alike; the second is not the first."""
    incoming = trial.folder / "incoming"
    for file in (incoming / "S01_a").iterdir():
        os.utime(file, ns=(1, 1))
    publish_done(trial)
    for series in (NATIVE, POST):
        for file in write_series(incoming / "S02_a", replace(series, patient_id="S02")):
            os.utime(file, ns=(1, 1))
    assert job_labels(trial) == ["S02/V1"]


def test_an_upload_that_moves_takes_its_old_result_with_it(trial: Trial) -> None:
    """After a corrected visit date the scan counts once: its former visit waits again."""
    publish_done(trial)
    assert job_labels(trial) == []
    corrected = PLAN.replace("S01,V1,2026-03-04,", "S01,V1,2026-01-04,").replace(
        "S01,V2,2026-09-04,", "S01,V2,2026-03-04,"
    )
    (trial.folder / "subjects.csv").write_text(corrected)
    plan = plan_night(trial, NEW)
    assert [job.visit.label for job in plan.jobs] == ["S01/V2"]
    reasons = {waiting.visit.label: waiting.reason for waiting in plan.waiting}
    assert reasons["S01/V1"] == "nothing uploaded; its former upload belongs to S01/V2"
    assert ("S01", "V1") not in plan.published


def test_an_upload_that_fits_no_visit_any_more_is_withdrawn(trial: Trial) -> None:
    """A result must not stand for a visit that its scan does not belong to."""
    publish_done(trial)
    (trial.folder / "subjects.csv").write_text(PLAN.replace("S01,V1,2026-03-04,", "S01,V1,2025-03-04,"))
    plan = plan_night(trial, NEW)
    assert len(plan.stray) == 1
    reasons = {waiting.visit.label: waiting.reason for waiting in plan.waiting}
    assert reasons["S01/V1"] == "nothing uploaded; its former upload fits no planned visit"


def test_a_result_outlives_its_upload(trial: Trial) -> None:
    """A site's folder may be cleared away; what was published from it stands."""
    publish_done(trial)
    shutil.rmtree(trial.folder / "incoming" / "S01_a")
    plan = plan_night(trial, NEW)
    assert plan.jobs == ()
    assert "S01/V1" not in {waiting.visit.label for waiting in plan.waiting}


def test_a_result_that_cannot_follow_the_plan_is_named(trial: Trial) -> None:
    """Its upload is gone, so the table would mix results of two plans and nobody would know."""
    publish_done(trial)
    shutil.rmtree(trial.folder / "incoming" / "S01_a")
    assert plan_night(trial, NEW).outdated == ()
    text = (trial.folder / "trial.toml").read_text()
    (trial.folder / "trial.toml").write_text(text.replace("blood_erosion_mm = 3.0", "blood_erosion_mm = 2.0"))
    changed = plan_night(open_trial(trial.folder), NEW)
    assert changed.outdated == ("S01/V1",)
    assert changed.jobs == ()


def test_a_refused_visit_runs_again_when_the_plan_changes(trial: Trial) -> None:
    """Images of another day may be those of the corrected date."""
    publish_failure(trial, "error")
    (trial.folder / "subjects.csv").write_text(PLAN.replace("2026-03-04,7,0.42", "2026-03-05,7,0.42"))
    assert job_labels(trial) == ["S01/V1"]


def test_a_selection_of_nobody_is_refused(trial: Trial) -> None:
    """A typing error would otherwise run nothing and say that all is well."""
    with pytest.raises(PlanError, match=r"not planned in subjects\.csv: S99"):
        plan_night(trial, Selection("chosen", frozenset({"S99"})))


def test_a_chosen_visit_without_an_upload_is_named(trial: Trial) -> None:
    """It cannot run, and who asked must hear so."""
    assert plan_night(trial, Selection("chosen", frozenset({"S02"}))).idle == ("S02/V1",)


def test_a_changed_hematocrit_computes_only_the_quantities_again(trial: Trial) -> None:
    """The digests of intake and segmentation stay."""
    first, _, _ = trial.plan()
    (trial.folder / "subjects.csv").write_text(PLAN.replace("0.42", "0.43"))
    changed, _, _ = trial.plan()
    before, after = (stage_digests(trial.config, line, ["content"], None) for line in (first, changed))
    assert (before["intake"], before["segment"]) == (after["intake"], after["segment"])
    assert before["quantify"] != after["quantify"]


@pytest.mark.parametrize(
    ("section", "field", "value", "changed"),
    [
        ("intake", "position_tolerance_mm", 0.5, {"intake", "segment", "quantify"}),
        ("segment", "alpha", 0.75, {"segment", "quantify"}),
        ("quantify", "blood_erosion_mm", 2.0, {"quantify"}),
        ("summarise", "ecv_change_relative", 0.2, set()),
    ],
    ids=["intake", "segment", "quantify", "summarise"],
)
def test_a_stage_depends_on_its_slice_of_the_configuration(
    trial: Trial, section: str, field: str, value: float, changed: set[str]
) -> None:
    """An edited limit of a late stage does not run the early ones again."""
    part = getattr(trial.config, section).model_copy(update={field: value})
    other = trial.config.model_copy(update={section: part})
    line = trial.plan()[0]
    before, after = (stage_digests(config, line, ["content"], None) for config in (trial.config, other))
    assert {stage for stage in before if before[stage] != after[stage]} == changed


def changed_summaries(trial: Trial, before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Visits whose summary another set of results renews."""
    digests = [summary_digests(trial.config, results) for results in (before, after)]
    return {visit for visit in digests[1] if digests[0].get(visit) != digests[1][visit]}


def test_a_summary_depends_on_the_visits_it_compares(trial: Trial) -> None:
    """A new baseline renews all; another visit itself and the last, which is compared with each."""
    three = {"V1": "a", "V2": "b", "V3": "c"}
    assert changed_summaries(trial, three, three | {"V1": "e"}) == {"V1", "V2", "V3"}
    assert changed_summaries(trial, three, three | {"V2": "e"}) == {"V2", "V3"}
    assert changed_summaries(trial, three, three | {"V3": "e"}) == {"V3"}
    # V3 is the last no more, so it loses its rows with V2; V2 is compared with V1 alone as before.
    assert changed_summaries(trial, three, three | {"V4": "d"}) == {"V3", "V4"}


def test_a_summary_depends_on_the_retests_of_all_subjects(trial: Trial) -> None:
    """Their results make the repeatability that each change is held against."""
    part = trial.config.summarise.model_copy(update={"retest_visits": (("V1", "V1R"),)})
    config = trial.config.model_copy(update={"summarise": part})
    results = {"S02": {"V1": "a", "V1R": "b", "V2": "c"}, "S01": {"V1": "d", "V2": "e"}}
    retests = retest_pairs(config, results)
    assert retests == ((("S02", "V1", "a"), ("S02", "V1R", "b")),)
    assert retest_pairs(trial.config, results) == ()
    digests = (retests_digest(pairs) for pairs in ((), retests))
    without, with_retests = (summary_digests(config, results["S01"], digest) for digest in digests)
    assert without["V1"] == with_retests["V1"]  # a first visit has no rows
    assert without["V2"] != with_retests["V2"]


def test_retests_of_visits_that_nobody_has_are_refused(trial: Trial) -> None:
    """A typing error would leave the trial without its own repeatability, in silence."""
    text = DEMO_CONFIG.read_text()
    (trial.folder / "trial.toml").write_text(
        text.replace("retest_visits = []", 'retest_visits = [["V1", "V1r"]]')
    )
    with pytest.raises(PlanError, match=r"retest_visits in trial.toml: not planned in subjects.csv: V1r$"):
        plan_night(open_trial(trial.folder), NEW)


def test_an_upload_of_nobody_is_named_without_the_sites_names(trial: Trial) -> None:
    """Names of folders may be a patient's."""
    write_visit(trial.folder / "incoming" / "Jane-Doe_scan")
    (trial.folder / "incoming" / "Jane-Doe_scan" / "notes").write_text("other content")
    (trial.folder / "incoming" / "letter of Jane Doe.pdf").write_text("not an upload")
    plan = plan_night(trial, NEW)
    assert len(plan.stray) == 2
    assert all("Doe" not in str(stray) and str(stray).startswith("upload u-") for stray in plan.stray)


def test_the_same_content_in_two_folders_is_one_upload(trial: Trial) -> None:
    """A site that sends twice has sent once."""
    shutil.copytree(trial.folder / "incoming" / "S01_a", trial.folder / "incoming" / "S01_again")
    (job,) = plan_night(trial, NEW).jobs
    assert len(job.uploads) == 1


def test_content_that_a_visit_takes_is_not_stray_under_another_name(trial: Trial) -> None:
    """The same folder, sent once more under a wrong name, is one upload."""
    shutil.copytree(trial.folder / "incoming" / "S01_a", trial.folder / "incoming" / "Jane-Doe")
    plan = plan_night(trial, NEW)
    assert (len(plan.jobs), plan.stray) == (1, ())


def test_a_zip_file_of_a_folder_is_the_same_upload(trial: Trial) -> None:
    """Sent as a folder first and packed later: nothing new."""
    folder = trial.folder / "incoming" / "S01_a"
    publish_done(trial)
    shutil.make_archive(str(folder.with_name("S01_packed")), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    assert plan_night(trial, NEW).jobs == ()


def test_uploads_come_in_the_order_of_their_arrival(trial: Trial) -> None:
    """Published ones first, whatever their times: a copy of incoming has new times."""
    incoming = trial.folder / "incoming"
    time.sleep(0.02)
    shutil.copytree(incoming / "S01_a", incoming / "S01_b")
    (incoming / "S01_b" / "more").write_text("x")
    (job,) = plan_night(trial, NEW).jobs
    assert [upload.path.name for upload in job.uploads] == ["S01_a", "S01_b"]
    publish_done(trial)
    for file in (incoming / "S01_a").iterdir():
        file.chmod(0o640)
    assert plan_night(trial, NEW).jobs == ()
    shutil.copytree(incoming / "S01_b", incoming / "S01_c")
    (incoming / "S01_c" / "most").write_text("x")
    (job,) = plan_night(trial, NEW).jobs
    assert [upload.path.name for upload in job.uploads] == ["S01_a", "S01_b", "S01_c"]


def test_a_stray_upload_is_read_once(trial: Trial) -> None:
    """A terabyte that belongs to nobody is not hashed every night; a new plan looks at it again."""
    folder = trial.folder / "incoming" / "S09_a"
    write_series(folder, replace(NATIVE, patient_id="S09"))
    (first,) = plan_night(trial, NEW).stray
    quarantine_upload(trial.folder, first.upload, first.reason, judged_by=first.judged_by)
    file = next(folder.iterdir())
    status = file.stat()
    file.write_bytes(bytes(status.st_size))  # a listing does not show it, so only reading would tell
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    (again,) = plan_night(trial, NEW).stray
    assert again.is_old
    assert (again.upload.upload_id, again.reason) == (first.upload.upload_id, first.reason)
    (trial.folder / "subjects.csv").write_text(PLAN + "S09,V1,2026-03-04,7,,,,01\n")
    assert "S09/V1" in job_labels(trial)


def test_an_upload_that_may_still_change_is_waited_for(trial: Trial) -> None:
    """It makes no job, no stray upload and no refusal."""
    text = (trial.folder / "trial.toml").read_text()
    (trial.folder / "trial.toml").write_text(text.replace("stable_minutes = 0.0", "stable_minutes = 10.0"))
    plan = plan_night(open_trial(trial.folder), NEW)
    assert (plan.jobs, plan.stray, len(plan.arriving)) == ((), (), 1)


def test_two_parts_of_a_visit_are_taken_together(trial: Trial) -> None:
    """Sites send the post-contrast series later; the visit is computed from both."""
    (one_part, other_part) = (trial.folder / "incoming" / name for name in ("S01_a", "S01_b"))
    other_part.mkdir()
    for file in sorted(one_part.iterdir())[:20]:
        file.rename(other_part / file.name)
    (job,) = plan_night(trial, NEW).jobs
    assert sorted(len(upload.files) for upload in job.uploads) == [20, 31]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection("chosen", frozenset({"S01"})), ["S01/V1"]),
        (Selection("chosen", frozenset({"S01"}), frozenset({"V2"})), []),
        (Selection("chosen", frozenset(), frozenset({"V1"})), ["S01/V1"]),
        (Selection("chosen", frozenset({"S02"})), []),
    ],
    ids=["subject", "subject and visit", "visit", "other subject"],
)
def test_chosen_visits_run_although_nothing_is_new(
    trial: Trial, selection: Selection, expected: list[str]
) -> None:
    """An engineer names subjects, visits, or both; what has no upload cannot run."""
    publish_failure(trial, "error")
    assert job_labels(trial, selection) == expected


def test_a_corrected_site_reaches_published_rows(trial: Trial) -> None:
    """Site and date stand in every row, so a correction in subjects.csv renews the subject's rows."""
    publish_done(trial)
    assert plan_night(trial, NEW).outdated_subjects == frozenset()
    (trial.folder / "subjects.csv").write_text(PLAN.replace(",01\n", ",07\n"))
    assert plan_night(trial, NEW).outdated_subjects == {"S01"}
