"""Endless training images with true masks on every echo."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Inexact
from torch import Tensor

from cmrcore.phantom.anatomy import Anatomy, Grid, View, draw_anatomy, labels, structure_fractions
from cmrcore.phantom.augment import AUGMENTATION, Augmentation, draw_geometry, shade, spoil, trabeculate
from cmrcore.phantom.bloch import paint
from cmrcore.phantom.contrast import draw_contrast, fill
from cmrcore.phantom.difficulty import DIFFICULTIES, Difficulty, Imperfections, draw_strengths
from cmrcore.phantom.imperfections import (
    add_ghosts,
    draw_off_resonance,
    draw_sensitivity,
    fold,
    hertz,
    magnitude_image,
)
from cmrcore.phantom.motion import draw_motion, knots_shape, position_mm, smooth_maps
from cmrcore.phantom.series import PULSATING, draw_beats, moved_view, run_sequence, tissue_table
from cmrcore.phantom.tissue import FIELD_STRENGTHS_T, Group, draw_ecv_fractions, post_contrast, tissues

_CHUNK = 16
"""Images drawn at once; more need more memory and are not faster."""
_SCHEMES = ("5(3)3", "4(1)3(1)2", "3(3)3(3)5", "5s(3s)3s", "5(1)1(1)1", "SASHA")
_GAIN = 1.5
"""With it, fully recovered myocardium is about as bright as `_BRIGHT`."""
_BRIGHT = 0.5
"""Intensity that the signal-to-noise ratio is told of; random intensities lie between 0 and 1."""
_WRAP_SHARE, _BAND_SHARE = 0.2, 0.25
_NARROW_SHARE, _NARROW_CAVITY_MM, _NARROW_WALL_MM = 0.1, (5.0, 12.0), (14.0, 26.0)
"""Share of hearts with hardly a cavity, as hypertrophied ones at end-systole, and their measures."""
_PAPILLARY_FACTOR = (0.7, 2.0)
"""Size of papillary muscles and trabeculae, relative to those of the digital trial."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Echoes of slices, each with its own masks."""

    images: Float[Tensor, "batch ti row col"]
    """Magnitudes [a.u.]; the first of each slice is the reference echo, the others have moved."""
    masks: Bool[Tensor, "batch ti label row col"]
    """True masks of each echo, in the order of `cmrcore.segmentation.LABELS`."""


def training_batch(
    rng: np.random.Generator,
    n: int,
    grid: Grid,
    *,
    contrast: Literal["random", "physics"],
    difficulty: Difficulty = "typical",
    n_echoes: int = 2,
    post_share: float = 0.5,
    augmentation: Augmentation = AUGMENTATION,
) -> TrainingBatch:
    """Draw slices of hearts that nobody has.

    Parameters
    ----------
    rng
        Source of all draws; the same state gives the same batch.
    n
        Number of slices.
    grid
        Pixels of the images.
    contrast
        ``random``: an intensity per tissue and echo, drawn anew; ``physics``: echoes of a simulated sequence.
    difficulty
        Strength of motion and imperfections.
    n_echoes
        Echoes of each slice, the reference echo among them.
    post_share
        Share of slices after contrast, 0-1; says nothing where contrast is random.
    augmentation
        Geometry and intensity on top; the same geometry for all echoes of a slice.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    per_chunk = max(1, _CHUNK // n_echoes)
    images, masks = [], []
    for start in range(0, n, per_chunk):
        count = min(per_chunk, n - start)
        drawn, mask = _draw_chunk(
            rng,
            count,
            grid,
            contrast,
            DIFFICULTIES[difficulty],
            n_echoes,
            post_share,
            augmentation,
            generator,
        )
        images.append(drawn.view(count, n_echoes, *drawn.shape[1:]))
        masks.append(mask.view(count, n_echoes, *mask.shape[1:]))
    return TrainingBatch(images=torch.cat(images), masks=torch.cat(masks))


def _draw_chunk(
    rng: np.random.Generator,
    n: int,
    grid: Grid,
    contrast: Literal["random", "physics"],
    preset: Imperfections,
    n_echoes: int,
    post_share: float,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "image row col"], Bool[Tensor, "image label row col"]]:
    """Images and masks of ``n`` slices, their echoes one after another."""
    geometry = draw_geometry(rng, n, augmentation, grid)
    anatomies: list[Anatomy] = []
    views: list[View] = []
    hearts_mm: list[tuple[float, float]] = []
    displacement = torch.empty(n, n_echoes, 2, grid.n_rows, grid.n_cols)
    for index in range(n):
        anatomies += [_draw_anatomy(rng)] * n_echoes
        view = _draw_view(rng)
        time_s = np.sort(np.append(0.0, rng.uniform(0.8, 12.0, size=n_echoes - 1))).tolist()
        hearts_mm.append(_shown_at(view.shift_mm, geometry[index], grid))
        motion = draw_motion(rng, preset.motion, time_s, grid, hearts_mm[-1])
        displacement[index] = geometry[index] + motion.displacement_mm
        for through_mm, phase in zip(motion.through_plane_mm, motion.phase_fraction, strict=True):
            views.append(moved_view(anatomies[-1], view, through_mm, phase))
    fractions = structure_fractions(anatomies, views, grid, displacement.flatten(0, 1))
    fractions = trabeculate(fractions, rng, augmentation, n_echoes, generator)
    if contrast == "random":
        signed = fill(fractions, draw_contrast(rng, n * n_echoes), generator)
        if preset.off_resonance_ppm > 0:
            signed = signed * _bands(rng, n * n_echoes, grid)
    else:
        of_slices = fractions.view(n, n_echoes, *fractions.shape[1:])
        signed = torch.cat(
            [
                _echoes(rng, of_slice, heart_mm, grid, preset, post_share)
                for of_slice, heart_mm in zip(of_slices, hearts_mm, strict=True)
            ]
        )
    return _deliver(signed, fractions, rng, preset, augmentation, grid, generator), labels(fractions)


def _echoes(
    rng: np.random.Generator,
    fractions: Float[Tensor, "ti structure row col"],
    heart_mm: tuple[float, float],
    grid: Grid,
    preset: Imperfections,
    post_share: float,
) -> Complex[Tensor, "ti row col"]:
    """Images of a slice as a sequence takes them: the first acquired, and others in any order."""
    field_t = float(rng.choice(FIELD_STRENGTHS_T))
    group: Group = ("control", "attr", "scar")[int(rng.integers(3))]
    ecv, lesion_ecv = draw_ecv_fractions(rng, group)
    named = tissues(field_t, float(rng.uniform(0.34, 0.48)), ecv, lesion_ecv, rng)
    if rng.random() < post_share:
        plasma_mmol_per_l = float(rng.uniform(0.4, 1.2))
        named = {name: post_contrast(tissue, plasma_mmol_per_l, field_t) for name, tissue in named.items()}
    table = tissue_table(named)
    range_hz = hertz(preset.off_resonance_ppm * float(rng.uniform(0.5, 1.5)), field_t)
    field_hz = draw_off_resonance(rng, range_hz, grid, heart_mm)
    scheme = _SCHEMES[int(rng.integers(len(_SCHEMES)))]
    beats_ms = draw_beats(rng, float(rng.uniform(650, 1100)), preset.missed_beat_share)
    acquisition, grid_hz = run_sequence(scheme, table, beats_ms, field_hz, preset.fat_shift_fraction)
    others = 1 + rng.permutation(len(acquisition.times_ms) - 1)
    chosen = np.append(0, np.resize(others, len(fractions) - 1))
    signal = _GAIN * acquisition.signal[torch.from_numpy(chosen)]
    return paint(signal, table.proton_density, fractions, field_hz[None], grid_hz)


def _shown_at(
    point_mm: tuple[float, float], displacement_mm: Float[Tensor, "2 row col"], grid: Grid
) -> tuple[float, float]:
    """Find the pixel that shows a point; its place relative to the image's center [mm]."""
    down, right = position_mm(grid)
    away = (down + displacement_mm[0] - point_mm[0]) ** 2 + (right + displacement_mm[1] - point_mm[1]) ** 2
    row, col = divmod(int(away.argmin()), grid.n_cols)
    return float(down[row, 0]), float(right[0, col])


def _draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a subject; cavities are narrower and muscles in them larger than in the digital trial."""
    anatomy = draw_anatomy(rng)
    first, second, edge = rng.uniform(*_PAPILLARY_FACTOR, size=3).tolist()
    heart = replace(
        anatomy.heart,
        papillary_mm=(first * anatomy.heart.papillary_mm[0], second * anatomy.heart.papillary_mm[1]),
        trabecula_mm=edge * anatomy.heart.trabecula_mm,
    )
    if rng.random() < _NARROW_SHARE:
        cavity_mm, wall_mm = float(rng.uniform(*_NARROW_CAVITY_MM)), float(rng.uniform(*_NARROW_WALL_MM))
        heart = replace(heart, cavity_mm=cavity_mm, wall_mm=wall_mm)
    return replace(anatomy, heart=heart)


def _draw_view(rng: np.random.Generator) -> View:
    """Put the plane between base and apex, anywhere near the image's center; half of the hearts contract."""
    return View(
        along_fraction=float(rng.uniform(0.0, 0.95)),
        phase_fraction=float(rng.uniform(0, 1)) if rng.random() < 0.5 else 0.0,
        shift_mm=(float(rng.uniform(-25, 25)), float(rng.uniform(-25, 25))),
        turn_deg=float(rng.normal(0, 10)),
    )


def _deliver(
    signed: Inexact[Tensor, "image row col"],
    fractions: Float[Tensor, "image structure row col"],
    rng: np.random.Generator,
    preset: Imperfections,
    augmentation: Augmentation,
    grid: Grid,
    generator: torch.Generator,
) -> Float[Tensor, "image row col"]:
    """Receive and reconstruct, each image with strengths of its own."""
    n = len(signed)
    strengths = [draw_strengths(rng, preset) for _ in range(n)]
    share = _column([one.resolution_fraction for one in strengths])
    if preset.ghost_fraction > 0:
        blood = fractions[:, PULSATING].sum(1) * signed
        ghosts = _column([one.ghost_fraction * rng.normal() for one in strengths])
        shift = int(rng.integers(grid.n_rows // 8, grid.n_rows // 2))
        signed = add_ghosts(signed, blood, ghosts, shift)
    margin = round(strengths[0].wrap_mm / grid.pixel_mm)
    if margin > 0:
        # What lies beyond the image is not drawn; its mirror image stands for it.
        above, below = signed[:, 1 : margin + 1].flip(1), signed[:, -margin - 1 : -1].flip(1)
        beyond = torch.cat([above, signed, below], dim=1)
        wraps = torch.from_numpy(rng.random(n) < _WRAP_SHARE)[:, None, None]
        signed = torch.where(wraps, fold(beyond, margin), signed)
    if preset.sensitivity_ratio > 1:
        signed = signed * torch.stack([_coil(rng, one.sensitivity_ratio, grid) for one in strengths])
    signed = shade(signed, rng, augmentation, grid)
    sigma = _column([_BRIGHT / one.snr * rng.lognormal(0, 0.5) for one in strengths])
    image = magnitude_image(signed, sigma, generator, resolution=(share, share.clamp_min(0.7)))
    return spoil(image, rng, augmentation)


def _coil(rng: np.random.Generator, ratio: float, grid: Grid) -> Float[Tensor, "row col"]:
    """Shading by a coil on any side, mostly left in the image, at times twice as strong."""
    shading = draw_sensitivity(rng, ratio ** float(rng.uniform(0.3, 2.0)), grid, (0.0, 0.0))
    if rng.random() < 0.5:
        shading = shading.flip(0)
    if grid.n_rows == grid.n_cols and rng.random() < 0.5:
        shading = shading.T
    # Bright fat under the coil must not push the heart into the noise.
    return shading.clamp_max(8.0)


def _bands(rng: np.random.Generator, n: int, grid: Grid) -> Float[Tensor, "image row col"]:
    """Dark bands where the field drifts away from the center frequency, in a share of images."""
    field = smooth_maps(torch.from_numpy(rng.normal(size=(n, *knots_shape(grid)))), grid)
    at, width = _column(rng.uniform(0.9, 2.0, size=n)), _column(rng.uniform(0.1, 0.3, size=n))
    depth = _column(rng.uniform(0.3, 0.95, size=n) * (rng.random(n) < _BAND_SHARE))
    return 1 - depth * torch.exp(-(((field - at) / width) ** 2))


def _column(values: Sequence[float] | Float[np.ndarray, " image"]) -> Float[Tensor, "image 1 1"]:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)[:, None, None]
