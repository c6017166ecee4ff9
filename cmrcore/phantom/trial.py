"""One scan of the digital trial: native and post-contrast MOLLI of a heart with known truth."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.phantom.anatomy import STRUCTURES, Grid, Heart, Level, structure_fractions
from cmrcore.phantom.bloch import acquire, paint
from cmrcore.phantom.geometry import SliceGeometry, short_axis_geometry
from cmrcore.phantom.ideal import phase_restored
from cmrcore.phantom.readout import MOLLI_READOUT, read_out
from cmrcore.phantom.scheme import parse_scheme
from cmrcore.phantom.tissue import Tissue, post_contrast, tissues
from cmrcore.phantom.truth import IdealEchoes, Truth, majority_map, measure_truth
from cmrcore.segmentation import LABELS

LEVELS: tuple[Level, ...] = ("basal", "mid", "apical")

SNR = 40.0
"""Noise-free signal of native mid-level myocardium read out from full recovery, over the standard deviation
of the noise in each of the two receiver channels; the noise is the same after contrast."""

_GRID = Grid(n_rows=176, n_cols=176, pixel_mm=1.5)
_SLICE_OFFSETS_MM = (20.0, 0.0, -20.0)
_RECEIVER_GAIN = 4000.0
_BEAT_JITTER = 0.015
"""Standard deviation of single heart beats, relative."""
_ECV_BY_LEVEL: dict[Level, float] = {"basal": 1.04, "mid": 1.0, "apical": 0.96}
"""Amyloid spares the apex (Phelan et al. 2012, doi:10.1136/heartjnl-2012-302353); the size is ours."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What stays the same between a subject's visits."""

    heart: Heart
    """Anatomy at baseline pose."""
    field_strength_t: float
    """The site's scanner [T]."""
    ecv_fraction: float
    """ECV of the mid level at baseline, 0-1."""
    ecv_change_per_visit: float
    """Relative change of ECV from one visit to the next."""
    hematocrit_fraction: float
    """Usual hematocrit, 0-1."""
    rr_ms: float
    """Usual length of a heart beat [ms]."""


@dataclass(frozen=True, slots=True)
class RoleEchoes:
    """Images of one role as the scanner delivers them."""

    scheme: str
    """MOLLI scheme, such as ``"5(3)3"``."""
    echoes: Float[Tensor, "slice ti row col"]
    """Magnitudes [a.u.], in acquisition order."""
    ti_ms: Float[Tensor, "slice ti"]
    """Inversion times [ms], in acquisition order."""


@dataclass(frozen=True, slots=True)
class SimulatedScan:
    """One imaging session of one subject, base first."""

    native: RoleEchoes
    """Before contrast."""
    post: RoleEchoes
    """About a quarter of an hour after contrast."""
    labels: Bool[Tensor, "label slice row col"]
    """True myocardium, blood pool and RV: pixels that they fill by more than half."""
    levels: tuple[Level, ...]
    """Level of each slice."""
    geometry: SliceGeometry
    """Planes in the patient, the same for both roles."""
    field_strength_t: float
    """Field strength [T]."""
    hematocrit_fraction: float
    """Hematocrit of the day, 0-1."""
    truth: Truth
    """What a perfect pipeline would measure."""


def simulate_scan(
    seed: int, subject_index: int, visit_index: int, *, scheme_native: str, scheme_post: str
) -> SimulatedScan:
    """Scan of one visit; the same arguments always give the same scan.

    Sizes and field strength stay with the subject; pose, heart rate, hematocrit and contrast dose differ from
    visit to visit, and ECV drifts slowly. There is no motion between echoes or roles.

    Parameters
    ----------
    seed
        Seed of the trial.
    subject_index, visit_index
        Which subject and visit, from 0.
    scheme_native, scheme_post
        MOLLI schemes, such as ``"5(3)3"`` and ``"4(1)3(1)2"``.
    """
    subject = _draw_subject(np.random.default_rng([seed, subject_index]))
    rng = np.random.default_rng([seed, subject_index, 1 + visit_index])
    heart = _reposition(subject.heart, rng)
    hematocrit = float(np.clip(subject.hematocrit_fraction + rng.normal(0, 0.008), 0.34, 0.48))
    ecv = subject.ecv_fraction * (1 + subject.ecv_change_per_visit) ** visit_index
    plasma_mmol_per_l = float(rng.uniform(0.55, 0.85))
    rr_native_ms, rr_post_ms = (subject.rr_ms * float(rng.uniform(0.93, 1.07)) for _ in range(2))
    geometry = short_axis_geometry(
        _GRID,
        turn_deg=float(rng.uniform(-8, 8)),
        center_mm=(45 + float(rng.normal(0, 4)), -40 + float(rng.normal(0, 4)), float(rng.normal(0, 6))),
        offsets_mm=_SLICE_OFFSETS_MM,
    )

    fractions = torch.stack([structure_fractions(heart, level, _GRID) for level in LEVELS])
    labels = torch.stack([fractions[:, STRUCTURES.index(name)] > 0.5 for name in LABELS])
    ecv_by_slice = [ecv * _ECV_BY_LEVEL[level] for level in LEVELS]
    field = subject.field_strength_t
    native_tissues = [_tissues(slice_ecv, hematocrit, field) for slice_ecv in ecv_by_slice]
    post_tissues = [
        {name: post_contrast(tissue, plasma_mmol_per_l, field) for name, tissue in of_slice.items()}
        for of_slice in native_tissues
    ]
    sigma = _noise_sigma(native_tissues[LEVELS.index("mid")]["myocardium"])
    native, native_ideal = _scan_role(fractions, native_tissues, scheme_native, rr_native_ms, sigma, rng)
    post, post_ideal = _scan_role(fractions, post_tissues, scheme_post, rr_post_ms, sigma, rng)
    ecv_map = torch.tensor(ecv_by_slice, dtype=torch.float64)[:, None, None].expand(labels.shape[1:])
    return SimulatedScan(
        native=native,
        post=post,
        labels=labels,
        levels=LEVELS,
        geometry=geometry,
        field_strength_t=field,
        hematocrit_fraction=hematocrit,
        truth=measure_truth(
            native_ideal, post_ideal, labels, ecv_map, hematocrit, geometry.pixel_spacing_mm, LEVELS
        ),
    )


def _draw_subject(rng: np.random.Generator) -> Subject:
    """Subject between healthy and severe amyloidosis; walls are thicker where ECV is higher."""
    ecv = float(rng.uniform(0.26, 0.54))
    return Subject(
        heart=Heart(
            cavity_radius_mm=float(rng.uniform(20, 25)),
            wall_mm=9 + 14 * (ecv - 0.25) + float(rng.uniform(-0.5, 1.5)),
            septal_excess_fraction=float(rng.uniform(0, 0.15)),
            ovality_fraction=float(rng.uniform(-0.06, 0.06)),
            septum_deg=180 + float(rng.uniform(-15, 15)),
            center_mm=(float(rng.uniform(-8, 8)), float(rng.uniform(-8, 8))),
        ),
        field_strength_t=1.5 if rng.random() < 0.5 else 3.0,
        ecv_fraction=ecv,
        ecv_change_per_visit=float(rng.uniform(-0.02, 0.03)),
        hematocrit_fraction=float(rng.uniform(0.36, 0.46)),
        rr_ms=float(rng.uniform(750, 1050)),
    )


def _reposition(heart: Heart, rng: np.random.Generator) -> Heart:
    """Lay the same heart at another visit's place in the image."""
    down, right = (center + float(rng.normal(0, 3)) for center in heart.center_mm)
    return replace(heart, septum_deg=heart.septum_deg + float(rng.normal(0, 4)), center_mm=(down, right))


def _tissues(ecv_fraction: float, hematocrit_fraction: float, field: float) -> dict[str, Tissue]:
    """Tissue that fills each of `STRUCTURES` in a slice."""
    named = tissues(field, hematocrit_fraction, ecv_fraction)
    named["fat"] = named["subcutaneous_fat"]
    return {name: named[name] for name in STRUCTURES}


def _noise_sigma(tissue: Tissue) -> float:
    """Noise of each receiver channel [a.u.] that gives myocardium `SNR`."""
    return _RECEIVER_GAIN * tissue.proton_density * full_recovery_signal(tissue) / SNR


def full_recovery_signal(tissue: Tissue) -> float:
    """Signal at k-space center of a MOLLI read-out that starts from equilibrium [fraction of M0]."""
    t1_ms, t2_ms = (torch.tensor([time], dtype=torch.float64) for time in (tissue.t1_ms, tissue.t2_ms))
    image = read_out(MOLLI_READOUT, t1_ms, t2_ms, torch.zeros(1, 1, dtype=torch.float64))
    return (image.signal_offset + image.signal_slope).abs().item()


def _scan_role(
    fractions: Float[Tensor, "slice structure row col"],
    tissues_of: list[dict[str, Tissue]],
    scheme: str,
    rr_ms: float,
    sigma: float,
    rng: np.random.Generator,
) -> tuple[RoleEchoes, IdealEchoes]:
    """Images of one role with noise, and the signed images without."""
    grid_hz = torch.tensor([-10.0, 0.0, 10.0], dtype=torch.float64)
    times, images = [], []
    for of_slice, tissue in zip(fractions, tissues_of, strict=True):
        beats_ms = rr_ms * (1 + rng.normal(0, _BEAT_JITTER, size=2 + parse_scheme(scheme).n_beats(rr_ms)))
        t1_ms, t2_ms, density, shift_hz, bound_fraction = torch.tensor(
            [
                (one.t1_ms, one.t2_ms, one.proton_density, one.off_resonance_hz, one.bound_fraction)
                for one in tissue.values()
            ],
            dtype=torch.float64,
        ).unbind(1)
        read = acquire(
            scheme,
            t1_ms,
            t2_ms,
            beats_ms.tolist(),
            off_resonance_hz=shift_hz[:, None] + grid_hz,
            bound_fraction=bound_fraction,
        )
        field_map_hz = torch.zeros(1, *of_slice.shape[-2:])
        painted = paint(read.signal, _RECEIVER_GAIN * density, of_slice[None], field_map_hz, grid_hz)
        times.append(read.times_ms)
        images.append(painted)
    all_ti_ms, complex_images = torch.stack(times), torch.stack(images)
    noise = torch.from_numpy(rng.normal(0, sigma, size=(2, *complex_images.shape)))
    magnitude = torch.hypot(complex_images.real + noise[0], complex_images.imag + noise[1]).to(torch.float32)
    t1_by_slice = torch.tensor(
        [[one.t1_ms for one in tissue.values()] for tissue in tissues_of], dtype=torch.float64
    )
    ideal = IdealEchoes(
        scheme=scheme,
        signed=torch.stack(
            [phase_restored(of_slice, ti_ms) for of_slice, ti_ms in zip(images, times, strict=True)]
        ),
        ti_ms=all_ti_ms,
        t1_ms=majority_map(t1_by_slice, fractions),
        blood_t1_ms=[tissue["blood_pool"].t1_ms for tissue in tissues_of],
    )
    return RoleEchoes(scheme=scheme, echoes=magnitude, ti_ms=all_ti_ms), ideal
