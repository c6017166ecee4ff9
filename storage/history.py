"""history/<subject>/<visit>/<number>/<table>.parquet: what was published before, oldest first."""

from typing import Any

import pyarrow as pa

from storage.errors import StorageError
from storage.place import Place
from storage.rows import complete_rows
from storage.staging import HISTORY_FOLDER, read_parquet, reading_tables


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
    versions: dict[tuple[str, str], list[list[dict[str, Any]]]] = {}
    if not (root / HISTORY_FOLDER).is_dir():
        return versions
    with reading_tables(root):
        folders = [path for path in (root / HISTORY_FOLDER).glob("*/*/*") if path.name.isdigit()]
        for folder in sorted(folders, key=lambda path: (path.parent, int(path.name))):
            file = folder / f"{name}.parquet"
            if file.exists():
                key = (folder.parent.parent.name, folder.parent.name)
                versions.setdefault(key, []).append(_rows(name, file, *key))
    return versions


def _rows(name: str, file: Place, subject_id: str, visit_id: str) -> list[dict[str, Any]]:
    try:
        return complete_rows(name, read_parquet(file).to_pylist())
    except (pa.ArrowException, OSError) as error:
        message = (
            f"history of table {name}, subject {subject_id}, visit {visit_id}, number {file.parent.name}: "
            f"cannot be read; see `cmrtrials audit verify ROOT`"
        )
        raise StorageError(message) from error
