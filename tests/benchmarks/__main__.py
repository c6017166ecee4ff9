"""Run every benchmark: ``make bench`` prints tables and writes ``bench/*.json``."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.intake import intake_figures, print_figures
from tests.benchmarks.relaxation import relaxation_figures


def main() -> None:
    """Measure, print, write."""
    folder = Path("bench")
    folder.mkdir(exist_ok=True)
    figures = relaxation_figures(folder)
    table = Table("figure", "value", "unit", "target", "note", title="relaxometry")
    for figure in figures:
        value = "absent" if figure.value is None else f"{figure.value:.4g}"
        table.add_row(figure.name, value, figure.unit, figure.target, figure.note)
    Console().print(table)
    (folder / "relaxation.json").write_text(
        json.dumps([asdict(figure) for figure in figures], indent=2) + "\n"
    )
    taken_in = intake_figures()
    print_figures(taken_in)
    (folder / "intake.json").write_text(json.dumps([asdict(figure) for figure in taken_in], indent=2) + "\n")


if __name__ == "__main__":
    main()
