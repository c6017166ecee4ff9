"""Commands that compute: a night, a rerun, a what-if, and trials that are served."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from flows.roots import Root, RootOrUrl
from storage.place import Place, local_folder, to_place

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import State


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
        from flows.server import prefect_server
        from flows.verdict import NEWS
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


def _run_flow(root: Place, flow: "Flow[..., Any]", parameters: dict[str, Any]) -> None:
    from httpx import HTTPError
    from prefect.exceptions import ObjectNotFound

    from flows.preflight import check_ready
    from flows.server import prefect_server
    from flows.site import site_settings
    from flows.terminal import fail_clearly, flow_progress, print_files, print_scans, print_visits
    from flows.verdict import NEWS
    from storage.deidentify import needed_key
    from storage.trial import open_trial
    from tasks.weights import needed_weights

    with fail_clearly():
        trial = open_trial(root)
        needed_key(trial.config.privacy)
        needed_weights(trial.root, trial.config.segment)
        check_ready(trial.root, site_settings())
        with prefect_server(), flow_progress("visits"):
            try:
                state = cast("State[Any]", flow(**parameters, return_state=True))
            except (HTTPError, ObjectNotFound, RuntimeError) as error:  # gone, or back without this run
                if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
                    raise
                message = f"the Prefect server is gone, or knows no more of this run ({type(error).__name__})"
                raise TimeoutError(message) from error
        print_visits(trial)
        print_scans(trial)
        print_files(trial)
    typer.echo(state.message)
    if not state.is_completed():
        # A night that broke off must not be taken for one whose visits failed.
        raise typer.Exit(code=1 if (state.message or "").startswith(NEWS) else 3)
