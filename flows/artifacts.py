"""What a night shows in the Prefect UI: how far it is, every visit with state and reason, a summary.

The keys of artifacts are made of the trial's name, so that the UI keeps their history from night to night.
An artifact is for reading only: one that cannot be written is told to the log, and never stops a night.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

from storage.plan import PlannedVisit, counted
from storage.trial import Trial
from tasks.report.trial_summary import trial_summary_markdown

ROWS_MAX = 1000
"""Rows of the table; what needs attention comes first, and is never so much."""
STEP_S = 2.0
"""Shortest time between two steps of the progress [s]."""
REPORTS = "reports"
"""Folder of a trial's root with its pages."""

ATTENTION = ("failed", "refused", "flagged", "waiting", "new", "done")
"""States of visits in the order in which somebody has to do something."""


def artifact_key(trial_id: str, what: str) -> str:
    """Give the key of one of a trial's artifacts; Prefect takes lowercase letters, digits and dashes."""
    return f"{slug(trial_id)}-{what}"


def slug(trial_id: str) -> str:
    """Write a trial's name in lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", trial_id.lower()).strip("-")


class NightArtifacts:
    """The artifacts of one night, while it runs and when it has ended."""

    def __init__(self, trial: Trial, reports_url: str | None) -> None:
        self._trial = trial
        self._reports_url = reports_url
        self._started_s = self._stepped_s = time.monotonic()
        self._progress: UUID | None = None
        self._is_broken = False

    def begin(self, n_visits: int) -> None:
        """Show that a night has begun, and how many visits it has to compute."""

        def create() -> None:
            made = create_progress_artifact(
                100.0 if n_visits == 0 else 0.0,
                key=artifact_key(self._trial.config.trial_id, "progress"),
                description=f"{n_visits} visits to compute",
            )
            self._progress = cast("UUID", made)  # it is a coroutine only where an event loop runs

        self._attempt(create)

    def advance(self, n_ended: int, n_visits: int) -> None:
        """Move the progress on, but not at every visit of a fast night."""
        now_s = time.monotonic()
        if self._progress is None or (n_ended < n_visits and now_s - self._stepped_s < STEP_S):
            return
        self._stepped_s = now_s
        progress = self._progress
        self._attempt(
            lambda: update_progress_artifact(
                progress,
                100.0 * n_ended / n_visits,
                description=f"{n_ended} of {n_visits} visits computed or failed",
            )
        )

    def end(
        self,
        planned: Iterable[PlannedVisit],
        published: Mapping[tuple[str, str], Mapping[str, Any]],
        news: Mapping[str, str],
        tally: str,
    ) -> None:
        """Show every planned visit, and what the night came to.

        Parameters
        ----------
        planned
            Lines of the plan.
        published
            Rows of the table ``visits`` by subject and visit.
        news
            What went wrong tonight, by visit or upload.
        tally
            The night in one line.
        """
        trial_id = self._trial.config.trial_id
        rows = visit_rows(planned, published, news, self._page)
        minutes = (time.monotonic() - self._started_s) / 60
        shown = "what needs attention first"
        if len(rows) > ROWS_MAX:
            shown += f"; {ROWS_MAX} of {len(rows)}, the others in `cmrtrials status`"
        cells = [row | {"report": f"[page]({row['report']})" if row["report"] else ""} for row in rows]
        self._attempt(
            lambda: create_table_artifact(
                cells[:ROWS_MAX],
                key=artifact_key(trial_id, "visits"),
                description=f"Visits of {trial_id}: {shown}",
            )
        )
        self._attempt(
            lambda: create_markdown_artifact(
                summary_markdown(trial_id, rows, news, tally, minutes, self._page())
                + "\n## The trial as it stands\n\n"
                + trial_summary_markdown(self._trial, published.values()),
                key=artifact_key(trial_id, "night"),
                description=f"Night of {trial_id}",
            )
        )

    def _page(self, subject_id: str | None = None, visit_id: str | None = None) -> str | None:
        """Address of the trial's page, or of a visit's; None where there is none yet."""
        parts = ["index.html"] if subject_id is None else [subject_id, f"{visit_id}.html"]
        file = self._trial.root.joinpath(REPORTS, *parts)
        if self._reports_url is None:
            return file.as_uri() if file.is_file() else None
        path = "/".join(quote(part) for part in [self._trial.config.trial_id, *parts])
        return f"{self._reports_url.rstrip('/')}/{path}"

    def _attempt(self, write: Callable[[], object]) -> None:
        """Write an artifact, and none any more after one failed: a silent server costs minutes a call."""
        if self._is_broken:
            return
        try:
            write()
        except Exception:  # noqa: BLE001 (whatever it is, the night goes on)
            self._is_broken = True
            get_run_logger().warning("artifacts cannot be written; the night goes on", exc_info=True)


def visit_rows(
    planned: Iterable[PlannedVisit],
    published: Mapping[tuple[str, str], Mapping[str, Any]],
    news: Mapping[str, str],
    page: Callable[[str, str], str | None],
) -> list[dict[str, Any]]:
    """Give a row for each planned visit: tonight's news first, then by state, subject and visit.

    Parameters
    ----------
    planned
        Lines of the plan.
    published
        Rows of the table ``visits`` by subject and visit.
    news
        What went wrong tonight, by visit or upload.
    page
        Gives the address of a visit's report; None where there is none.
    """
    rows = []
    for line in planned:
        row = published.get((line.subject_id, line.visit_id), {})
        label = f"{line.subject_id}/{line.visit_id}"
        rows.append(
            {
                "subject": line.subject_id,
                "visit": line.visit_id,
                "site": line.site_id,
                "state": row.get("state", "new"),
                "checks": row.get("qc_verdict") or "",
                "tonight": "new" if label in news else "",
                "report": page(line.subject_id, line.visit_id) or "" if row.get("result_digest") else "",
                # A rerun that failed leaves the row of its result as it is.
                "reason": row.get("reason") or news.get(label, ""),
            }
        )
    rows.sort(
        key=lambda row: (
            not row["tonight"],
            ATTENTION.index(row["state"]),
            counted(row["subject"]),
            counted(row["visit"]),
        )
    )
    return rows


def summary_markdown(
    trial_id: str,
    rows: Sequence[Mapping[str, Any]],
    news: Mapping[str, str],
    tally: str,
    minutes: float,
    page: str | None,
) -> str:
    """Write a night's summary: counts, what went wrong tonight, where to read on.

    Parameters
    ----------
    trial_id
        The trial.
    rows
        Every planned visit, see `visit_rows`.
    news
        What went wrong tonight, by visit or upload.
    tally
        The night in one line.
    minutes
        How long it took [min].
    page
        Address of the trial's page; None where there is none.
    """
    counts = Counter(row["state"] for row in rows)
    verdicts = Counter(row["checks"] for row in rows if row["checks"])
    lines = [
        f"# Night of {trial_id}",
        "",
        f"**{'Something went wrong tonight' if news else 'Nothing new went wrong'}**, {minutes:.1f} minutes.",
        "",
        "| state | visits |",
        "| --- | ---: |",
        *(f"| {state} | {counts[state]} |" for state in ATTENTION if counts[state]),
        "",
    ]
    if verdicts:
        lines += ["Checks: " + ", ".join(f"{n} {verdict}" for verdict, n in sorted(verdicts.items())), ""]
    if news:
        lines += ["## Failed or refused tonight", ""]
        lines += [f"- **{plain(label)}** {plain(reason)}" for label, reason in sorted(news.items())]
        lines += [""]
    lines += [plain(tally), ""]
    reports = [f"[{row['subject']}/{row['visit']}]({row['report']})" for row in rows if row["report"]]
    if page is not None:
        lines += [f"Report of the trial: [{trial_id}]({page})", ""]
    if reports:
        more = f" and {len(reports) - 20} more" if len(reports) > 20 else ""
        lines += ["Reports of visits: " + ", ".join(reports[:20]) + more, ""]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Keep Markdown from taking what a reason says for marks of its own."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
