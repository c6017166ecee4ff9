"""truth/ of a simulated trial: what its scans truly hold. The pipeline never reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TRUTH = "truth"


def write_truth_tables(
    root: Path, scans: Sequence[Mapping[str, Any]], slices: Sequence[Mapping[str, Any]]
) -> None:
    """Write ``truth/scans.parquet`` and ``truth/slices.parquet``; each row names subject and visit."""
    import pyarrow
    import pyarrow.parquet

    folder = root / TRUTH
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("scans", scans), ("slices", slices)):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), folder / f"{name}.parquet")


def write_truth_arrays(
    root: Path,
    subject_id: str,
    visit_id: str,
    arrays: Mapping[str, tuple[np.ndarray[Any, Any], str, str]],
) -> None:
    """Add what is known of each pixel of a scan to ``truth/arrays.zarr``.

    Parameters
    ----------
    root, subject_id, visit_id
        Whose scan it is.
    arrays
        Values, unit and axes (such as ``slice row col``) by name.
    """
    import zarr

    from storage.arrays import write_array

    group = zarr.open_group(root / TRUTH / "arrays.zarr", mode="a").require_group(f"{subject_id}/{visit_id}")
    for name, (values, unit, axes) in arrays.items():
        write_array(group, name, values, unit, axes)
