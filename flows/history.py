"""What ``cmrtrials status ROOT --history`` shows: nights, what they took, and the slowest visits."""

import csv
import sys
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from flows.terminal import console
from storage.tables import read_table
from storage.trial import Trial
from tasks.report.trial_runs import DEEDS, run_history, slowest_visits

SECONDS = ("seconds_intake", "seconds_segment", "seconds_quantify")
N_SLOWEST = 10
"""Visits shown as the slowest."""


def print_history(trial: Trial) -> None:
    """Print nights and slowest visits: two tables, or into a pipe lines whose cells are parted by tabs.

    A night lasts here from the first to the last row that it published: planning and its first visit are not
    in it. A night that published nothing is not listed.
    """
    rows = read_table(trial.root, "visits").to_pylist()
    nights = [
        [
            f"{run['first']:%Y-%m-%d %H:%M:%S}",
            f"{(run['last'] - run['first']).total_seconds() / 60:.1f}",
            *(str(run[deed]) for deed in DEEDS),
            f"{run['seconds']:.1f}",
            f"{run['seconds'] / run['computed']:.1f}" if run["computed"] else "-",
            run["why"],
        ]
        for run in run_history(trial.root, rows)
    ]
    times = [{"seconds": [row[name] for name in SECONDS]} for row in rows]
    slowest = [
        [
            rows[index]["subject_id"],
            rows[index]["visit_id"],
            f"{sum(value or 0.0 for value in times[index]['seconds']):.1f}",
            *("-" if value is None else f"{value:.1f}" for value in times[index]["seconds"]),
            rows[index]["device"] or "-",
        ]
        for index in slowest_visits(times, N_SLOWEST)
    ]
    _print(
        "nights that published something, the latest first",
        ["first row [UTC]", "to the last [min]", *DEEDS, "work [s]", "a visit [s]", "why"],
        nights,
    )
    _print(
        "slowest visits", ["subject", "visit", "work [s]", "intake", "segment", "quantify", "device"], slowest
    )


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
