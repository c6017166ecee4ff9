"""Run every benchmark: ``make bench`` prints tables and writes them as JSON into ``bench/``."""

import json
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.figure import Figure, print_figures
from tests.benchmarks.intake import intake_figures
from tests.benchmarks.phantom import phantom_figures
from tests.benchmarks.registration import registration_figures
from tests.benchmarks.registration_speed import speed_figures
from tests.benchmarks.relaxation import relaxation_figures
from tests.benchmarks.scale import scale_figures
from tests.benchmarks.segmentation_speed import segmentation_speed_figures


def main() -> None:
    """Measure, print, write."""
    folder = Path("bench")
    folder.mkdir(exist_ok=True)
    _report(folder / "phantom.json", "digital trial", phantom_figures())
    _report(folder / "intake.json", "intake", intake_figures())
    _report(folder / "segmentation_speed.json", "speed of segmentation", segmentation_speed_figures())
    _report(
        folder / "registration.json",
        "alignment",
        [*registration_figures(folder / "registration"), *speed_figures()],
    )
    _report(folder / "scale.json", "cost of orchestration", scale_figures())
    _report(folder / "relaxation.json", "relaxometry", relaxation_figures(folder))


def _report(file: Path, title: str, figures: list[Figure]) -> None:
    print_figures(title, figures)
    file.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
