"""Alignment on known motion: ``python -m tests.benchmarks.registration [--help]``.

Slices of the digital trial, native and post-contrast, with the masks that the shipped networks draw, told
from the echo that their guide lies on, as a night has it. Side by side: no correction, the true displacement
(what no alignment in the plane can beat), affine from the true masks, affine from the networks' masks (as the
demo trial has it; with masks that know no guide; without asking the images), the model-driven refinement on
top (as the rule chooses it; always), and SimpleITK pairwise on a part. Every scan leaves one file in the
folder; a broken run goes on where it was.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import pandas as pd
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from cmrcore.phantom.difficulty import Difficulty
from cmrcore.quantify.overlap import dice
from cmrcore.registration import decide
from cmrcore.registration.affine import affine_displacement, register_masks
from cmrcore.registration.align import AlignSettings, SliceAlignment, align_slice, resample
from cmrcore.registration.post import align_post
from cmrcore.registration.warp import inverse
from cmrcore.segmentation import GuidedSegmenter, UNet, base_probability, find_guide, network_from
from tests.benchmarks.figure import Figure
from tests.benchmarks.moving import MovingSeries, MovingSlice, ecv_errors, judge, moving_slices
from tests.benchmarks.peer_simpleitk import pairwise
from tests.benchmarks.peers import say
from tests.benchmarks.registration_tables import Evidence, draw, figures_of, tables

PRESETS: tuple[Difficulty, ...] = ("clean", "typical", "hard")
N_SCANS = {"clean": 6, "typical": 34, "hard": 34, "few": 12, "fewest": 3}
"""Scans of each preset, three slices each; ``few``: of these those that the methods beside the main ones
align, ``fewest``: SimpleITK with its seconds a series."""
WEIGHTS = Path("cmrcore/weights")
ALPHA = 0.25
"""Weight of the guide, that of the demo trial."""
SETTINGS = AlignSettings(
    method="affine",
    shift_max_mm=30.0,
    turn_max_deg=20.0,
    scale_max_fraction=0.25,
    still_px=0.25,
    r_squared_fall_max=0.0,
    post_dice_min=0.6,
)
"""Those of the demo trial."""

Masks = Bool[Tensor, "ti label row col"]
Field = Float[Tensor, "ti 2 row col"]
Source = Literal["true", "predicted", "alpha 0"]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Echoes of one series as a method has them."""

    displacement_px: Field
    """Displacement that pulls each echo onto the reference [pixel]."""
    recovered: int
    """Echo of a long inversion time that lies where the reference does."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to align a slice."""

    align: Callable[[MovingSeries, Masks], Aligned]
    """Echoes onto the reference echo of their series, by their masks where it uses any."""
    onto: Callable[[MovingSlice, tuple[Masks, Masks], tuple[Aligned, Aligned]], Tensor | None]
    """Displacement that pulls the post-contrast reference echo onto the native one; None: no ECV."""
    masks: Source = "true"
    """Whose masks it is given."""
    share: Literal["all", "few", "fewest"] = "all"
    """Of how many scans it aligns the echoes."""


def nothing(series: MovingSeries, masks: Masks) -> Aligned:
    """Leave every echo where it is."""
    del masks
    return Aligned(torch.zeros_like(series.moved_px), len(series.echoes) - 1)


def true_displacement(series: MovingSeries, masks: Masks) -> Aligned:
    """Take back the displacement that was put in."""
    del masks
    return Aligned(inverse(series.moved_px), len(series.echoes) - 1)


def by_masks(series: MovingSeries, masks: Masks) -> Aligned:
    """Align as the night does."""
    found = _align(series, masks, "affine")
    return Aligned(found.displacement_px, found.recovered)


def refined(series: MovingSeries, masks: Masks) -> Aligned:
    """Refine the affine alignment where the rule says so."""
    found = _always_refined(series, masks)
    chosen = found.candidates[decide.choose(found.candidates, SETTINGS.r_squared_fall_max)].method
    if chosen != "refined":
        return by_masks(series, masks)
    return Aligned(found.displacement_px, found.recovered)


def always_refined(series: MovingSeries, masks: Masks) -> Aligned:
    """Refine the affine alignment, but for folds."""
    found = _always_refined(series, masks)
    return Aligned(found.displacement_px, found.recovered)


@lru_cache(maxsize=2)
def _always_refined(series: MovingSeries, masks: Masks) -> SliceAlignment:
    with patch.object(decide, "REFINED_GAIN", -1.0):
        return _align(series, masks, "refined")


@lru_cache(maxsize=2)
def _align(series: MovingSeries, masks: Masks, method: Literal["affine", "refined"]) -> SliceAlignment:
    return align_slice(
        series.echoes,
        series.ti_ms,
        masks.transpose(0, 1).float(),
        series.reference,
        series.pixel_spacing_mm,
        "molli",
        replace(SETTINGS, method=method),
        0.95,
    )


def unconfirmed(series: MovingSeries, masks: Masks) -> Aligned:
    """Affine alignment that believes every mask."""
    shown = masks.float()
    fit = register_masks(shown, shown[series.reference], series.pixel_spacing_mm)
    shape = (series.echoes.shape[1], series.echoes.shape[2])
    return Aligned(affine_displacement(fit, shape, series.pixel_spacing_mm), len(series.echoes) - 1)


def by_simpleitk(series: MovingSeries, masks: Masks) -> Aligned:
    """Pairwise registration by mutual information near the true heart."""
    del masks
    return Aligned(pairwise(series), len(series.echoes) - 1)


def stay(one: MovingSlice, masks: tuple[Masks, Masks], aligned: tuple[Aligned, Aligned]) -> Tensor:
    """Leave the post-contrast slice where it is."""
    del masks, aligned
    return torch.zeros_like(one.post_to_native_px)


def true_way(one: MovingSlice, masks: tuple[Masks, Masks], aligned: tuple[Aligned, Aligned]) -> Tensor:
    """Take back the true displacement of the post-contrast slice."""
    del masks, aligned
    return inverse(one.post_to_native_px[None])[0]


def onto_by_masks(
    one: MovingSlice, masks: tuple[Masks, Masks], aligned: tuple[Aligned, Aligned]
) -> Tensor | None:
    """Bring the post-contrast slice onto the native one as the night does."""
    of_reference, recovered = [], []
    for series, drawn, echoes in zip((one.native, one.post), masks, aligned, strict=True):
        of_reference.append(drawn[series.reference])
        recovered.append(resample(series.echoes, echoes.displacement_px)[echoes.recovered])
    found = align_post(
        of_reference[0],
        of_reference[1],
        (recovered[0], recovered[1]),
        one.native.pixel_spacing_mm,
        SETTINGS,
    )
    is_misfit = found.dice is None or found.dice < SETTINGS.post_dice_min
    return None if is_misfit else found.displacement_px


def onto_by_simpleitk(
    one: MovingSlice, masks: tuple[Masks, Masks], aligned: tuple[Aligned, Aligned]
) -> Tensor:
    """Register the aligned echo of the longest inversion time of one role onto that of the other."""
    del masks
    shown = [
        resample(series.echoes, found.displacement_px)[found.recovered]
        for series, found in zip((one.native, one.post), aligned, strict=True)
    ]
    last = len(one.native.echoes) - 1
    pair = replace(
        one.native,
        echoes=torch.stack(shown),
        labels=one.native.labels[[one.native.reference, last]],
        moved_px=one.native.moved_px[:2],
        reference=0,
    )
    return pairwise(pair)[1]


METHODS: dict[str, Method] = {
    "none": Method(nothing, stay),
    "truth": Method(true_displacement, true_way),
    "affine, true masks": Method(by_masks, onto_by_masks),
    "affine": Method(by_masks, onto_by_masks, "predicted"),
    "affine, alpha 0": Method(by_masks, onto_by_masks, "alpha 0", "few"),
    "affine, images not asked": Method(unconfirmed, onto_by_masks, "predicted", "few"),
    "refined, always": Method(always_refined, onto_by_masks, "predicted", "few"),
    "refined": Method(refined, onto_by_masks, "predicted", "few"),
    "SimpleITK": Method(by_simpleitk, onto_by_simpleitk, share="fewest"),
}
"""By the name of their row; masks are the networks' unless it says otherwise."""


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
    guide = find_guide(
        lambda images: base_probability(base, images, series.pixel_spacing_mm),
        series.echoes,
        series.pixel_spacing_mm,
        series.reference,
    )
    if guide is None:
        return dict.fromkeys(sources, torch.zeros_like(series.labels)), series.reference
    masks = {}
    for source in sources:
        alpha = ALPHA if source == "predicted" else 0.0
        found = GuidedSegmenter(guided)(series.echoes, series.pixel_spacing_mm, guide, alpha)
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
                    "mask_dice": _mask_dice(shown, series),
                    "seconds": seconds,
                }
            )
        onto = method.onto(one, masks[method.masks], (aligned[0], aligned[1]))
        native_px, post_px = (found.displacement_px for found in aligned)
        errors = (None, None) if onto is None else ecv_errors(one, native_px, post_px, onto)
        rows[-2] |= {"ecv_error": errors[0], "ecv_pixel_error": errors[1]}
    return rows


def _mask_dice(masks: Masks, series: MovingSeries) -> float:
    """Mean Dice coefficient of the myocardium with the true one over the echoes."""
    scores = [dice(own, true) or 0.0 for own, true in zip(masks[:, 0], series.labels[:, 0], strict=True)]
    return sum(scores) / len(scores)


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
    Console(width=250, soft_wrap=True, highlight=False).print(tables(found))
    if chosen.figure:
        draw(found, chosen.figure)


if __name__ == "__main__":
    main()
