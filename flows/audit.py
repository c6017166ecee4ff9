"""The commands ``cmrtrials audit verify ROOT`` and ``cmrtrials audit adopt ROOT``."""

from typing import Annotated

import typer

from flows.roots import RootOrUrl

audit_app = typer.Typer(help="The record: who published what, when and why.", no_args_is_help=True)


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
