"""What each step from probabilities to contours brings. ``python -m tests.benchmarks.contours``.

The base network sees slices of the digital trial that it has not learned from; its probabilities become
masks with none of the steps of `cmrcore.segmentation.masks_from`, with some and with all of them. Distances
are those between the edges of the masks, as in S2 the mean of endocardium and epicardium; Dice is the mean of
cavity and wall. Images in which a row finds no ventricle are counted, and left out of all rows.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.difficulty import Difficulty
from cmrcore.phantom.training import training_batch
from cmrcore.quantify.overlap import dice, edge_distances_mm
from cmrcore.segmentation.contours import ContourSettings, Step, masks_from
from cmrcore.segmentation.infer import look_twice
from cmrcore.segmentation.networks import network_from

GRID = Grid(n_rows=192, n_cols=192, pixel_mm=1.6)
SPACING_MM = (GRID.pixel_mm, GRID.pixel_mm)
SEED = 62_026
N_ECHOES = 2
ROWS: dict[str, tuple[Step, ...]] = {
    "threshold only": (),
    "+ region": ("region",),
    "+ hull": ("region", "hull"),
    "+ spline": ("region", "hull", "spline"),
    "all but region": ("hull", "spline"),
    "all but hull": ("region", "spline"),
}
ProbabilityOf = Callable[[Float[Tensor, "n row col"]], Float[Tensor, "n label row col"]]
"""Probabilities of the labels on images [a.u.]."""
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Ablation:
    """One row of the table, image by image."""

    name: str
    """Steps that were done."""
    hausdorff_mm: Float[np.ndarray, " image"]
    """Mean of the Hausdorff distances of both contours [mm]; NaN where there is no ventricle."""
    distance_mm: Float[np.ndarray, " image"]
    """Mean of the mean distances of both contours [mm]."""
    dice: Float[np.ndarray, " image"]
    """Mean of the Dice coefficients of cavity and wall."""
    milliseconds: float
    """Median processor time of an image [ms]."""


def ablate(probability_of: ProbabilityOf, n_slices: int, difficulty: Difficulty) -> list[Ablation]:
    """Score every row on the same probabilities."""
    rng = np.random.default_rng(SEED)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ROWS}
    seconds: dict[str, list[float]] = {name: [] for name in ROWS}
    for start in range(0, n_slices, _BATCH):
        n = min(_BATCH, n_slices - start)
        batch = training_batch(rng, n, GRID, contrast="physics", difficulty=difficulty, n_echoes=N_ECHOES)
        probability, truth = probability_of(batch.images.flatten(0, 1)), batch.masks.flatten(0, 1)
        for name, steps in ROWS.items():
            settings = replace(ContourSettings(), steps=frozenset(steps))
            for one, true in zip(probability, truth, strict=True):
                started = time.process_time()
                masks = masks_from(one, SPACING_MM, settings)
                seconds[name].append(time.process_time() - started)
                found[name].append(_score(masks, true))
    rows = []
    for name in ROWS:
        hausdorff_mm, distance_mm, overlap = np.array(found[name]).T
        milliseconds = statistics.median(seconds[name]) * 1e3
        rows.append(Ablation(name, hausdorff_mm, distance_mm, overlap, milliseconds))
    return rows


def _score(
    masks: Bool[Tensor, "label row col"], truth: Bool[Tensor, "label row col"]
) -> tuple[float, float, float]:
    """Hausdorff and mean distance [mm] and Dice coefficient of one image; NaN without a ventricle."""
    distances = [
        edge_distances_mm(one, true, SPACING_MM)
        for one, true in ((masks[1], truth[1]), (masks[0] | masks[1], truth[0] | truth[1]))
    ]
    overlaps = [dice(one, true) for one, true in zip(masks[:2], truth[:2], strict=True)]
    endo, epi = distances
    if endo is None or epi is None or overlaps[0] is None or overlaps[1] is None:
        return math.nan, math.nan, math.nan
    return (endo[0] + epi[0]) / 2, (endo[1] + epi[1]) / 2, (overlaps[0] + overlaps[1]) / 2


def show_ablation(title: str, rows: list[Ablation]) -> None:
    """Print the table; a difference is that to all steps, with its 95 % confidence interval."""
    table = Table(
        "steps", "HD [mm]", "median", "95th pct", "MSD [mm]", "Dice", "HD less all", "none", "ms", title=title
    )
    everywhere = np.all([np.isfinite(row.dice) for row in rows], axis=0)
    full = next(row for row in rows if row.name == "+ spline")
    for row in rows:
        hausdorff = row.hausdorff_mm[everywhere]
        more = np.where(everywhere, row.hausdorff_mm - full.hausdorff_mm, np.nan).reshape(-1, N_ECHOES)
        # Echoes of a slice resemble each other: the slice is the unit.
        by_slice = np.nanmean(more[np.isfinite(more).any(axis=1)], axis=1)
        half_mm = 1.96 * by_slice.std(ddof=1) / math.sqrt(len(by_slice))
        table.add_row(
            row.name,
            f"{hausdorff.mean():.2f} ± {hausdorff.std():.2f}",
            f"{np.median(hausdorff):.2f}",
            f"{np.percentile(hausdorff, 95):.2f}",
            f"{row.distance_mm[everywhere].mean():.2f}",
            f"{row.dice[everywhere].mean():.4f}",
            f"{by_slice.mean():+.2f} ± {half_mm:.2f}",
            f"{np.isnan(row.dice).sum()}",
            f"{row.milliseconds:.2f}",
        )
    Console(width=120).print(table)
    print(f"{everywhere.sum()} of {len(everywhere)} images; a Gaussian filter takes {_filter_ms():.2f} ms")  # noqa: T201


def _filter_ms() -> float:
    """Median processor time of a Gaussian filter (sigma 3 pixels) of one image [ms]."""
    image = np.random.default_rng(0).random((GRID.n_rows, GRID.n_cols), dtype=np.float32)
    seconds = []
    for _ in range(100):
        started = time.process_time()
        gaussian_filter(image, 3.0)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds) * 1e3


def main() -> None:
    """Read the network, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("cmrcore/weights/base.safetensors"))
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--difficulty", choices=("clean", "typical", "hard"), default="typical")
    chosen = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    network = network_from(load_file(chosen.weights))

    def probability_of(images: Float[Tensor, "n row col"]) -> Float[Tensor, "n label row col"]:
        return look_twice(network, images, SPACING_MM)

    rows = ablate(probability_of, chosen.slices, chosen.difficulty)
    show_ablation(f"{chosen.slices} {chosen.difficulty} slices, {N_ECHOES} echoes each", rows)


if __name__ == "__main__":
    main()
