"""Smooth shapes on the pixels of many images at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_Map = Float[Tensor, "batch row col"]


@dataclass(frozen=True, slots=True)
class Frame:
    """Where each pixel lies relative to the LV's center, in the frame of the body."""

    down: _Map
    """Towards image bottom [mm]."""
    right: _Map
    """Towards image right [mm]."""

    def radius(self) -> _Map:
        """Distance from the LV's center [mm]."""
        return (self.down.square() + self.right.square()).sqrt_()

    def turned(self, angle: Float[Tensor, "batch 1 1"]) -> tuple[_Map, _Map]:
        """Coordinates along a direction (clockwise from right [rad]), and across it (90 degrees on) [mm]."""
        cosine, sine = torch.cos(angle), torch.sin(angle)
        return self.right * cosine + self.down * sine, self.down * cosine - self.right * sine

    def squared_distance(self, down: Float[Tensor, "batch 1 1"], right: Float[Tensor, "batch 1 1"]) -> _Map:
        """Squared distance from a point [mm2]; cheaper than `radius` where the nearest of many is sought."""
        return (self.down - down).square_().add_((self.right - right).square_())


@dataclass(frozen=True, slots=True)
class Polar:
    """Angle of each pixel, as a place in a table over the angle."""

    N_ANGLES: ClassVar[int] = 256
    lower: Int64[Tensor, "batch pixel"]
    """Entry below; tables have one more than `N_ANGLES`, so that the last repeats the first."""
    weight: Float[Tensor, "batch pixel"]
    """Weight of the entry above."""
    shape: tuple[int, int]
    """Rows, columns."""

    @classmethod
    def of(cls, frame: Frame) -> "Polar":
        """Find the angles of a frame's pixels."""
        place = (torch.atan2(frame.down, frame.right) + math.pi) * (cls.N_ANGLES / (2 * math.pi))
        place = place.flatten(1)
        lower = place.long().clamp(0, cls.N_ANGLES - 1)
        return cls(lower, place - lower, (frame.down.shape[-2], frame.down.shape[-1]))

    def look_up(self, table: Float[Tensor, "batch angle"]) -> _Map:
        """Interpolate a table at every pixel's angle."""
        below, above = table.gather(1, self.lower), table.gather(1, self.lower + 1)
        return torch.lerp(below, above, self.weight).reshape(-1, *self.shape)


def column(records: Sequence[object], name: str, index: int | None = None) -> Float[Tensor, "batch 1 1"]:
    """One field of all records (or one entry of a field) as a tensor over the batch."""
    values = [getattr(record, name) for record in records]
    if index is not None:
        values = [value[index] for value in values]
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def harmonics(
    records: Sequence[object], name: str, cosine: Float[Tensor, "batch *at"], sine: Float[Tensor, "batch *at"]
) -> Float[Tensor, "batch *at"]:
    """Sum of the harmonics 2, 3, 4 of an angle given by its cosine and sine; amplitudes come in pairs."""
    amplitudes = torch.tensor([getattr(record, name) for record in records], dtype=torch.float32)
    amplitudes = amplitudes.reshape(*amplitudes.shape, *[1] * (cosine.ndim - 1))
    total = torch.zeros_like(cosine)
    of_order, sine_of_order = cosine, sine
    for order in range(amplitudes.shape[1] // 2):
        of_order, sine_of_order = (
            of_order * cosine - sine_of_order * sine,
            sine_of_order * cosine + of_order * sine,
        )
        total = total + amplitudes[:, 2 * order] * of_order + amplitudes[:, 2 * order + 1] * sine_of_order
    return total


def ellipse(along: _Map, across: _Map, half_along: Tensor | float, half_across: Tensor | float) -> _Map:
    """Distance from an ellipse, exact at its edge to first order."""
    u, v = (along / half_along).square(), (across / half_across).square()
    level = (u + v).sqrt()
    slope = (u / half_along**2).add_(v / half_across**2).sqrt_()
    return level * (level - 1) / slope.clamp_(min=1e-6)


def smooth_minimum(one: _Map, other: _Map, width_mm: float) -> _Map:
    """Union of two shapes with a rounded inner corner (quadratic blend)."""
    blend = (width_mm - (one - other).abs()).clamp(min=0)
    return torch.minimum(one, other) - blend.square() / (4 * width_mm)
