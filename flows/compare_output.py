"""A comparison as tables at the terminal, CSV into a pipe, and a Bland-Altman figure."""

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from cmrcore.quantify.agreement import Estimate
from flows.compare import LEAST_PAIRS, POOLED_REGIONS, Agreement, Comparison, Statistics, table_of

_ROUNDING = 1e-9
"""Share of a value that no measurement tells from it."""

_SHOWN = {
    "t1_native_ms": ("native T1", "ms", 1.0, "{:.1f}"),
    "t1_post_ms": ("post-contrast T1", "ms", 1.0, "{:.1f}"),
    "ecv_fraction": ("ECV", "%", 100.0, "{:.2f}"),
}
"""Name, unit, factor and format in which people read each quantity."""


def print_comparison(comparison: Comparison) -> None:
    """Print tables of agreement, and what had no partner; CSV with every number into a pipe or file."""
    console, notes = Console(), Console(stderr=True)
    first, second = comparison.names
    if console.is_terminal:
        limit = f"beyond\n{comparison.relative_limit:.0%} [%]"
        headings = ["", "unit", "n", f"{second} - {first}\n(95 %)", "SD", "limits of agreement\n(95 %)"]
        headings += ["relative\n[%]", limit, "ICC(2,1)\n(95 %)"]
        rows = [_first_row(one) for one in comparison.agreements]
        console.print(_table(f"agreement of {second} with {first}", headings, rows))
        headings = ["", "unit", "within-subject\nSD", "repeatability\n(95 %)", "wCV\n[%]"]
        headings += ["slope\n(95 %)", "Deming slope\n(95 %)"]
        rows = [_second_row(one, one.statistics) for one in comparison.agreements if one.statistics]
        console.print(_table("repeatability and regression", headings, rows))
    else:
        columns, values = table_of(comparison)
        csv.writer(sys.stdout).writerows([columns, *values])
    for one in comparison.agreements:
        if one.n_missing:
            notes.print(
                f"{_name(one)}: {one.n_missing} without a value in {first} or {second}", soft_wrap=True
            )
        if one.statistics is None:
            notes.print(f"{_name(one)}: {len(one.reference)} pairs, {LEAST_PAIRS} make a statistic")
    pooled = [one.region for one in comparison.agreements if one.region in POOLED_REGIONS]
    if pooled:
        notes.print(
            f"no confidence intervals for {', '.join(dict.fromkeys(pooled))}: a scan has several, which are "
            f"not independent",
            soft_wrap=True,
        )
    if comparison.failed:
        notes.print(
            f"left out for their verdict fail, {len(comparison.failed)}: {', '.join(comparison.failed)}",
            soft_wrap=True,
        )
    for name, unpaired in ((first, comparison.only_reference), (second, comparison.only_tested)):
        if unpaired:
            notes.print(f"in {name} alone, {len(unpaired)}: {', '.join(unpaired)}", soft_wrap=True)
    if not comparison.agreements:
        notes.print("nothing pairs: subjects and visits must have the same names on both sides")


def draw_bland_altman(comparison: Comparison, path: Path) -> None:
    """Draw differences over means with bias, limits of agreement and, where there are, their intervals.

    A panel for each quantity and region that has statistics.
    """
    mpl.use("agg")  # a terminal has no screen
    from matplotlib import pyplot as plt

    shown = [one for one in comparison.agreements if one.statistics is not None]
    regions = list(dict.fromkeys(one.region for one in shown))
    quantities = list(dict.fromkeys(one.quantity for one in shown))
    n_rows, n_cols = max(len(regions), 1), max(len(quantities), 1)
    figure, axes = plt.subplots(
        n_rows, n_cols, figsize=(4.2 * n_cols, 3.2 * n_rows), layout="constrained", squeeze=False
    )
    first, second = comparison.names
    for row, region in zip(axes, regions, strict=False):
        for axis, quantity in zip(row, quantities, strict=False):
            here = [one for one in shown if (one.quantity, one.region) == (quantity, region)]
            axis.set_visible(bool(here))
            for one in here:
                _draw_panel(axis, one)
                _, unit, _, _ = _SHOWN[one.quantity]
                axis.set_title(f"{_name(one)}, n = {len(one.reference)}", fontsize=10)
                axis.set(xlabel=f"mean of both [{unit}]", ylabel=f"{second} - {first} [{unit}]")
    if not shown:
        axes[0, 0].text(0.5, 0.5, f"no quantity with {LEAST_PAIRS} pairs", ha="center")
        axes[0, 0].set_axis_off()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_panel(axis: "mpl.axes.Axes", one: Agreement) -> None:
    """One Bland-Altman plot."""
    _, _, factor, form = _SHOWN[one.quantity]
    mean, difference = (one.reference + one.tested) / 2 * factor, (one.tested - one.reference) * factor
    axis.scatter(mean, difference, s=12, color="black", alpha=0.6, linewidths=0)
    axis.axhline(0, color="grey", linewidth=0.8)
    if np.ptp(difference) < _ROUNDING * np.abs(mean).max():  # else the axis would show rounding
        axis.set_ylim(difference.mean() - 1, difference.mean() + 1)
    if one.statistics is None:
        return
    limits = one.statistics.bland_altman
    for estimate, color, style in (
        (limits.bias, "tab:blue", "-"),
        (limits.lower, "tab:red", "--"),
        (limits.upper, "tab:red", "--"),
    ):
        if not math.isnan(estimate.low):
            axis.axhspan(estimate.low * factor, estimate.high * factor, color=color, alpha=0.12, linewidth=0)
        axis.axhline(estimate.value * factor, color=color, linestyle=style, linewidth=1.2)
        axis.annotate(
            form.format(estimate.value * factor),
            (1, estimate.value * factor),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize=8,
        )


def _first_row(one: Agreement) -> list[str]:
    """Cells of the table of agreement."""
    label, unit, factor, form = _name(one), *_SHOWN[one.quantity][1:]
    if one.statistics is None:
        return [label, unit, str(len(one.reference)), *["-"] * 6]
    found = one.statistics
    limits = found.bland_altman
    return [
        label,
        unit,
        str(len(one.reference)),
        _estimate(limits.bias, factor, form),
        form.format(limits.sd * factor),
        f"{_estimate(limits.lower, factor, form)} to\n{_estimate(limits.upper, factor, form)}",
        f"{found.relative_bias * 100:.1f} ± {found.relative_sd * 100:.1f}",
        f"{found.beyond_fraction * 100:.1f}",
        _estimate(found.icc, 1, "{:.3f}"),
    ]


def _second_row(one: Agreement, found: Statistics) -> list[str]:
    """Cells of the table of repeatability and regression."""
    label, unit, factor, form = _name(one), *_SHOWN[one.quantity][1:]
    return [
        label,
        unit,
        form.format(found.within.sd.value * factor),
        _estimate(found.within.repeatability_coefficient, factor, form),
        f"{found.within.coefficient_of_variation * 100:.1f}",
        *(
            "-" if line is None else _estimate(line.slope, 1, "{:.3f}")
            for line in (found.ordinary, found.deming)
        ),
    ]


def _name(one: Agreement) -> str:
    """Quantity and region in words."""
    return f"{_SHOWN[one.quantity][0]}, {one.region}"


def _estimate(found: Estimate, factor: float, form: str) -> str:
    """Format a number with its interval, where it has one."""
    if math.isnan(found.low):
        return form.format(found.value * factor)
    value, low, high = (form.format(number * factor) for number in (found.value, found.low, found.high))
    return f"{value} ({low}, {high})"


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Make a table whose first two columns are text."""
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < 2 else "right")
    for row in rows:
        table.add_row(*row)
    return table
