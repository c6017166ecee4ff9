"""Tables and figure of the alignment benchmark, from its rows."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from tests.benchmarks.figure import Figure

Evidence = pd.DataFrame
"""One row per difficulty, scan, slice, role and method."""
FAR_PX = 2.0
"""Echoes that lie further off should be brought at least half the way [pixel]."""
N_BOOTSTRAP = 2000
SLICE = ["difficulty", "scan", "slice_index"]


def groups(found: Evidence) -> Iterator[tuple[str, Evidence]]:
    """Give every preset and role, and then what of it SimpleITK aligned too."""
    peers = found[found.method == "SimpleITK"]
    for part in (found[found.method != "SimpleITK"], found.merge(peers[["difficulty", "scan"]].drop_duplicates())):
        few = "" if "SimpleITK" not in set(part.method) else ", few"
        for (difficulty, role), own in part.groupby(["difficulty", "role"], sort=False):
            yield f"{difficulty} {role}{few}", own


def summary(own: Evidence) -> dict[str, float]:
    """Figures of one method in one group."""
    error, start = (np.concatenate(own[name].tolist()) for name in ("error_px", "start_px"))
    far = start > FAR_PX
    return {
        "n": len(own),
        "error_px": float(np.median(error)),
        "error_95_px": float(np.percentile(error, 95)),
        "halved_fraction": float((error[far] <= start[far] / 2).mean()) if far.any() else float("nan"),
        "n_far": int(far.sum()),
        "r_squared_mean": own.r_squared_mean.mean(),
        "above_fraction": (own.r_squared_mean > 0.9).mean(),
        "low_fraction": (own.low_fraction > 0.1).mean(),
        "t1_median_error_ms": own.t1_median_error_ms.abs().mean(),
        "t1_pixel_error_ms": own.t1_pixel_error_ms.mean(),
        "t1_change_ms": own.t1_change_ms.median(),
        "seconds": own.seconds.mean(),
    }


def figures_of(found: Evidence) -> list[Figure]:
    return []


def tables(found: Evidence) -> str:
    return str({(g, m): summary(x) for g, own in groups(found) for m, x in own.groupby("method", sort=False)})


def draw(found: Evidence, file: Path) -> None:
    pass
