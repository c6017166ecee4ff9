"""A trial's root, a folder or a URL: its configuration, plan, published tables and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage.config import CONFIG_FILE, TrialConfig, load_config
from storage.errors import NotStoredError, StorageError, UnreadableError
from storage.objects import store_errors
from storage.place import Place, local_folder, to_place
from storage.plan import PlannedVisit, read_plan

if TYPE_CHECKING:
    import pandas as pd
    import zarr


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial, read-only."""

    root: Place
    """The trial's folder, or what its URL names."""
    config: TrialConfig
    """Its trial.toml, checked."""

    @property
    def folder(self) -> Path:
        """The trial's folder.

        Raises
        ------
        ConfigError
            If the trial lies on an object store.
        """
        return local_folder(self.root, "this")

    def plan(self) -> tuple[PlannedVisit, ...]:
        """Read the planned visits, as subjects.csv says now."""
        return read_plan(self.root)

    def table(self, name: str, subject_id: str | None = None) -> pd.DataFrame:
        """Read a published table; with all columns and no rows where nothing is published.

        Columns with stated values are ordered categories, counts and truth values that may be missing are
        ``Int64`` and ``boolean``; rows of former versions have no value in columns that came later.

        Parameters
        ----------
        name
            Name of the table.
        subject_id
            The only subject whose files are read; None for all.

        Raises
        ------
        StorageError
            If there is no such table, or a file cannot be read.
        """
        from storage.rows import to_frame
        from storage.tables import read_table

        return to_frame(name, read_table(self.root, name, subject_id))

    def arrays(self, subject_id: str, visit_id: str) -> zarr.Group:
        """Open the arrays of a visit's published result for reading.

        Raises
        ------
        NotStoredError
            If the visit has no published result.
        """
        from storage.arrays import open_store
        from storage.tables import read_table

        for row in read_table(self.root, "visits", subject_id).to_pylist():
            if row["visit_id"] == visit_id and row["result_digest"]:
                return open_store(self.root, subject_id, visit_id, row["result_digest"])
        message = (
            f"subject {subject_id}, visit {visit_id}: no published result; see table 'visits' for its state"
        )
        raise NotStoredError(message)


def open_trial(root: str | Place) -> Trial:
    """Open a trial's root: a folder, or a URL such as ``s3://bucket/trial``.

    Raises
    ------
    NotStoredError
        If there is no trial.toml.
    ConfigError
        If trial.toml has errors, or the URL cannot be used.
    UnreadableError
        If the object store does not answer, or not to this account.
    """
    place = to_place(root)
    try:
        return Trial(place, load_config(place / CONFIG_FILE))
    except store_errors() as error:
        if isinstance(place, Path) or isinstance(error, StorageError):
            raise
        message = f"{place} cannot be read ({type(error).__name__}: {error}); check address and account"
        raise UnreadableError(message) from None
