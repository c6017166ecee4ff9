"""history/<subject>/<visit>/<number>/<table>.parquet: what was published before, oldest first."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from storage.durable import shared_lock
from storage.errors import StorageError
from storage.objects import read_all, versions
from storage.place import Place
from storage.rows import complete_rows
from storage.staging import HISTORY_FOLDER, TABLES_FOLDER, read_parquet

if TYPE_CHECKING:
    from upath import UPath


def former_rows(root: Place, name: str) -> dict[tuple[str, str], list[list[dict[str, Any]]]]:
    """Read every former version of a table's rows, by subject and visit, oldest version first.

    Rows have the columns of today; one that their version of the schema lacked is None.

    Parameters
    ----------
    root
        Root of the trial.
    name
        Name of the table.

    Raises
    ------
    StorageError
        If there is no such table, or a file cannot be read.
    """
    former: dict[tuple[str, str], list[list[dict[str, Any]]]] = {}
    if not isinstance(root, Path):
        for key, number, data in _objects(root, name):
            former.setdefault(key, []).append(_rows(name, pa.BufferReader(data), key, number))
        return former
    if not (root / HISTORY_FOLDER).is_dir():
        return former
    with shared_lock(root / TABLES_FOLDER):
        folders = [path for path in (root / HISTORY_FOLDER).glob("*/*/*") if path.name.isdigit()]
        for folder in sorted(folders, key=lambda path: (path.parent, int(path.name))):
            file = folder / f"{name}.parquet"
            if file.exists():
                key = (folder.parent.parent.name, folder.parent.name)
                former.setdefault(key, []).append(_rows(name, file, key, int(folder.name)))
    return former


def _objects(root: "UPath", name: str) -> list[tuple[tuple[str, str], int, bytes]]:
    """Read the former files of a table from an object store: subject and visit, number, and bytes."""
    history = root / HISTORY_FOLDER
    found = [path for path in versions(history) if path.endswith(f"/{name}.parquet")]
    data = read_all(history, found)
    parts = {path: path.split("/") for path in data}
    return sorted(
        ((subject, visit), int(number), data[path]) for path, (subject, visit, number, _) in parts.items()
    )


def _rows(
    name: str, source: Path | pa.BufferReader, key: tuple[str, str], number: int
) -> list[dict[str, Any]]:
    try:
        return complete_rows(name, read_parquet(source).to_pylist())
    except (pa.ArrowException, OSError) as error:
        message = (
            f"history of table {name}, subject {key[0]}, visit {key[1]}, number {number}: "
            f"cannot be read; see `cmrtrials audit verify ROOT`"
        )
        raise StorageError(message) from error
