"""Bias of the simulated sequences: ``python -m tests.benchmarks.sequence_bias OUT.png`` prints and draws it.

Everything is without noise and fitted with the ideal fit, so that what differs from the true T1 or ECV is
the sequence. Unless an axis says otherwise: 1.5 T, 60 beats a minute, on resonance, hematocrit 0.42,
0.15 mmol/kg a quarter of an hour before.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from cmrcore.phantom.bloch import Pulses, acquire
from cmrcore.phantom.ideal import ideal_ecv_fraction, ideal_model, ideal_t1_ms, phase_restored
from cmrcore.phantom.tissue import Tissue, blood, myocardium, plasma_mmol_per_l, post_contrast

SCHEMES = ("5(3)3", "4(1)3(1)2", "5(1)1(1)1", "SASHA")
NAMES = {"5(1)1(1)1": "ShMOLLI"}
PAIRS = {
    "MOLLI 5(3)3, 4(1)3(1)2": ("5(3)3", "4(1)3(1)2"),
    "MOLLI 5s(3s)3s, 4s(1s)3s(1s)2s": ("5s(3s)3s", "4s(1s)3s(1s)2s"),
    "MOLLI 3(3)3(3)5, same": ("3(3)3(3)5", "3(3)3(3)5"),
    "ShMOLLI, same": ("5(1)1(1)1", "5(1)1(1)1"),
    "SASHA, same": ("SASHA", "SASHA"),
}
FIELD_T, HEMATOCRIT, PLASMA_MMOL_PER_L = 1.5, 0.42, plasma_mmol_per_l(0.15, 15.0)
HEALTHY = myocardium(0.25, FIELD_T)


def read_t1_ms(
    scheme: str,
    tissues: Sequence[Tissue],
    *,
    rr_ms: float = 1000.0,
    off_hz: float = 0.0,
    b1_scale: float = 1.0,
) -> list[float]:
    """T1 [ms] that the scheme reads of each tissue."""
    t1_ms, t2_ms, bound_fraction = torch.tensor(
        [(tissue.t1_ms, tissue.t2_ms, tissue.bound_fraction) for tissue in tissues], dtype=torch.float64
    ).unbind(1)
    read = acquire(
        scheme,
        t1_ms,
        t2_ms,
        [rr_ms] * 40,
        off_resonance_hz=torch.tensor([off_hz]),
        bound_fraction=bound_fraction,
        pulses=Pulses(b1_scale=b1_scale),
    )
    signed = phase_restored(read.signal, read.times_ms)[..., 0]
    return ideal_t1_ms(signed, read.times_ms, ideal_model(scheme)).tolist()


def read_ecv_fraction(
    schemes: tuple[str, str], ecv_fraction: float, rr_ms: float = 1000.0, off_hz: float = 0.0
) -> float:
    """ECV that a native and a post-contrast scheme read together."""
    native = [myocardium(ecv_fraction, FIELD_T), blood(HEMATOCRIT, FIELD_T)]
    post = [post_contrast(tissue, PLASMA_MMOL_PER_L, FIELD_T) for tissue in native]
    muscle_native, blood_native = read_t1_ms(schemes[0], native, rr_ms=rr_ms, off_hz=off_hz)
    muscle_post, blood_post = read_t1_ms(schemes[1], post, rr_ms=rr_ms, off_hz=off_hz)
    return ideal_ecv_fraction(
        torch.tensor(muscle_native), torch.tensor(muscle_post), blood_native, blood_post, HEMATOCRIT
    ).item()


def bias_percent(scheme: str, tissue: Tissue, **setting: float) -> float:
    """Relative error of the T1 that is read [%]."""
    return 100 * (read_t1_ms(scheme, [tissue], **setting)[0] / tissue.t1_ms - 1)


def main() -> None:
    """Print the tables, and draw if a path is given."""
    console = Console(width=120)
    console.print(_t1_table(), _ecv_table())
    if len(sys.argv) > 1:
        _draw(Path(sys.argv[1]))


def _t1_table() -> Table:
    """Bias of T1 for chosen tissues and settings."""
    patient = myocardium(0.5, FIELD_T)
    pool = blood(HEMATOCRIT, FIELD_T)
    rows: dict[str, tuple[Tissue, dict[str, float]]] = {
        "healthy, ECV 0.25, T2 56 ms": (HEALTHY, {}),
        "healthy, no bound protons": (replace(HEALTHY, bound_fraction=0.0), {}),
        "healthy, T2 40 ms": (replace(HEALTHY, t2_ms=40.0), {}),
        "healthy, 100 beats a minute": (HEALTHY, {"rr_ms": 600.0}),
        "healthy, 62 Hz off resonance": (HEALTHY, {"off_hz": 62.0}),
        "healthy, 125 Hz off resonance": (HEALTHY, {"off_hz": 125.0}),
        "healthy, B1 at 80 %": (HEALTHY, {"b1_scale": 0.8}),
        "ATTR, ECV 0.50": (patient, {}),
        "healthy after contrast": (post_contrast(HEALTHY, PLASMA_MMOL_PER_L, FIELD_T), {}),
        "ATTR after contrast": (post_contrast(patient, PLASMA_MMOL_PER_L, FIELD_T), {}),
        "blood": (pool, {}),
        "blood after contrast": (post_contrast(pool, PLASMA_MMOL_PER_L, FIELD_T), {}),
    }
    table = Table(
        "tissue", "true T1 [ms]", *(NAMES.get(scheme, scheme) for scheme in SCHEMES), title="T1 error [%]"
    )
    for name, (tissue, setting) in rows.items():
        errors = (f"{bias_percent(scheme, tissue, **setting):+.1f}" for scheme in SCHEMES)
        table.add_row(name, f"{tissue.t1_ms:.0f}", *errors)
    return table


def _ecv_table() -> Table:
    """ECV read for chosen true ones."""
    truths = (0.24, 0.35, 0.5, 0.6, 0.65)
    table = Table("native, post", *(f"{ecv:.2f}" for ecv in truths), title="ECV read, by true ECV")
    for name, schemes in PAIRS.items():
        table.add_row(name, *(f"{read_ecv_fraction(schemes, ecv):.3f}" for ecv in truths))
    return table


def _draw(path: Path) -> None:
    """Six panels."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(2, 3).flatten().tolist()
    t1_ms = torch.linspace(250, 1900, 34).tolist()
    t2_ms = torch.linspace(30, 200, 30).tolist()
    beats_per_min = torch.linspace(45, 110, 27).tolist()
    off_hz = torch.linspace(-180, 180, 61).tolist()
    post = post_contrast(HEALTHY, PLASMA_MMOL_PER_L, FIELD_T)
    panels: list[tuple[str, list[float], Callable[[str, float], float]]] = [
        ("T1 [ms]", t1_ms, lambda scheme, x: bias_percent(scheme, replace(HEALTHY, t1_ms=x))),
        ("T2 [ms]", t2_ms, lambda scheme, x: bias_percent(scheme, replace(HEALTHY, t2_ms=x))),
        ("heart rate [1/min], native", beats_per_min, lambda s, x: bias_percent(s, HEALTHY, rr_ms=6e4 / x)),
        ("heart rate [1/min], post", beats_per_min, lambda s, x: bias_percent(s, post, rr_ms=6e4 / x)),
        ("off-resonance [Hz]", off_hz, lambda s, x: bias_percent(s, HEALTHY, off_hz=x)),
    ]
    colors = dict(zip(SCHEMES, mpl.colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
    for axis, (label, values, bias) in zip(axes, panels, strict=False):
        for scheme in SCHEMES:
            error = [bias(scheme, value) for value in values]
            axis.plot(values, error, color=colors[scheme], label=NAMES.get(scheme, scheme))
        axis.axhline(0, color="0.6", linewidth=0.6)
        axis.set(xlabel=label, ylabel="T1 error [%]", ylim=(-32, 5))
    axes[0].legend(fontsize="small", frameon=False)
    truths = torch.linspace(0.2, 0.65, 10).tolist()
    for name, schemes in PAIRS.items():
        if "s" in schemes[0]:
            continue  # the same as 5(3)3 at 60 beats a minute
        points = [100 * (read_ecv_fraction(schemes, ecv) - ecv) for ecv in truths]
        axes[5].plot(truths, points, label=name.split(",")[0], color=colors.get(schemes[0], "tab:purple"))
    axes[5].axhline(0, color="0.6", linewidth=0.6)
    axes[5].set(xlabel="true ECV", ylabel="ECV error [points]")
    axes[5].legend(fontsize="x-small", frameon=False)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
