"""The stages of one visit as plain functions: references in, a store and a reference out."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
import zarr
from prefect.logging import disable_run_logger

from cmrcore.quantify import ScanResult
from cmrcore.quantify.qc import raise_flag
from flows.simulate import Recipe, simulate_trial
from storage import Trial, open_trial
from storage.arrays import open_store, read_stack, store_exists, store_path
from storage.config import load_config
from storage.deidentify import KEY_VARIABLE, key_name
from storage.errors import AlreadyWrittenError, ConfigError, RefusedError, UploadChangedError
from storage.tables import read_table
from tasks.intake import intake
from tasks.plan import Selection, VisitJob, plan_night
from tasks.publish import Publisher
from tasks.quantify import add_flags, quantify, stack_flags
from tasks.segment import segment
from tasks.stage import StageResult, VisitRef
from tasks.summarise import (
    _read_heart,
    deviations,
    read_findings,
    repeatability,
    stated_repeatability,
    summarise,
)
from tests.flows.leaks import date_forms, everything_in, leaks
from tests.flows.trials import set_segmentation


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Simulate a trial of one sound subject with two visits."""
    root = tmp_path_factory.mktemp("stages") / "trial"
    simulate_trial(root, Recipe(n_subjects=1, n_visits=2, seed=1), on_visit=lambda _: None)
    set_segmentation(root)
    return open_trial(root)


@pytest.fixture(scope="module")
def jobs(trial: Trial) -> tuple[VisitJob, ...]:
    """Plan the visits to compute."""
    return plan_night(trial, Selection()).jobs


@pytest.fixture(autouse=True)
def outside_of_a_run() -> Iterator[None]:
    """Let tasks log nowhere."""
    with disable_run_logger():
        yield


def run_stages(trial: Trial, job: VisitJob, *, force: bool = False) -> list[StageResult]:
    """Run the three stages of a visit in this process."""
    config, digests = trial.config, job.digests
    return [
        intake.fn(
            job.visit,
            job.planned,
            job.uploads,
            config.intake,
            config.privacy,
            key_name(config.privacy),
            digests["intake"],
            force,
        ),
        segment.fn(job.visit, digests["intake"], config.segment, digests["segment"], force),
        quantify.fn(
            job.visit,
            job.recorded,
            digests["segment"],
            config.quantify,
            config.align,
            digests["quantify"],
            force,
        ),
    ]


def test_each_stage_adds_to_the_store_of_the_one_before(trial: Trial, jobs: tuple[VisitJob, ...]) -> None:
    """The result's store holds echoes, masks, maps and rows; the earlier stores are left as they were."""
    job = jobs[0]
    run_stages(trial, job)
    ids = (trial.folder, job.visit.subject_id, job.visit.visit_id)
    echoes, masks, result = (
        open_store(*ids, job.digests[stage]) for stage in ("intake", "segment", "quantify")
    )
    assert "native/echoes" in echoes
    assert "native/masks" not in echoes
    assert "native/masks" in masks
    assert "native/t1_ms" not in masks
    stored = {"native/echoes", "native/masks", "native/t1_ms", "native/displacement_px", "post/t1_ms"}
    assert {*stored, "post/onto_native_px", "ecv_fraction"} <= {
        name for name, _ in result.members(max_depth=None)
    }
    assert "segment_digest" not in echoes.attrs


def test_a_stage_whose_store_stands_is_skipped(trial: Trial, jobs: tuple[VisitJob, ...]) -> None:
    """A second call reads and writes nothing and says so."""
    run_stages(trial, jobs[0])
    assert [result.seconds for result in run_stages(trial, jobs[0])] == [None, None, None]


def test_a_forced_stage_proves_that_its_result_is_the_same(trial: Trial, jobs: tuple[VisitJob, ...]) -> None:
    """A rerun of a published visit computes again and finds the same bytes."""
    run_stages(trial, jobs[0])
    results = run_stages(trial, jobs[0], force=True)
    assert all(result.seconds is not None for result in results)


def test_a_result_that_is_not_the_same_is_never_written_over(
    trial: Trial, jobs: tuple[VisitJob, ...]
) -> None:
    """Other numbers under the same digest mean that a result version was not raised."""
    job = jobs[0]
    run_stages(trial, job)
    with pytest.raises(AlreadyWrittenError, match="result version"):
        quantify.fn(
            job.visit,
            job.recorded,
            job.digests["segment"],
            trial.config.quantify.model_copy(update={"blood_erosion_mm": 1.0}),
            trial.config.align,
            job.digests["quantify"],
            True,
        )


def test_a_refused_visit_leaves_no_store_and_a_reason(trial: Trial, jobs: tuple[VisitJob, ...]) -> None:
    """Nothing half-read is stored; the operator finds which upload and why."""
    job = jobs[1]
    strict = trial.config.intake.model_copy(update={"slices": 5})
    with pytest.raises(RefusedError, match="3 slices, expected 5"):
        intake.fn(job.visit, job.planned, job.uploads, strict, trial.config.privacy, None, "refused", False)
    assert not store_exists(trial.folder, "S01", "V2", "refused")
    reason = trial.folder / "quarantine" / job.uploads[0].upload_id / "reason.json"
    assert "3 slices, expected 5" in reason.read_text()


def test_images_of_another_day_are_refused(trial: Trial, jobs: tuple[VisitJob, ...]) -> None:
    """One file's date matched the upload to its visit; all images must be of that visit."""
    job = jobs[0]
    other_day = replace(job.planned, visit_date=job.planned.visit_date.replace(year=2024))
    with pytest.raises(RefusedError, match=r"of another day than the visit: 73\d d after V1"):
        intake.fn(
            job.visit, other_day, job.uploads, trial.config.intake, trial.config.privacy, None, "other", False
        )


def test_an_upload_that_changed_since_it_was_planned_is_not_stored(
    trial: Trial, jobs: tuple[VisitJob, ...]
) -> None:
    """A store's digest is that of the bytes that were read, or the store is a lie."""
    job = jobs[0]
    listed = replace(job.uploads[0], fingerprint="as it was when it was planned")
    with pytest.raises(UploadChangedError, match="changed since it was planned"):
        intake.fn(
            job.visit,
            job.planned,
            (listed,),
            trial.config.intake,
            trial.config.privacy,
            None,
            "changed",
            False,
        )
    assert not store_exists(trial.folder, "S01", "V1", "changed")


@pytest.mark.slow
def test_no_real_date_is_in_the_record_where_dates_are_shifted(
    trial: Trial, jobs: tuple[VisitJob, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of an examination nor of the plan or a blood sample; ages and intervals are what they were."""
    root = tmp_path / "trial"
    shutil.copytree(trial.folder / "incoming", root / "incoming", copy_function=shutil.copy2)
    (root / "subjects.csv").write_bytes((trial.folder / "subjects.csv").read_bytes())
    text = (trial.folder / "trial.toml").read_text()
    for before, after in (('dates = "keep"', 'dates = "shift"'), ('headers = "none"', 'headers = "basic"')):
        assert text.count(before) == 1
        text = text.replace(before, after)
    (root / "trial.toml").write_text(text)
    shifted = open_trial(root)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="is missing"):
        plan_night(shifted, Selection())
    monkeypatch.setenv(KEY_VARIABLE, bytes(range(32)).hex())
    plan = plan_night(shifted, Selection())
    publisher = Publisher(root, shifted.config, plan.matching, "run", "test", "test")
    days: list[set[date]] = []
    for kept, job in zip(jobs, plan.jobs, strict=True):
        assert job.digests["intake"] != kept.digests["intake"]
        for one, where in ((kept, trial), (job, shifted)):
            run_stages(where, one)
        store = open_store(root, "S01", job.visit.visit_id, job.digests["quantify"])
        real_store = open_store(trial.folder, "S01", job.visit.visit_id, kept.digests["quantify"])
        rows, real_rows = (cast("dict[str, Any]", one.attrs["rows"]) for one in (store, real_store))
        assert rows["scans"][0]["hematocrit_hours"] == real_rows["scans"][0]["hematocrit_hours"]
        scanned = read_stack(real_store, "native").study_date
        assert scanned is not None
        days.append({scanned, kept.planned.visit_date, cast("date", kept.planned.hematocrit_date)})
        assert read_stack(store, "native").study_date not in days[-1]
        publisher.result(job, {}, [], "summary")
    publisher.result(plan.jobs[0], {}, [], "another summary")  # so that there is a history
    forms = set().union(*(date_forms(day) for of_visit in days for day in of_visit))
    for folder in ("arrays", "tables", "history"):
        assert (root / folder).is_dir()
        assert leaks(everything_in(root / folder), forms) == []
    assert leaks(everything_in(trial.folder / "arrays"), forms)  # the search does find them
    visits = {row["visit_id"]: row["visit_date"] for row in read_table(root, "visits").to_pylist()}
    interval = jobs[1].planned.visit_date - jobs[0].planned.visit_date
    assert visits["V2"] - visits["V1"] == interval


def test_another_key_plans_everything_anew(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, jobs: tuple[VisitJob, ...]
) -> None:
    """Half of a subject's dates moved by one key and half by another would be false intervals."""
    privacy = load_config(trial.folder / "trial.toml").privacy.model_copy(update={"dates": "shift"})
    shifted = replace(trial, config=trial.config.model_copy(update={"privacy": privacy}))
    digests = []
    for number in range(2):
        monkeypatch.setenv(KEY_VARIABLE, bytes([number] * 32).hex())
        digests.append(plan_night(shifted, Selection()).jobs[0].digests)
    assert not set(digests[0].values()) & set(digests[1].values())
    job = jobs[0]
    with pytest.raises(ConfigError, match="another one than the night's"):
        intake.fn(job.visit, job.planned, job.uploads, trial.config.intake, privacy, "other", "x", False)


def summary_of(trial: Trial, jobs: tuple[VisitJob, ...]) -> dict[str, list[dict[str, Any]]]:
    """Run all stages of both visits and summarise the subject."""
    for job in jobs:
        run_stages(trial, job)
    results = tuple((job.visit, job.digests["quantify"]) for job in jobs)
    config = trial.config.summarise
    return summarise.fn("S01", results, config, stated_repeatability(config))


def test_a_summary_compares_each_visit_with_the_first(trial: Trial, jobs: tuple[VisitJob, ...]) -> None:
    """The change of ECV is that of the two published scans; masks of both visits lie upon each other."""
    rows = summary_of(trial, jobs)
    assert rows["V1"] == []
    change = rows["V2"][0]
    assert (change["level"], change["baseline_visit_id"]) == ("global", "V1")
    before, after = (stored_ecv(job.visit, job.digests["quantify"]) for job in jobs)
    assert change["ecv_change_fraction"] == pytest.approx(after - before)
    assert change["ecv_repeatability_fraction"] == trial.config.summarise.repeatability.ecv_global_fraction
    assert {row["aha_segment"] for row in rows["V2"]} == {None, *range(1, 17)}
    # A reader drew the same heart in another position: it overlaps itself, and its wall is as thick.
    assert change["overlap_dice"] > 0.85
    assert abs(change["thickness_change_mm"]) < 1.0


def test_a_slice_that_failed_has_no_shape(trial: Trial, jobs: tuple[VisitJob, ...]) -> None:
    """Its mask lies off the heart: neither area nor thickness nor overlap are read from it."""
    run_stages(trial, jobs[0])
    whole = read_findings(jobs[0].visit, jobs[0].digests["quantify"]).heart
    assert whole is not None
    assert whole.myocardium.any(dim=(1, 2)).tolist() == [True, True, True]
    store = open_store(trial.folder, "S01", jobs[0].visit.visit_id, jobs[0].digests["quantify"])
    stored: Any = store.attrs["rows"]
    failed = [row | {"used_native": row["slice_index"] != 2} for row in stored["slices"]]
    heart = _read_heart(store, failed, [])
    assert heart is not None
    assert heart.myocardium.any(dim=(1, 2)).tolist() == [True, True, False]


def test_repeatability_comes_from_retests_where_there_are_enough(
    trial: Trial, jobs: tuple[VisitJob, ...]
) -> None:
    """The pair of visits, thrice: each has the SD |d| / sqrt(2), so the coefficient is 1.96 |d|."""
    change = summary_of(trial, jobs)["V2"][0]["t1_native_change_ms"]
    first, second = ((job.visit, job.digests["quantify"]) for job in jobs)
    config = trial.config.summarise.model_copy(update={"retest_pairs_min": 3})
    found = repeatability.fn(config, ((first, second),) * 3)["t1_native_ms", ("global", None)]
    assert found.value == pytest.approx(1.96 * abs(change))
    assert found.n_pairs == 3
    too_few = repeatability.fn(config, ((first, second),) * 2)
    assert too_few == stated_repeatability(config)


def test_another_scanner_than_at_the_baseline_flags_the_visit(
    trial: Trial, jobs: tuple[VisitJob, ...]
) -> None:
    """The change of T1 between scanners is the scanner's."""
    other = {"field_strength_t": 3.0, "baseline_field_strength_t": 1.5, "scanner": "x B"}
    rows = [row | other | {"baseline_scanner": "x A"} for row in summary_of(trial, jobs)["V2"]]
    publisher = Publisher(trial.folder, trial.config, {"S01": "m"}, "run", "test", "test")
    publisher.result(jobs[1], {}, rows, "summary")
    (visit,) = read_table(trial.folder, "visits").to_pylist()
    assert visit["state"] == "flagged"
    assert "field_strength_differs: this visit at 3 T, baseline V1 at 1.5 T" in visit["reason"]
    assert "scanner_differs: this visit on x B, baseline V1 on x A" in visit["reason"]
    (scan,) = read_table(trial.folder, "scans").to_pylist()
    assert scan["qc_verdict"] == visit["qc_verdict"] == "review"
    assert scan["qc_reasons"] == visit["qc_reasons"]
    assert {"field_strength_differs", "scanner_differs"} <= set(visit["qc_reasons"])


def test_a_changed_ecv_is_noted_and_leaves_the_verdict_alone(
    trial: Trial, jobs: tuple[VisitJob, ...]
) -> None:
    """A verdict that rested on the change would sort out those whom a treatment changed."""
    rows = [row | {"ecv_changed": row["level"] == "global"} for row in summary_of(trial, jobs)["V2"]]
    publisher = Publisher(trial.folder, trial.config, {"S01": "m"}, "run", "test", "test")
    unchanged = [row | {"ecv_changed": False} for row in rows]
    for longitudinal, digest in ((unchanged, "summary"), (rows, "another summary")):
        publisher.result(jobs[1], {}, longitudinal, digest)
        (scan,) = read_table(trial.folder, "scans").to_pylist()
        assert scan["qc_verdict"] == "pass"
    (flag,) = read_table(trial.folder, "flags").to_pylist()
    assert (flag["code"], flag["severity"]) == ("ecv_changed", "note")
    (visit,) = read_table(trial.folder, "visits").to_pylist()
    assert (visit["state"], visit["qc_verdict"], visit["qc_reasons"]) == ("done", "pass", [])


def test_another_protocol_than_at_the_first_visit_flags_the_visit(
    trial: Trial, jobs: tuple[VisitJob, ...]
) -> None:
    """Slices of the same heart at other distances, as the tables of both visits have them."""
    rows = summary_of(trial, jobs)["V2"]
    assert {tuple(row["protocol_deviations"]) for row in rows} == {()}
    config = trial.config.summarise.model_copy(update={"slice_distance_tolerance_mm": 1e-6})
    results = tuple((job.visit, job.digests["quantify"]) for job in jobs)
    first, second = (read_findings(*result) for result in results)
    moved = [{**row, "slice_distance_mm": 12.0 * i} for i, row in enumerate(second.slices)]
    (flag,) = deviations(replace(second, slices=moved), first, config)
    assert flag.code == "slice_distances_differ"
    publisher = Publisher(trial.folder, trial.config, {"S01": "m"}, "run", "test", "test")
    publisher.result(jobs[1], {}, [row | {"protocol_deviations": [flag]} for row in rows], "summary")
    (visit,) = read_table(trial.folder, "visits").to_pylist()
    text = f"slice_distances_differ: {flag.message}"
    assert (visit["state"], visit["reason"], visit["qc_verdict"]) == ("flagged", text, "review")
    changes = read_table(trial.folder, "longitudinal").to_pylist()
    assert {tuple(row["protocol_deviations"]) for row in changes} == {(text,)}
    (published,) = read_table(trial.folder, "flags").to_pylist()
    assert published["threshold"] == 1e-6
    assert published["value"] == flag.value
    assert flag.value is not None
    assert flag.value > 1


NOT_YET = {
    "scans": (
        "row_spacing_mm",
        "col_spacing_mm",
        "minutes_since_contrast",
        "n_slices_used_native",
        "n_slices_used_post",
        "n_slices_used_ecv",
        "hematocrit_synthetic_fraction",
        "hematocrit_synthetic_source",
        "qc_reasons",
    ),
    "slices": (
        "slice_distance_mm",
        "n_echoes_left_out_blood_native",
        "n_echoes_left_out_blood_post",
        "qc_reasons",
    ),
    "segments": ("n_pixels_ecv_invalid",),
}
"""Columns that came after verdicts, by table."""
NOT_YET_REGIONAL = (
    "n_pixels_read_native",
    "n_pixels_read_post",
    "n_pixels_ecv",
    "ecv_synthetic_fraction",
    "ecv_uncertainty_fraction",
    "t1_native_uncertainty_ms",
    "t1_post_uncertainty_ms",
)
"""Columns that came later, of all three tables."""


def as_stored_formerly(store: zarr.Group) -> None:
    """Take from a store what results of former versions lack."""
    stored = cast("dict[str, Any]", store.attrs["rows"])
    for table, columns in NOT_YET.items():
        for row in stored[table]:
            for column in (*columns, *NOT_YET_REGIONAL):
                row.pop(column, None)
    store.attrs["rows"] = stored
    for role in ("native", "post"):
        guide = store[f"{role}/guide"]
        notes = cast("list[dict[str, Any] | None]", guide.attrs["guides"])
        guide.attrs["guides"] = [
            note and {key: note[key] for key in ("origin", "score", "findings", "rejected")} for note in notes
        ]


def test_results_of_former_versions_are_summarised_and_published(
    trial: Trial, jobs: tuple[VisitJob, ...], tmp_path: Path
) -> None:
    """Their upload may be gone, so nobody can compute them anew; what they lack is missing, not an error."""
    rows = summary_of(trial, jobs)["V2"]
    shutil.copytree(trial.folder, tmp_path / "trial", copy_function=shutil.copy2)
    former = open_trial(tmp_path / "trial")
    visits = [replace(job.visit, root=str(former.root)) for job in jobs]
    results = tuple((visit, job.digests["quantify"]) for visit, job in zip(visits, jobs, strict=True))
    path = store_path(former.root, "S01", "V1", results[0][1])
    as_stored_formerly(zarr.open_group(path, mode="r+"))
    config = former.config.summarise
    summary = summarise.fn("S01", results, config, stated_repeatability(config))
    assert summary == {"V1": [], "V2": rows}  # spacing and distances of slices are read from the stack
    publisher = Publisher(former.root, former.config, {"S01": "m"}, "run", "test", "test")
    for job, visit in zip(jobs, visits, strict=True):
        publisher.result(replace(job, visit=visit), {}, summary[visit.visit_id], "summary")
    scans = {row["visit_id"]: row for row in read_table(former.root, "scans").to_pylist()}
    assert scans["V1"]["t1_native_ms"] is not None
    assert scans["V1"]["row_spacing_mm"] is None
    assert scans["V2"]["row_spacing_mm"] is not None


def test_what_intake_found_out_about_acquisitions_is_flagged(
    trial: Trial, jobs: tuple[VisitJob, ...]
) -> None:
    """A repeated slice, and a post-contrast series of another scanner."""
    job = jobs[0]
    run_stages(trial, job)
    store = open_store(trial.folder, "S01", job.visit.visit_id, job.digests["intake"])
    native, post = read_stack(store, "native"), read_stack(store, "post")
    assert stack_flags(native, post) == []
    repeated = replace(native, repeats=("native: slice 2 is also in series 5",))
    flags = stack_flags(repeated, replace(post, field_strength_t=0.55, scanner_model="another"))
    assert [(flag.code, flag.role) for flag in flags] == [
        ("acquisition_repeated", "native"),
        ("field_strength_differs", "post"),
        ("scanner_differs", "post"),
    ]
    from_trigger = replace(native, ti_source=(("TriggerTime (0018,1060)",) * 8,) * 3)
    assert [(flag.code, flag.role) for flag in stack_flags(from_trigger, None)] == [
        ("inversion_time_doubtful", "native")
    ]


def test_a_scan_is_no_better_than_its_worst_flag() -> None:
    """Who asks the table of scans for those that passed gets none that intake had doubts about."""
    clean = ScanResult({}, {}, {"qc_verdict": "pass"}, [], [], [], [], "pass", [])
    doubtful = add_flags(clean, [raise_flag("file_refused", "upload u-1, file 3: broken")])
    assert doubtful.scan["qc_verdict"] == doubtful.verdict == "review"
    assert add_flags(clean, []) == clean


def stored_ecv(visit: VisitRef, digest: str) -> float:
    """Read the ECV that a result's store keeps for the table of scans."""
    rows: Any = open_store(visit.path, visit.subject_id, visit.visit_id, digest).attrs["rows"]
    return float(rows["scans"][0]["ecv_fraction"])
