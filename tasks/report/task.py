"""The page of a visit as a task of a night."""

import time

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from storage.trial import open_trial
from tasks.report.visit_page import write_visit_page


@task(
    name="report",
    task_run_name="report {subject_id}/{visit_id}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def report(root: str, subject_id: str, visit_id: str) -> None:
    """Write a visit's page from what is published."""
    started = time.perf_counter()
    page = write_visit_page(open_trial(root), subject_id, visit_id)
    seconds, n_bytes = time.perf_counter() - started, page.stat().st_size
    get_run_logger().info("report %s/%s seconds=%.2f bytes=%d", subject_id, visit_id, seconds, n_bytes)
