"""The flow that computes one visit under other settings, beside the record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from pydantic import Field

from flows.artifacts import artifact_key, plain
from flows.forms import Id, Reason, Root, with_form
from flows.night import Night, this_run
from flows.preflight import check_ready
from flows.reconcile import tells_its_end
from flows.site import dask_task_runner, site_settings
from flows.user import current_user
from storage.arrays import link_store, store_exists
from storage.config import TrialConfig
from storage.errors import NotStoredError, PlanError
from storage.lock import night_underway
from storage.plan import PlannedVisit
from storage.reviews import read_reviews
from storage.tables import read_table, recover
from storage.trial import Trial, open_trial
from storage.upload import Upload
from storage.whatif import Variant, read_variant, whatif_root, write_whatif
from tasks.digests import stage_digests
from tasks.fanout import Fanout
from tasks.plan import NightPlan, Selection, VisitJob, plan_night
from tasks.publish import Publisher
from tasks.stage import StageName, VisitRef
from tasks.weights import needed_weights

STAGES: tuple[StageName, ...] = ("intake", "segment", "quantify")

SHOWN = (
    ("QC", "qc_verdict", 1.0, "{}"),
    ("T1 native [ms]", "t1_native_ms", 1.0, "{:.1f}"),
    ("T1 native, septal [ms]", "t1_native_septal_ms", 1.0, "{:.1f}"),
    ("T1 post [ms]", "t1_post_ms", 1.0, "{:.1f}"),
    ("blood T1 native [ms]", "blood_t1_native_ms", 1.0, "{:.1f}"),
    ("blood T1 post [ms]", "blood_t1_post_ms", 1.0, "{:.1f}"),
    ("R² native", "r_squared_native_mean", 1.0, "{:.4f}"),
    ("R² post", "r_squared_post_mean", 1.0, "{:.4f}"),
    ("partition coefficient", "partition_coefficient", 1.0, "{:.3f}"),
    ("ECV [%]", "ecv_fraction", 100.0, "{:.2f}"),
    ("ECV, septal [%]", "ecv_septal_fraction", 100.0, "{:.2f}"),
    ("pixels of myocardium", "n_pixels_myocardium", 1.0, "{:.0f}"),
    ("flags", "qc_reasons", 1.0, "{}"),
)
"""Heading, column of ``scans``, factor and format of what is shown side by side."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A visit, and the place where it is computed under other settings."""

    record: Trial
    """The trial."""
    folder: Path
    """The place, which becomes the root of a small trial."""
    variant: Variant
    """Its configuration."""
    line: PlannedVisit
    """The visit's line in subjects.csv."""


@tells_its_end
@with_form
@flow(name="whatif", task_runner=dask_task_runner(), persist_result=False)
def whatif(
    root: Root,
    reason: Reason,
    subject_id: Annotated[Id, Field(description="As subjects.csv spells it.")],
    visit_id: Annotated[Id, Field(description="Such as V1.")],
    settings: Annotated[
        list[Annotated[str, Field(pattern=r"^\s*[a-z0-9_]+(\.[a-z0-9_]+)+\s*=\s*\S")]],
        Field(
            min_length=1,
            description="Each as in trial.toml with its section before it: segment.alpha=0.5, "
            'align.method="none". Sections: intake, segment, align, quantify, summarise.',
        ),
    ],
) -> State[Any]:
    """Compute one visit under other settings into whatif/, never over the record.

    The record's numbers and the new ones are shown side by side in the artifacts of the run.
    """
    run_id, runner = this_run()
    prepared = prepare(Path(root), subject_id, visit_id, settings)
    check_ready(prepared.record.folder, site_settings())
    needed_weights(prepared.record.folder, prepared.variant.config.segment)
    plan = _plan(prepared)
    write_whatif(prepared.record.folder, prepared.folder, prepared.variant, prepared.line)
    trial = open_trial(prepared.folder)
    with night_underway(trial.folder):
        recover(trial.folder)
        (job,) = plan.jobs
        _reuse(prepared.record.folder, trial.folder, job)
        publisher = Publisher(
            root=trial.folder,
            config=trial.config,
            matching=plan.matching,
            run_id=run_id,
            who=current_user(),
            why=f"whatif: {reason}",
        )
        state = Night(trial, plan, publisher, Fanout(runner), site_settings().visit_minutes * 60).run()
    try:
        create_markdown_artifact(
            comparison_markdown(prepared, reason),
            key=artifact_key(prepared.record.config.trial_id, "whatif"),
            description=f"{subject_id}/{visit_id} under other settings",
        )
    except Exception:  # noqa: BLE001 (the numbers are in the tables)
        get_run_logger().warning("the artifact cannot be written", exc_info=True)
    return state


def prepare(root: Path, subject_id: str, visit_id: str, settings: Sequence[str]) -> Prepared:
    """Check what is asked for; nothing is written.

    Raises
    ------
    PlanError
        When the visit is not planned.
    ConfigError
        When a setting cannot be used, see `storage.whatif.read_variant`.
    """
    record = open_trial(root)
    for line in record.plan():
        if (line.subject_id, line.visit_id) == (subject_id, visit_id):
            variant = read_variant(record.folder, settings)
            folder = whatif_root(record.folder, subject_id, visit_id, variant.config)
            return Prepared(record, folder, variant, line)
    message = f"not planned in subjects.csv: {subject_id}/{visit_id}"
    raise PlanError(message)


def before_after(prepared: Prepared) -> list[tuple[str, str, str]]:
    """Give what a visit's scan has in the record, and under the other settings: name, before, after."""
    before, after = (
        _scan(folder, prepared.line.subject_id, prepared.line.visit_id)
        for folder in (prepared.record.folder, prepared.folder)
    )
    return [
        (heading, _text(before.get(column), factor, form), _text(after.get(column), factor, form))
        for heading, column, factor, form in SHOWN
    ]


def comparison_markdown(prepared: Prepared, reason: str) -> str:
    """Write settings and numbers side by side."""
    lines = [
        f"# {prepared.line.subject_id}/{prepared.line.visit_id} under other settings",
        "",
        plain(reason),
        "",
        "| setting | record | what if |",
        "| --- | --- | --- |",
        *(f"| {name} | `{old}` | `{new}` |" for name, (old, new) in prepared.variant.changes.items()),
        "",
        "| | record | what if |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {old} | {new} |" for name, old, new in before_after(prepared)),
        "",
        f"Tables and arrays: `{prepared.folder.relative_to(prepared.record.folder)}` in the trial's folder, "
        f"a trial of its own for `cmrtrials compare`, `query` and `status`.",
    ]
    return "\n".join(lines)


def _plan(prepared: Prepared) -> NightPlan:
    """Plan the visit alone, from the uploads of the record or from what was once taken of them.

    Raises
    ------
    NotStoredError
        When there is neither.
    """
    record, config, line = prepared.record, prepared.variant.config, prepared.line
    of_record = plan_night(
        Trial(record.folder, config),
        Selection("chosen", frozenset({line.subject_id}), frozenset({line.visit_id})),
    )
    key = (line.subject_id, line.visit_id)
    recorded = next(one for one in of_record.recorded if (one.subject_id, one.visit_id) == key)
    visit = VisitRef(str(prepared.folder), line.subject_id, line.visit_id, line.site_id)
    job = next((one for one in of_record.jobs if (one.visit.subject_id, one.visit.visit_id) == key), None)
    if job is None:
        job = _former_job(prepared, of_record, recorded, visit)
    source = job.guide_source
    if source is not None and not store_exists(
        record.folder, line.subject_id, source.visit_id, source.segment_digest
    ):
        message = (
            f"{visit.label}: visit {source.visit_id} guides it, which these settings have never segmented; "
            f'set segment.guide_from="visit" as well'
        )
        raise NotStoredError(message)
    return NightPlan(
        recorded=(recorded,),
        key_name=of_record.key_name,
        matching=of_record.matching,
        published={},
        jobs=(replace(job, visit=visit, force=False),),
        waiting=(),
        outdated_subjects=frozenset(),
        retests=(),
        stray=(),
        taken={},
        arriving=(),
        idle=(),
        outdated=(),
        corrected=(),
        standing={},
    )


def _former_job(
    prepared: Prepared, of_record: NightPlan, recorded: PlannedVisit, visit: VisitRef
) -> VisitJob:
    """Plan a visit whose uploads are gone, from what was once taken of them.

    Raises
    ------
    NotStoredError
        When nothing is stored that the settings leave as it is, or another visit's guides are asked for.
    """
    record, config, line = prepared.record, prepared.variant.config, prepared.line
    key = (line.subject_id, line.visit_id)
    uploads = _former_uploads(of_record.published.get(key, {}), config)
    contents = [upload.content_digest for upload in uploads]
    reviewed = read_reviews(record.folder).get(key, ())
    digests_by = partial(stage_digests, config, recorded, contents, of_record.key_name, reviewed=reviewed)
    digests = digests_by(None)
    if not uploads or not store_exists(record.folder, *key, digests["intake"]):
        message = (
            f"{visit.label}: has no upload in incoming/ to compute from, and nothing stored that these "
            f"settings leave as it is"
        )
        raise NotStoredError(message)
    if config.segment.guide_from != "visit":
        message = (
            f"{visit.label}: has no upload in incoming/, so nobody knows which visit guides it; "
            f'set segment.guide_from="visit" as well'
        )
        raise NotStoredError(message)
    return VisitJob(visit, line, recorded, uploads, digests, False, None, digests_by, reviewed)


def _former_uploads(row: Mapping[str, Any], config: TrialConfig) -> tuple[Upload, ...]:
    """Name the uploads that a published visit was computed from, and that are gone."""
    names = (row.get(column, ()) for column in ("upload_ids", "upload_digests", "upload_fingerprints"))
    return tuple(
        Upload(upload_id, digest, fingerprint, Path(), files=(), changed_ns=0, rules=config.uploads)
        for upload_id, digest, fingerprint in zip(*names, strict=True)
    )


def _reuse(record: Path, root: Path, job: VisitJob) -> None:
    """Take over what the record has stored under the same digests: what no changed setting touches."""
    ids = (job.visit.subject_id, job.visit.visit_id)
    for stage in STAGES:
        digest = job.digests[stage]
        if store_exists(record, *ids, digest) and not store_exists(root, *ids, digest):
            link_store(record, root, *ids, digest)
            get_run_logger().info("%s %s is the record's, digest=%.12s", stage, job.visit.label, digest)
    if (source := job.guide_source) is not None:
        lender = (job.visit.subject_id, source.visit_id, source.segment_digest)
        if not store_exists(root, *lender):
            link_store(record, root, *lender)


def _scan(root: Path, subject_id: str, visit_id: str) -> Mapping[str, Any]:
    rows = read_table(root, "scans", subject_id).to_pylist()
    return next((row for row in rows if row["visit_id"] == visit_id), {})


def _text(value: Any, factor: float, form: str) -> str:  # noqa: ANN401 (any cell)
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return form.format(value if isinstance(value, str) else value * factor)
