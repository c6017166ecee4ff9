"""How hard a scan is to read: strengths of all imperfections, in three steps.

``clean`` has noise and nothing else; it tests arithmetic. In it fat is on resonance and the cavity holds
blood only: either changes what the mean over a correct mask reads, even without noise. ``typical`` is a
series as a trial's sites send it; ``hard`` one that a core lab would argue about. Strengths of a scan are
drawn around these (`draw_strengths`), so that scans differ.

Sources
-------
Motion: 56 % of 85 short-axis series of 29 patients showed it (ARCTIC, Roujol et al. 2014,
doi:10.1002/mrm.25270; their Dice between images was 0.78 +- 0.14 and their boundaries 1.3 +- 0.7 mm apart),
40 % of patients in an earlier study (quoted in doi:10.1007/s10334-022-01032-4); 1,536 of more than 5,000
ShMOLLI maps of UK Biobank were free of any artifact (MOCOnet, Gonzales et al. 2021,
doi:10.3389/fcvm.2021.768245); a later series lay out of the earlier's plane in 3 to 16 % of pairs (Gonzales,
thesis, chapter 3). The README of this room has what the presets come to. Field: see
`cmrcore.phantom.imperfections`. What no source is named for is ours, set by eye.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cmrcore.phantom.motion import STILL, MotionStrength

Difficulty = Literal["clean", "typical", "hard"]


@dataclass(frozen=True, slots=True)
class Imperfections:
    """Strength of everything that a scan suffers from; the defaults are none, at the noise of `SNR`."""

    motion: MotionStrength = STILL
    """What moves."""
    snr: float = 40.0
    """Native myocardium read out from full recovery over the noise in each receiver channel, at the heart."""
    missed_beat_share: float = 0.0
    """Share of heart beats in which the trigger is lost, so that the next comes a beat later, 0-1."""
    sensitivity_ratio: float = 1.0
    """Strongest over weakest receive sensitivity within the image."""
    evened_fraction: float = 0.0
    """How much of that shading the scanner takes out, noise with it, 0-1."""
    off_resonance_ppm: float = 0.0
    """Range of the resonance frequency across the heart [ppm]."""
    fat_shift_fraction: float = 0.0
    """How much of its chemical shift fat has, 0-1; with 1 its signal is turned over against muscle's."""
    papillary_fraction: float = 0.0
    """How much of the papillary muscles and trabeculae there is, 0-1; blood fills the rest."""
    wrap_mm: float = 0.0
    """How much of the body folds in at each end of the phase-encoding direction [mm]."""
    ghost_fraction: float = 0.0
    """Signal of the ghosts of pulsating blood over that of the blood."""
    resolution_fraction: float = 1.0
    """Acquired share of k-space along the phase-encoding direction, 0-1."""
    spread_fraction: float = 0.0
    """Standard deviation of the strengths from scan to scan, relative to those given here."""


SNR = Imperfections().snr

DIFFICULTIES: dict[Difficulty, Imperfections] = {
    "clean": Imperfections(),
    "typical": Imperfections(
        motion=MotionStrength(
            drift_mm_per_s=0.1,
            breathing_share=0.45,
            breathing_mm=7.0,
            beat_mm=0.3,
            bend_fraction=0.2,
            through_plane_fraction=0.4,
            mistrigger_share=0.01,
            between_series_mm=2.0,
            between_series_deg=1.0,
        ),
        snr=35.0,
        missed_beat_share=0.01,
        sensitivity_ratio=4.0,
        evened_fraction=0.7,
        off_resonance_ppm=0.98,
        fat_shift_fraction=1.0,
        papillary_fraction=1.0,
        wrap_mm=8.0,
        ghost_fraction=0.02,
        resolution_fraction=0.8,
        spread_fraction=0.25,
    ),
    "hard": Imperfections(
        motion=MotionStrength(
            drift_mm_per_s=0.25,
            breathing_share=0.85,
            breathing_mm=11.0,
            beat_mm=0.6,
            bend_fraction=0.3,
            through_plane_fraction=0.6,
            mistrigger_share=0.06,
            between_series_mm=5.0,
            between_series_deg=3.0,
        ),
        snr=20.0,
        missed_beat_share=0.04,
        sensitivity_ratio=10.0,
        evened_fraction=0.5,
        off_resonance_ppm=1.5,
        fat_shift_fraction=1.0,
        papillary_fraction=1.0,
        wrap_mm=25.0,
        ghost_fraction=0.06,
        resolution_fraction=0.6,
        spread_fraction=0.25,
    ),
}


def draw_strengths(rng: np.random.Generator, preset: Imperfections) -> Imperfections:
    """Strengths of one scan, around those of its preset; what the preset switches off stays off."""
    snr, sensitivity, field, wrap, ghosts, resolution = np.clip(
        1 + preset.spread_fraction * rng.normal(size=6), 0.4, 1.6
    ).tolist()
    return replace(
        preset,
        snr=preset.snr * snr,
        sensitivity_ratio=preset.sensitivity_ratio**sensitivity,
        off_resonance_ppm=preset.off_resonance_ppm * field,
        wrap_mm=preset.wrap_mm * wrap,
        ghost_fraction=preset.ghost_fraction * ghosts,
        resolution_fraction=1 - (1 - preset.resolution_fraction) * min(resolution, 1.2),
    )
