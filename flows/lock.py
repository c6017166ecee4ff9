"""The command ``cmrtrials lock ROOT NAME``, and ``cmrtrials lock verify ROOT NAME``."""

from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from flows.roots import Root

if TYPE_CHECKING:
    from storage.lock import Lock

MAKE = "make"


class _MakeUnlessNamed(TyperGroup):
    """A group that takes what is no subcommand for the arguments of the one that makes a lock."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in (*self.commands, "--help"):
            args = [MAKE, *args]
        return super().parse_args(ctx, args)


lock_app = typer.Typer(
    cls=_MakeUnlessNamed,
    help="Frozen copies of the tables, for an analysis: `cmrtrials lock ROOT NAME` makes one.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the lock: letters, digits, '.', '_', '-'.")]


@lock_app.command(MAKE)
def make(
    root: Root,
    name: Name,
    reason: Annotated[str, typer.Option(help="What it is for; it is put on record.")] = "none was given",
) -> None:
    """Freeze tables, trial.toml and subjects.csv in locks/NAME, read-only, with a manifest of digests.

    Refused while a night runs, and where `cmrtrials audit verify` finds anything amiss. The printed digest of
    the manifest stands for the whole lock: note it elsewhere. Later nights leave the lock as it is. Where
    dates are shifted, they are so in its subjects.csv too.
    """
    from importlib.metadata import version

    from flows.terminal import fail_clearly
    from flows.user import current_user
    from storage.lock import LOCKS_FOLDER, lock_record
    from storage.trial import open_trial

    with fail_clearly():
        trial = open_trial(root)
        lock = lock_record(trial.folder, name, current_user(), reason, version("cmrtrials"))
    _print(lock)
    typer.echo(
        f"tables: pandas.read_parquet({str(trial.folder / LOCKS_FOLDER / name / 'tables')!r} + '/scans')"
    )


@lock_app.command()
def verify(root: Root, name: Name) -> None:
    """Prove that a lock is as it was made, and so are the arrays its rows came from.

    Exit code 1 when anything was added, changed or removed; each such file is named.
    """
    from flows.terminal import fail_clearly
    from storage.errors import TamperedError
    from storage.lock import verify_lock
    from storage.trial import open_trial

    with fail_clearly():
        try:
            lock = verify_lock(open_trial(root).folder, name)
        except TamperedError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(code=1) from None
    _print(lock)
    typer.echo("as locked")


def _print(lock: "Lock") -> None:
    states = ", ".join(f"{n} {state}" for state, n in sorted(lock.states.items()))
    typer.echo(f"lock {lock.name}: {lock.n_files} files, {states}; {lock.locked_at}")
    typer.echo(f"manifest {lock.manifest_digest}, arrays of {lock.n_arrays} results")
    if lock.other_configuration:
        visits = ", ".join(lock.other_configuration)
        typer.echo(f"rows written under another trial.toml than the one in the lock: {visits}")
    if lock.pending_reviews:
        visits = ", ".join(lock.pending_reviews)
        typer.echo(f"reviewed, and not honored yet: {visits}; run a night, and lock under another name")
