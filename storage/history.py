"""Every row that ``visits`` ever had: those of now, and the former ones in history/."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import StorageError
from storage.staging import HISTORY_FOLDER
from storage.tables import read_table


def all_visit_rows(root: Path) -> list[dict[str, Any]]:
    """Read the rows of ``visits``, replaced ones too, in the order in which they were published.

    A row of a former version has the columns of that version only.

    Raises
    ------
    StorageError
        If a former row cannot be read.
    """
    rows: list[dict[str, Any]] = read_table(root, "visits").to_pylist()
    for file in sorted((root / HISTORY_FOLDER).glob("*/*/*/visits.parquet")):
        try:
            rows += pq.read_table(file, partitioning=None).to_pylist()
        except (OSError, pa.ArrowException):
            where = file.relative_to(root)
            message = f"{where} cannot be read; `cmrtrials audit verify ROOT` says whether it was changed"
            raise StorageError(message) from None
    return sorted(rows, key=lambda row: row["published_at"])
