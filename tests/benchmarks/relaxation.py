"""Speed and memory of the relaxometry, next to other tools on the same curves in the same run."""

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
from scipy.optimize import curve_fit
from torch import Tensor

from cmrcore.relaxation import fit_t1, fit_t2
from tests.benchmarks.figure import Figure
from tests.benchmarks.peers import say, ukat_seconds

TI_MS = [120.0, 1020.0, 1920.0, 200.0, 1100.0, 2000.0, 280.0, 1180.0, 2080.0, 2980.0, 3880.0]
SHMOLLI_TI_MS = [100.0, 1100.0, 2100.0, 3100.0, 4100.0, 180.0, 260.0]
TS_MS = [83.0, 153.0, 223.0, 293.0, 363.0, 433.0, 503.0, 573.0, 643.0, 713.0, 10_000.0]
TE_MS = [0.0, 25.0, 55.0]
N_SCIPY = 400
N_UKAT = 400


def relaxation_figures(folder: Path) -> list[Figure]:
    """All figures; `folder` keeps the environment of the peers."""
    signal = _heart(256, TI_MS)
    say(f"timing our fits, {torch.get_num_threads()} threads")
    ours_s = _best_of(9, lambda: fit_t1(signal, TI_MS))
    figures = [
        Figure("molli 256 x 256 x 11", ours_s, "s", "< 0.2", f"{torch.get_num_threads()} threads, best of 9"),
        *_other_models(),
        *_linearity(),
        _memory(1),
        _memory(64),
        *_against_scipy(signal),
        *_against_ukat(signal, folder),
        *_gpu(signal),
    ]
    return [*figures, Figure("load average", os.getloadavg()[0], "", "", f"{os.cpu_count()} cores")]


def _heart(size: int, times_ms: list[float], n_slices: int = 1, t1_factor: float = 1.0) -> Tensor:
    """Magnitudes, float32: T1 200-1800 ms everywhere, SNR 40, a tenth of the image air."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, size) if n_slices == 1 else (n_slices, size, size)
    t1_ms = t1_factor * (200 + 1600 * torch.rand(shape, generator=generator))
    times = torch.tensor(times_ms).reshape(-1, *(1 for _ in shape))
    signal = 300 * (1 - 1.95 * torch.exp(-times * 0.95 / t1_ms))
    signal[..., : size // 10] = 0
    noise = torch.randn(2, *signal.shape, generator=generator) * 7.5
    return torch.hypot(signal + noise[0], noise[1])


def _best_of(n: int, call: Callable[[], object], *, warm: bool = True) -> float:
    """Shortest time of n calls [s], after one to warm up."""
    if warm:
        call()
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _other_models() -> list[Figure]:
    """Time of the other models on an image of the same size."""
    shmolli, saturation = _heart(256, SHMOLLI_TI_MS), _heart(256, TS_MS).sort(0).values
    inversion, decay = _heart(256, TI_MS), 300 * torch.exp(-torch.tensor(TE_MS) / 45)[:, None, None]
    decay = decay + torch.randn(3, 256, 256, generator=torch.Generator().manual_seed(1)) * 5
    calls: dict[str, Callable[[], object]] = {
        "ir-2p 256 x 256 x 11": lambda: fit_t1(inversion, TI_MS, "ir-2p"),
        "molli-signed 256 x 256 x 11": lambda: fit_t1(inversion, TI_MS, "molli-signed"),
        "shmolli 256 x 256 x 7": lambda: fit_t1(shmolli, SHMOLLI_TI_MS, "shmolli"),
        "saturation-3p 256 x 256 x 11": lambda: fit_t1(saturation, TS_MS, "saturation-3p"),
        "t2-2p 256 x 256 x 3": lambda: fit_t2(decay, TE_MS),
    }
    return [Figure(name, _best_of(3, call), "s") for name, call in calls.items()]


def _linearity() -> list[Figure]:
    """Time per slice of 1 to 64 slices of 256 x 256 x 11 over that of the first."""
    figures, first_s = [], 0.0
    for n_slices in (1, 4, 16, 64):
        say(f"timing {n_slices} slices")
        signal = _heart(256, TI_MS, n_slices)
        seconds = _best_of(3 if n_slices <= 4 else 1, partial(fit_t1, signal, TI_MS), warm=n_slices <= 4)
        seconds /= n_slices
        first_s = first_s or seconds
        figures.append(Figure(f"time per slice, {n_slices} slices", seconds / first_s, "x", "about 1"))
    return figures


def _memory(n_slices: int) -> Figure:
    """Peak of resident memory over that before the fit [MB], in a process of its own."""
    code = f"from tests.benchmarks.relaxation import extra_memory_mb; print(extra_memory_mb({n_slices}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    note = "of which the maps themselves 138 MB" if n_slices == 64 else ""
    return Figure(f"extra memory, {n_slices} slices", float(done.stdout), "MB", "< 300", note)


def extra_memory_mb(n_slices: int) -> float:
    """Growth of this process's peak memory by one fit [MB], after a small one that loads what it needs."""
    small, signal = _heart(32, TI_MS), _heart(256, TI_MS, n_slices)
    fit_t1(small, TI_MS)
    before_kb = _resident_kb()
    # Making the signal took more than it holds; the peak counts from here only where it is passed.
    Path("/proc/self/clear_refs").write_text("5")
    fit_t1(signal, TI_MS)
    return (_peak_kb() - before_kb) / 1024


def _resident_kb() -> float:
    """Resident memory of this process [kB]."""
    return _status_kb("VmRSS")


def _peak_kb() -> float:
    """Peak resident memory of this process [kB]."""
    return max(_status_kb("VmHWM"), 0.0) or float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _status_kb(key: str) -> float:
    """Read a line of /proc/self/status [kB]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1])


def _against_scipy(signal: Tensor) -> list[Figure]:
    """Loop over scipy's `curve_fit` of the magnitude model, one start, as most scripts do it."""
    say(f"fitting {N_SCIPY} curves with scipy's curve_fit")
    times = np.asarray(TI_MS)
    curves = _some_curves(signal, N_SCIPY)

    def magnitude(ti: np.ndarray, a: float, b: float, t1_star_ms: float) -> np.ndarray:
        return np.asarray(np.abs(a - b * np.exp(-ti / t1_star_ms)))

    per_pixel_s = _per_pixel_s(signal)
    start = time.perf_counter()
    for curve in curves:
        bounds = ([0, 0, 10], [1e4, 2e4, 10_000])
        curve_fit(magnitude, times, curve, p0=(curve.max(), 2 * curve.max(), 1000), bounds=bounds)
    ratio = (time.perf_counter() - start) / len(curves) / per_pixel_s
    return [Figure("times faster than a scipy curve_fit loop", ratio, "x", "", f"{len(curves)} curves")]


def _against_ukat(signal: Tensor, folder: Path) -> list[Figure]:
    """Ukat's MOLLI fit; ours is timed right before and after it, since other work may change the machine."""
    name = "times faster than ukat"
    curves = _some_curves(signal, N_UKAT)
    before_s = _per_pixel_s(signal)
    seconds, why = ukat_seconds(curves, np.asarray(TI_MS), folder / "peers")
    if seconds is None:
        return [Figure(name, None, "x", "> 1000", why)]
    per_pixel_s = (before_s + _per_pixel_s(signal)) / 2
    notes = {"one": ("one process", "its loop"), "pool": ("its pool", "all cores")}
    return [
        Figure(f"{name}, {what}", seconds[key] / len(curves) / per_pixel_s, "x", "> 1000", note)
        for key, (what, note) in notes.items()
    ]


def _per_pixel_s(signal: Tensor) -> float:
    """Seconds a pixel of our MOLLI fit, now."""
    return _best_of(5, lambda: fit_t1(signal, TI_MS)) / signal[0].numel()


def _some_curves(signal: Tensor, n: int) -> np.ndarray:
    """Curves of tissue for the slow ones, pixel by time."""
    return np.asarray(signal[:, :, 40:].flatten(1)[:, :n].T.double().numpy())


def _gpu(signal: Tensor) -> list[Figure]:
    """Count maps of 256 x 256 x 11 a second on a GPU, where there is one."""
    name = "maps a second on a GPU"
    if not torch.cuda.is_available():
        return [Figure(name, None, "1/s", "> 3000", "no CUDA device")]
    stack = signal[:, None].expand(-1, 64, -1, -1).contiguous().cuda()

    def fit() -> None:
        fit_t1(stack, TI_MS)
        torch.cuda.synchronize()

    return [Figure(name, 64 / _best_of(5, fit), "1/s", "> 3000", torch.cuda.get_device_name())]
