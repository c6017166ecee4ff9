"""Speed of the digital trial, and what its motion comes to. ``python -m tests.benchmarks.phantom``.

Speed is taken on one thread in processor time, which a busy machine hardly changes: a second of two quiet
cores is two of them, spent in two processes as data loaders do. The same again over a Gaussian filter (scipy,
sigma 3 pixels) of as many images of the same size in the same run.
"""

import os
import statistics
import time
from collections.abc import Callable
from itertools import product
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from cmrcore.phantom import simulate_scan
from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.course import Scanner
from cmrcore.phantom.difficulty import DIFFICULTIES, Difficulty
from cmrcore.phantom.training import training_batch
from tests.benchmarks.figure import Figure, print_figures

GRID = Grid(n_rows=192, n_cols=192, pixel_mm=1.6)
N_SCANS = 8
ROUNDS = 3


def phantom_figures() -> list[Figure]:
    """All figures."""
    figures = [
        *_speed("training, random contrast", lambda seed: _train(seed, "random"), "> 150"),
        *_speed("training, physics", lambda seed: _train(seed, "physics"), "> 20"),
        *_speed("typical scans with truth", _scan, "> 20"),
    ]
    for difficulty in ("typical", "hard"):
        figures += _motion(difficulty)
    return [*figures, Figure("load average", os.getloadavg()[0], "", "", f"{os.cpu_count()} cores")]


def _speed(name: str, draw: Callable[[int], int], target: str) -> list[Figure]:
    """Echoes a second of two cores, and their time over that of the filter; the two take turns."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    draw(0)
    image = np.random.default_rng(0).random((192, 192), dtype=np.float32)
    seconds, ratios = [], []
    for seed in range(1, ROUNDS + 1):
        started = time.process_time()
        n = draw(seed)
        between = time.process_time()
        for _ in range(n):
            gaussian_filter(image, 3.0)
        ended = time.process_time()
        seconds.append((between - started) / n)
        ratios.append((between - started) / (ended - between))
    torch.set_num_threads(n_threads)
    note = f"192 x 192, two processes of one thread; median of {ROUNDS}"
    return [
        Figure(name, 2 / statistics.median(seconds), "echoes/s", target, note),
        Figure(f"{name}, over the filter", statistics.median(ratios), "", "", "processor time"),
    ]


def _train(seed: int, contrast: Literal["random", "physics"]) -> int:
    batch = training_batch(np.random.default_rng(seed), 32, GRID, contrast=contrast)
    return batch.images.shape[0] * batch.images.shape[1]


def _scan(seed: int) -> int:
    scan = simulate_scan(
        seed,
        0,
        0,
        scheme_native="5(3)3",
        scheme_post="4(1)3(1)2",
        scanner=Scanner(model="A15", field_strength_t=1.5, grid=GRID),
    )
    return scan.native.ti_ms.numel() + scan.post.ti_ms.numel()


def _motion(difficulty: Difficulty) -> list[Figure]:
    """Share of series that move, and how well masks of a series agree, beside published ones."""
    worst_mm, dice = [], []
    for seed, subject in product(range(N_SCANS // 4), range(4)):
        scan = simulate_scan(
            seed, subject, 0, scheme_native="5(3)3", scheme_post="4(1)3(1)2", difficulty=difficulty
        )
        for role in (scan.native, scan.post):
            wall = role.labels[0]
            area = wall[:, 0].sum(dim=(1, 2))
            for index in range(len(wall)):
                within = wall[index, 0]
                way_mm = role.displacement_mm[index].norm(dim=1)[:, within].mean(1)
                worst_mm.append(way_mm.max().item())
                if way_mm.max() > scan.scanner.grid.pixel_mm:
                    common = (wall[index, 1:] & within).sum(dim=(1, 2))
                    both = wall[index, 1:].sum(dim=(1, 2)) + area[index]
                    dice.append((2 * common / both).mean().item())
    motion = DIFFICULTIES[difficulty].motion
    share = statistics.mean(way > 1.5 for way in worst_mm)
    note = f"{len(worst_mm)} series; breath not held in {motion.breathing_share:.0%}"
    return [
        Figure(f"{difficulty}: series that move by > 1.5 mm", 100 * share, "%", "56 in ARCTIC", note),
        Figure(f"{difficulty}: their farthest image", statistics.median(worst_mm), "mm", "", "median"),
        Figure(
            f"{difficulty}: Dice of the wall, series that move by > 1 pixel",
            statistics.mean(dice),
            "",
            "0.78 in ARCTIC",
            f"all images against the first; SD {statistics.stdev(dice):.2f}",
        ),
    ]


def main() -> None:
    """Measure and print."""
    print_figures("digital trial", phantom_figures())


if __name__ == "__main__":
    main()
