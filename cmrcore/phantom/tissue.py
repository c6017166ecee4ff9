"""Relaxation times of the digital trial's tissues, before and after gadolinium.

Sources
-------
Myocardium: T2 of healthy volunteers by Granitz et al. 2019 (Wien Klin Wochenschr 131:143,
doi:10.1007/s00508-018-1411-3); T1 such that the simulated MOLLI 5(3)3 reads the 996 and 1184 ms they
measured with it, as MOLLI underestimates (Chow et al. 2012, Proc ISMRM 395). Amyloid raises it: 967 ms in
healthy, 1097 ms in ATTR hearts (Fontana et al. 2014, JACC Cardiovasc Imaging 7:157,
doi:10.1016/j.jcmg.2013.10.008).
Blood: T1 from hematocrit at 3 T by Lu et al. 2004 (doi:10.1002/mrm.20178, arterial), at 1.5 T by Treibel et
al. 2016 (doi:10.1016/j.jcmg.2015.11.008); T2 by Stanisz et al. 2005 (doi:10.1002/mrm.20605).
Liver, muscle, fat: de Bazelaire et al. 2004 (doi:10.1148/radiol.2303021331).
Gadobutrol in plasma: Szomolanyi et al. 2019 (doi:10.1097/RLI.0000000000000577).
Proton densities, extracellular fractions outside the heart and everything about the lung are illustrative: no
result depends on them.
"""

from dataclasses import dataclass

FIELD_STRENGTHS_T = (1.5, 3.0)
"""Field strengths [T] that the tables below cover."""

ECV_HEALTHY_FRACTION = 0.25
_T1_PER_ECV = 0.46
"""Relative rise of native myocardial T1 per unit of ECV: 13 % from healthy to ATTR, taken as ECV 0.54."""

_BLOOD_R1_PER_S: dict[float, tuple[float, float]] = {
    1.5: (1000 / 866.0, 1000 * 0.1232 / 866.0),
    3.0: (0.52, 0.38),
}
"""Slope and intercept of native blood R1 [1/s] over hematocrit [fraction]."""

_RELAXIVITY_L_PER_MMOL_S: dict[float, float] = {1.5: 4.78, 3.0: 4.97}


@dataclass(frozen=True, slots=True)
class Tissue:
    """What the sequence sees of a tissue without gadolinium."""

    t1_ms: float
    """Native T1 [ms]."""
    t2_ms: float
    """T2 [ms]."""
    proton_density: float
    """Relative to water, 0-1."""
    extracellular_fraction: float
    """Share of the volume that gadolinium reaches, 0-1."""


_SURROUNDINGS: dict[float, dict[str, Tissue]] = {
    1.5: {
        "fat": Tissue(t1_ms=343.0, t2_ms=58.0, proton_density=0.9, extracellular_fraction=0.03),
        "muscle": Tissue(t1_ms=856.0, t2_ms=27.0, proton_density=0.75, extracellular_fraction=0.12),
        "lung": Tissue(t1_ms=1200.0, t2_ms=20.0, proton_density=0.15, extracellular_fraction=0.3),
        "liver": Tissue(t1_ms=586.0, t2_ms=46.0, proton_density=0.75, extracellular_fraction=0.3),
    },
    3.0: {
        "fat": Tissue(t1_ms=382.0, t2_ms=68.0, proton_density=0.9, extracellular_fraction=0.03),
        "muscle": Tissue(t1_ms=898.0, t2_ms=29.0, proton_density=0.75, extracellular_fraction=0.12),
        "lung": Tissue(t1_ms=1300.0, t2_ms=18.0, proton_density=0.15, extracellular_fraction=0.3),
        "liver": Tissue(t1_ms=809.0, t2_ms=34.0, proton_density=0.75, extracellular_fraction=0.3),
    },
}

_MYOCARDIUM: dict[float, Tissue] = {
    1.5: Tissue(t1_ms=1180.0, t2_ms=55.8, proton_density=0.8, extracellular_fraction=ECV_HEALTHY_FRACTION),
    3.0: Tissue(t1_ms=1440.0, t2_ms=51.6, proton_density=0.8, extracellular_fraction=ECV_HEALTHY_FRACTION),
}

_BLOOD_T2_MS: dict[float, float] = {1.5: 290.0, 3.0: 275.0}


def surroundings(field_strength_t: float) -> dict[str, Tissue]:
    """Tissues around the heart."""
    return _SURROUNDINGS[field_strength_t]


def myocardium(ecv_fraction: float, field_strength_t: float) -> Tissue:
    """Myocardium whose native T1 rises with its ECV."""
    healthy = _MYOCARDIUM[field_strength_t]
    return Tissue(
        t1_ms=healthy.t1_ms * (1 + _T1_PER_ECV * (ecv_fraction - ECV_HEALTHY_FRACTION)),
        t2_ms=healthy.t2_ms,
        proton_density=healthy.proton_density,
        extracellular_fraction=ecv_fraction,
    )


def blood(hematocrit_fraction: float, field_strength_t: float) -> Tissue:
    """Blood, whose plasma is its extracellular volume."""
    slope, intercept = _BLOOD_R1_PER_S[field_strength_t]
    return Tissue(
        t1_ms=1000 / (slope * hematocrit_fraction + intercept),
        t2_ms=_BLOOD_T2_MS[field_strength_t],
        proton_density=0.95,
        extracellular_fraction=1 - hematocrit_fraction,
    )


def post_contrast_t1_ms(
    tissue: Tissue, plasma_gadolinium_mmol_per_l: float, field_strength_t: float
) -> float:
    r"""T1 [ms] once gadolinium has the plasma's concentration in the whole extracellular volume.

    .. math:: 1/T_{1,post} = 1/T_{1,native} + r_1 \, c_{plasma} \, v_{extracellular}

    As blood's extracellular volume is 1 - hematocrit, the ECV formula (`ecv_map`) gives back the tissue's.
    """
    delta_r1_per_s = (
        _RELAXIVITY_L_PER_MMOL_S[field_strength_t]
        * plasma_gadolinium_mmol_per_l
        * tissue.extracellular_fraction
    )
    return 1000 / (1000 / tissue.t1_ms + delta_r1_per_s)
