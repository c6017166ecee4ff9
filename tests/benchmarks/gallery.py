"""Anatomies of the digital trial beside each other: kinds by level, with the contours of the labels.

    python -m tests.benchmarks.gallery OUT.png [SEED]

Contrast is by simple numbers, like that of a cine image; difficulties and echoes have their own gallery.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.phantom.anatomy import (
    STRUCTURES,
    Anatomy,
    Grid,
    HeartKind,
    View,
    draw_anatomy,
    labels,
    landmarks,
    structure_fractions,
)

KINDS: tuple[HeartKind, ...] = ("normal", "hypertrophied", "amyloid", "dilated", "thin_apex", "small_thick")
VIEWS = (
    View(along_fraction=0.02),
    View(along_fraction=0.2),
    View(along_fraction=0.5),
    View(along_fraction=0.5, phase_fraction=1.0),
    View(along_fraction=0.8),
)
GRID = Grid(n_rows=192, n_cols=192, pixel_mm=1.7)
BRIGHTNESS = {
    "subcutaneous_fat": 0.95,
    "muscle": 0.22,
    "spine": 0.35,
    "lung": 0.05,
    "liver": 0.3,
    "stomach": 0.45,
    "aorta": 0.75,
    "arm": 0.25,
    "epicardial_fat": 0.7,
    "rv_wall": 0.25,
    "rv": 0.75,
    "myocardium": 0.25,
    "lesion": 0.32,
    "papillary": 0.25,
    "blood_pool": 0.8,
}
"""Signal of each structure relative to the brightest; steady-state cine as seen by eye."""
COLORS = ("tab:green", "tab:red", "tab:blue")
"""Contours of myocardium, blood pool and RV."""


def cine_image(fractions: Float[Tensor, "batch structure row col"]) -> Float[Tensor, "batch row col"]:
    """Sum of the structures' simple brightness."""
    weight = torch.tensor([BRIGHTNESS[name] for name in STRUCTURES])
    return torch.einsum("bsrc,s->brc", fractions, weight)


def draw_gallery(path: Path, seed: int) -> None:
    """Write the picture: a row for each kind of heart, a column for each view."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rng = np.random.default_rng(seed)
    figure, axes = plt.subplots(len(KINDS), len(VIEWS), figsize=(2.6 * len(VIEWS), 2.6 * len(KINDS)))
    for row, kind in zip(axes, KINDS, strict=True):
        anatomies: list[Anatomy] = [draw_anatomy(rng, kind)] * len(VIEWS)
        fractions = structure_fractions(anatomies, VIEWS, GRID)
        points = landmarks(anatomies, VIEWS, GRID)
        for axis, image, masks, marks, view in zip(
            row, cine_image(fractions), labels(fractions), points, VIEWS, strict=True
        ):
            axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
            for mask, color in zip(masks, COLORS, strict=True):
                if mask.any():
                    axis.contour(mask.numpy(), levels=[0.5], colors=color, linewidths=0.5)
            axis.plot(marks[:, 1], marks[:, 0], "+", color="yellow", markersize=3)
            moment = "systole" if view.phase_fraction else f"{view.along_fraction:g}"
            axis.set_title(f"{kind}, {moment}", fontsize=7, pad=2)
            axis.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    draw_gallery(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
