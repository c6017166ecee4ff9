"""Pages: memory over hundreds of visits, and how long a browser takes for the trial's.

``python -m tests.benchmarks.pages memory ROOT 300`` makes pages of a finished trial's visits over and over in
one process, as ``cmrtrials report`` and a worker of the night do, and prints resident memory on the way.
``python -m tests.benchmarks.pages load`` draws a trial of 1,000 visits, writes its pages, and opens each five
times in headless Chromium. Timings want a quiet machine.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from storage.trial import Trial, open_trial
from tasks.published import published_visits
from tasks.report.trial_page import RESULTS_PAGE, TRIAL_PAGE, write_trial_page
from tasks.report.visit_page import write_visit_page
from tests.tasks.report.drawn_trial import draw_trial
from tests.tasks.report.watched import CHROMIUM_OPTIONS

N_OPENED = 5

LAID_OUT = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
  done(performance.now());
})))"""
"""Time from the start of the navigation until everything is laid out and painted [ms]."""


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def measure_memory(trial: Trial, n_pages: int) -> None:
    """Print resident memory and processor time while pages are made."""
    with_result = [key for key, row in published_visits(trial.root).items() if row["result_digest"]]
    say(f"{'pages':>6} {'resident [MiB]':>15} {'processor time a page [s]':>26}")
    before_s, steps = time.process_time(), max(n_pages // 10, 1)
    for number in range(1, n_pages + 1):
        write_visit_page(trial, *with_result[number % len(with_result)])
        if number % steps == 0:
            now_s = time.process_time()
            say(f"{number:6} {resident_mib():15.0f} {(now_s - before_s) / steps:26.2f}")
            before_s = now_s


def resident_mib() -> float:
    """Memory of this process that is in use [MiB]."""
    n_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return n_pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_load(n_subjects: int) -> None:
    """Print how long the trial's pages take to write, and a browser to show them."""
    chromium = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder) / "trial"
        draw_trial(root, n_subjects)
        trial = open_trial(root)
        started_s = time.process_time()
        write_trial_page(trial)
        say(f"both pages of {5 * n_subjects} visits: {time.process_time() - started_s:.1f} s processor time")
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        for file in (TRIAL_PAGE, RESULTS_PAGE):
            seconds = []
            for _ in range(N_OPENED):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.goto((root / file).as_uri())
                seconds.append(page.evaluate(LAID_OUT) / 1000)
                page.close()
            told = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
            kib = (root / file).stat().st_size / 1024
            say(f"{file.name}: {kib:.0f} KiB, shown after {told} s by the clock")
        browser.close()


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    memory = commands.add_parser("memory")
    memory.add_argument("root", type=Path)
    memory.add_argument("n_pages", type=int, nargs="?", default=300)
    load = commands.add_parser("load")
    load.add_argument("n_subjects", type=int, nargs="?", default=200)
    arguments = parser.parse_args()
    if arguments.what == "memory":
        measure_memory(open_trial(arguments.root), arguments.n_pages)
    else:
        measure_load(arguments.n_subjects)


if __name__ == "__main__":
    main()
