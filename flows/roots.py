"""A trial's root as the argument of a command: a folder, or for the commands that can a URL."""

from pathlib import Path
from typing import Annotated

import typer

from storage.place import Place, local_folder, to_place


def _place(text: str) -> Place:
    from flows.terminal import fail_clearly

    with fail_clearly():
        place = to_place(text)
    return Path(text) if isinstance(place, Path) else place


def _folder(context: typer.Context, root: Place) -> Path:
    from flows.terminal import fail_clearly

    with fail_clearly():
        return local_folder(root, context.command_path)


Root = Annotated[
    Path,
    typer.Argument(
        parser=_place,
        callback=_folder,
        metavar="ROOT",
        help="Folder of the trial, with trial.toml and subjects.csv.",
    ),
]

RootOrUrl = Annotated[
    Place,
    typer.Argument(
        parser=_place,
        metavar="ROOT",
        help="Folder of the trial, with trial.toml and subjects.csv, or its URL: s3://BUCKET/TRIAL.",
    ),
]
