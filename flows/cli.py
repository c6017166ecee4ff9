"""The command ``cmrtrials``. Heavy libraries are imported by the commands that need them."""

import os

import typer

from flows.audit import audit_app
from flows.cli_make import simulate, train
from flows.cli_nights import rerun, run, serve, whatif
from flows.cli_record import compare, dictionary, export, intake, query, report, review, status
from flows.lock import lock_app

app = typer.Typer(
    help="T1 and ECV mapping of cardiac MR trials: DICOM uploads in, tables out, every night.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(lock_app, name="lock")
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


for command in (
    simulate,
    run,
    rerun,
    report,
    status,
    intake,
    review,
    query,
    dictionary,
    compare,
    export,
    train,
    whatif,
    serve,
):
    app.command()(command)
