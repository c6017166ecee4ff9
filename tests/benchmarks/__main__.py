"""Run every benchmark: ``make bench`` prints tables and writes them as JSON into ``bench/``."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.phantom import phantom_figures
from tests.benchmarks.relaxation import Figure, relaxation_figures


def main() -> None:
    """Measure, print, write."""
    folder = Path("bench")
    folder.mkdir(exist_ok=True)
    _report(folder / "phantom.json", "digital trial", phantom_figures())
    _report(folder / "relaxation.json", "relaxometry", relaxation_figures(folder))


def _report(file: Path, title: str, figures: list[Figure]) -> None:
    table = Table("figure", "value", "unit", "target", "note", title=title)
    for figure in figures:
        value = "absent" if figure.value is None else f"{figure.value:.4g}"
        table.add_row(figure.name, value, figure.unit, figure.target, figure.note)
    Console().print(table)
    file.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
