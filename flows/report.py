"""The command ``cmrtrials report``: all pages of a trial, made anew from what is stored."""

from dataclasses import dataclass

from flows.night import describe, progress
from storage.place import Place
from storage.trial import Trial
from tasks.fanout import Failure
from tasks.matching import VisitKey
from tasks.plan import Selection, published_visits
from tasks.report.trial_page import write_trial_page
from tasks.report.visit_failed import record_pages
from tasks.report.visit_page import write_visit_page


@dataclass(frozen=True, slots=True)
class MadePages:
    """What became of the pages that were asked for."""

    trial_page: Place
    """Page of the trial."""
    n_made: int
    """Pages of visits that were made."""
    failed: dict[str, str]
    """Visits whose pages could not be made, and why."""


def make_pages(trial: Trial, chosen: Selection) -> MadePages:
    """Make the pages of chosen visits of which anything is published, one after the other, and the trial's.

    Raises
    ------
    PlanError
        If a chosen subject or visit is not planned.
    """
    chosen.check(trial.plan())
    visits = [
        (subject_id, visit_id)
        for subject_id, visit_id in sorted(published_visits(trial.root))
        if (not chosen.subject_ids or subject_id in chosen.subject_ids)
        and (not chosen.visit_ids or visit_id in chosen.visit_ids)
    ]
    failed: dict[VisitKey, str] = {}
    for n_ended, (subject_id, visit_id) in enumerate(visits):
        progress.info(f"{subject_id}/{visit_id}", extra={"n_ended": n_ended, "n_in_all": len(visits)})
        try:
            write_visit_page(trial, subject_id, visit_id)
        except Exception as error:  # noqa: BLE001 (a page that fails must not take the others with it)
            failed[subject_id, visit_id] = describe(Failure("error", error))
    record_pages(trial, set(visits).difference(failed), failed)
    labels = {"/".join(key): why for key, why in failed.items()}
    return MadePages(write_trial_page(trial), len(visits) - len(failed), labels)
