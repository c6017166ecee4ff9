"""The pages of visits that a night makes."""

from collections.abc import Mapping
from typing import Any

from storage.trial import Trial
from tasks.failure import describe
from tasks.fanout import Failure, Fanout
from tasks.matching import VisitKey
from tasks.report.task import report
from tasks.report.trial_page import RESULTS_PAGE, write_trial_page
from tasks.report.visit_failed import record_pages
from tasks.report.visit_page import outdated_pages

PAGE_LIMIT_S = 120.0
"""Time that a visit's page may take, which takes a second [s]."""


def make_outdated_pages(
    trial: Trial, fanout: Fanout, published: Mapping[VisitKey, Mapping[str, Any]]
) -> dict[str, str]:
    """Make the pages that no longer show what is published; one that fails is told and fails no visit.

    Parameters
    ----------
    trial
        The trial.
    fanout
        The cluster, with nothing under way.
    published
        Rows of the table ``visits`` by subject and visit.

    Returns
    -------
        Pages that could not be made, by visit, and why; under ``pages`` what concerns them all.
    """
    made: set[VisitKey] = set()
    failed: dict[VisitKey, str] = {}
    missing: dict[str, str] = {}
    try:
        for subject_id, visit_id in outdated_pages(trial.root, published):
            key, root = (subject_id, visit_id), str(trial.root)
            fanout.submit(key, report, "CPU", root, subject_id, visit_id, limit_s=PAGE_LIMIT_S)
        for key, outcome in fanout:
            if isinstance(outcome, Failure):
                failed[key] = describe(outcome)
            else:
                made.add(key)
        record_pages(trial, made, failed)
        # A night without news changes no file.
        if made or failed or not (trial.root / RESULTS_PAGE).exists():
            write_trial_page(trial)
    except Exception as error:  # noqa: BLE001 (results are published: no page may undo a night)
        missing["pages"] = describe(Failure("error", error))
    return missing | {"/".join(key): why for key, why in failed.items()}
