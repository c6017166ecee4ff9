"""Relaxation times of the digital trial's tissues, before and after gadolinium.

Sources
-------
Myocardium: true T1 such that the simulated MOLLI 5(3)3 reads the 996 and 1184 ms that Granitz et al. 2019
(doi:10.1007/s00508-018-1411-3) measured with it (at 1.5 T, 1144 ms by SASHA: Rosmini et al. 2018,
doi:10.1093/ehjci/jey034), T2 from there. Amyloid raises T1 from 967 to 1097 ms
(Fontana et al. 2014, doi:10.1016/j.jcmg.2013.10.008) and T2 from 48.9 to 54.2 ms (Kotecha et al. 2018,
doi:10.1016/j.jacc.2018.03.536). ECV: median 0.49 in ATTR (European Heart Journal - Cardiovascular Imaging
25:95).
Blood: T1 from hematocrit at 3 T by Lu et al. 2004 (doi:10.1002/mrm.20178, arterial), at 1.5 T by Treibel et
al. 2016 (doi:10.1016/j.jcmg.2015.11.008); arterial T2 by Stanisz et al. 2005 (doi:10.1002/mrm.20605).
Liver, muscle, subcutaneous fat, bone marrow (spine): de Bazelaire et al. 2004
(doi:10.1148/radiol.2303021331).
Gadobutrol: r1 by Szomolanyi et al. 2019 (doi:10.1097/RLI.0000000000000577), r2 in plasma by Rohrer et al.
2005 (doi:10.1097/01.rli.0000184756.66360.d3). Plasma concentration: Tofts and Kermode 1991
(doi:10.1002/mrm.1910170208), from Weinmann et al. 1984, for gadopentetate.
Illustrative, for want of a measurement that fits: proton densities; extracellular fractions outside heart
and blood; everything about lung and stomach; T2 of venous blood (arterial T2* is twice the venous, Li et al.
1998, doi:10.1002/mrm.1910390503); bound fractions; the spread between subjects where `_SPREAD` names no
source.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

FIELD_STRENGTHS_T = (1.5, 3.0)
"""Field strengths [T] that the tables below cover."""

ECV_HEALTHY_FRACTION = 0.25
_T1_PER_ECV = 0.46
"""Relative rise of native myocardial T1 per unit of ECV: 13 % from healthy to ATTR, taken as ECV 0.54."""
_T2_PER_ECV = 0.37
"""Relative rise of myocardial T2 per unit of ECV: 11 % from healthy to ATTR, likewise."""
_BOUND_FRACTION = 0.04
"""Bound protons of myocardium and muscle, such that ShMOLLI reads healthy native T1 15 % and MOLLI 13 % low;
against SASHA of the same 94 volunteers they read 16.3 % and 10.4 % low (Rosmini et al. 2018,
doi:10.1093/ehjci/jey034)."""

_FAT_SHIFT_HZ_PER_T = -3.4 * 42.577

_BLOOD_R1_PER_S: dict[float, tuple[float, float]] = {
    1.5: (1000 / 866.0, 1000 * 0.1232 / 866.0),
    3.0: (0.52, 0.38),
}
"""Slope and intercept of native blood R1 [1/s] over hematocrit [fraction]."""

_R1_L_PER_MMOL_S: dict[float, float] = {1.5: 4.78, 3.0: 4.97}
_R2_L_PER_MMOL_S: dict[float, float] = {1.5: 6.1, 3.0: 7.1}

Group = Literal["control", "attr", "scar"]
"""Healthy; diffuse transthyretin amyloid, often denser in places; healthy but for a scar."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """What the sequence sees of a tissue."""

    t1_ms: float
    """T1 [ms]."""
    t2_ms: float
    """T2 [ms]."""
    proton_density: float
    """Relative to water, 0-1."""
    extracellular_fraction: float
    """Share of the volume that gadolinium reaches, 0-1."""
    off_resonance_hz: float = 0.0
    """Chemical shift against water [Hz]."""
    bound_fraction: float = 0.0
    """Share of protons bound to macromolecules, 0-1; see `adiabatic_inversion`."""


_MYOCARDIUM: dict[float, Tissue] = {
    1.5: Tissue(1140.0, 55.8, 0.8, ECV_HEALTHY_FRACTION, bound_fraction=_BOUND_FRACTION),
    3.0: Tissue(1385.0, 51.6, 0.8, ECV_HEALTHY_FRACTION, bound_fraction=_BOUND_FRACTION),
}
_FAT: dict[float, Tissue] = {
    1.5: Tissue(343.0, 58.0, 0.9, 0.03, off_resonance_hz=1.5 * _FAT_SHIFT_HZ_PER_T),
    3.0: Tissue(382.0, 68.0, 0.9, 0.03, off_resonance_hz=3.0 * _FAT_SHIFT_HZ_PER_T),
}
_MUSCLE: dict[float, Tissue] = {
    1.5: Tissue(856.0, 27.0, 0.75, 0.12, bound_fraction=_BOUND_FRACTION),
    3.0: Tissue(898.0, 29.0, 0.75, 0.12, bound_fraction=_BOUND_FRACTION),
}
_SURROUNDINGS: dict[str, dict[float, Tissue]] = {
    "subcutaneous_fat": _FAT,
    "epicardial_fat": _FAT,
    "muscle": _MUSCLE,
    "arm": _MUSCLE,
    "spine": {1.5: Tissue(549.0, 49.0, 0.55, 0.15), 3.0: Tissue(586.0, 49.0, 0.55, 0.15)},
    "lung": {1.5: Tissue(1200.0, 20.0, 0.15, 0.3), 3.0: Tissue(1300.0, 18.0, 0.15, 0.3)},
    "liver": {1.5: Tissue(586.0, 46.0, 0.75, 0.3), 3.0: Tissue(809.0, 34.0, 0.75, 0.3)},
    "stomach": {1.5: Tissue(1500.0, 150.0, 0.7, 0.0), 3.0: Tissue(1700.0, 120.0, 0.7, 0.0)},
}
_BLOOD_T2_MS: dict[float, tuple[float, float]] = {1.5: (290.0, 150.0), 3.0: (275.0, 110.0)}
"""Arterial, venous."""

_SPREAD: dict[str, tuple[float, float]] = {
    "myocardium": (0.025, 0.041),
    "blood": (0.02, 0.1),
    "subcutaneous_fat": (0.034, 0.059),
    "epicardial_fat": (0.034, 0.059),
    "muscle": (0.037, 0.14),
    "arm": (0.037, 0.14),
    "spine": (0.125, 0.08),
    "lung": (0.08, 0.1),
    "liver": (0.088, 0.12),
    "stomach": (0.2, 0.3),
}
"""Relative standard deviation of T1 and T2 between subjects. Fat, muscle, spine and liver: de Bazelaire et
al.; T2 of myocardium: Kotecha et al.; its T1 at equal ECV and the others are illustrative."""


def tissues(
    field_strength_t: float,
    hematocrit_fraction: float,
    ecv_fraction: float,
    lesion_ecv_fraction: float | None = None,
    rng: np.random.Generator | None = None,
) -> dict[str, Tissue]:
    """Native tissue of every structure of the anatomy.

    Parameters
    ----------
    field_strength_t
        One of `FIELD_STRENGTHS_T` [T].
    hematocrit_fraction
        0-1.
    ecv_fraction, lesion_ecv_fraction
        ECV of the myocardium and of its focal part, 0-1; without the latter, the lesion is like the rest.
    rng
        Draws how the subject's relaxation times differ from the mean; seed it by the subject, so that its
        visits agree. None for the mean.
    """
    field = field_strength_t
    factors = {name: _factors(name, rng) for name in _SPREAD}
    muscle = _vary(myocardium(ecv_fraction, field), factors["myocardium"])
    lesion = myocardium(ecv_fraction if lesion_ecv_fraction is None else lesion_ecv_fraction, field)
    arterial = _vary(blood(hematocrit_fraction, field), factors["blood"])
    venous = replace(arterial, t2_ms=arterial.t2_ms * _BLOOD_T2_MS[field][1] / _BLOOD_T2_MS[field][0])
    around = {name: _vary(by_field[field], factors[name]) for name, by_field in _SURROUNDINGS.items()}
    return {
        **around,
        "aorta": arterial,
        "blood_pool": arterial,
        "rv": venous,
        "rv_wall": muscle,
        "myocardium": muscle,
        "papillary": muscle,
        "lesion": _vary(lesion, factors["myocardium"]),
    }


def myocardium(ecv_fraction: float, field_strength_t: float) -> Tissue:
    """Myocardium whose native T1 and T2 rise with its ECV."""
    healthy, rise = _MYOCARDIUM[field_strength_t], ecv_fraction - ECV_HEALTHY_FRACTION
    return replace(
        healthy,
        t1_ms=healthy.t1_ms * (1 + _T1_PER_ECV * rise),
        t2_ms=healthy.t2_ms * (1 + _T2_PER_ECV * rise),
        extracellular_fraction=ecv_fraction,
    )


def blood(hematocrit_fraction: float, field_strength_t: float) -> Tissue:
    """Arterial blood, whose plasma is its extracellular volume."""
    slope, intercept = _BLOOD_R1_PER_S[field_strength_t]
    return Tissue(
        t1_ms=1000 / (slope * hematocrit_fraction + intercept),
        t2_ms=_BLOOD_T2_MS[field_strength_t][0],
        proton_density=0.95,
        extracellular_fraction=1 - hematocrit_fraction,
    )


def draw_ecv_fractions(rng: np.random.Generator, group: Group) -> tuple[float, float | None]:
    """ECV of the myocardium and of its lesion, None where there is no lesion.

    Controls 0.22-0.30; ATTR 0.35-0.65, half of them with a lesion denser by 0.05-0.15; a scar of 0.45-0.7 in
    else healthy myocardium.
    """
    if group == "attr":
        ecv = float(rng.triangular(0.35, 0.47, 0.65))
        denser, has_lesion = float(rng.uniform(0.05, 0.15)), bool(rng.random() < 0.5)
        return ecv, min(ecv + denser, 0.75) if has_lesion else None
    ecv, scar = float(rng.uniform(0.22, 0.30)), float(rng.uniform(0.45, 0.7))
    return ecv, scar if group == "scar" else None


def plasma_mmol_per_l(dose_mmol_per_kg: float, minutes: float) -> float:
    """Gadolinium in plasma [mmol/l], some minutes after a bolus: biexponential, normal kidneys."""
    return dose_mmol_per_kg * (3.99 * math.exp(-0.144 * minutes) + 4.78 * math.exp(-0.0111 * minutes))


def post_contrast_t1_ms(
    tissue: Tissue, plasma_gadolinium_mmol_per_l: float, field_strength_t: float
) -> float:
    r"""T1 [ms] once gadolinium has the plasma's concentration in the whole extracellular volume.

    .. math:: 1/T_{1,post} = 1/T_{1,native} + r_1 \, c_{plasma} \, v_{extracellular}

    As blood's extracellular volume is 1 - hematocrit, the ECV formula (`ecv_map`) gives back the tissue's.
    """
    in_tissue = plasma_gadolinium_mmol_per_l * tissue.extracellular_fraction
    return 1000 / (1000 / tissue.t1_ms + _R1_L_PER_MMOL_S[field_strength_t] * in_tissue)


def post_contrast(tissue: Tissue, plasma_gadolinium_mmol_per_l: float, field_strength_t: float) -> Tissue:
    """Tissue with the T1 of `post_contrast_t1_ms`, and T2 shortened likewise."""
    in_tissue = plasma_gadolinium_mmol_per_l * tissue.extracellular_fraction
    return replace(
        tissue,
        t1_ms=post_contrast_t1_ms(tissue, plasma_gadolinium_mmol_per_l, field_strength_t),
        t2_ms=1000 / (1000 / tissue.t2_ms + _R2_L_PER_MMOL_S[field_strength_t] * in_tissue),
    )


def _factors(name: str, rng: np.random.Generator | None) -> tuple[float, float]:
    """Factors of T1 and T2, at most two standard deviations from 1."""
    if rng is None:
        return 1.0, 1.0
    t1, t2 = (1 + spread * float(np.clip(rng.normal(), -2, 2)) for spread in _SPREAD[name])
    return t1, t2


def _vary(tissue: Tissue, factors: tuple[float, float]) -> Tissue:
    """Tissue of one subject."""
    return replace(tissue, t1_ms=tissue.t1_ms * factors[0], t2_ms=tissue.t2_ms * factors[1])
