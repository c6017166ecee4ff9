"""The verdict of a night: Failed where something new went wrong, and the trial in one line."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks.matching import VisitKey
from tasks.plan import NightPlan

NEWS = "failed or refused tonight: "
"""How the message of a night begins in which something new went wrong."""


def tally(
    plan: NightPlan,
    rows: Mapping[VisitKey, Mapping[str, Any]],
    stale_summaries: Mapping[str, str],
    missing_pages: Mapping[str, str],
) -> str:
    """Say in one line how many visits are in which state, and what somebody should know besides.

    Parameters
    ----------
    plan
        What the night had to do.
    rows
        Rows of the table ``visits`` as the night leaves them, by subject and visit.
    stale_summaries
        Visits whose summary could not be renewed, and why.
    missing_pages
        Visits whose page could not be made, and why.
    """
    planned = {(line.subject_id, line.visit_id) for line in plan.recorded}
    counts = Counter(row["state"] for key, row in rows.items() if key in planned)
    text = f"{len(planned)} visits: " + ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    for what, which in {
        "uploads that no planned visit takes": [str(stray) for stray in plan.stray],
        "uploads still arriving": [str(len(plan.arriving))] if plan.arriving else [],
        "asked for, but without an upload": plan.idle,
        "results of an older plan, trial.toml or review, as their uploads are gone": plan.outdated,
        "published, but no longer planned": ["/".join(key) for key in rows if key not in planned],
        "summary not renewed": [f"{label}: {why}" for label, why in stale_summaries.items()],
        "page not made": [f"{label}: {why}" for label, why in missing_pages.items()],
    }.items():
        if which:
            text += f"; {what}: {', '.join(which)}"
    return text


def verdict(news: Mapping[str, str], tallied: str) -> State[Any]:
    """Give the state in which a night ends: old news does not fail it again.

    Parameters
    ----------
    news
        What went wrong tonight, by visit or upload.
    tallied
        The trial in one line, see `tally`.
    """
    if news:
        listed = "; ".join(f"{label} {reason}" for label, reason in sorted(news.items()))
        return Failed(message=f"{NEWS}{listed} ({tallied})")
    return Completed(message=tallied)
