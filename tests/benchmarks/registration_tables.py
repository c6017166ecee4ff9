"""Tables and figure of the alignment benchmark, from its rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.benchmarks.figure import Figure

Evidence = pd.DataFrame
"""One row per difficulty, scan, slice, role and method; ECV is told in the native row."""
FAR_PX = 2.0
"""Echoes that lie further off should be brought at least half the way [pixel]."""
N_BOOTSTRAP = 2000
LEAST_SCANS = 3
SLICE = ["difficulty", "scan", "slice_index"]
ANCHORS = ("none", "affine")
"""Methods that are told again on the slices of each part."""
DRAWN = {
    "none": "0.6",
    "affine": "C0",
    "affine, true masks": "C9",
    "refined": "C1",
    "SimpleITK": "C4",
    "truth": "0.2",
}
"""Methods in the figure and their colors, in the order of their bars."""

HEADINGS = {
    "n": "slices",
    "error_px": "error, median [px]",
    "error_95_px": "95th percentile [px]",
    "halved_fraction": "halved where > 2 px (n)",
    "dice": "Dice of the networks' masks",
    "far_dice": "where > 2 px",
    "r_squared_mean": "mean R2",
    "above_fraction": "R2 > 0.9 [%]",
    "low_fraction": "> 10 % low [%]",
    "t1_median_error_ms": "median T1 error [ms]",
    "t1_pixel_error_ms": "pixel T1 error [ms]",
    "gain_ms": "less than none, 95 % [ms]",
    "t1_change_ms": "T1 changed by [ms]",
    "seconds": "time [s]",
}
"""Columns of the first table."""


def parts(found: Evidence) -> Iterator[tuple[str, Evidence]]:
    """Give every preset and role: methods that see all slices, then those that see fewer, with `ANCHORS`."""
    for (difficulty, role), own in found.groupby(["difficulty", "role"], sort=False):
        n_slices = own.groupby("method", sort=False).size()
        for n in sorted(n_slices.unique(), reverse=True):
            here = {str(method) for method in n_slices.index if n_slices[method] == n}
            slices = own.loc[own.method.isin(here), SLICE].drop_duplicates()
            yield f"{difficulty} {role}", own[own.method.isin(here | set(ANCHORS))].merge(slices)


def summary(own: Evidence, still: Evidence) -> dict[str, float]:
    """Figures of one method on some slices; ``still`` are the rows of the same slices without alignment."""
    error, start, dice = (
        np.concatenate(own[name].tolist()) for name in ("error_px", "start_px", "echo_dice")
    )
    far = start > FAR_PX
    paired = own.merge(still, on=SLICE, suffixes=("", "_still"))
    gain = paired.t1_pixel_error_ms_still - paired.t1_pixel_error_ms
    low, high = interval(gain.groupby([paired.difficulty, paired.scan]).mean())
    return {
        "n": len(own),
        "error_px": float(np.median(error)),
        "error_95_px": float(np.percentile(error, 95)),
        "halved_fraction": float((error[far] <= start[far] / 2).mean()) if far.any() else float("nan"),
        "n_far": int(far.sum()),
        "dice": float(dice.mean()),
        "far_dice": float(dice[far].mean()) if far.any() else float("nan"),
        "r_squared_mean": own.r_squared_mean.mean(),
        "above_fraction": (own.r_squared_mean > 0.9).mean(),
        "low_fraction": (own.low_fraction > 0.1).mean(),
        "t1_median_error_ms": own.t1_median_error_ms.abs().mean(),
        "t1_pixel_error_ms": own.t1_pixel_error_ms.mean(),
        "gain_ms": gain.mean(),
        "gain_low_ms": low,
        "gain_high_ms": high,
        "t1_change_ms": own.t1_change_ms.median(),
        "seconds": own.seconds.mean(),
    }


def interval(by_scan: pd.Series) -> tuple[float, float]:
    """95 % confidence interval of a mean by the bootstrap over scans; NaN of fewer than three."""
    values = by_scan.to_numpy(dtype=float)
    if len(values) < LEAST_SCANS:
        return float("nan"), float("nan")
    means = np.random.default_rng(0).choice(values, size=(N_BOOTSTRAP, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def figures_of(found: Evidence) -> list[Figure]:
    """Figures of ``make bench``: every method on all slices that it aligned."""
    figures = []
    for (difficulty, role, method), own in found.groupby(["difficulty", "role", "method"], sort=False):
        one = summary(own, _still(found, str(difficulty), str(role)))
        name, note = f"{difficulty} {role}: {method}", f"n = {len(own)} slices"
        halved = 100 * one["halved_fraction"] if one["n_far"] else None
        figures += [
            Figure(f"{name}: error, median", one["error_px"], "pixel", "< 1.0", note),
            Figure(f"{name}: halved where > 2 pixels", halved, "%", "", f"{one['n_far']:.0f} echoes"),
            Figure(f"{name}: mean R2", one["r_squared_mean"], "", "", note),
            Figure(f"{name}: mean R2 > 0.9", 100 * one["above_fraction"], "%", ">= 98.7", note),
            Figure(f"{name}: > 10 % low pixels", 100 * one["low_fraction"], "%", "<= 26.4", note),
            Figure(f"{name}: T1 error of a pixel", one["t1_pixel_error_ms"], "ms", "", note),
            Figure(f"{name}: processor time a slice", one["seconds"], "s", "affine < 0.3, refined < 3", note),
        ]
    return figures


def _still(found: Evidence, difficulty: str, role: str) -> Evidence:
    return found[(found.method == "none") & (found.difficulty == difficulty) & (found.role == role)]


def tables(found: Evidence) -> str:
    """Both tables of the README, as Markdown."""
    rows = []
    for name, own in parts(found):
        difficulty, role = name.split()
        for method, of_method in own.groupby("method", sort=False):
            rows.append([name, str(method), *_cells(summary(of_method, _still(found, difficulty, role)))])
    first = _markdown(["series", "alignment", *HEADINGS.values()], rows)
    rows = []
    for name, own in parts(found):
        if not name.endswith("native"):
            continue
        for method, of_method in own.groupby("method", sort=False):
            error, pixel = 100 * of_method.ecv_error, 100 * of_method.ecv_pixel_error
            rows.append(
                [
                    name.removesuffix(" native"),
                    str(method),
                    f"{len(error)}",
                    f"{error.isna().sum()}",
                    f"{error.abs().mean():.2f}",
                    f"{error.mean():+.2f}",
                    f"{pixel.mean():.2f}",
                ]
            )
    columns = ["slices", "no ECV", "error of the mean [points]", "its bias [points]", "of a pixel [points]"]
    return first + "\n" + _markdown(["preset", "alignment", *columns], rows)


def _cells(one: dict[str, float]) -> list[str]:
    """Figures of one row of the first table."""
    interval_of = f" ({one['gain_low_ms']:.1f} to {one['gain_high_ms']:.1f})"
    halved = "-" if np.isnan(one["halved_fraction"]) else f"{one['halved_fraction']:.2f}"
    return [
        f"{one['n']}",
        f"{one['error_px']:.2f}",
        f"{one['error_95_px']:.2f}",
        f"{halved} ({one['n_far']})",
        "-" if one["dice"] == 1 else f"{one['dice']:.3f}",
        "-" if one["dice"] == 1 or np.isnan(one["far_dice"]) else f"{one['far_dice']:.3f}",
        f"{one['r_squared_mean']:.3f}",
        f"{100 * one['above_fraction']:.0f}",
        f"{100 * one['low_fraction']:.0f}",
        f"{one['t1_median_error_ms']:.1f}",
        f"{one['t1_pixel_error_ms']:.1f}",
        f"{one['gain_ms']:.1f}{'' if np.isnan(one['gain_low_ms']) else interval_of}",
        f"{one['t1_change_ms']:.1f}",
        f"{one['seconds']:.2f}",
    ]


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def draw(found: Evidence, file: Path) -> None:
    """Draw the error of echoes, and what share of slices the signal model fits, by group and method.

    Above all slices, below those that SimpleITK aligned too, so that bars beside each other are of the same.
    """
    mpl.use("Agg")
    moving = found[found.difficulty != "clean"]
    n_slices = moving.groupby("method").size()
    everywhere = moving[moving.method.map(n_slices) == n_slices.max()]
    peer = moving.loc[moving.method == "SimpleITK", [*SLICE, "role"]]
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    _draw_row(axes[0], everywhere, "all slices")
    _draw_row(axes[1], moving.merge(peer), "a part")
    handles = dict(zip(*(axes[1, 1].get_legend_handles_labels()[::-1]), strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(DRAWN), fontsize=9)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def _draw_row(axes: Sequence[Axes], found: Evidence, which: str) -> None:
    """Draw errors and both shares of the same slices."""
    names = [f"{difficulty} {role}" for difficulty in ("typical", "hard") for role in ("native", "post")]
    group = found.difficulty + " " + found.role
    names = [name for name in names if name in set(group)]
    methods = [method for method in DRAWN if method in set(found.method)]
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        by_group = [found[(group == name) & (found.method == method)] for name in names]
        places = np.arange(len(names)) + (number - (len(methods) - 1) / 2) * width
        above = [100 * (one.r_squared_mean > 0.9).mean() for one in by_group]
        low = [100 * (one.low_fraction > 0.1).mean() for one in by_group]
        _draw_errors(axes[0], by_group, places, 0.8 * width, DRAWN[method])
        axes[1].bar(places, above, 0.9 * width, color=DRAWN[method], label=method)
        axes[2].bar(places, low, 0.9 * width, color=DRAWN[method])
    n = int((found.method == methods[0]).sum() / max(1, len(names)))
    title = f"{which}, {n} a group: median, 25-75 %, 5-95 %"
    axes[0].set(ylabel="error of the echoes [pixel]", title=title, ylim=(0, 7))
    axes[1].set(ylabel="slices [%]", title="mean R2 > 0.9", ylim=(0, 105))
    axes[2].set(ylabel="slices [%]", title="> 10 % of pixels under R2 0.95", ylim=(0, 105))
    for axis in axes:
        axis.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])


def _draw_errors(
    axis: Axes, by_group: Sequence[Evidence], places: np.ndarray, width: float, color: str
) -> None:
    """Draw the errors of one method's echoes as boxes."""
    errors = [np.concatenate(one.error_px.tolist()) if len(one) else np.array([]) for one in by_group]
    axis.boxplot(
        errors,
        positions=places.tolist(),
        widths=width,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": color, "linewidth": 0.6},
        medianprops={"color": "black"},
    )
