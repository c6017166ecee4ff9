"""Scans of drawn hearts that several tests quantify."""

import datetime

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.phantom import RoleEchoes, SimulatedScan
from cmrcore.quantify import (
    Hematocrit,
    HematocritLimits,
    QcLimits,
    QuantifySettings,
    ScanResult,
    Series,
    SyntheticHematocrit,
    quantify_scan,
)
from cmrcore.quantify.qc import TissueLimits
from cmrcore.registration.align import AlignSettings
from cmrcore.relaxation import molli_signal
from cmrcore.segmentation import carry_guide
from tests.cmrcore.hearts import drawn_heart, guide_of

TISSUE = TissueLimits(
    t1_native_min_ms=800.0,
    t1_native_max_ms=1500.0,
    t1_post_min_ms=200.0,
    t1_post_max_ms=900.0,
    blood_t1_native_min_ms=1200.0,
    blood_t1_native_max_ms=2100.0,
    blood_t1_post_min_ms=150.0,
    blood_t1_post_max_ms=900.0,
)

QC = QcLimits(
    r_squared_mean_min=0.9,
    r_squared_pixel_min=0.95,
    r_squared_low_fraction_max=0.10,
    fit_poor_fraction_max=0.4,
    fit_failed_fraction_max=0.8,
    amplitude_ratio_min=1.7,
    amplitude_ratio_max=2.6,
    wall_min_mm=3.0,
    wall_max_mm=25.0,
    area_ratio_max=2.0,
    center_off_max_mm=10.0,
    guide_overlap_min=0.3,
    landmark_off_max_mm=10.0,
    guide_dice_min=0.7,
    aligned_dice_min=0.7,
    masks_apart_max_px=1.0,
    separation_min=0.5,
    masks_apart_fail_px=9.0,
    separation_fail_min=0.3,
    t1_spread_max_fraction=0.2,
    t1_apart_max_fraction=0.1,
    blood_r_squared_min=0.95,
    blood_spread_max_fraction=0.2,
    blood_pixels_min=20.0,
    blood_apart_max_fraction=0.1,
    t1_over_blood_min=0.4,
    t1_over_blood_max=0.97,
    post_over_native_max=0.9,
    post_minutes_min=8.0,
    post_minutes_max=40.0,
    beats_apart_max_fraction=0.25,
    ecv_min_fraction=0.15,
    ecv_max_fraction=0.75,
    position_tolerance_mm=1.0,
    tissue_1_5t=TISSUE,
    tissue_3t=TISSUE,
)

SETTINGS = QuantifySettings(
    t1_model="molli",
    blood_erosion_mm=3.0,
    blood_slice="same",
    myocardium_erosion_mm=1.5,
    hematocrit_sd_fraction=0.01,
    synthetic=SyntheticHematocrit(866.0, -0.1232, 1.5, ("5(3)3",), source="a study"),
    hematocrit=HematocritLimits(min_fraction=0.2, max_fraction=0.6, max_hours=24.0, max_days=1),
    qc=QC,
    align=AlignSettings(
        method="affine",
        shift_max_mm=30.0,
        turn_max_deg=20.0,
        scale_max_fraction=0.25,
        still_px=0.25,
        r_squared_fall_max=0.0,
        post_dice_min=0.6,
    ),
)

SCAN_TIME = datetime.datetime(2026, 3, 10, 9, 0)

HEMATOCRIT = Hematocrit(0.40, datetime.date(2026, 3, 10), datetime.time(8, 0), "plan")

LEVELS = ("basal", "mid", "apical")

SPACING_MM = (1.5, 1.5)

ACQUIRED_MS = [120.0, 1020.0, 1920.0, 2820.0, 3720.0, 200.0, 1100.0, 2000.0]


def series(
    muscle_ms: float,
    blood_ms: list[float],
    guide: Bool[Tensor, "label slice row col"],
    *,
    masked: bool = True,
) -> Series:
    """Noise-free series of a drawn heart; echoes are sorted, the first-acquired one is the shortest."""
    ti_ms, order = torch.tensor(ACQUIRED_MS, dtype=torch.float64).sort()
    heart = drawn_heart()
    echoes = torch.stack([images_of(ti_ms, heart, muscle_ms, pool_ms) for pool_ms in blood_ms])
    n_slices = len(blood_ms)
    found = [
        carry_guide(images, SPACING_MM, guide_of(guide[:, index]), 0.25)
        for index, images in enumerate(echoes)
    ]
    return Series(
        echoes=echoes,
        ti_ms=ti_ms.repeat(n_slices, 1),
        acquisition_index=order.repeat(n_slices, 1),
        masks=torch.stack([one.masks for one in found], dim=1) if masked else None,
        guide=guide if masked else None,
        confidence=torch.stack([one.confidence for one in found]) if masked else None,
        positions_mm=torch.tensor(
            [[0.0, 0.0, 20.0 - 20 * index] for index in range(n_slices)], dtype=torch.float64
        ),
        pixel_spacing_mm=SPACING_MM,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        anterior=(-1.0, 0.0),
        levels=LEVELS[:n_slices],
        scheme="5(3)3",
    )


def images_of(
    ti_ms: Float[Tensor, " ti"], heart: Bool[Tensor, "label row col"], muscle_ms: float, pool_ms: float
) -> Float[Tensor, "ti row col"]:
    """Magnitudes of one slice; air outside the heart."""
    t1_ms = torch.full(heart.shape[1:], pool_ms, dtype=torch.float64)
    t1_ms[heart[0]] = muscle_ms
    amplitude = 300 * heart.any(0).double()
    return molli_signal(ti_ms, amplitude, 1.95 * amplitude, t1_ms / 0.95).abs().float()


def stack(n_slices: int = 3) -> Bool[Tensor, "label slice row col"]:
    """Guide of the drawn heart on every slice."""
    return drawn_heart()[:, None].repeat(1, n_slices, 1, 1)


NATIVE = series(1100.0, [1600.0, 1650.0, 1700.0], stack())

POST = series(450.0, [400.0, 380.0, 360.0], stack())


def quantify(
    native: Series | None = NATIVE,
    post: Series | None = POST,
    hematocrit: Hematocrit | None = HEMATOCRIT,
) -> ScanResult:
    """Quantify under the usual settings."""
    return quantify_scan(native, post, hematocrit, SCAN_TIME, SCAN_TIME.date(), SETTINGS)


def raised(result: ScanResult) -> set[tuple[str, str | None, int | None]]:
    """Code, role and slice of every flag."""
    return {(flag.code, flag.role, flag.slice_index) for flag in result.flags}


def number(value: object) -> float:
    """Value that must be there."""
    assert isinstance(value, float)
    return value


def masks_of(of: Series) -> Bool[Tensor, "label slice ti row col"]:
    """Masks that must be there."""
    assert of.masks is not None
    return of.masks


def of_simulated(role: RoleEchoes, scan: SimulatedScan) -> Series:
    """Series of a simulated role with its true labels as the guide."""
    ti_ms, order = role.ti_ms.sort(1)
    echoes = torch.stack([images[index] for images, index in zip(role.echoes, order, strict=True)])
    found = [
        carry_guide(images, scan.geometry.pixel_spacing_mm, guide_of(scan.labels[:, index]), 0.25)
        for index, images in enumerate(echoes)
    ]
    row_axis, col_axis = torch.tensor(scan.geometry.orientation, dtype=torch.float64).reshape(2, 3)
    front = torch.tensor([0.0, -1.0, 1.0], dtype=torch.float64)
    return Series(
        echoes=echoes,
        ti_ms=ti_ms,
        acquisition_index=order,
        masks=torch.stack([one.masks for one in found], dim=1),
        guide=scan.labels,
        confidence=torch.stack([one.confidence for one in found]),
        positions_mm=scan.geometry.positions_mm,
        pixel_spacing_mm=scan.geometry.pixel_spacing_mm,
        orientation=scan.geometry.orientation,
        anterior=((front @ col_axis).item(), (front @ row_axis).item()),
        levels=scan.levels,
        scheme=role.scheme,
    )
