"""What a simulated scan truly holds, and what its sequence would read without noise.

``*_true`` values are those of the tissue. ``*_ideal`` values come from the fit of the noise-free, signed
images of the same sequence within the true labels: they carry the bias of the sequence, which no pipeline can
see, but not the errors of noise, lost polarity, motion or segmentation, by which a pipeline is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.quantify.blood import blood_t1, erode_mask
from cmrcore.quantify.ecv import ecv_map
from cmrcore.relaxation import fit_t1

BLOOD_EROSION_MM = 3.0
"""How far the ideal blood signal stays away from the cavity's edge [mm]."""


@dataclass(frozen=True, slots=True)
class IdealEchoes:
    """Images of one role before magnitude and noise, and the tissue behind them."""

    signed: Float[Tensor, "slice ti row col"]
    """Signed signal [a.u.]."""
    ti_ms: Float[Tensor, "slice ti"]
    """Inversion times [ms]."""
    myocardium_t1_ms: Sequence[float]
    """True myocardial T1 of each slice [ms]."""
    blood_t1_ms: Sequence[float]
    """True blood T1 of each slice [ms]."""


@dataclass(frozen=True, slots=True)
class Truth:
    """True and ideal values; columns are those of the result tables with ``_true`` or ``_ideal`` behind."""

    scan: dict[str, float]
    """Means over all myocardial pixels; blood T1 as the mean over slices."""
    slices: tuple[dict[str, float | int | str], ...]
    """The same for each slice, with ``slice_index`` and ``level``."""
    maps: dict[str, Float[Tensor, "slice row col"]]
    """``native/t1_ms``, ``post/t1_ms`` (heart), ``ecv_fraction`` (myocardium), each twice; NaN elsewhere."""


def measure_truth(
    native: IdealEchoes,
    post: IdealEchoes,
    labels: Bool[Tensor, "label slice row col"],
    ecv_fraction: Sequence[float],
    hematocrit_fraction: float,
    pixel_spacing_mm: tuple[float, float],
    levels: Sequence[str],
) -> Truth:
    """Truth of a scan within its true labels (myocardium, blood pool, RV)."""
    myocardium, blood_pool = labels[0], labels[1]
    ideal_blood = {
        role: [
            _ideal_blood_t1_ms(signed, ti_ms, erode_mask(pool, BLOOD_EROSION_MM, pixel_spacing_mm))
            for signed, ti_ms, pool in zip(echoes.signed, echoes.ti_ms, blood_pool, strict=True)
        ]
        for role, echoes in (("native", native), ("post", post))
    }
    maps: dict[str, Tensor] = {}
    for role, echoes in (("native", native), ("post", post)):
        maps[f"{role}/t1_ms_true"] = _true_t1_map(echoes, labels)
        maps[f"{role}/t1_ms_ideal"] = torch.stack(
            [
                fit_t1(signed, ti_ms, model="molli-signed", mask=heart).t1_ms
                for signed, ti_ms, heart in zip(echoes.signed, echoes.ti_ms, labels.any(0), strict=True)
            ]
        )
    ecv_by_slice = torch.tensor(list(ecv_fraction), dtype=torch.float64)[:, None, None]
    maps["ecv_fraction_true"] = torch.where(myocardium, ecv_by_slice, torch.nan)
    maps["ecv_fraction_ideal"] = torch.stack(
        [
            torch.where(
                within, ecv_map(t1_native, t1_post, blood_native, blood_post, hematocrit_fraction), torch.nan
            )
            for within, t1_native, t1_post, blood_native, blood_post in zip(
                myocardium,
                maps["native/t1_ms_ideal"],
                maps["post/t1_ms_ideal"],
                ideal_blood["native"],
                ideal_blood["post"],
                strict=True,
            )
        ]
    )

    slices: list[dict[str, float | int | str]] = []
    for index, level in enumerate(levels):
        row: dict[str, float | int | str] = {"slice_index": index, "level": level}
        row |= _map_means(maps, myocardium, index)
        for role, echoes in (("native", native), ("post", post)):
            row[f"blood_t1_{role}_ms_true"] = echoes.blood_t1_ms[index]
            row[f"blood_t1_{role}_ms_ideal"] = ideal_blood[role][index]
        slices.append(row)
    scan = _map_means(maps, myocardium, slice(None))
    for role, echoes in (("native", native), ("post", post)):
        scan[f"blood_t1_{role}_ms_true"] = sum(echoes.blood_t1_ms) / len(levels)
        scan[f"blood_t1_{role}_ms_ideal"] = sum(ideal_blood[role]) / len(levels)
    return Truth(scan=scan, slices=tuple(slices), maps=maps)


def _ideal_blood_t1_ms(
    signed: Float[Tensor, "ti row col"], ti_ms: Float[Tensor, " ti"], pool: Bool[Tensor, "row col"]
) -> float:
    """T1 of the mean noise-free blood signal [ms]; NaN if erosion leaves no pool."""
    fit = blood_t1(signed, pool.expand(signed.shape), ti_ms, model="molli-signed")
    return float("nan") if fit is None else fit.t1_ms.item()


def _true_t1_map(
    echoes: IdealEchoes, labels: Bool[Tensor, "label slice row col"]
) -> Float[Tensor, "slice row col"]:
    """T1 of the tissue that fills most of each pixel of the heart."""
    muscle, pool = (
        torch.tensor(list(values), dtype=torch.float64)[:, None, None]
        for values in (echoes.myocardium_t1_ms, echoes.blood_t1_ms)
    )
    myocardium, blood_pool, rv = labels
    return torch.where(myocardium, muscle, torch.where(blood_pool | rv, pool, torch.nan))


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
