"""A visit of the digital trial: native and post-contrast series of a heart with known truth."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from cmrcore.phantom.anatomy import STRUCTURES, HeartKind, View, landmarks, structure_fractions
from cmrcore.phantom.course import Scanner, Subject, VisitState, draw_subject, site_scanner, visit_state
from cmrcore.phantom.difficulty import DIFFICULTIES, Difficulty, Imperfections, draw_strengths
from cmrcore.phantom.geometry import SliceGeometry, short_axis_geometry
from cmrcore.phantom.ideal import phase_restored
from cmrcore.phantom.imperfections import draw_off_resonance, draw_sensitivity, hertz
from cmrcore.phantom.motion import Reposition, draw_reposition
from cmrcore.phantom.readout import MOLLI_READOUT, read_out
from cmrcore.phantom.series import (
    Scene,
    SliceSeries,
    fill_papillary,
    image_slice,
    tall_grid,
    tissue_table,
)
from cmrcore.phantom.tissue import Tissue, post_contrast, tissues
from cmrcore.phantom.truth import IdealEchoes, Truth, majority_map, measure_truth

Level = Literal["basal", "mid", "apical"]
LEVELS: tuple[Level, ...] = ("basal", "mid", "apical")
_ALONG: dict[Level, float] = {"basal": 0.2, "mid": 0.5, "apical": 0.8}
_PAPILLARY_SHARE = 0.02
"""Share of a pixel that papillary muscle may fill where the ideal blood is measured."""
_RECEIVER_GAIN = 4000.0
_ECV_BY_LEVEL: dict[Level, float] = {"basal": 1.04, "mid": 1.0, "apical": 0.96}
"""Amyloid spares the apex (Phelan et al. 2012, doi:10.1136/heartjnl-2012-302353); the size is ours."""


@dataclass(frozen=True, slots=True)
class RoleEchoes:
    """Images of one role as the scanner delivers them, and what they truly show."""

    scheme: str
    """Scheme, such as ``"5(3)3"``."""
    echoes: Float[Tensor, "slice ti row col"]
    """Magnitudes [a.u.], in acquisition order."""
    ti_ms: Float[Tensor, "slice ti"]
    """Inversion times [ms], in acquisition order."""
    labels: Bool[Tensor, "label slice ti row col"]
    """True myocardium, blood pool and RV on each image."""
    displacement_mm: Float[Tensor, "slice ti 2 row col"]
    """Point of this role's first image that each pixel shows, minus the pixel's (down, right) [mm]."""
    through_plane_mm: Float[Tensor, "slice ti"]
    """How far each image lies from the plane of the first, towards the apex [mm]."""
    phase_fraction: Float[Tensor, "slice ti"]
    """Moment of the beat, 0 end-diastole to 1; the contraction of a mistrigger is in no displacement."""
    breathes: Bool[Tensor, " slice"]
    """Whether the breath was not held to the end."""


@dataclass(frozen=True, slots=True)
class SimulatedScan:
    """One imaging session of one subject, base first."""

    native: RoleEchoes
    """Before contrast."""
    post: RoleEchoes
    """About a quarter of an hour after contrast."""
    labels: Bool[Tensor, "label slice row col"]
    """True myocardium, blood pool and RV of the first native image, more than half of a pixel."""
    landmarks_px: Float[Tensor, "slice point 2"]
    """Anterior and inferior RV insertion and LV center on the first native image (row, col) [pixels]."""
    post_to_native_mm: Float[Tensor, "slice 2 row col"]
    """Point of the first native image that each pixel of the first post-contrast one shows, minus it [mm]."""
    post_through_plane_mm: Float[Tensor, " slice"]
    """How far the first post-contrast image lies from the plane of the native one, towards the apex [mm]."""
    levels: tuple[Level, ...]
    """Level of each slice."""
    geometry: SliceGeometry
    """Planes in the patient, the same for both roles."""
    scanner: Scanner
    """What it was imaged with."""
    hematocrit_fraction: float
    """Hematocrit of the day, 0-1."""
    difficulty: Difficulty
    """Preset of the imperfections."""
    imperfections: dict[str, float]
    """Strengths of this scan, named and in the units of `Imperfections` and `MotionStrength`."""
    kind: HeartKind
    """Kind of heart."""
    visit: VisitState
    """Longitudinal truth."""
    truth: Truth
    """What a perfect pipeline would measure."""

    @property
    def field_strength_t(self) -> float:
        """Field strength [T]."""
        return self.scanner.field_strength_t

    @property
    def longitudinal(self) -> dict[str, float | int | str]:
        """Longitudinal truth and the day's conditions, as columns of a table."""
        return {
            "kind": self.kind,
            "course": self.visit.course,
            "visit_index": self.visit.visit_index,
            "ecv_change_fraction_true": self.visit.ecv_change_fraction,
            "wall_change_mm_true": self.visit.wall_change_mm,
            "scanner_model": self.scanner.model,
            "field_strength_t": self.scanner.field_strength_t,
            "difficulty": self.difficulty,
            "n_series_breathing": int(self.native.breathes.sum() + self.post.breathes.sum()),
            **self.imperfections,
        }

    def truth_arrays(self) -> dict[str, tuple[Shaped[np.ndarray, "..."], str, str]]:
        """All that is known per pixel: values, unit and axes by name.

        Displacements are rounded to half precision, by at most 0.008 mm under 16 mm.
        """
        arrays: dict[str, tuple[Shaped[np.ndarray, ...], str, str]] = {
            "labels": (self.labels.numpy(), "1", "label slice row col"),
            "landmarks_px": (self.landmarks_px.numpy(), "pixel", "slice point axis"),
            "post_to_native_mm": (self.post_to_native_mm.half().numpy(), "mm", "slice axis row col"),
            "post_through_plane_mm": (self.post_through_plane_mm.numpy(), "mm", "slice"),
        }
        for role, echoes in (("native", self.native), ("post", self.post)):
            arrays[f"{role}/labels"] = (echoes.labels.numpy(), "1", "label slice ti row col")
            displacement = echoes.displacement_mm.half().numpy()
            arrays[f"{role}/displacement_mm"] = (displacement, "mm", "slice ti axis row col")
            arrays[f"{role}/through_plane_mm"] = (echoes.through_plane_mm.numpy(), "mm", "slice ti")
            arrays[f"{role}/phase_fraction"] = (echoes.phase_fraction.numpy(), "1", "slice ti")
        for name, values in self.truth.maps.items():
            arrays[name] = (values.numpy(), "ms" if "_ms_" in name else "1", "slice row col")
        return arrays


def simulate_scan(
    seed: int,
    subject_index: int,
    visit_index: int,
    *,
    scheme_native: str,
    scheme_post: str,
    difficulty: Difficulty = "typical",
    scanner: Scanner | None = None,
    subject: Subject | None = None,
) -> SimulatedScan:
    """Scan of one visit; the same arguments always give the same scan.

    Anatomy, disease and its course stay with the subject; pose, heart rate, hematocrit, contrast dose and
    imperfections differ from visit to visit.

    Parameters
    ----------
    seed
        Seed of the trial.
    subject_index, visit_index
        Which subject and visit, from 0.
    scheme_native, scheme_post
        Schemes, such as ``"5(3)3"`` and ``"4(1)3(1)2"``.
    difficulty
        ``clean`` (noise and nothing else), ``typical`` or ``hard``; see `DIFFICULTIES`.
    scanner
        What the visit's site images with (`site_scanner`); None for one that stays with the subject.
    subject
        Whom it shows; None for the trial's own (`draw_subject`). Another one is still posed, and imaged with
        the imperfections, of the subject and visit that are named.
    """
    if subject is None:
        subject = draw_subject(np.random.default_rng([seed, subject_index]))
    state = visit_state(subject, visit_index)
    used = site_scanner(seed, subject_index) if scanner is None else scanner
    rng = np.random.default_rng([seed, subject_index, 1 + visit_index])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    strengths = draw_strengths(rng, DIFFICULTIES[difficulty])
    hematocrit = float(np.clip(subject.hematocrit_fraction + rng.normal(0, 0.008), 0.34, 0.48))
    plasma_mmol_per_l = float(rng.uniform(0.55, 0.85))
    rr_native_ms, rr_post_ms = (subject.rr_ms * float(rng.uniform(0.93, 1.07)) for _ in range(2))
    geometry = short_axis_geometry(
        used.grid,
        turn_deg=float(rng.uniform(-8, 8)),
        center_mm=(45 + float(rng.normal(0, 4)), -40 + float(rng.normal(0, 4)), float(rng.normal(0, 6))),
        offsets_mm=tuple((_ALONG["mid"] - _ALONG[level]) * state.anatomy.heart.length_mm for level in LEVELS),
    )
    native_tissues = _tissues(subject, state, used.field_strength_t, hematocrit)
    post_tissues = [
        {
            name: post_contrast(tissue, plasma_mmol_per_l, used.field_strength_t)
            for name, tissue in one.items()
        }
        for one in native_tissues
    ]
    sigma = _noise_sigma(native_tissues[LEVELS.index("mid")]["myocardium"], strengths.snr)
    scenes = _scenes(rng, state, used, strengths, sigma)
    moved = [draw_reposition(rng, strengths.motion, scene.tall, scene.heart_mm) for scene in scenes]
    native = _take(rng, generator, scenes, native_tissues, scheme_native, rr_native_ms, [None] * len(scenes))
    post = _take(rng, generator, scenes, post_tissues, scheme_post, rr_post_ms, moved)

    first = torch.stack([one.labels[0] for one in native], dim=1)
    fractions = torch.cat([structure_fractions([one.anatomy], [one.view], one.grid) for one in scenes])
    fractions = fill_papillary(fractions, strengths.papillary_fraction)
    return SimulatedScan(
        native=_echoes(scheme_native, native),
        post=_echoes(scheme_post, post),
        labels=first,
        landmarks_px=torch.cat([landmarks([one.anatomy], [one.view], one.grid) for one in scenes]),
        post_to_native_mm=torch.stack(
            [scene.inside(one.displacement_mm) for one, scene in zip(moved, scenes, strict=True)]
        ),
        post_through_plane_mm=torch.tensor([one.through_plane_mm for one in moved]),
        levels=LEVELS,
        geometry=geometry,
        scanner=used,
        hematocrit_fraction=hematocrit,
        difficulty=difficulty,
        imperfections=_report(strengths),
        kind=subject.kind,
        visit=state,
        truth=measure_truth(
            _ideal(scheme_native, native, native_tissues, fractions),
            _ideal(scheme_post, post, post_tissues, fractions),
            first,
            fractions[:, STRUCTURES.index("papillary")] > _PAPILLARY_SHARE,
            majority_map(_table(native_tissues, "extracellular_fraction"), fractions),
            hematocrit,
            geometry.pixel_spacing_mm,
            LEVELS,
        ),
    )


def _tissues(
    subject: Subject, state: VisitState, field_strength_t: float, hematocrit_fraction: float
) -> list[dict[str, Tissue]]:
    """Native tissue of each of `STRUCTURES`, in their order, in each slice."""
    by_slice = []
    for level in LEVELS:
        share = _ECV_BY_LEVEL[level] if subject.kind == "amyloid" else 1.0
        lesion = state.lesion_ecv_fraction
        named = tissues(
            field_strength_t,
            hematocrit_fraction,
            state.ecv_fraction * share,
            None if lesion is None else lesion * share,
            np.random.default_rng(subject.tissue_seed),
        )
        by_slice.append({name: named[name] for name in STRUCTURES})
    return by_slice


def _noise_sigma(muscle: Tissue, snr: float) -> float:
    """Noise of each receiver channel [a.u.] that gives myocardium read out from equilibrium the ratio."""
    t1_ms, t2_ms = (torch.tensor([time], dtype=torch.float64) for time in (muscle.t1_ms, muscle.t2_ms))
    image = read_out(MOLLI_READOUT, t1_ms, t2_ms, torch.zeros(1, 1, dtype=torch.float64))
    full = (image.signal_offset + image.signal_slope).abs().item()
    return _RECEIVER_GAIN * muscle.proton_density * full / snr


def _scenes(
    rng: np.random.Generator, state: VisitState, scanner: Scanner, strengths: Imperfections, sigma: float
) -> list[Scene]:
    """Slices of the patient as positioned for the native series."""
    pose = View(
        along_fraction=0.5,
        shift_mm=(float(rng.uniform(-8, 8)), float(rng.uniform(-8, 8))),
        turn_deg=float(rng.normal(0, 4)),
    )
    grid, coils = scanner.grid, int(rng.integers(2**62))
    range_hz = hertz(strengths.off_resonance_ppm, scanner.field_strength_t)
    scenes = []
    for level in LEVELS:
        view = replace(pose, along_fraction=_ALONG[level])
        row, col = landmarks([state.anatomy], [view], grid)[0, -1].tolist()
        heart_mm = (
            (row - (grid.n_rows - 1) / 2) * grid.pixel_mm,
            (col - (grid.n_cols - 1) / 2) * grid.pixel_mm,
        )
        scenes.append(
            Scene(
                anatomy=state.anatomy,
                view=view,
                heart_mm=heart_mm,
                grid=grid,
                field_hz=draw_off_resonance(rng, range_hz, tall_grid(grid, strengths.wrap_mm), heart_mm),
                sensitivity=draw_sensitivity(
                    np.random.default_rng(coils), strengths.sensitivity_ratio, grid, heart_mm
                ),
                strengths=strengths,
                gain=_RECEIVER_GAIN,
                sigma=sigma,
            )
        )
    return scenes


def _take(
    rng: np.random.Generator,
    generator: torch.Generator,
    scenes: Sequence[Scene],
    tissues_of: Sequence[Mapping[str, Tissue]],
    scheme: str,
    rr_ms: float,
    moved: Sequence[Reposition | None],
) -> list[SliceSeries]:
    """Images of one role, slice after slice; every slice has as many as the first."""
    series: list[SliceSeries] = []
    for scene, of_slice, reposition in zip(scenes, tissues_of, moved, strict=True):
        n_images = len(series[0].times_ms) if series else None
        table = tissue_table(of_slice)
        series.append(image_slice(rng, generator, scene, table, scheme, rr_ms, reposition, n_images))
    return series


def _echoes(scheme: str, series: Sequence[SliceSeries]) -> RoleEchoes:
    """Stack the slices of one role."""
    motions = [one.motion for one in series]
    return RoleEchoes(
        scheme=scheme,
        echoes=torch.stack([one.echoes for one in series]),
        ti_ms=torch.stack([one.times_ms for one in series]),
        labels=torch.stack([one.labels for one in series]).permute(2, 0, 1, 3, 4),
        displacement_mm=torch.stack([one.displacement_mm for one in motions]),
        through_plane_mm=torch.tensor([one.through_plane_mm for one in motions]),
        phase_fraction=torch.tensor([one.phase_fraction for one in motions]),
        breathes=torch.tensor([one.breathes for one in motions]),
    )


def _ideal(
    scheme: str,
    series: Sequence[SliceSeries],
    tissues_of: Sequence[Mapping[str, Tissue]],
    fractions: Float[Tensor, "slice structure row col"],
) -> IdealEchoes:
    """Images of one role before all that makes them imperfect."""
    return IdealEchoes(
        scheme=scheme,
        signed=torch.stack([phase_restored(one.ideal, one.times_ms) for one in series]),
        ti_ms=torch.stack([one.times_ms for one in series]),
        t1_ms=majority_map(_table(tissues_of, "t1_ms"), fractions),
        blood_t1_ms=[of_slice["blood_pool"].t1_ms for of_slice in tissues_of],
    )


def _table(
    tissues_of: Sequence[Mapping[str, Tissue]], field: Literal["t1_ms", "extracellular_fraction"]
) -> Float[Tensor, "slice structure"]:
    """One property of each structure in each slice."""
    return torch.tensor(
        [[getattr(of_slice[name], field) for name in STRUCTURES] for of_slice in tissues_of],
        dtype=torch.float64,
    )


def _report(strengths: Imperfections) -> dict[str, float]:
    """Strengths by name, those of the motion among them."""
    named = asdict(strengths)
    report: dict[str, float] = named.pop("motion") | named
    return report
