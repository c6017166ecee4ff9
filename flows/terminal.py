"""What the command prints: progress, tables, and clear first lines of errors."""

import csv
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from flows.errors import FlowError
from storage.errors import StorageError
from storage.objects import files_under, store_errors
from storage.plan import counted
from storage.reviews import pending_reviews
from storage.running import running_nights
from storage.schema import REVIEWS
from storage.tables import read_table
from storage.trial import Trial

if TYPE_CHECKING:
    from flows.export import Exported
    from flows.intake import CheckedUpload
    from flows.review import ReviewOutcome

STATE_STYLES = {"done": "green", "flagged": "yellow", "waiting": "dim", "failed": "red", "refused": "red"}

VERDICT_STYLES = {
    "accepted": "green",
    "accepted in part": "yellow",
    "taken before": "dim",
    "arriving": "dim",
    "refused": "red",
    "no planned visit": "red",
    "recorded": "green",
    "recorded before": "dim",
    "would be recorded": "green",
}

PERCENT = "{:.1%}"

SCAN_COLUMNS = (
    ("subject", "subject_id", "{}"),
    ("visit", "visit_id", "{}"),
    ("T1 native\n[ms]", "t1_native_ms", "{:.0f}"),
    ("T1 post\n[ms]", "t1_post_ms", "{:.0f}"),
    ("R²\nnative", "r_squared_native_mean", "{:.3f}"),
    ("R²\npost", "r_squared_post_mean", "{:.3f}"),
    ("Hct\n[%]", "hematocrit_fraction", PERCENT),
    ("ECV\n[%]", "ecv_fraction", PERCENT),
    ("QC", "qc_verdict", "{}"),
)
"""Heading, column and format of what a night prints of each scan."""

console = Console()


@contextmanager
def fail_clearly() -> Iterator[None]:
    """Turn an error that names what to do into one line and exit code 2, without a traceback.

    What did not answer in time is exit code 3, and says nothing against the trial. Ctrl-C is exit code 130,
    as for any command, also where a library made another error of it.
    """
    with _noticed_ctrl_c() as was_pressed:
        try:
            yield
        except KeyboardInterrupt:
            _say_stopped()
        except TimeoutError as error:  # an OSError, yet of Prefect or Dask on a machine that is too busy
            if was_pressed():
                _say_stopped()
            message = (
                f"broken off: {str(error) or 'no answer in time'}; what was published stands, run it again"
            )
            Console(stderr=True).print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)
            raise typer.Exit(code=3) from None
        except _told_errors() as error:
            if was_pressed():
                _say_stopped()
            said = str(error) or type(error).__name__
            Console(stderr=True).print(f"[red]error:[/red] {escape(said)}", soft_wrap=True)
            raise typer.Exit(code=2) from None
        if was_pressed():
            _say_stopped()


def _told_errors() -> tuple[type[Exception], ...]:
    """Errors whose text says what to do."""
    return (StorageError, FlowError, *store_errors())


def _say_stopped() -> NoReturn:
    message = "stopped; what was published stands, and the same command goes on from there"
    Console(stderr=True).print(f"[yellow]{message}[/yellow]", soft_wrap=True)
    raise typer.Exit(code=130) from None


@contextmanager
def _noticed_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Remember whether Ctrl-C was pressed; where a script's background ignores it, it stays ignored."""
    presses: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        presses.append(number)
        signal.default_int_handler(number, frame)

    former = signal.getsignal(signal.SIGINT)
    is_heeded = former is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if is_heeded:
        signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(presses)
    finally:
        if is_heeded:
            signal.signal(signal.SIGINT, former)


def print_visits(trial: Trial) -> None:
    """Print every planned visit with its state and reason; one that no night has seen is ``new``.

    Visits that have rows but are planned no longer come last; their rows stay until somebody decides.
    """
    published = {
        (row["subject_id"], row["visit_id"]): row for row in read_table(trial.root, "visits").to_pylist()
    }
    reviewed = _reviewed(trial)
    table = _table(
        "visits", ["subject", "visit", "planned", "state", *(["reviewed"] if reviewed else []), "reason"]
    )

    def add(subject_id: str, visit_id: str, planned: str, state: str, reason: str) -> None:
        style = STATE_STYLES.get(state, "")
        styled = f"[{style}]{state}[/{style}]" if style else state
        review = [escape(reviewed.get((subject_id, visit_id), "-"))] if reviewed else []
        table.add_row(subject_id, visit_id, planned, styled, *review, escape(reason))

    for line in trial.plan():
        row = published.pop((line.subject_id, line.visit_id), None)
        state = row["state"] if row else "new"
        reason = row["reason"] if row else "no night has run since it was planned"
        add(line.subject_id, line.visit_id, str(line.visit_date), state, reason)
    for (subject_id, visit_id), row in published.items():
        reason = "; ".join(filter(None, ["no longer in subjects.csv, its rows stay", row["reason"]]))
        add(subject_id, visit_id, "-", row["state"], reason)
    console.print(table)
    if running_nights(trial.root):
        console.print("a night is at work; these are the states before it publishes")


def _reviewed(trial: Trial) -> dict[tuple[str, str], str]:
    """Say of each reviewed visit who decided what and when, and whether a night has honored it."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in read_table(trial.root, REVIEWS).to_pylist():
        rows.setdefault((row["subject_id"], row["visit_id"]), []).append(row)
    pending = set(pending_reviews(trial.root))
    found = {}
    for key, slices in rows.items():
        n_exclude, n_repeat = (
            sum(row["decision"] == word for row in slices) for word in ("exclude", "repeat")
        )
        n_redraw = sum(row["guide"] == "redraw" for row in slices)
        said = [f"{n_exclude} to exclude"] if n_exclude else []
        said += [f"{n_repeat} to scan again"] if n_repeat else []
        said += [f"guide to redraw on {n_redraw}"] if n_redraw else []
        what = ", ".join(said) or "all accepted"
        when = "; from the next night on" if "/".join(key) in pending else ""
        found[key] = f"{slices[0]['reader_id']}, {slices[0]['decided_at']:%Y-%m-%d}: {what}{when}"
    return found


def print_reviews(outcomes: Sequence["ReviewOutcome"], *, dry_run: bool) -> None:
    """Print what became of decisions files: a table, or into a pipe lines of cells parted by tabs."""
    headings = ["file", "visit", "verdict", "reason"]
    rows = [[str(one.file), one.visit, one.verdict, one.reason or "-"] for one in outcomes]
    if not console.is_terminal:
        csv.writer(sys.stdout, delimiter="\t", lineterminator="\n").writerows([headings, *rows])
        return
    table = _table("reviews", headings)
    for row in rows:
        style = VERDICT_STYLES[row[2]]
        table.add_row(*(f"[{style}]{cell}[/{style}]" if cell == row[2] else escape(cell) for cell in row))
    console.print(table)
    if dry_run:
        console.print("nothing was recorded: --dry-run")


def print_uploads(title: str, uploads: Sequence["CheckedUpload"], *, with_names: bool = False) -> None:
    """Print what would become of uploads: a table, or into a pipe one line each, its cells parted by tabs.

    With names, a last column shows what the site wrote.
    """
    headings = ["entry", "upload", "visit", "found", "files", "verdict", "reason", "what to do"]
    rows = [
        [
            str(upload.entry),
            upload.upload_id,
            upload.visit,
            upload.found or "-",
            _cell(upload.n_files, "{}"),
            upload.verdict,
            upload.reason or "-",
            upload.advice or "nothing",
        ]
        for upload in uploads
    ]
    if with_names:
        headings.append("written by the site")
        rows = [[*row, upload.site_words] for row, upload in zip(rows, uploads, strict=True)]
    if not console.is_terminal:
        csv.writer(sys.stdout, delimiter="\t", lineterminator="\n").writerows([headings, *rows])
        return
    table = _table(title, headings)
    for row in rows:
        style = VERDICT_STYLES[row[5]]
        table.add_row(*(f"[{style}]{cell}[/{style}]" if cell == row[5] else escape(cell) for cell in row))
    console.print(table)
    console.print(
        "[dim]entry: place in incoming/, sorted by name; file numbers: likewise in the upload[/dim]"
    )


def print_scans(trial: Trial) -> None:
    """Print the main columns of the table ``scans``."""
    rows = read_table(trial.root, "scans").to_pylist()
    rows.sort(key=lambda row: (counted(row["subject_id"]), counted(row["visit_id"])))
    table = _table("scans", [heading for heading, _, _ in SCAN_COLUMNS], n_text=2)
    for row in rows:
        table.add_row(*(_cell(row[column], form) for _, column, form in SCAN_COLUMNS))
    console.print(table)


def print_answer(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print the answer to a query: CSV into a pipe, else a table, or one block a row if it is too wide."""
    if not console.is_terminal:
        csv.writer(sys.stdout).writerows([columns, *rows])
        return
    texts = [[_cell(value, "{:.6g}" if isinstance(value, float) else "{}") for value in row] for row in rows]
    table = Table(*map(escape, columns), header_style="bold", box=box.SIMPLE_HEAD)
    for row in texts:
        table.add_row(*row)
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
        console.print(table)
        return
    for row in texts:
        block = Table(box=box.SIMPLE_HEAD, show_header=False)
        for column, text in zip(columns, row, strict=True):
            block.add_row(escape(column), text)
        console.print(block)


def print_before_after(lines: Sequence[tuple[str, str, str]]) -> None:
    """Print what a visit gave before, and gives under other settings."""
    table = _table("what if", ["", "record", "what if"], n_text=1)
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)


def print_exports(exported: Sequence["Exported"]) -> None:
    """Print what became of each visit: a table, or into a pipe one line each, its cells parted by tabs."""
    headings = ["format", "subject", "visit", "outcome", "where, or why not"]
    rows = [[one.kind, one.subject_id, one.visit_id, one.outcome, one.said] for one in exported]
    if not console.is_terminal:
        csv.writer(sys.stdout, delimiter="\t", lineterminator="\n").writerows([headings, *rows])
        return
    table = _table("exports", headings)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_files(trial: Trial) -> None:
    """Say where the results lie."""
    for folder, what in {
        "tables": "Parquet: pandas.read_parquet(FOLDER/scans)",
        "reports": "HTML: index.html for the trial, results.html with its numbers, a page for each visit",
        "arrays": "Zarr: echoes, masks and maps of each visit",
        "quarantine": "refused files, each with reason.json",
        "history": "results that were replaced",
        "audit": "who published what, when and why",
    }.items():
        path = trial.root / folder
        if path.is_dir():
            n_files = len(files_under(path))
            console.print(f"{path}  {n_files} files  [dim]{what}[/dim]", highlight=False, soft_wrap=True)


@contextmanager
def flow_progress(unit: str) -> Iterator[None]:
    """Show how far a flow is, as `flows.night` and `flows.train` report it: visits ended, or steps taken."""
    with _progress(unit) as bar:
        task = bar.add_task("starting", total=None)

        class Advance(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                ended, total = record.__dict__["n_ended"], record.__dict__["n_in_all"]
                bar.update(task, completed=ended, total=total, description=record.getMessage())

        logger = logging.getLogger("cmrtrials.progress")
        handler = Advance()
        level, logger.propagate = logger.level, False
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def simulation_progress(n_scans: int) -> Iterator[Callable[[str], None]]:
    """Show how many scans are written; yields what to call after each."""
    with _progress("scans") as bar:
        task = bar.add_task("simulating", total=n_scans)

        def advance(label: str) -> None:
            bar.update(task, advance=1, description=label)

        yield advance


def _progress(unit: str) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _table(title: str, headings: Sequence[str], n_text: int | None = None) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for index, heading in enumerate(headings):
        is_number = n_text is not None and index >= n_text
        table.add_column(escape(heading), justify="right" if is_number else "left", overflow="fold")
    return table


def _cell(value: object, form: str) -> str:
    if value is None:
        return "-"
    text = form.format(value)
    return text.removesuffix("%") if form == PERCENT else escape(text)
