"""Subjects of the digital trial over their visits: disease, treatment, and the scanner of their site.

Sources
-------
Untreated ATTR hearts gain 4.1 points of ECV in one year and 6.8 in two, treated ones stay (+0.2, -0.2); five
points are taken as a true change (Patel et al. 2025, Eur Heart J). In another cohort the medians were +5.7
untreated and +2.3 treated, the quartiles of all -1.9 and +6.9 (Duca et al. 2024, doi:10.1093/ehjci/jead188).
A fall by treatment, and how wall thickness follows ECV, are ours.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from cmrcore.phantom.anatomy import Anatomy, Grid, HeartKind, draw_anatomy, remodel
from cmrcore.phantom.tissue import Group, draw_ecv_fractions

Choice = TypeVar("Choice", bound=str)
Course = Literal["stable", "progression", "response"]

_KIND_SHARES: dict[HeartKind, float] = {
    "amyloid": 0.6,
    "normal": 0.2,
    "hypertrophied": 0.1,
    "dilated": 0.05,
    "thin_apex": 0.05,
}
"""Hearts of a trial of ATTR with controls; those of training images are any."""
_CONTROL_SHARES: dict[Group, float] = {"control": 0.7, "scar": 0.3}
_COURSE_SHARES: dict[Course, float] = {"stable": 0.4, "progression": 0.3, "response": 0.3}
_ECV_PER_VISIT: dict[Course, tuple[float, float]] = {
    "stable": (0.0, 0.003),
    "progression": (0.02, 0.006),
    "response": (-0.02, 0.006),
}
"""Mean and standard deviation of the change of ECV from visit to visit, half a year apart [fraction]."""
_WALL_MM_PER_ECV = 12.0
_MODELS: tuple[tuple[str, float, Grid], ...] = (
    ("A15", 1.5, Grid(n_rows=176, n_cols=176, pixel_mm=1.5)),
    ("B30", 3.0, Grid(n_rows=192, n_cols=192, pixel_mm=1.4)),
    ("C15", 1.5, Grid(n_rows=144, n_cols=160, pixel_mm=2.0)),
    ("D30", 3.0, Grid(n_rows=160, n_cols=176, pixel_mm=1.7)),
)


@dataclass(frozen=True, slots=True)
class Scanner:
    """What a site images with."""

    model: str
    """Name of the model, without meaning."""
    field_strength_t: float
    """Field strength [T]."""
    grid: Grid
    """Pixels of its images."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What stays the same between a subject's visits, and what changes from each to the next."""

    anatomy: Anatomy
    """Body and heart at baseline."""
    kind: HeartKind
    """Kind of heart."""
    ecv_fraction: float
    """ECV of the mid level at baseline, 0-1."""
    lesion_ecv_fraction: float | None
    """ECV within the focal lesion at baseline, 0-1; None if it is like the rest."""
    course: Course
    """Whether the disease rests, goes on, or gives way to treatment."""
    ecv_change_per_visit: float
    """What ECV gains from one visit to the next [fraction]."""
    wall_change_mm_per_visit: float
    """What the wall gains from one visit to the next [mm]."""
    hematocrit_fraction: float
    """Usual hematocrit, 0-1."""
    rr_ms: float
    """Usual length of a heart beat [ms]."""
    tissue_seed: int
    """Seed of how the relaxation times differ from the mean."""


@dataclass(frozen=True, slots=True)
class VisitState:
    """The subject at one visit: the longitudinal truth."""

    visit_index: int
    """Which visit, from 0."""
    course: Course
    """Course of the disease."""
    ecv_fraction: float
    """ECV of the mid level, 0-1."""
    ecv_change_fraction: float
    """What ECV has gained since the first visit."""
    lesion_ecv_fraction: float | None
    """ECV within the focal lesion, 0-1; None if it is like the rest."""
    wall_change_mm: float
    """What the wall has gained since the first visit [mm]."""
    anatomy: Anatomy
    """Body and heart, remodeled."""


def draw_subject(rng: np.random.Generator) -> Subject:
    """Subject of an ATTR trial: amyloid hearts that change or do not, and controls that do not."""
    kind = _choose(rng, _KIND_SHARES)
    amyloid = kind == "amyloid"
    ecv, lesion_ecv = draw_ecv_fractions(rng, "attr" if amyloid else _choose(rng, _CONTROL_SHARES))
    course = _choose(rng, _COURSE_SHARES)
    mean, spread = _ECV_PER_VISIT[course if amyloid else "stable"]
    change = float(rng.normal(mean, spread))
    variation = int(rng.integers(2**62))
    return Subject(
        anatomy=draw_anatomy(rng, kind),
        kind=kind,
        ecv_fraction=ecv,
        lesion_ecv_fraction=lesion_ecv,
        course=course if amyloid else "stable",
        ecv_change_per_visit=change,
        wall_change_mm_per_visit=_WALL_MM_PER_ECV * change,
        hematocrit_fraction=float(rng.uniform(0.36, 0.46)),
        rr_ms=float(rng.uniform(750, 1050)),
        tissue_seed=variation,
    )


def visit_state(subject: Subject, visit_index: int) -> VisitState:
    """State of a subject at a visit; ECV stays between 0.2 and 0.7."""
    ecv = float(np.clip(subject.ecv_fraction + visit_index * subject.ecv_change_per_visit, 0.2, 0.7))
    wall_mm = visit_index * subject.wall_change_mm_per_visit
    change, lesion = ecv - subject.ecv_fraction, subject.lesion_ecv_fraction
    return VisitState(
        visit_index=visit_index,
        course=subject.course,
        ecv_fraction=ecv,
        ecv_change_fraction=change,
        lesion_ecv_fraction=None if lesion is None else float(np.clip(lesion + change, 0.2, 0.8)),
        wall_change_mm=wall_mm,
        anatomy=remodel(subject.anatomy, wall_mm),
    )


def site_scanner(
    seed: int, site_index: int, visit_index: int = 0, changes_at_visit: int | None = None
) -> Scanner:
    """Scanner of a site at a visit.

    Parameters
    ----------
    seed
        Seed of the trial.
    site_index
        Which site, from 0.
    visit_index
        Which visit, from 0.
    changes_at_visit
        Visit from which on the site has another scanner, of the other field strength; None if it keeps its
        own.
    """
    rng = np.random.default_rng([seed, site_index, 2**20])
    first = int(rng.integers(len(_MODELS)))
    if changes_at_visit is None or visit_index < changes_at_visit:
        return Scanner(*_MODELS[first])
    others = [model for model in _MODELS if model[1] != _MODELS[first][1]]
    return Scanner(*others[int(rng.integers(len(others)))])


def _choose(rng: np.random.Generator, shares: dict[Choice, float]) -> Choice:
    """Choose a key, as often as its share says."""
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
