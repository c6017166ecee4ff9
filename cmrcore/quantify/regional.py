"""Statistics of maps over masks; None where there is nothing to average, never NaN or zero."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cmrcore.quantify.aha import septal
from cmrcore.quantify.records import Role, Row

_T1_MS = (50.0, 5000.0)
"""Longitudinal relaxation times that tissue can have at any field strength and contrast dose [ms]."""


@dataclass(frozen=True, slots=True)
class RoleMaps:
    """Maps of one role with the myocardium they are read in."""

    t1_ms: Float[Tensor, "*space"]
    """T1 [ms], NaN where the fit failed or no tissue has it, see `plausible_t1`."""
    r_squared: Float[Tensor, "*space"]
    """R2 of the magnitudes, NaN where the fit failed."""
    myocardium: Bool[Tensor, "*space"]
    """Myocardium on the reference echo."""
    segments: UInt8[Tensor, "*space"]
    """AHA segment of each myocardial pixel, 0 elsewhere."""


@dataclass(frozen=True, slots=True)
class EcvMaps:
    """ECV with the myocardium that both roles share."""

    partition_coefficient: Float[Tensor, "*space"]
    """Partition coefficient, NaN where it is not defined."""
    ecv_fraction: Float[Tensor, "*space"] | None
    """ECV, 0-1, NaN where it is not defined; None without hematocrit."""
    myocardium: Bool[Tensor, "*space"]
    """Myocardium of both roles, in slices that lie on the same pixels."""
    segments: UInt8[Tensor, "*space"]
    """AHA segment of the native myocardium, 0 elsewhere."""


def plausible_t1(t1_ms: Float[Tensor, "*space"]) -> Float[Tensor, "*space"]:
    """Leave out T1 under 50 or over 5000 ms: one fit that ran away would outweigh hundreds of pixels."""
    shortest, longest = _T1_MS
    return torch.where((t1_ms >= shortest) & (t1_ms <= longest), t1_ms, torch.nan)


def mean(values: Float[Tensor, "*space"], mask: Bool[Tensor, "*space"]) -> float | None:
    """Mean of the valid values in a mask."""
    valid = _valid(values, mask)
    return valid.mean().item() if len(valid) else None


def standard_deviation(values: Float[Tensor, "*space"], mask: Bool[Tensor, "*space"]) -> float | None:
    """Sample standard deviation of the valid values in a mask; None under two."""
    valid = _valid(values, mask)
    return valid.std().item() if len(valid) > 1 else None


def low_fraction(
    r_squared: Float[Tensor, "*space"], mask: Bool[Tensor, "*space"], r_squared_min: float
) -> float | None:
    """Share of a mask's pixels whose R2 is under a limit, 0-1; a pixel without a fit counts as under it."""
    inside = r_squared[mask]
    return (~(inside >= r_squared_min)).double().mean().item() if len(inside) else None


def select_slice(maps: RoleMaps, index: int) -> RoleMaps:
    """Take one slice of a stack; without pixels where the stack has no such slice."""
    here = slice(index, index + 1)
    return RoleMaps(
        t1_ms=maps.t1_ms[here],
        r_squared=maps.r_squared[here],
        myocardium=maps.myocardium[here],
        segments=maps.segments[here],
    )


def select_ecv_slice(maps: EcvMaps, index: int) -> EcvMaps:
    """Take the ECV of one slice of a stack; without pixels where the stack has no such slice."""
    here = slice(index, index + 1)
    return EcvMaps(
        partition_coefficient=maps.partition_coefficient[here],
        ecv_fraction=None if maps.ecv_fraction is None else maps.ecv_fraction[here],
        myocardium=maps.myocardium[here],
        segments=maps.segments[here],
    )


def role_columns(role: Role, maps: RoleMaps | None, r_squared_min: float) -> Row:
    """Myocardial T1 and R2 columns of one role; None if it was not scanned or has no mask."""
    if maps is None or not bool(maps.myocardium.any()):
        return dict.fromkeys(
            (
                f"t1_{role}_ms",
                f"t1_{role}_sd_ms",
                f"t1_{role}_septal_ms",
                f"r_squared_{role}_mean",
                f"r_squared_{role}_low_fraction",
                f"n_pixels_failed_{role}",
            )
        )
    inside = maps.myocardium
    return {
        f"t1_{role}_ms": mean(maps.t1_ms, inside),
        f"t1_{role}_sd_ms": standard_deviation(maps.t1_ms, inside),
        f"t1_{role}_septal_ms": mean(maps.t1_ms, septal(maps.segments)),
        f"r_squared_{role}_mean": mean(maps.r_squared, inside),
        f"r_squared_{role}_low_fraction": low_fraction(maps.r_squared, inside, r_squared_min),
        f"n_pixels_failed_{role}": int(torch.isnan(maps.t1_ms[inside]).sum()),
    }


def ecv_columns(maps: EcvMaps | None) -> Row:
    """ECV columns; None where there is no ECV."""
    row: Row = dict.fromkeys(
        (
            "partition_coefficient",
            "ecv_fraction",
            "ecv_sd_fraction",
            "ecv_septal_fraction",
            "n_pixels_ecv_invalid",
        )
    )
    if maps is None or not bool(maps.myocardium.any()):
        return row
    inside = maps.myocardium
    row["partition_coefficient"] = mean(maps.partition_coefficient, inside)
    if maps.ecv_fraction is not None:
        row["ecv_fraction"] = mean(maps.ecv_fraction, inside)
        row["ecv_sd_fraction"] = standard_deviation(maps.ecv_fraction, inside)
        row["ecv_septal_fraction"] = mean(maps.ecv_fraction, inside & septal(maps.segments))
        row["n_pixels_ecv_invalid"] = int(torch.isnan(maps.ecv_fraction[inside]).sum())
    return row


def segment_columns(native: RoleMaps | None, post: RoleMaps | None, ecv: EcvMaps | None, number: int) -> Row:
    """Columns of one AHA segment, each role in its own mask; pixels are counted on native if it is there."""
    row: Row = {"n_pixels": None}
    roles: tuple[tuple[Role, RoleMaps | None], ...] = (("post", post), ("native", native))
    for role, maps in roles:
        row |= dict.fromkeys((f"t1_{role}_ms", f"t1_{role}_sd_ms", f"r_squared_{role}_mean"))
        if maps is not None:
            inside = maps.segments == number
            row["n_pixels"] = int(inside.sum())
            row[f"t1_{role}_ms"] = mean(maps.t1_ms, inside)
            row[f"t1_{role}_sd_ms"] = standard_deviation(maps.t1_ms, inside)
            row[f"r_squared_{role}_mean"] = mean(maps.r_squared, inside)
    row |= dict.fromkeys(("ecv_fraction", "ecv_sd_fraction"))
    if ecv is not None and ecv.ecv_fraction is not None:
        inside = ecv.myocardium & (ecv.segments == number)
        row["ecv_fraction"] = mean(ecv.ecv_fraction, inside)
        row["ecv_sd_fraction"] = standard_deviation(ecv.ecv_fraction, inside)
    return row


def _valid(values: Float[Tensor, "*space"], mask: Bool[Tensor, "*space"]) -> Float[Tensor, " pixel"]:
    """Values in a mask that are numbers, in double precision."""
    inside = values[mask].double()
    return inside[~torch.isnan(inside)]
