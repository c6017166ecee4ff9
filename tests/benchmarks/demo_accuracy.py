"""Errors of a simulated trial's tables against its truth: ``python -m tests.benchmarks.demo_accuracy``.

Of the trial in ``demo``, where ``make demo`` leaves it, or in a given folder. Ideal values carry the
sequence's bias, but no noise, motion, lost polarity or wrong mask: the error is what the pipeline adds.
"""

import sys
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

QUANTITIES = {
    "t1_native_ms": ("native T1", "ms", 1.0),
    "t1_post_ms": ("post-contrast T1", "ms", 1.0),
    "blood_t1_native_ms": ("native blood T1", "ms", 1.0),
    "blood_t1_post_ms": ("post-contrast blood T1", "ms", 1.0),
    "ecv_fraction": ("ECV", "percentage points", 100.0),
}
"""Columns of ``scans`` that have an ideal: name, unit, units in one of the column's."""


def scan_errors(root: Path) -> pd.DataFrame:
    """Error of each scan mean against its ideal, with the visit's state; NaN where there is no value."""
    key = ["subject_id", "visit_id"]
    scans = pd.read_parquet(root / "tables" / "scans")
    truth = pd.read_parquet(root / "truth" / "scans.parquet")
    visits = pd.read_parquet(root / "tables" / "visits")[[*key, "state"]]
    both = scans.merge(truth, on=key, validate="one_to_one").merge(visits, on=key, validate="one_to_one")
    errors = {
        column: (both[column].astype(float) - both[f"{column}_ideal"]) * factor
        for column, (_, _, factor) in QUANTITIES.items()
    }
    return pd.concat([both[[*key, "state"]], pd.DataFrame(errors)], axis=1)


def main() -> None:
    """Print the states and the errors of a trial's scan means."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo")
    errors = scan_errors(root)
    states = pd.read_parquet(root / "tables" / "visits")["state"].value_counts()
    title = ", ".join(f"{n} {state}" for state, n in states.items())
    table = Table("scan mean", "unit", "scans", "mean |error|", "worst", "bias", title=title)
    for column, (name, unit, _) in QUANTITIES.items():
        error = errors[column].dropna()
        figures = (error.abs().mean(), error.abs().max(), error.mean())
        table.add_row(name, unit, str(len(error)), *(f"{figure:.2f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
