"""The command ``cmrtrials report``: all pages of a trial, made anew from what is stored."""

from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from flows.night import progress
from storage.place import Place
from storage.trial import Trial, open_trial
from tasks.failure import describe
from tasks.fanout import Failure
from tasks.matching import VisitKey
from tasks.plan import Selection
from tasks.published import published_visits
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


PAGES_A_PROCESS = 6
"""Pages that take as long as another process does to start."""


def make_pages(trial: Trial, chosen: Selection, n_processes: int) -> MadePages:
    """Make the pages of chosen visits of which anything is published, then the trial's.

    Parameters
    ----------
    trial
        The trial.
    chosen
        Which visits.
    n_processes
        Most processes; fewer pages are made by fewer, the fewest by this one.

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
    made = _made(trial.root, visits, min(n_processes, len(visits) // PAGES_A_PROCESS))
    for n_ended, (key, problem) in enumerate(made):
        progress.info("/".join(key), extra={"n_ended": n_ended, "n_in_all": len(visits)})
        if problem is not None:
            failed[key] = problem
    record_pages(trial, set(visits).difference(failed), failed)
    labels = {"/".join(key): why for key, why in failed.items()}
    return MadePages(write_trial_page(trial), len(visits) - len(failed), labels)


def _made(root: Place, visits: Sequence[VisitKey], n_processes: int) -> Iterator[tuple[VisitKey, str | None]]:
    """Make pages, and give each visit as its page has ended, with the problem if there was one."""
    if n_processes < 2:
        yield from ((key, _make_page(root, key)) for key in visits)
        return
    # Forked after torch has threads, a process can hang.
    with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
        keys = {pool.submit(_make_page, root, key): key for key in visits}
        for future in as_completed(keys):
            # A process that died takes all pages with it that are not made yet: they are made here.
            is_broken = isinstance(future.exception(), BrokenExecutor)
            yield keys[future], _make_page(root, keys[future]) if is_broken else future.result()


def _make_page(root: Place, key: VisitKey) -> str | None:
    """Make a visit's page; give why it could not be made."""
    try:
        write_visit_page(open_trial(root), *key)
    except Exception as error:  # noqa: BLE001 (a page that fails must not take the others with it)
        return describe(Failure("error", error))
    return None
