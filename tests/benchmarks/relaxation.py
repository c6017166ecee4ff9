"""Speed and memory of the relaxometry, next to other tools on the same curves in the same run."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch import Tensor

from cmrcore.relaxation import fit_t1, fit_t2

TI_MS = [120.0, 1020.0, 1920.0, 200.0, 1100.0, 2000.0, 280.0, 1180.0, 2080.0, 2980.0, 3880.0]
SHMOLLI_TI_MS = [100.0, 1100.0, 2100.0, 3100.0, 4100.0, 180.0, 260.0]
TS_MS = [83.0, 153.0, 223.0, 293.0, 363.0, 433.0, 503.0, 573.0, 643.0, 713.0, 10_000.0]
TE_MS = [0.0, 25.0, 55.0]
N_SCIPY = 400
_PEER_NEEDS = ("numpy", "scipy", "nibabel", "pathos", "scikit-learn", "tqdm")
N_UKAT = 400


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure."""

    name: str
    """What was measured."""
    value: float | None
    """The figure; None where what it needs is absent."""
    unit: str
    """Its unit."""
    target: str = ""
    """What it should be."""
    note: str = ""
    """How it was measured, or why it is absent."""


def relaxation_figures(folder: Path) -> list[Figure]:
    """All figures; `folder` keeps the environment of the peers."""
    signal = _heart(256, TI_MS)
    ours_s = _best_of(5, lambda: fit_t1(signal, TI_MS))
    per_pixel_s = ours_s / signal[0].numel()
    figures = [
        Figure("molli 256 x 256 x 11", ours_s, "s", "< 0.2", f"{torch.get_num_threads()} threads, best of 5"),
        *_other_models(),
        *_linearity(),
        _memory(1),
        _memory(64),
        *_against_scipy(signal, per_pixel_s),
        *_against_ukat(signal, per_pixel_s, folder),
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


def _best_of(n: int, call: Callable[[], object]) -> float:
    """Shortest time of n calls [s], after one to warm up."""
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
        signal = _heart(256, TI_MS, n_slices)
        seconds = _best_of(1 if n_slices > 4 else 3, partial(fit_t1, signal, TI_MS)) / n_slices
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


def _against_scipy(signal: Tensor, per_pixel_s: float) -> list[Figure]:
    """Loop over scipy's `curve_fit` of the magnitude model, one start, as most scripts do it."""
    times = np.asarray(TI_MS)
    curves = signal[:, 128, 40:].T[:N_SCIPY].double().numpy()

    def magnitude(ti: np.ndarray, a: float, b: float, t1_star_ms: float) -> np.ndarray:
        return np.asarray(np.abs(a - b * np.exp(-ti / t1_star_ms)))

    start = time.perf_counter()
    for curve in curves:
        bounds = ([0, 0, 10], [1e4, 2e4, 10_000])
        curve_fit(magnitude, times, curve, p0=(curve.max(), 2 * curve.max(), 1000), bounds=bounds)
    ratio = (time.perf_counter() - start) / len(curves) / per_pixel_s
    return [Figure("times faster than a scipy curve_fit loop", ratio, "x", "", f"{len(curves)} curves")]


def _against_ukat(signal: Tensor, per_pixel_s: float, folder: Path) -> list[Figure]:
    """Ukat's MOLLI fit, in an environment of its own: it is GPL-3 and needs older packages."""
    name = "times faster than ukat"
    python, why = _peer_environment(folder / "peers")
    if python is None:
        return [Figure(name, None, "x", "> 1000", why)]
    curves = signal[:, 128, 40:].T[:N_UKAT].double().numpy()
    data = folder / "peer_curves.npz"
    np.savez(data, curves=curves, ti_ms=np.asarray(TI_MS))
    script = Path(__file__).with_name("peer_ukat.py")
    done = subprocess.run([python, script, data], capture_output=True, text=True, check=False)
    data.unlink()
    if done.returncode:
        return [Figure(name, None, "x", "> 1000", done.stderr.strip().splitlines()[-1][:80])]
    seconds = json.loads(done.stdout.splitlines()[-1])
    return [
        Figure(name + ", one process", seconds["one"] / len(curves) / per_pixel_s, "x", "> 1000", "its loop"),
        Figure(name + ", its pool", seconds["pool"] / len(curves) / per_pixel_s, "x", "> 1000", "all cores"),
    ]


def _peer_environment(folder: Path) -> tuple[Path | None, str]:
    """Python with ukat and what its T1 fit imports; made once, None with the reason where that fails."""
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        commands = [
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "-qq", "--no-deps", "ukat==0.7.3"],
            [
                str(python),
                "-m",
                "pip",
                "install",
                "-qq",
                *["numpy", "scipy", "nibabel", "pathos", "scikit-learn", "tqdm"],
            ],
        ]
        environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                return None, f"not installed: {(done.stderr.strip().splitlines() or ['?'])[-1][:70]}"
        complete.touch()
    return python, ""


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
