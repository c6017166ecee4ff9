"""Statistics of maps over masks; None where there is nothing to average, never NaN or zero."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from cmrcore.quantify.aha import septal
from cmrcore.quantify.records import Role, Row
from cmrcore.quantify.uncertainty import CommonErrors, ecv_uncertainty, mean_noise

_T1_MS = (50.0, 5000.0)
"""Longitudinal relaxation times that tissue can have at any field strength and contrast dose [ms]."""


@dataclass(frozen=True, slots=True)
class RoleMaps:
    """Maps of one role with the myocardium they are read in."""

    t1_ms: Float[Tensor, "*space"]
    """T1 [ms], NaN where the fit failed or no tissue has it, see `plausible_t1`."""
    t1_sd_ms: Float[Tensor, "*space"]
    """Standard deviation of T1 from the fit [ms], NaN where it failed."""
    r_squared: Float[Tensor, "*space"]
    """R2 of the magnitudes, NaN where the fit failed."""
    myocardium: Bool[Tensor, "*space"]
    """Myocardium on the reference echo, away from its borders."""
    segments: UInt8[Tensor, "*space"]
    """AHA segment of each of these pixels, 0 elsewhere."""


@dataclass(frozen=True, slots=True)
class EcvMaps:
    """ECV with the myocardium that both roles share."""

    partition_coefficient: Float[Tensor, "*space"]
    """Partition coefficient, NaN where it is not defined."""
    ecv_fraction: Float[Tensor, "*space"] | None
    """ECV, 0-1, NaN where it is not defined; None without hematocrit."""
    myocardium: Bool[Tensor, "*space"]
    """Myocardium of both roles away from its borders, in slices that lie on the same pixels."""
    segments: UInt8[Tensor, "*space"]
    """AHA segment of the native myocardium, 0 elsewhere."""
    noise: Float[Tensor, "*space"]
    """Standard deviation of the partition coefficient from the noise of both T1."""
    blood_error: Float[Tensor, " slice"]
    """Relative standard deviation of the blood's change of R1; NaN in slices without ECV."""
    blood_slice: tuple[int, ...]
    """Slice whose blood each slice uses."""
    hematocrit_fraction: float | None
    """Hematocrit, 0-1; None if there is none."""
    hematocrit_sd_fraction: float
    """Its standard uncertainty."""
    synthetic_fraction: float | None
    """Hematocrit from native blood T1; None where the trial's regression does not hold."""

    @property
    def common(self) -> CommonErrors | None:
        """Errors of ECV that pixels have in common; None without hematocrit."""
        if self.hematocrit_fraction is None:
            return None
        relative = self.hematocrit_sd_fraction / (1 - self.hematocrit_fraction)
        return CommonErrors(blood=self.blood_error, blood_slice=self.blood_slice, hematocrit=relative)


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
        t1_sd_ms=maps.t1_sd_ms[here],
        r_squared=maps.r_squared[here],
        myocardium=maps.myocardium[here],
        segments=maps.segments[here],
    )


def select_ecv_slice(maps: EcvMaps, index: int) -> EcvMaps:
    """Take the ECV of one slice of a stack; without pixels where the stack has no such slice."""
    here = slice(index, index + 1)
    return replace(
        maps,
        partition_coefficient=maps.partition_coefficient[here],
        ecv_fraction=None if maps.ecv_fraction is None else maps.ecv_fraction[here],
        myocardium=maps.myocardium[here],
        segments=maps.segments[here],
        noise=maps.noise[here],
        blood_error=maps.blood_error[here],
        blood_slice=maps.blood_slice[here],
    )


def role_columns(role: Role, maps: RoleMaps | None, r_squared_min: float) -> Row:
    """Myocardial T1 and R2 columns of one role; None if it was not scanned or has no mask."""
    if maps is None or not bool(maps.myocardium.any()):
        return dict.fromkeys(
            (
                f"t1_{role}_ms",
                f"t1_{role}_sd_ms",
                f"t1_{role}_uncertainty_ms",
                f"t1_{role}_septal_ms",
                f"r_squared_{role}_mean",
                f"r_squared_{role}_low_fraction",
                f"n_pixels_read_{role}",
                f"n_pixels_failed_{role}",
            )
        )
    inside = maps.myocardium
    return {
        f"t1_{role}_ms": mean(maps.t1_ms, inside),
        f"t1_{role}_sd_ms": standard_deviation(maps.t1_ms, inside),
        f"t1_{role}_uncertainty_ms": t1_uncertainty(maps, inside),
        f"t1_{role}_septal_ms": mean(maps.t1_ms, septal(maps.segments)),
        f"r_squared_{role}_mean": mean(maps.r_squared, inside),
        f"r_squared_{role}_low_fraction": low_fraction(maps.r_squared, inside, r_squared_min),
        f"n_pixels_read_{role}": int(inside.sum()),
        f"n_pixels_failed_{role}": int(torch.isnan(maps.t1_ms[inside]).sum()),
    }


def t1_uncertainty(maps: RoleMaps, mask: Bool[Tensor, "*space"]) -> float | None:
    """Give the standard uncertainty of the mean T1 over a mask's valid pixels [ms]; None without any."""
    return mean_noise(maps.t1_sd_ms, mask & ~torch.isnan(maps.t1_ms))


def ecv_columns(maps: EcvMaps | None) -> Row:
    """ECV columns of the whole myocardium; None where there is no ECV."""
    row: Row = dict.fromkeys(("partition_coefficient", "ecv_septal_fraction"))
    row |= region_ecv_columns(maps, None if maps is None else maps.myocardium)
    if maps is not None and bool(maps.myocardium.any()):
        row["partition_coefficient"] = mean(maps.partition_coefficient, maps.myocardium)
        if maps.ecv_fraction is not None:
            row["ecv_septal_fraction"] = mean(maps.ecv_fraction, maps.myocardium & septal(maps.segments))
    return row


def region_ecv_columns(maps: EcvMaps | None, inside: Bool[Tensor, "*space"] | None) -> Row:
    """ECV columns that every region has; None where there is no ECV."""
    row: Row = dict.fromkeys(
        (
            "ecv_fraction",
            "ecv_sd_fraction",
            "ecv_uncertainty_fraction",
            "ecv_synthetic_fraction",
            "n_pixels_ecv",
            "n_pixels_ecv_invalid",
        )
    )
    if maps is None or inside is None or not bool(inside.any()):
        return row
    if maps.synthetic_fraction is not None:
        coefficient = mean(maps.partition_coefficient, inside)
        row["ecv_synthetic_fraction"] = (
            None if coefficient is None else (1 - maps.synthetic_fraction) * coefficient
        )
    common = maps.common
    if maps.ecv_fraction is not None and common is not None and maps.hematocrit_fraction is not None:
        n_invalid = int(torch.isnan(maps.ecv_fraction[inside]).sum())
        noise = (1 - maps.hematocrit_fraction) * maps.noise
        row["ecv_fraction"] = mean(maps.ecv_fraction, inside)
        row["ecv_sd_fraction"] = standard_deviation(maps.ecv_fraction, inside)
        row["ecv_uncertainty_fraction"] = ecv_uncertainty(maps.ecv_fraction, noise, inside, common)
        row["n_pixels_ecv"] = int(inside.sum()) - n_invalid
        row["n_pixels_ecv_invalid"] = n_invalid
    return row


def segment_columns(native: RoleMaps | None, post: RoleMaps | None, ecv: EcvMaps | None, number: int) -> Row:
    """Columns of one AHA segment, each role in its own mask."""
    row: Row = {}
    roles: tuple[tuple[Role, RoleMaps | None], ...] = (("post", post), ("native", native))
    for role, maps in roles:
        columns = (f"t1_{role}_ms", f"t1_{role}_sd_ms", f"t1_{role}_uncertainty_ms")
        row |= dict.fromkeys((*columns, f"r_squared_{role}_mean", f"n_pixels_read_{role}"))
        if maps is not None:
            inside = maps.segments == number
            row[f"t1_{role}_ms"] = mean(maps.t1_ms, inside)
            row[f"t1_{role}_sd_ms"] = standard_deviation(maps.t1_ms, inside)
            row[f"t1_{role}_uncertainty_ms"] = t1_uncertainty(maps, inside)
            row[f"r_squared_{role}_mean"] = mean(maps.r_squared, inside)
            row[f"n_pixels_read_{role}"] = int(inside.sum())
    return row | region_ecv_columns(ecv, None if ecv is None else ecv.myocardium & (ecv.segments == number))


def _valid(values: Float[Tensor, "*space"], mask: Bool[Tensor, "*space"]) -> Float[Tensor, " pixel"]:
    """Values in a mask that are numbers, in double precision."""
    inside = values[mask].double()
    return inside[~torch.isnan(inside)]
