"""What ``cmrtrials status ROOT --history`` shows: nights, what they took, and the slowest visits."""

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.terminal import console
from storage.history import all_visit_rows
from storage.trial import Trial

SECONDS = ("seconds_intake", "seconds_segment", "seconds_quantify")
N_SLOWEST = 10
"""Visits shown as the slowest."""


@dataclass(slots=True)
class PastNight:
    """What a run published."""

    run_id: str
    """Prefect's id of the flow run."""
    first: datetime
    """When its first row was published."""
    last: datetime
    """When its last row was published."""
    states: Counter[str] = field(default_factory=Counter)
    """How many visits it published in each state."""
    n_computed: int = 0
    """Visits of which it computed a stage."""
    seconds: float = 0.0
    """What those stages took, in all [s]."""

    @property
    def minutes(self) -> float:
        """From the first to the last publication [min]: planning and the first visit are not in it."""
        return (self.last - self.first).total_seconds() / 60


def past_nights(rows: Iterable[Mapping[str, Any]]) -> list[PastNight]:
    """Gather rows of ``visits`` by the run that published them, oldest first.

    A row that was published again, say with a new summary, still has the times of the night that computed
    it; they count there only.

    Parameters
    ----------
    rows
        As `storage.history.all_visit_rows` gives them.
    """
    nights: dict[str, PastNight] = {}
    former: dict[tuple[str, str], list[float | None]] = {}
    for row in rows:
        at = row["published_at"]
        run_id = row["run_id"] or "-"
        night = nights.setdefault(run_id, PastNight(run_id, at, at))
        night.last = at
        night.states[row["state"]] += 1
        visit, times = (row["subject_id"], row["visit_id"]), [row.get(name) for name in SECONDS]
        known = [time for time in times if time is not None]
        if known and times != former.get(visit):
            night.n_computed += 1
            night.seconds += sum(known)
        former[visit] = times
    return list(nights.values())


def slowest_visits(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Give the rows that took longest to compute, slowest first, of each visit the latest one with times."""
    latest = {
        (row["subject_id"], row["visit_id"]): row
        for row in rows
        if any(row.get(name) is not None for name in SECONDS)
    }
    return sorted(latest.values(), key=_seconds, reverse=True)[:N_SLOWEST]


def print_history(trial: Trial) -> None:
    """Print nights and slowest visits: two tables, or into a pipe lines whose cells are parted by tabs."""
    rows = all_visit_rows(trial.root)
    nights = [
        [
            night.run_id,
            f"{night.first:%Y-%m-%d %H:%M:%S}",
            f"{night.minutes:.1f}",
            str(night.states.total()),
            ", ".join(f"{n} {state}" for state, n in sorted(night.states.items())),
            str(night.n_computed),
            f"{night.seconds:.1f}",
            f"{night.seconds / night.n_computed:.1f}" if night.n_computed else "-",
        ]
        for night in past_nights(rows)
    ]
    slowest = [
        [
            row["subject_id"],
            row["visit_id"],
            f"{_seconds(row):.1f}",
            *("-" if row.get(name) is None else f"{row[name]:.1f}" for name in SECONDS),
            row.get("device") or "-",
            row["run_id"] or "-",
        ]
        for row in slowest_visits(rows)
    ]
    _print(
        "nights that published something",
        [
            "run",
            "first row [UTC]",
            "to the last [min]",
            "visits",
            "states",
            "computed",
            "work [s]",
            "a visit [s]",
        ],
        nights,
    )
    _print(
        "slowest visits",
        ["subject", "visit", "work [s]", "intake", "segment", "quantify", "device", "run"],
        slowest,
    )


def _seconds(row: Mapping[str, Any]) -> float:
    return sum(row.get(name) or 0.0 for name in SECONDS)


def _print(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not console.is_terminal:
        csv.writer(sys.stdout, delimiter="\t", lineterminator="\n").writerows([headings, *rows])
        return
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(escape(heading), overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
