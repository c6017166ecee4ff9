"""How good the guides are that the base network makes. ``python -m tests.benchmarks.guides``.

On slices of the digital trial with a few echoes each: the Dice coefficient of the wall of `find_guide`'s
guide with the truth of its echo, against that of one look at the first-acquired echo; of guides that passed
their checks and of those that did not; and how well the score tells good ones from bad.
"""

import argparse
import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from cmrcore.phantom.training import training_batch
from cmrcore.quantify.overlap import dice
from cmrcore.segmentation.contours import masks_from
from cmrcore.segmentation.guide import find_guide
from cmrcore.segmentation.infer import look_twice
from cmrcore.segmentation.networks import network_from
from cmrcore.segmentation.predict import base_probability
from tests.benchmarks.contours import GRID, SPACING_MM
from tests.benchmarks.figure import Figure, print_figures

SEED = 62_027
N_ECHOES = 4


def guide_figures(weights: Path, n_slices: int) -> list[Figure]:
    """All figures."""
    network = network_from(load_file(weights))

    rng = np.random.default_rng(SEED)
    batch = training_batch(rng, n_slices, GRID, contrast="physics", n_echoes=N_ECHOES)
    first, made, scores, passed, elsewhere = [], [], [], [], []
    for echoes, truth in zip(batch.images, batch.masks, strict=True):
        alone = masks_from(look_twice(network, echoes[:1], SPACING_MM)[0], SPACING_MM)
        first.append(dice(alone[0], truth[0, 0]) or 0.0)
        guide = find_guide(partial(base_probability, network), echoes, SPACING_MM, 0)
        if guide is None:
            continue
        made.append(dice(guide.masks[0], truth[guide.echo, 0]) or 0.0)
        scores.append(guide.score)
        passed.append(not guide.findings)
        elsewhere.append(guide.echo != 0)
    overlap, good = np.array(made), np.array(passed)
    return [
        Figure("first echo, one look", float(np.mean(first)), "Dice", "", f"{n_slices} slices"),
        Figure("all guides", float(overlap.mean()), "Dice", ">= 0.88", f"{len(made)} slices"),
        *(
            Figure(
                name,
                float(overlap[which].mean()) if which.any() else None,
                "Dice",
                "",
                f"{which.sum()} slices",
            )
            for name, which in (("guides that passed", good), ("guides with findings", ~good))
        ),
        Figure("worst guide that passed", float(overlap[good].min()), "Dice"),
        Figure("guides on another echo than the first", float(np.mean(elsewhere)), "fraction"),
        Figure("score against Dice", float(spearmanr(scores, made).statistic), "Spearman's rho"),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("cmrcore/weights/base.safetensors"))
    parser.add_argument("--slices", type=int, default=100)
    chosen = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    print_figures(f"guides of {chosen.weights.stem}", guide_figures(chosen.weights, chosen.slices))


if __name__ == "__main__":
    main()
