"""What a benchmark measures, and how it is shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure."""

    name: str
    """What was measured."""
    value: float | None
    """The figure; None where what it needs is absent."""
    unit: str
    """Its unit."""
    target: str = ""
    """What it should be."""
    note: str = ""
    """How it was measured, or why it is absent."""


def print_figures(title: str, figures: Sequence[Figure]) -> None:
    """Print figures as a table."""
    table = Table("figure", "value", "unit", "target", "note", title=title)
    for figure in figures:
        value = "absent" if figure.value is None else f"{figure.value:.4g}"
        table.add_row(figure.name, value, figure.unit, figure.target, figure.note)
    Console().print(table)
