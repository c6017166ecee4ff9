"""Commands that show, judge and hand on what is there; none of them computes a visit."""

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.roots import Root, RootOrUrl


def report(
    root: RootOrUrl,
    subject: Annotated[list[str] | None, typer.Option(help="Subject to show; may be repeated.")] = None,
    visit: Annotated[list[str] | None, typer.Option(help="Visit to show; may be repeated.")] = None,
) -> None:
    """Make the pages of a trial anew from what is stored: nothing is computed again.

    Prints the path of the trial's page. Exit code 1 when a page could not be made.
    """
    from flows.terminal import fail_clearly, flow_progress
    from storage.trial import open_trial

    with fail_clearly():
        from flows.report import make_pages
        from flows.site import site_settings
        from tasks.plan import Selection

        with flow_progress("pages"):
            chosen = Selection("chosen", frozenset(subject or ()), frozenset(visit or ()))
            pages = make_pages(open_trial(root), chosen, site_settings().workers)
    for label, reason in pages.failed.items():
        typer.echo(f"{label}: page not made: {reason}", err=True)
    typer.echo(f"{pages.n_made} pages of visits")
    typer.echo(pages.trial_page)
    if pages.failed:
        raise typer.Exit(code=1)


def status(
    root: RootOrUrl,
    history: Annotated[
        bool,
        typer.Option("--history", help="Instead: past nights, what they took, and the slowest visits."),
    ] = False,
) -> None:
    """Show every planned visit with its state and reason, and the uploads that no visit has taken."""
    from flows.intake import waiting_uploads
    from flows.terminal import fail_clearly, print_uploads, print_visits
    from storage.trial import open_trial
    from storage.upload import INCOMING_VARIABLE

    with fail_clearly():
        trial = open_trial(root)
        if history:
            from flows.history import print_history

            print_history(trial)
            return
        print_visits(trial)
        if not isinstance(trial.root, Path) and INCOMING_VARIABLE not in os.environ:
            typer.echo(f"uploads are not listed: {INCOMING_VARIABLE} names no folder of them")
            return
        waiting = waiting_uploads(trial)
        if waiting:
            print_uploads("uploads that no visit has taken", waiting)


def intake(
    root: Root,
    check: Annotated[
        bool, typer.Option("--check", help="Only look: say what the next night would take and refuse.")
    ] = False,
    names: Annotated[
        bool, typer.Option("--names", help="Also show what the site wrote; keep it in no file.")
    ] = False,
) -> None:
    """Show what is in incoming/: the visit of each upload, what was found, what is refused and what to do.

    Nothing is written. Exit code 1 when an upload is refused or fits no planned visit.
    """
    from flows.intake import BAD_VERDICTS, check_intake
    from flows.terminal import fail_clearly, print_uploads
    from storage.trial import open_trial

    if not check:
        typer.echo(
            "uploads are taken in by a night (`cmrtrials run ROOT`); add --check to look only", err=True
        )
        raise typer.Exit(code=2)
    with fail_clearly():
        checked = check_intake(open_trial(root))
        print_uploads("uploads", checked, with_names=names)
    if any(upload.verdict in BAD_VERDICTS for upload in checked):
        raise typer.Exit(code=1)


def review(
    root: Root,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="DECISIONS.json...",
            exists=True,
            dir_okay=False,
            help="Decisions files, as the pages of visits give them to download.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check: say what would be recorded.")
    ] = False,
) -> None:
    """Record what readers decided about the slices of visits; the next night honors it.

    A slice to exclude or to repeat leaves the means; an accepted one no longer asks for a review, but stays
    out where a check failed it. The newest review of a visit holds, former ones move to history/. A file that
    was recorded before changes nothing. Exit code 1 when a file is refused; the others are recorded.
    """
    from flows.review import review_files
    from flows.terminal import fail_clearly, print_reviews
    from storage.trial import open_trial

    with fail_clearly():
        outcomes = review_files(open_trial(root), files, dry_run=dry_run)
        print_reviews(outcomes, dry_run=dry_run)
    if any(outcome.verdict == "refused" for outcome in outcomes):
        raise typer.Exit(code=1)


def query(
    root: RootOrUrl,
    sql: Annotated[
        str,
        typer.Argument(
            help="SQL over visits, scans, slices, segments, echoes, flags, longitudinal, reviews."
        ),
    ],
    outside: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME=FILE",
            help="A table from outside of the trial, as CSV or Parquet; may be repeated.",
        ),
    ] = None,
) -> None:
    """Ask the tables in SQL (DuckDB); times in ms, fractions 0-1. Prints CSV into a pipe or file.

    Nothing is written. What the columns mean says `cmrtrials dictionary`.
    """
    from flows.query import parse_outside, run_query
    from flows.terminal import fail_clearly, print_answer

    with fail_clearly():
        print_answer(*run_query(root, sql, parse_outside(outside or [])))


def dictionary(
    csv: Annotated[bool, typer.Option("--csv", help="As CSV, one line for each column.")] = False,
) -> None:
    """Print the data dictionary: type, unit, values and meaning of every column, as Markdown or CSV."""
    from storage.dictionary import dictionary_csv, dictionary_markdown

    typer.echo(dictionary_csv() if csv else dictionary_markdown(), nl=False)


def compare(
    root: Root,
    other: Annotated[
        Path,
        typer.Argument(
            help="Folder of a second trial with the same subjects and visits, or a reader's table (CSV): "
            "subject_id, visit_id, one of level, slice_index, aha_segment or none of them, and any of "
            "t1_native_ms, t1_post_ms, ecv_fraction."
        ),
    ],
    figure: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Also draw Bland-Altman plots into this PNG file.")
    ] = None,
) -> None:
    """Compare two runs over the same scans (second minus first), or a run with a reader's numbers.

    Prints agreement, repeatability and regression; CSV with every number into a pipe or file, ECV 0-1. Scans
    whose verdict is fail are left out and named. What is pooled over segments, levels or slices has no
    confidence intervals, for those of a scan are not independent. Exit code 1 where nothing pairs.
    """
    from flows.compare import compare_runs, compare_with_reader
    from flows.compare_output import draw_bland_altman, print_comparison
    from flows.terminal import fail_clearly

    with fail_clearly():
        compared = compare_runs(root, other) if other.is_dir() else compare_with_reader(root, other)
        print_comparison(compared)
        if figure is not None and compared.agreements:
            draw_bland_altman(compared, figure)
    if not compared.agreements:
        raise typer.Exit(code=1)


def export(
    root: Root,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Maps as DICOM parametric maps, masks as DICOM segmentations.")
    ] = False,
    bids: Annotated[
        bool, typer.Option("--bids", help="Maps and masks as NIfTI in a BIDS-style tree, T1 in seconds.")
    ] = False,
    subject: Annotated[list[str] | None, typer.Option(help="Only this subject; may be repeated.")] = None,
    visit: Annotated[list[str] | None, typer.Option(help="Only this visit; may be repeated.")] = None,
) -> None:
    """Write the maps and masks of published results into exports/ of the trial, under pseudonyms.

    A visit's folder appears whole; one that was made from the same result stands, one of a former result is
    replaced. Visits without a result are named. Exit code 1 where there is none with a result.
    """
    from flows.terminal import fail_clearly, print_exports
    from storage.trial import open_trial

    if not (dicom or bids):
        typer.echo("say in which format: --dicom, --bids or both", err=True)
        raise typer.Exit(code=2)
    with fail_clearly():
        from flows.export import export_trial

        trial = open_trial(root)
        done = export_trial(trial, "dicom", subject or [], visit or []) if dicom else []
        done += export_trial(trial, "bids", subject or [], visit or []) if bids else []
        print_exports(done)
    if all(one.outcome in ("skipped", "removed") for one in done):
        raise typer.Exit(code=1)
