"""What is published: visits with their states, results that can be used, and their pairs of retests."""

from collections.abc import Iterable, Mapping
from typing import Any

from storage.config import TrialConfig
from storage.place import Place
from storage.plan import PlannedVisit
from storage.tables import read_table
from tasks.matching import VisitKey

RetestPair = tuple[tuple[str, str, str], tuple[str, str, str]]
"""Subject, visit and result digest of a visit and of its retest."""

USABLE_STATES = frozenset({"done", "flagged"})
"""States of a visit that has a result."""

FAILED_STATES = frozenset({"failed", "refused"})
"""States of a visit that was tried in vain."""


def published_visits(root: Place) -> dict[VisitKey, dict[str, Any]]:
    """Rows of the table ``visits`` by subject and visit."""
    return {(row["subject_id"], row["visit_id"]): row for row in read_table(root, "visits").to_pylist()}


def usable_results(
    planned: Iterable[PlannedVisit], published: Mapping[VisitKey, Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """Give the published result digests by subject, then visit in order of their dates."""
    results: dict[str, dict[str, str]] = {}
    for line in sorted(planned, key=lambda line: line.visit_date):
        row = published.get((line.subject_id, line.visit_id))
        if row is not None and row["state"] in USABLE_STATES:
            results.setdefault(line.subject_id, {})[line.visit_id] = row["result_digest"]
    return results


def retest_pairs(config: TrialConfig, results: Mapping[str, Mapping[str, str]]) -> tuple[RetestPair, ...]:
    """Results of visits between which nothing changes, of every subject that has both.

    Parameters
    ----------
    config
        Rules of the trial, which name the visits.
    results
        Result digests by subject, then visit.
    """
    return tuple(
        ((subject_id, first, of_subject[first]), (subject_id, second, of_subject[second]))
        for subject_id, of_subject in sorted(results.items())
        for first, second in config.summarise.retest_visits
        if first in of_subject and second in of_subject
    )
