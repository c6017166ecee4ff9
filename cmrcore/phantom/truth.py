"""What a simulated scan truly holds, and what its sequence would read without noise.

``*_true`` values are those of the tissue. ``*_ideal`` values come from the fit of the noise-free, signed
images of the same sequence within the true labels, away from their borders: they carry the bias of the
sequence, which no pipeline can see, but not the errors of noise, lost polarity, motion or segmentation, by
which a pipeline is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.phantom.ideal import (
    ideal_blood_t1_ms,
    ideal_ecv_fraction,
    ideal_model,
    ideal_t1_ms,
    ideal_wall,
)

BLOOD_EROSION_MM = 3.0
"""How far the ideal blood signal stays away from the cavity's edge [mm]."""

MYOCARDIUM_EROSION_MM = 1.5
"""How far true and ideal means stay away from both borders of the wall [mm], but for a quarter of it."""


@dataclass(frozen=True, slots=True)
class IdealEchoes:
    """Images of one role before motion, magnitude and noise, and the tissue behind them."""

    scheme: str
    """Acquisition scheme, such as ``"5(3)3"``; it decides how the images are fitted."""
    signed: Float[Tensor, "slice ti row col"]
    """Signed signal [a.u.]; `phase_restored` makes it of complex images."""
    ti_ms: Float[Tensor, "slice ti"]
    """Inversion or saturation times [ms]."""
    t1_ms: Float[Tensor, "slice row col"]
    """True T1 of the tissue that fills most of each pixel of the heart [ms]; see `majority_map`."""
    blood_t1_ms: Sequence[float]
    """True T1 of the LV's blood in each slice [ms]."""


@dataclass(frozen=True, slots=True)
class Truth:
    """True and ideal values; columns are those of the result tables with ``_true`` or ``_ideal`` behind."""

    scan: dict[str, float]
    """Means over the myocardium away from its borders; blood T1 as the mean over slices."""
    slices: tuple[dict[str, float | int | str], ...]
    """The same for each slice, with ``slice_index`` and ``level``."""
    maps: dict[str, Float[Tensor, "slice row col"]]
    """``native/t1_ms``, ``post/t1_ms`` (heart), ``ecv_fraction`` (myocardium), each twice; NaN elsewhere."""


def majority_map(
    values: Float[Tensor, "slice structure"], fractions: Float[Tensor, "slice structure row col"]
) -> Float[Tensor, "slice row col"]:
    """Value of the structure that fills most of each pixel."""
    winner = fractions.argmax(1)
    return values.gather(1, winner.flatten(1)).reshape(winner.shape)


def measure_truth(
    native: IdealEchoes,
    post: IdealEchoes,
    labels: Bool[Tensor, "label slice row col"],
    papillary: Bool[Tensor, "slice row col"],
    ecv_fraction: Float[Tensor, "slice row col"],
    hematocrit_fraction: float,
    pixel_spacing_mm: tuple[float, float],
    levels: Sequence[str],
) -> Truth:
    """Truth of a scan within its true labels (myocardium, blood pool, RV).

    Parameters
    ----------
    native, post
        Images of both roles.
    labels
        True labels.
    papillary
        Pixels of the blood pool that papillary muscles or trabeculae reach into: no blood is measured there.
    ecv_fraction
        True ECV of the tissue that fills most of each pixel, 0-1; used within the myocardium.
    hematocrit_fraction
        0-1.
    pixel_spacing_mm
        Distance of rows, then of columns [mm].
    levels
        Level of each slice.
    """
    myocardium, blood_pool, heart = labels[0], labels[1], labels.any(0)
    roles = {"native": native, "post": post}
    ideal_blood = {
        role: [
            ideal_blood_t1_ms(
                signed,
                ti_ms,
                pool,
                without=muscle,
                model=ideal_model(echoes.scheme),
                erosion_mm=BLOOD_EROSION_MM,
                pixel_spacing_mm=pixel_spacing_mm,
            )
            for signed, ti_ms, pool, muscle in zip(
                echoes.signed, echoes.ti_ms, blood_pool, papillary, strict=True
            )
        ]
        for role, echoes in roles.items()
    }
    maps: dict[str, Tensor] = {}
    for role, echoes in roles.items():
        maps[f"{role}/t1_ms_true"] = torch.where(heart, echoes.t1_ms, torch.nan)
        maps[f"{role}/t1_ms_ideal"] = _ideal_maps(echoes, heart)
    maps["ecv_fraction_true"] = torch.where(myocardium, ecv_fraction, torch.nan)
    ideal_ecv = [
        ideal_ecv_fraction(t1_native, t1_post, blood_native, blood_post, hematocrit_fraction)
        for t1_native, t1_post, blood_native, blood_post in zip(
            maps["native/t1_ms_ideal"],
            maps["post/t1_ms_ideal"],
            ideal_blood["native"],
            ideal_blood["post"],
            strict=True,
        )
    ]
    maps["ecv_fraction_ideal"] = torch.where(myocardium, torch.stack(ideal_ecv), torch.nan)

    inner = torch.stack(
        [
            ideal_wall(wall, pool, erosion_mm=MYOCARDIUM_EROSION_MM, pixel_spacing_mm=pixel_spacing_mm)
            for wall, pool in zip(myocardium, blood_pool, strict=True)
        ]
    )
    slices: list[dict[str, float | int | str]] = []
    for index, level in enumerate(levels):
        row: dict[str, float | int | str] = {"slice_index": index, "level": level}
        row |= _map_means(maps, inner, index)
        for role, echoes in roles.items():
            row[f"blood_t1_{role}_ms_true"] = echoes.blood_t1_ms[index]
            row[f"blood_t1_{role}_ms_ideal"] = ideal_blood[role][index]
        slices.append(row)
    scan = _map_means(maps, inner, slice(None))
    for role, echoes in roles.items():
        scan[f"blood_t1_{role}_ms_true"] = sum(echoes.blood_t1_ms) / len(levels)
        scan[f"blood_t1_{role}_ms_ideal"] = sum(ideal_blood[role]) / len(levels)
    return Truth(scan=scan, slices=tuple(slices), maps=maps)


def _ideal_maps(echoes: IdealEchoes, heart: Bool[Tensor, "slice row col"]) -> Float[Tensor, "slice row col"]:
    """T1 fitted to the noise-free images of the heart's pixels; NaN elsewhere."""
    maps = torch.full(heart.shape, torch.nan, dtype=torch.float64)
    for of_slice, signed, ti_ms, within in zip(maps, echoes.signed, echoes.ti_ms, heart, strict=True):
        of_slice[within] = ideal_t1_ms(signed[:, within], ti_ms, ideal_model(echoes.scheme))
    return maps


def _map_means(
    maps: dict[str, Tensor], myocardium: Bool[Tensor, "slice row col"], slices: int | slice
) -> dict[str, float]:
    """Myocardial mean of every map over the chosen slices, named as in the result tables."""
    within = myocardium[slices]
    columns = {"native/t1_ms": "t1_native_ms", "post/t1_ms": "t1_post_ms", "ecv_fraction": "ecv_fraction"}
    return {
        f"{column}_{kind}": maps[f"{name}_{kind}"][slices][within].nanmean().item()
        for name, column in columns.items()
        for kind in ("true", "ideal")
    }
