"""Intensities drawn at random per tissue, so that a network learns shapes and not a sequence's contrast.

After SynthSeg (Billot et al. 2023, doi:10.1016/j.media.2023.102789), with what hearts need: blood on both
sides of the septum looks alike, muscle looks like muscle, the wall may nearly vanish against the blood, and
intensities may be negative before the magnitude is taken, which draws dark rims as near the null of an
inversion.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cmrcore.phantom.anatomy import STRUCTURES

_ALIKE: dict[str, tuple[str, float, float]] = {
    "rv": ("blood_pool", 0.9, 0.03),
    "aorta": ("blood_pool", 0.8, 0.05),
    "papillary": ("myocardium", 0.9, 0.03),
    "rv_wall": ("myocardium", 0.8, 0.05),
    "lesion": ("myocardium", 0.6, 0.08),
    "epicardial_fat": ("subcutaneous_fat", 0.8, 0.05),
    "arm": ("muscle", 0.7, 0.1),
}
"""Structure: the one it looks like, in which share of images, and how much they then differ (SD)."""

_WEAK_SHARE, _WEAK = 0.25, (0.04, 0.2)
"""Share of images in which wall and blood hardly differ, and by how much they then do."""
_SIGNED_SHARE = 0.35
_CINE_SHARE = 0.3
_CINE: dict[str, tuple[float, float]] = {
    "subcutaneous_fat": (0.6, 1.0),
    "muscle": (0.15, 0.4),
    "lung": (0.02, 0.12),
    "liver": (0.25, 0.5),
    "myocardium": (0.2, 0.45),
    "blood_pool": (0.65, 1.0),
}
"""Intensities of a steady-state image without preparation, such as of a cine."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Intensity of every structure on every image."""

    mean: Float[Tensor, "batch structure"]
    """Mean intensity, -1 to 1."""
    texture: Float[Tensor, "batch structure"]
    """Standard deviation of the texture within the structure."""
    air: Float[Tensor, " batch"]
    """Intensity of what no structure fills."""


def draw_contrast(rng: np.random.Generator, n: int) -> Contrast:
    """Intensities of ``n`` images, independent of each other."""
    column = {name: index for index, name in enumerate(STRUCTURES)}
    mean = rng.uniform(0, 1, size=(n, len(STRUCTURES)))
    cine = rng.random(n) < _CINE_SHARE
    for name, (low, high) in _CINE.items():
        mean[:, column[name]] = np.where(cine, rng.uniform(low, high, size=n), mean[:, column[name]])
    weak = (rng.random(n) < _WEAK_SHARE) & ~cine
    step = rng.uniform(*_WEAK, size=n) * rng.choice([-1.0, 1.0], size=n)
    wall, blood = column["myocardium"], column["blood_pool"]
    mean[:, blood] = np.where(weak, np.clip(mean[:, wall] + step, 0, 1), mean[:, blood])
    signed = (rng.random(n) < _SIGNED_SHARE) & ~cine & ~weak
    mean[signed] = 2 * mean[signed] - 1
    for name, (other, share, spread) in _ALIKE.items():
        if name in column:
            like = mean[:, column[other]] + rng.normal(0, spread, size=n)
            mean[:, column[name]] = np.where(rng.random(n) < share, like, mean[:, column[name]])
    texture = rng.uniform(0, 0.08, size=mean.shape)
    air = np.where(rng.random(n) < 0.9, 0.0, rng.uniform(0, 0.3, size=n))
    return Contrast(*(torch.from_numpy(values).to(torch.float32) for values in (mean, texture, air)))


def fill(
    fractions: Float[Tensor, "batch structure row col"], contrast: Contrast, generator: torch.Generator
) -> Float[Tensor, "batch row col"]:
    """Signed images of structures with random intensities and a texture of a few pixels' size."""
    n, _, rows, cols = fractions.shape
    weights = torch.stack([contrast.mean - contrast.air[:, None], contrast.texture], dim=1)
    mean, amplitude = (weights @ fractions.flatten(2)).view(n, 2, rows, cols).unbind(1)
    grain = _grain(n, rows, cols, 2, generator) + _grain(n, rows, cols, 7, generator)
    return contrast.air[:, None, None] + mean + amplitude * grain


def _grain(
    n: int, rows: int, cols: int, step: int, generator: torch.Generator
) -> Float[Tensor, "batch row col"]:
    """Noise that varies over ``step`` pixels."""
    coarse = torch.randn(n, 1, rows // step + 1, cols // step + 1, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(rows, cols), mode="bilinear")[:, 0]
