"""One series of images of a slice: the anatomy, moved, through sequence and scanner."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Shaped
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.phantom.anatomy import STRUCTURES, Anatomy, Grid, View, labels, structure_fractions
from cmrcore.phantom.bloch import Acquisition, acquire, paint
from cmrcore.phantom.difficulty import Imperfections
from cmrcore.phantom.imperfections import add_ghosts, fold, magnitude_image
from cmrcore.phantom.motion import Reposition, SeriesMotion, compose, draw_motion
from cmrcore.phantom.tissue import Tissue

PULSATING = tuple(STRUCTURES.index(name) for name in ("blood_pool", "rv", "aorta"))
"""Structures whose ghosts repeat along the phase-encoding direction."""

_BLOOD, _PAPILLARY = STRUCTURES.index("blood_pool"), STRUCTURES.index("papillary")

_N_BEATS = 64
_BEAT_JITTER = 0.015
"""Standard deviation of single heart beats, relative."""
_STEP_HZ = 5.0
_MAX_TRIES = 50


@dataclass(frozen=True, slots=True)
class TissueTable:
    """What the sequence sees of each of `STRUCTURES`, in their order."""

    t1_ms: Float[Tensor, " structure"]
    """T1 [ms]."""
    t2_ms: Float[Tensor, " structure"]
    """T2 [ms]."""
    proton_density: Float[Tensor, " structure"]
    """Relative to water, 0-1."""
    off_resonance_hz: Float[Tensor, " structure"]
    """Chemical shift [Hz]."""
    bound_fraction: Float[Tensor, " structure"]
    """Share of protons bound to macromolecules, 0-1."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A slice in front of the scanner."""

    anatomy: Anatomy
    """Body and heart."""
    view: View
    """Plane and pose."""
    heart_mm: tuple[float, float]
    """LV center relative to the image's center (down, right) [mm]."""
    grid: Grid
    """Pixels of the delivered image."""
    field_hz: Float[Tensor, "tall col"]
    """Field map [Hz] on `tall`."""
    sensitivity: Float[Tensor, "row col"]
    """Receive sensitivity on `grid`."""
    strengths: Imperfections
    """What the scan suffers from."""
    gain: float
    """Stored value of full magnetization [a.u.]."""
    sigma: float
    """Noise of each receiver channel at the heart [a.u.]."""

    @property
    def tall(self) -> Grid:
        """Pixels of the image and of what folds into it."""
        return tall_grid(self.grid, self.strengths.wrap_mm)

    def inside(self, tall: Shaped[Tensor, "*batch tall col"]) -> Shaped[Tensor, "*batch row col"]:
        """Part of a tall image that lies in the delivered one."""
        margin = (tall.shape[-2] - self.grid.n_rows) // 2
        return tall[..., margin : margin + self.grid.n_rows, :].clone()


@dataclass(frozen=True, slots=True)
class SliceSeries:
    """Images of one slice, and what they truly show."""

    echoes: Float[Tensor, "ti row col"]
    """Magnitudes [a.u.], in acquisition order."""
    times_ms: Float[Tensor, " ti"]
    """Inversion or saturation times [ms]."""
    labels: Bool[Tensor, "ti label row col"]
    """True labels of each image."""
    motion: SeriesMotion
    """Motion against the first image."""
    ideal: Complex[Tensor, "ti row col"]
    """The same sequence at the scene's pose, without motion, noise, ghosts, folding and edges of k-space."""


def tissue_table(tissues: Mapping[str, Tissue]) -> TissueTable:
    """Tissues by name as tensors in the order of `STRUCTURES`."""
    return TissueTable(
        *torch.tensor(
            [
                (one.t1_ms, one.t2_ms, one.proton_density, one.off_resonance_hz, one.bound_fraction)
                for one in (tissues[name] for name in STRUCTURES)
            ],
            dtype=torch.float64,
        ).unbind(1)
    )


def tall_grid(grid: Grid, wrap_mm: float) -> Grid:
    """Pixels of the image and of what folds into it above and below."""
    return replace(grid, n_rows=grid.n_rows + 2 * round(wrap_mm / grid.pixel_mm))


def image_slice(
    rng: np.random.Generator,
    generator: torch.Generator,
    scene: Scene,
    tissues: TissueTable,
    scheme: str,
    rr_ms: float,
    reposition: Reposition | None = None,
    n_images: int | None = None,
) -> SliceSeries:
    """Take a series of a slice.

    Parameters
    ----------
    rng
        Source of heart beats, motion and ghosts.
    generator
        Source of the noise.
    scene
        What lies in the scanner.
    tissues
        Its relaxation times at that moment.
    scheme
        Such as ``"5(3)3"``.
    rr_ms
        Mean heart beat [ms].
    reposition
        Where the heart lies against the scene's pose; None for there.
    n_images
        How many images there must be: schemes in seconds take more when the heart beats faster. None for any.
    """
    strengths, tall = scene.strengths, scene.tall
    acquisition, grid_hz = _acquire_some(rng, scene, tissues, scheme, rr_ms, n_images)
    n = len(acquisition.times_ms)
    motion = draw_motion(rng, strengths.motion, (acquisition.center_ms / 1000).tolist(), tall, scene.heart_mm)
    still = fill_papillary(
        structure_fractions([scene.anatomy], [scene.view], tall), strengths.papillary_fraction
    )
    fractions = still
    if motion.moves or reposition is not None:
        away_mm = 0.0 if reposition is None else reposition.through_plane_mm
        views = [
            moved_view(scene.anatomy, scene.view, through_mm + away_mm, phase)
            for through_mm, phase in zip(motion.through_plane_mm, motion.phase_fraction, strict=True)
        ]
        shown = motion.displacement_mm
        if reposition is not None:
            shown = compose(shown, reposition.displacement_mm.expand(n, -1, -1, -1), tall)
        fractions = fill_papillary(
            structure_fractions([scene.anatomy] * n, views, tall, shown), strengths.papillary_fraction
        )

    signal = scene.gain * acquisition.signal
    density, field_hz = tissues.proton_density, scene.field_hz[None]
    image = paint(signal, density, fractions, field_hz, grid_hz)
    if strengths.ghost_fraction > 0:
        blood = torch.zeros_like(fractions)
        blood[:, PULSATING] = fractions[:, PULSATING]
        pulsating = paint(signal, density, blood, field_hz, grid_hz)
        shift = int(rng.integers(tall.n_rows // 8, tall.n_rows // 2))
        strength = torch.from_numpy(strengths.ghost_fraction * rng.normal(size=(n, 1, 1))).to(torch.float32)
        image = add_ghosts(image, pulsating, strength, shift)
    echoes = magnitude_image(
        fold(image, (tall.n_rows - scene.grid.n_rows) // 2),
        scene.sigma,
        generator,
        sensitivity=scene.sensitivity,
        evened_fraction=strengths.evened_fraction,
        resolution=(strengths.resolution_fraction, 1.0),
    )
    return SliceSeries(
        echoes=echoes,
        times_ms=acquisition.times_ms,
        labels=scene.inside(labels(fractions)).expand(n, -1, -1, -1).clone(),
        motion=replace(motion, displacement_mm=scene.inside(motion.displacement_mm)),
        ideal=scene.inside(paint(signal, density, still, field_hz, grid_hz)),
    )


def _acquire_some(
    rng: np.random.Generator,
    scene: Scene,
    tissues: TissueTable,
    scheme: str,
    rr_ms: float,
    n_images: int | None,
) -> tuple[Acquisition, Float[Tensor, " off"]]:
    """Run the sequence, again with other heart beats until the number of images is right."""
    for _ in range(_MAX_TRIES):
        beats_ms = draw_beats(rng, rr_ms, scene.strengths.missed_beat_share)
        acquisition, grid_hz = run_sequence(
            scheme, tissues, beats_ms, scene.field_hz, scene.strengths.fat_shift_fraction
        )
        if n_images is None or len(acquisition.times_ms) == n_images:
            return acquisition, grid_hz
    raise InvalidInputError(
        f"scheme {scheme} gave {len(acquisition.times_ms)} images at a mean beat of {rr_ms:.0f} ms, in each "
        f"of {_MAX_TRIES} tries, other slices have {n_images}; take a scheme in beats"
    )


def fill_papillary(
    fractions: Float[Tensor, "image structure row col"], share: float
) -> Float[Tensor, "image structure row col"]:
    """Leave a share of papillary muscles and trabeculae, and blood in place of the rest."""
    if share == 1:
        return fractions
    filled, muscle = fractions.clone(), fractions[:, _PAPILLARY]
    filled[:, _BLOOD] += (1 - share) * muscle
    filled[:, _PAPILLARY] = share * muscle
    return filled


def run_sequence(
    scheme: str,
    tissues: TissueTable,
    beats_ms: list[float],
    field_hz: Float[Tensor, "*space"],
    fat_shift_fraction: float,
) -> tuple[Acquisition, Float[Tensor, " off"]]:
    """Signal of each structure at the frequencies of a field map, and these [Hz]."""
    low, high = float(field_hz.min()), float(field_hz.max())
    n_steps = 2 + int((high - low) / _STEP_HZ)
    grid_hz = torch.linspace(low, max(high, low + 1.0), n_steps, dtype=torch.float64)
    acquisition = acquire(
        scheme,
        tissues.t1_ms,
        tissues.t2_ms,
        beats_ms,
        off_resonance_hz=fat_shift_fraction * tissues.off_resonance_hz[:, None] + grid_hz,
        bound_fraction=tissues.bound_fraction,
    )
    return acquisition, grid_hz


def draw_beats(rng: np.random.Generator, rr_ms: float, missed_share: float) -> list[float]:
    """Intervals between triggers [ms]: no heart beats like a clock, and scanners miss some."""
    beats_ms = rr_ms * (1 + rng.normal(0, _BEAT_JITTER, size=_N_BEATS))
    missed = rng.random(_N_BEATS) < missed_share
    missed[0] = False
    intervals_ms: list[float] = np.add.reduceat(beats_ms, np.flatnonzero(~missed)).tolist()
    return intervals_ms


def moved_view(anatomy: Anatomy, view: View, through_plane_mm: float, phase_fraction: float) -> View:
    """Move the plane to what an image really shows."""
    along = view.along_fraction + through_plane_mm / anatomy.heart.length_mm
    return replace(
        view,
        along_fraction=min(max(along, 0.0), 1.0),
        phase_fraction=max(view.phase_fraction, phase_fraction),
    )
