"""Alignment on known motion: ``python -m tests.benchmarks.registration [--help]``.

Slices of the digital trial, native and post-contrast, with the masks that the shipped networks draw, told
from the echo that their guide lies on, as a night has it. Side by side: no correction, the true displacement
(what no alignment in the plane can beat), affine from the true masks, affine from the networks' masks (as the
demo trial has it; with a guide that stays where it was drawn; with masks that know no guide; without asking
the images), the model-driven refinement on top (as the rule chooses it; always), and SimpleITK pairwise on a
part. Every scan leaves one file in the
folder; a broken run goes on where it was.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from safetensors.torch import load_file

from cmrcore.phantom.difficulty import Difficulty
from cmrcore.quantify.overlap import dice
from cmrcore.segmentation import GuidedSegmenter, UNet, base_probability, find_guide, network_from
from tests.benchmarks.figure import Figure
from tests.benchmarks.moving import MovingSeries, MovingSlice, ecv_errors, judge, moving_slices
from tests.benchmarks.peers import say
from tests.benchmarks.registration_methods import METHODS, Masks, Source
from tests.benchmarks.registration_tables import Evidence, draw, figures_of, tables

PRESETS: tuple[Difficulty, ...] = ("clean", "typical", "hard")
N_SCANS = {"clean": 6, "typical": 34, "hard": 34, "few": 12, "fewest": 3}
"""Scans of each preset, three slices each; ``few``: of these those that the methods beside the main ones
align, ``fewest``: SimpleITK with its seconds a series."""
WEIGHTS = Path("cmrcore/weights")
ALPHA = 0.25
"""Weight of the guide, that of the demo trial."""


@cache
def networks() -> tuple[UNet, UNet]:
    """Read base and guided network of the package."""
    base, guided = (
        network_from(load_file(WEIGHTS / f"{kind}.safetensors")).eval() for kind in ("base", "guided")
    )
    return base, guided


def predicted_masks(series: MovingSeries, sources: set[Source]) -> tuple[dict[Source, Masks], int]:
    """Masks of the shipped networks on every echo, and the echo that the guide was found on.

    Empty masks and the first-acquired echo where no guide is found.
    """
    base, guided = networks()
    look = partial(base_probability, base)
    guide = find_guide(look, series.echoes, series.pixel_spacing_mm, series.reference)
    if guide is None:
        return dict.fromkeys(sources, torch.zeros_like(series.labels)), series.reference
    masks = {}
    for source in sources:
        segment = GuidedSegmenter(guided, look if source == "predicted" else None)
        alpha = 0.0 if source == "alpha 0" else ALPHA
        found = segment(series.echoes, series.pixel_spacing_mm, guide, alpha)
        masks[source] = found.masks.transpose(0, 1)
    return masks, guide.echo


def measure_scan(difficulty: Difficulty, index: int, folder: Path, n_scans: dict[str, int]) -> None:
    """Align both roles of every slice of a scan by every method; write one row per role and method."""
    file = folder / f"{difficulty}-{index:03d}.parquet"
    if file.exists():
        return
    names = [name for name, method in METHODS.items() if index < n_scans.get(method.share, index + 1)]
    rows = [
        {"difficulty": difficulty, "scan": index, "slice_index": number, **row}
        for number, one in enumerate(moving_slices(difficulty, index))
        for row in _measure_slice(one, names)
    ]
    unfinished = file.with_suffix(".part")
    pd.DataFrame(rows).to_parquet(unfinished)
    unfinished.rename(file)


def _measure_slice(drawn: MovingSlice, names: list[str]) -> list[dict[str, object]]:
    """Rows of one slice."""
    sources = {METHODS[name].masks for name in names} - {"true"}
    native_masks, native_echo = predicted_masks(drawn.native, sources)
    post_masks, post_echo = predicted_masks(drawn.post, sources)
    one = drawn.onto(native_echo, post_echo)
    both = (one.native, one.post)
    masks = {name: (native_masks[name], post_masks[name]) for name in native_masks}
    masks["true"] = (one.native.labels, one.post.labels)
    still = [judge(series, torch.zeros_like(series.moved_px)) for series in both]
    rows: list[dict[str, object]] = []
    taken: dict[tuple[str, str], float] = {}
    for name in names:
        method = METHODS[name]
        aligned = []
        for series, shown, before in zip(both, masks[method.masks], still, strict=True):
            started = time.process_time()
            found = method.align(series, shown)
            # The refinement of the row before is taken, not done again.
            before_s = taken.get(("refined, always", series.role), 0.0) if name == "refined" else 0.0
            taken[name, series.role] = seconds = time.process_time() - started + before_s
            aligned.append(found)
            outcome = judge(series, found.displacement_px)
            rows.append(
                {
                    "role": series.role,
                    "method": name,
                    "reference": series.reference,
                    "n_echoes": len(series.echoes),
                    "error_px": outcome.error_px,
                    "start_px": before.error_px,
                    "r_squared_mean": outcome.r_squared_mean,
                    "low_fraction": outcome.low_fraction,
                    "t1_median_error_ms": outcome.t1_median_error_ms,
                    "t1_pixel_error_ms": outcome.t1_pixel_error_ms,
                    "t1_change_ms": (outcome.t1_ms - before.t1_ms).abs().nanmedian().item(),
                    "echo_dice": _mask_dice(shown, series),
                    "seconds": seconds,
                }
            )
        onto = method.onto(one, masks[method.masks], (aligned[0], aligned[1]))
        native_px, post_px = (found.displacement_px for found in aligned)
        errors = (None, None) if onto is None else ecv_errors(one, native_px, post_px, onto)
        rows[-2] |= {"ecv_error": errors[0], "ecv_pixel_error": errors[1]}
    return rows


def _mask_dice(masks: Masks, series: MovingSeries) -> list[float]:
    """Dice coefficient of the myocardium with the true one on each told echo."""
    told = series.is_told
    pairs = zip(masks[told, 0], series.labels[told, 0], strict=True)
    return [dice(own, true) or 0.0 for own, true in pairs]


def measure(folder: Path, n_scans: dict[str, int], n_workers: int) -> Evidence:
    """Measure what the folder lacks, in processes of one thread each, and read all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(preset, index) for preset in PRESETS for index in range(n_scans[preset])]
    wanted.sort(key=lambda one: one[1])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, context, torch.set_num_threads, (1,)) as pool:
        jobs = [pool.submit(measure_scan, *one, folder, n_scans) for one in wanted]
        for number, job in enumerate(jobs):
            job.result()
            say(f"aligned {number + 1} of {len(jobs)} scans")
    return pd.concat([pd.read_parquet(folder / f"{preset}-{index:03d}.parquet") for preset, index in wanted])


def registration_figures(folder: Path) -> list[Figure]:
    """Figures of a few scans, for ``make bench``; the tables of the README take more."""
    return figures_of(measure(folder, {"clean": 1, "typical": 2, "hard": 2, "few": 1, "fewest": 1}, 2))


def main() -> None:
    """Measure, print the tables of the README, draw its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("bench/registration"), help="what is measured")
    for name, n in N_SCANS.items():
        parser.add_argument(f"--{name}", type=int, default=n, metavar="SCANS")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    n_scans = {name: getattr(chosen, name) for name in N_SCANS}
    found = measure(chosen.folder, n_scans, chosen.workers)
    Console(width=250, soft_wrap=True, highlight=False).print(tables(found), markup=False)
    if chosen.figure:
        draw(found, chosen.figure)


if __name__ == "__main__":
    main()
