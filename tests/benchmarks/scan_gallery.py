"""Picture of the digital trial: ``python -m tests.benchmarks.scan_gallery OUT.png``.

Difficulties down, echoes across, native and post-contrast, with the true contours of each echo; training
images below, reference echo and moved echo side by side.
"""

import sys
from collections.abc import Sequence
from io import BytesIO

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cmrcore.phantom import RoleEchoes, simulate_scan
from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.course import Scanner
from cmrcore.phantom.difficulty import DIFFICULTIES
from cmrcore.phantom.training import training_batch

SEED, SUBJECT, N_ECHOES = 3, 1, 8
SCANNER = Scanner(model="B30", field_strength_t=3.0, grid=Grid(n_rows=192, n_cols=192, pixel_mm=1.5))
COLORS = ("#ff4040", "#40c0ff", "#ffe040")
"""Myocardium, LV blood, RV."""


def main() -> None:
    """Draw and write."""
    mpl.use("agg")
    rows: list[tuple[str, Sequence[tuple[Tensor, Tensor]]]] = []
    for level, difficulty in enumerate(DIFFICULTIES):
        scan = simulate_scan(
            SEED,
            SUBJECT,
            0,
            scheme_native="5(3)3",
            scheme_post="4(1)3(1)2",
            difficulty=difficulty,
            scanner=SCANNER,
        )
        for role, echoes in (("native", scan.native), ("post", scan.post)):
            rows.append((f"{difficulty}, {role}, {scan.levels[level]}", _slice_of(echoes, level)))
    for contrast in ("random", "physics"):
        batch = training_batch(np.random.default_rng(SEED), N_ECHOES // 2, SCANNER.grid, contrast=contrast)
        pairs = list(zip(batch.images.flatten(0, 1), batch.masks.flatten(0, 1), strict=True))
        rows.append((f"training, {contrast}, typical", pairs))

    figure = Figure(figsize=(1.5 * N_ECHOES, 1.62 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), N_ECHOES)
    for row, (title, images) in zip(axes, rows, strict=True):
        row[0].set_title(title, fontsize=7, loc="left")
        for axis, (image, masks) in zip(row, images, strict=True):
            _show(axis, image, masks)
    with BytesIO() as buffer:
        figure.savefig(buffer, dpi=70)
        # A palette keeps the file small enough for the repository; this method keeps rare colors, too.
        picture = Image.open(buffer).convert("RGB")
        picture.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(sys.argv[1])


def _slice_of(role: RoleEchoes, index: int) -> list[tuple[Tensor, Tensor]]:
    """First echoes of a slice with their masks."""
    return [(role.echoes[index, ti], role.labels[:, index, ti]) for ti in range(N_ECHOES)]


def _show(axis: Axes, image: Float[Tensor, "row col"], masks: Bool[Tensor, "label row col"]) -> None:
    """Show one image with its contours."""
    axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=image.quantile(0.995).item())
    for mask, color in zip(masks, COLORS, strict=True):
        if mask.any() and not mask.all():
            axis.contour(mask.numpy(), [0.5], colors=color, linewidths=0.5)
    axis.set_axis_off()


if __name__ == "__main__":
    main()
