"""Time and memory of a visit's segmentation: guides found, and masks on every echo.

`python -m tests.benchmarks.segmentation_speed` prints them; ``make bench`` does so among the others. The
weights are those that deploy/trials/demo.toml names.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.augment import NO_AUGMENTATION
from cmrcore.phantom.training import training_batch
from cmrcore.segmentation import Guide, GuidedSegmenter, UNet, base_probability, find_guide
from cmrcore.segmentation.frame import SIZE, heart_frame, normalize
from cmrcore.segmentation.infer import look_in_frame
from storage.config import load_config
from storage.config_segment import SegmentConfig
from tasks.weights import load_network
from tests.benchmarks.figure import Figure, print_figures

CONFIG = Path(__file__).parents[2] / "deploy" / "trials" / "demo.toml"
N_SLICES, N_ECHOES, PIXELS, PIXEL_MM = 6, 11, 192, 1.8
SPACING_MM = (PIXEL_MM, PIXEL_MM)
N_REPEATS = 3
N_GPU = 2048
"""Echoes of one batch on a GPU."""
CPU = torch.device("cpu")


def segmentation_speed_figures() -> list[Figure]:
    """All figures; absent where the demo's configuration names no weights."""
    config = load_config(CONFIG).segment
    if not (config.base and config.guided):
        return [Figure("visit of 66 echoes", None, "s", "< 3", "deploy/trials/demo.toml names no weights")]
    n_cores = os.cpu_count() or 1
    alone, all_cores = _in_child(1), _in_child(n_cores)
    return [
        Figure("visit of 66 echoes", alone["visit_s"], "s", "", f"1 thread, best of {N_REPEATS}"),
        Figure("visit of 66 echoes", all_cores["visit_s"], "s", "< 3", f"{n_cores} threads, likewise"),
        Figure("of it, guides of 6 slices", alone["guides_s"], "s", "", "1 thread"),
        Figure("processor time of a visit", alone["visit_cpu_s"], "s", "", "1 thread, whatever else runs"),
        Figure("of it, guides", alone["guides_cpu_s"], "s", "", "1 thread, likewise"),
        Figure("guides that are found", alone["n_guides"], "", "6"),
        Figure(
            "the same guided network on whole images, echo by echo, over ours",
            alone["echo_by_echo_s"] / alone["in_frames_s"],
            "",
            "> 1",
            f"1 thread, {PIXELS} x {PIXELS}, without contours",
        ),
        Figure("memory of the process", all_cores["memory_mib"], "MiB", "< 1000", "peak, libraries included"),
        _gpu_figure(config),
        Figure("load average", os.getloadavg()[0], "", "", f"{n_cores} cores"),
    ]


def measure(n_threads: int) -> dict[str, float]:
    """Measure in this process, which has done nothing else."""
    torch.set_num_threads(n_threads)
    config = load_config(CONFIG).segment
    base = load_network(Path(), "base", config.base, CPU)
    guided = load_network(Path(), "guided", config.guided, CPU)
    slices = draw_visit()
    look = partial(base_probability, base)
    segment = GuidedSegmenter(guided, look)

    def find_guides() -> list[Guide | None]:
        return [find_guide(look, one, SPACING_MM, 0) for one in slices]

    found = [(one, guide) for one, guide in zip(slices, find_guides(), strict=True) if guide is not None]

    def whole_visit() -> None:
        for one, guide in zip(slices, find_guides(), strict=True):
            if guide is not None:
                segment(one, SPACING_MM, guide, config.alpha)

    def in_frames() -> None:
        for one, guide in found:
            frame = heart_frame(guide.masks, SPACING_MM)
            if frame is not None:
                look_in_frame(guided, one, SPACING_MM, frame, config.alpha * guide.masks[0].float())

    def echo_by_echo() -> None:
        with torch.inference_mode():
            for one, guide in found:
                for echo in one:
                    guided(normalize(echo[None]), config.alpha * guide.masks[:1].float()).sigmoid()

    return {
        "n_guides": float(len(found)),
        "guides_s": best_of(find_guides),
        "visit_s": best_of(whole_visit),
        "guides_cpu_s": best_of(find_guides, time.process_time),
        "visit_cpu_s": best_of(whole_visit, time.process_time),
        "in_frames_s": best_of(in_frames),
        "echo_by_echo_s": best_of(echo_by_echo),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def draw_visit() -> Float[Tensor, "slice ti row col"]:
    """Draw six slices, native and after contrast, of the digital trial."""
    drawn = training_batch(
        np.random.default_rng(3),
        N_SLICES,
        Grid(PIXELS, PIXELS, PIXEL_MM),
        contrast="physics",
        n_echoes=N_ECHOES,
        augmentation=NO_AUGMENTATION,
    )
    return drawn.images


def best_of(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Shortest of some calls [s], after one to warm up."""
    call()
    seconds = []
    for _ in range(N_REPEATS):
        started = clock()
        call()
        seconds.append(clock() - started)
    return min(seconds)


def _in_child(n_threads: int) -> dict[str, float]:
    """Measure in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "tests.benchmarks.segmentation_speed", str(n_threads)]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return measured


def _gpu_figure(config: SegmentConfig) -> Figure:
    """Echoes a second through the guided network on a GPU, from images on it to probabilities on it."""
    name, target = "guided network on a GPU", "> 2000"
    if not torch.cuda.is_available():
        return Figure(name, None, "echoes/s", target, "no CUDA device")
    device = torch.device("cuda")
    network: UNet = load_network(Path(), "guided", config.guided, device)
    images = torch.rand(N_GPU, SIZE, SIZE, device=device)

    def run() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            network(images, images).sigmoid()
        torch.cuda.synchronize()

    return Figure(name, N_GPU / best_of(run), "echoes/s", target, f"batch of {N_GPU}, bfloat16")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))  # noqa: T201  (the parent reads it)
    else:
        print_figures("speed of segmentation", segmentation_speed_figures())
