"""Ten thousand mutated files through intake: ``python -m tests.benchmarks.fuzz [--files N]``.

Exit code 1 when one of them ends intake or is not accounted for.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from tests.storage.mutated_uploads import FuzzReport, fuzz

N_FILES = 10_000
FILES_A_SEED = 1_000
FIRST_SEED = 1_000
"""Seeds from here on are not those of the tests."""


def main() -> None:
    """Mutate, take in, and say what became of the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=N_FILES)
    n_files: int = parser.parse_args().files
    console = Console()
    started = time.perf_counter()
    starts = range(0, n_files, FILES_A_SEED)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        sizes = [min(FILES_A_SEED, n_files - start) for start in starts]
        reports = list(pool.map(_fuzz, sizes, range(FIRST_SEED, FIRST_SEED + len(starts))))
    outcomes = sum((report.outcomes for report in reports), Counter[str]())
    unforeseen = sum((report.unforeseen for report in reports), Counter[str]())
    crashes = [crash for report in reports for crash in report.crashes]
    console.print(f"{n_files} mutated files in {time.perf_counter() - started:.0f} s: {dict(outcomes)}")
    for reason, count in unforeseen.most_common():
        console.print(f"caught at the border only: {count} x {reason}")
    console.print(f"{len(crashes)} crashes of intake")
    for crash in crashes:
        console.print(f"  {crash}")
    if crashes or outcomes.total() != n_files:
        sys.exit(1)


def _fuzz(n_files: int, seed: int) -> FuzzReport:
    with tempfile.TemporaryDirectory(prefix="cmrtrials-fuzz-") as folder:
        return fuzz(Path(folder), n_files, seed)


if __name__ == "__main__":
    main()
