"""The learning curve of a training as a figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl


def draw_curve(path: Path, kind: str, curve: Sequence[tuple[int, float, float]]) -> None:
    """Draw loss and score over the steps of a training.

    Parameters
    ----------
    path
        File of the figure.
    kind
        Which network.
    curve
        Step, mean loss and score on the development set.
    """
    mpl.use("agg")  # a training has no screen
    from matplotlib import pyplot as plt

    steps, losses, scores = zip(*curve, strict=True)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, values, label in zip(
        axes, (losses, scores), ("training loss", "development Dice"), strict=True
    ):
        axis.plot(steps, values, marker=".", color="black", linewidth=1)
        axis.set(xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
    best = scores.index(max(scores))
    axes[1].plot(steps[best], scores[best], "o", color="crimson")
    axes[1].annotate(f"{scores[best]:.3f} ", (steps[best], scores[best]), va="top", ha="right")
    figure.suptitle(f"{kind} network")
    figure.savefig(path, dpi=120)
    plt.close(figure)
