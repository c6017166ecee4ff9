"""The command ``cmrtrials``. Heavy libraries are imported by the commands that need them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from flows.lock import lock_app
from flows.roots import Root, RootOrUrl
from storage.place import Place, local_folder, to_place

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import State

app = typer.Typer(
    help="T1 and ECV mapping of cardiac MR trials: DICOM uploads in, tables out, every night.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(lock_app, name="lock")

audit_app = typer.Typer(help="The record: who published what, when and why.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")


@app.callback()
def main() -> None:
    """Set what must be in the environment before Prefect and Dask are imported; workers inherit it."""
    for name, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "storage",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "DASK_LOGGING__DISTRIBUTED": "warning",
    }.items():
        os.environ.setdefault(name, value)


@app.command()
def simulate(
    root: Root,
    subjects: Annotated[int, typer.Option(min=1, help="Number of subjects.")] = 6,
    visits: Annotated[int, typer.Option(min=1, help="Visits a subject, half a year apart.")] = 2,
    seed: Annotated[int, typer.Option(help="Same seed, same trial.")] = 1,
    difficulty: Annotated[
        Literal["clean", "typical", "hard"], typer.Option(help="How far the images are from ideal.")
    ] = "typical",
    vendor: Annotated[
        Literal["phantom", "siemens", "philips", "ge", "mixed"],
        typer.Option(help="Whose scanners the sites have, and so how their files are written."),
    ] = "phantom",
    faults: Annotated[
        str,
        typer.Option(
            help="What goes wrong, separated by commas: demo (broken_file, no_guide, no_hematocrit), "
            "duplicate_upload, missing_echo, repeated_time, repeated_slice, same_uid, post_elsewhere, zip, "
            "compressed, scanner_change."
        ),
    ] = "demo",
    no_faults: Annotated[bool, typer.Option("--no-faults", help="Nothing goes wrong.")] = False,
    guides: Annotated[
        Literal["all", "some", "none"],
        typer.Option(help="Visits with a reader's guiding masks; some: every third."),
    ] = "some",
) -> None:
    """Write a digital trial with known truth: uploads as DICOM, subjects.csv, trial.toml, truth/."""
    from flows.simulate import Recipe, parse_faults, simulate_trial
    from flows.terminal import fail_clearly, simulation_progress

    with fail_clearly():
        chosen = () if no_faults else parse_faults(faults)
        recipe = Recipe(subjects, visits, seed, chosen, difficulty, vendor, guides)
        with simulation_progress(subjects * visits) as advance:
            simulate_trial(root, recipe, on_visit=advance)


@app.command()
def run(root: RootOrUrl) -> None:
    """Run one night now, with a Prefect server and a Dask cluster of its own.

    Exit code 1 when a visit failed or was newly refused, 2 when the night could not begin, 3 when it broke
    off.
    """
    from flows.terminal import fail_clearly
    from storage.trial import open_trial

    with fail_clearly():
        open_trial(root)  # before Prefect is imported, which takes seconds
        from flows.nightly import nightly

    _run_flow(root, nightly, {"root": str(to_place(root))})


@app.command()
def rerun(
    root: RootOrUrl,
    subject: Annotated[list[str] | None, typer.Option(help="Subject to run again; may be repeated.")] = None,
    visit: Annotated[list[str] | None, typer.Option(help="Visit to run again; may be repeated.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the results.")] = "none was given",
) -> None:
    """Run again what failed or was refused, or the chosen subjects and visits.

    Exit code 1 when a visit failed or was refused again, 2 when the run could not begin, 3 when it broke off.
    """
    from flows.terminal import fail_clearly
    from storage.plan import read_plan
    from tasks.plan import Selection

    with fail_clearly():
        from flows.rerun import rerun as rerun_flow

        Selection("chosen", frozenset(subject or ()), frozenset(visit or ())).check(read_plan(root))
    parameters = {
        "root": str(to_place(root)),
        "reason": reason,
        "subject_ids": subject or [],
        "visit_ids": visit or [],
    }
    _run_flow(root, rerun_flow, parameters)


@app.command()
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
        from tasks.plan import Selection

        with flow_progress("pages"):
            chosen = Selection("chosen", frozenset(subject or ()), frozenset(visit or ()))
            pages = make_pages(open_trial(root), chosen)
    for label, reason in pages.failed.items():
        typer.echo(f"{label}: page not made: {reason}", err=True)
    typer.echo(f"{pages.n_made} pages of visits")
    typer.echo(pages.trial_page)
    if pages.failed:
        raise typer.Exit(code=1)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def dictionary(
    csv: Annotated[bool, typer.Option("--csv", help="As CSV, one line for each column.")] = False,
) -> None:
    """Print the data dictionary: type, unit, values and meaning of every column, as Markdown or CSV."""
    from storage.dictionary import dictionary_csv, dictionary_markdown

    typer.echo(dictionary_csv() if csv else dictionary_markdown(), nl=False)


@app.command()
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


@app.command()
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


@app.command()
def train(
    kind: Annotated[Literal["base", "guided"], typer.Argument(help="Which network.")],
    output: Annotated[Path, typer.Argument(help="Folder of checkpoint, learning curve, weights and card.")],
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of the optimizer.", show_default="base: 6000, guided: 2000"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same weights (on a CPU).")] = 0,
    start: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Weights to start from; of a base network for guided."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Labelled images to learn from: PATIENT/NAME_image.nii.gz with NAME_mask.nii.gz "
            "(1 RV, 2 myocardium, 3 blood pool); every fifth patient is held out. Else the digital trial.",
        ),
    ] = None,
    development: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Labelled images that choose among the weights instead of held-out ones.",
        ),
    ] = None,
    evaluate_every: Annotated[
        int, typer.Option(min=1, help="Steps between two scores and checkpoints.")
    ] = 250,
    patience: Annotated[int, typer.Option(min=1, help="Scores that may pass without a better one.")] = 12,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw samples ahead.")] = 1,
) -> None:
    """Train a network; the same command goes on with a training that was interrupted.

    Prints the digest that trial.toml names the weights by; put the file into weights/ of the trial's root.
    """
    from flows.terminal import fail_clearly, flow_progress

    with fail_clearly():
        from flows.server import prefect_server
        from flows.train import train as train_flow
        from flows.train import training_of
        from flows.training import check_training

        parameters: dict[str, Any] = {
            "kind": kind,
            "output": str(output),
            "steps": steps,
            "seed": seed,
            "start": None if start is None else str(start),
            "data": None if data is None else str(data),
            "development": None if development is None else str(development),
            "evaluate_every": evaluate_every,
            "patience": patience,
            "workers": workers,
        }
        # Before a server is started, which takes longer than to see what is wrong.
        check_training(training_of(**parameters))
        with prefect_server(), flow_progress("steps"):
            digest = train_flow(**parameters, device=device)
    typer.echo(f'{kind} = "{digest}"')


@app.command()
def whatif(
    root: Root,
    subject: Annotated[str, typer.Option(help="Subject of the visit.")],
    visit: Annotated[str, typer.Option(help="The visit.")],
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="As segment.alpha=0.5; as often as there are settings.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why; it is kept with the results.")] = "none was given",
) -> None:
    """Compute one visit under other settings into whatif/, beside the record, and show before and after.

    The record stays as it is, and what it has stored under the same settings is used. The folder that is
    named at the end is a trial of its own for `status`, `query` and `compare`. Exit code 1 when the visit
    failed, 3 when the run itself broke off.
    """
    from flows.terminal import fail_clearly, flow_progress, print_before_after

    with fail_clearly():
        from flows.night import NEWS
        from flows.server import prefect_server
        from flows.whatif import before_after, prepare
        from flows.whatif import whatif as whatif_flow

        prepared = prepare(
            root.resolve(), subject, visit, settings
        )  # says what is wrong before Prefect starts
        parameters = {
            "root": str(root.resolve()),
            "reason": reason,
            "subject_id": subject,
            "visit_id": visit,
            "settings": settings,
        }
        with prefect_server(), flow_progress("visits"):
            state = cast("State[Any]", whatif_flow(**parameters, return_state=True))
        print_before_after(before_after(prepared))
    typer.echo(state.message)
    typer.echo(f"{prepared.folder}")
    if not state.is_completed():
        raise typer.Exit(code=1 if (state.message or "").startswith(NEWS) else 3)


@app.command()
def serve(
    roots: Annotated[
        list[Path],
        typer.Argument(
            metavar="ROOT...",
            help="Folder of the trial, or folders of several, with trial.toml and subjects.csv.",
        ),
    ],
    port: Annotated[
        int,
        typer.Option(min=1, max=65534, help="Port of the Prefect UI on 127.0.0.1; reports take the next."),
    ] = 4200,
) -> None:
    """Serve trials: Prefect server with UI, the nightly schedules, runs on demand, reports. Ctrl-C ends it.

    Runs wait for each other. Started again, it goes on where it was: runs that fell due meanwhile run, and
    what was paused or scheduled otherwise in the UI stays so, unless [schedule] of trial.toml has changed.
    """
    from flows.terminal import fail_clearly
    from storage.trial import open_trial

    with fail_clearly():
        for root in roots:
            open_trial(local_folder(to_place(root), "cmrtrials serve"))
        from flows.serve import serve_trials

        serve_trials(roots, port)


@audit_app.command("verify")
def audit_verify(root: RootOrUrl) -> None:
    """Check that the audit log is whole, and that tables, arrays and history are as it says.

    Exit code 1 when anything was edited, removed, added or reordered, 3 when nobody can tell whether lines
    were cut off the log, because it had no head (see `cmrtrials audit adopt`). The printed head stands for
    the whole log: noted elsewhere, it proves later that the log was not written anew.
    """
    from flows.terminal import fail_clearly
    from storage.errors import TamperedError
    from storage.record import NOT_COVERED, verify_record
    from storage.trial import open_trial

    with fail_clearly():
        try:
            found = verify_record(open_trial(root).root)
        except TamperedError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(code=1) from None
    typer.echo(f"audit log: {found.head.n_lines} lines, head {found.head.digest}")
    typer.echo(
        f"as published: {found.n_visits} visits, {found.n_former} former states of visits, "
        f"arrays of {found.n_arrays} results"
    )
    if found.n_reviews:
        typer.echo(f"as recorded: {found.n_reviews} reviews by readers")
    if found.n_unlisted:
        typer.echo(f"published by a version that noted no digests of them: {found.n_unlisted}, not compared")
    if found.interrupted:
        typer.echo(f"interrupted by a kill, the next run completes them: {', '.join(found.interrupted)}")
    typer.echo(f"not covered: {NOT_COVERED}")
    if found.head.n_unproven:
        typer.echo(
            f"no head.json vouches for lines 1 to {found.head.n_unproven}: a version that kept none wrote "
            f"them, or it was removed, and lines after them perhaps too; nobody can tell from here. Compare "
            f"them with a back-up or a head that was noted, then `cmrtrials audit adopt ROOT --reason ...`",
            err=True,
        )
        raise typer.Exit(code=3)


@audit_app.command("adopt")
def audit_adopt(
    root: RootOrUrl,
    reason: Annotated[str, typer.Option(help="What shows that the log is whole; it is put on record.")],
) -> None:
    """Take an audit log without head for whole, up to here and on record, after comparing it elsewhere."""
    from flows.terminal import fail_clearly
    from flows.user import current_user
    from storage.audit import adopt
    from storage.trial import open_trial

    with fail_clearly():
        head = adopt(open_trial(root).root, current_user(), reason)
    typer.echo(f"audit log: {head.n_lines} lines, head {head.digest}")


def _run_flow(root: Place, flow: "Flow[..., Any]", parameters: dict[str, Any]) -> None:
    from flows.night import NEWS
    from flows.preflight import check_ready
    from flows.server import prefect_server
    from flows.site import site_settings
    from flows.terminal import fail_clearly, flow_progress, print_files, print_scans, print_visits
    from storage.deidentify import needed_key
    from storage.trial import open_trial
    from tasks.weights import needed_weights

    with fail_clearly():
        trial = open_trial(root)
        needed_key(trial.config.privacy)
        needed_weights(trial.root, trial.config.segment)
        check_ready(trial.root, site_settings())
        with prefect_server(), flow_progress("visits"):
            state = cast("State[Any]", flow(**parameters, return_state=True))
        print_visits(trial)
        print_scans(trial)
        print_files(trial)
    typer.echo(state.message)
    if not state.is_completed():
        # A night that broke off must not be taken for one whose visits failed.
        raise typer.Exit(code=1 if (state.message or "").startswith(NEWS) else 3)
