"""Summary of a subject: what changed from visit to visit."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from cmrcore.quantify.longitudinal import change_from_baseline
from storage.arrays import open_store
from storage.config import SummariseConfig
from tasks.stage import VisitRef


@task(name="summarise", task_run_name="summarise {subject_id}", cache_policy=NO_CACHE, persist_result=False)
def summarise(
    subject_id: str, results: tuple[tuple[VisitRef, str], ...], config: SummariseConfig
) -> dict[str, list[dict[str, Any]]]:
    """Compare each visit of a subject with its baseline, the first visit that has a result.

    Parameters
    ----------
    subject_id
        Pseudonym of the subject.
    results
        The subject's visits that have a result, in order of the plan, with their result digests.
    config
        What counts as a change.

    Returns
    -------
        Rows of the table ``longitudinal`` by visit; none for the baseline.
    """
    scans = []
    for visit, digest in results:
        store = open_store(visit.path, visit.subject_id, visit.visit_id, digest)
        rows: Any = store.attrs["rows"]
        scans.append({"visit_id": visit.visit_id, **rows["scans"][0]})
    changes = change_from_baseline(scans, config.ecv_change_relative)
    get_run_logger().info("summarise %s visits=%d changes=%d", subject_id, len(scans), len(changes))
    return {
        scan["visit_id"]: [row for row in changes if row["visit_id"] == scan["visit_id"]] for scan in scans
    }
