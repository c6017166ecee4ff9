"""Scans of the digital trial as the pipeline sees them after segmentation, kept on disk with their truth."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor

from cmrcore.phantom import SimulatedScan, simulate_scan
from cmrcore.phantom.difficulty import Difficulty
from cmrcore.phantom.trial import RoleEchoes
from cmrcore.quantify.records import GuideNote, Role, Series
from cmrcore.segmentation import Guide, GuidedSegmenter, base_probability, find_guide, reader_guide
from cmrcore.segmentation.networks import network_from
from cmrcore.segmentation.unet import UNet
from flows.simulate import SCHEME_NATIVE, SCHEME_NATIVE_11, SCHEME_POST

ROLES: tuple[Role, Role] = ("native", "post")
ALPHA = 0.25


@dataclass(frozen=True, slots=True)
class TrueRole:
    """What one role truly shows."""

    walls: Bool[Tensor, "slice ti row col"]
    """True myocardium on each echo, by inversion time."""
    heart: Bool[Tensor, "label slice row col"]
    """True labels on the first-acquired echo."""
    t1_ms: tuple[float, ...]
    """Ideal T1 of each slice [ms]."""


@dataclass(frozen=True, slots=True)
class DrawnScan:
    """A segmented scan with its truth."""

    series: Mapping[Role, Series]
    """What the pipeline has."""
    truth: Mapping[Role, TrueRole]
    """What it does not know."""
    hematocrit_fraction: float
    """Hematocrit, 0-1."""
    field_strength_t: float
    """Field strength [T]."""


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks that segment."""

    base: UNet
    """Finds guides."""
    guided: GuidedSegmenter
    """Reads every echo."""

    @classmethod
    def read(cls, folder: Path) -> "Networks":
        """Read both from a folder."""
        base, guided = (
            network_from(load_file(folder / f"{name}.safetensors")) for name in ("base", "guided")
        )
        return cls(base, GuidedSegmenter(guided))


def draw_scan(seed: int, subject: int, difficulty: Difficulty, networks: Networks) -> DrawnScan:
    """Simulate a scan and segment it with predicted guides."""
    scan = simulate_scan(
        seed,
        subject,
        0,
        scheme_native=SCHEME_NATIVE_11 if subject % 2 else SCHEME_NATIVE,
        scheme_post=SCHEME_POST,
        difficulty=difficulty,
    )
    series = {role: _series(scan, getattr(scan, role)) for role in ROLES}
    drawn = DrawnScan(
        series,
        {role: _truth(scan, role, series[role].acquisition_index) for role in ROLES},
        scan.hematocrit_fraction,
        scan.field_strength_t,
    )
    every = range(len(scan.levels))
    return replace(drawn, series={role: segment(series[role], every, networks) for role in ROLES})


def segment(
    series: Series,
    slices: range | tuple[int, ...],
    networks: Networks,
    drawn: Bool[Tensor, "label row col"] | None = None,
) -> Series:
    """Find, or take as a reader's, the guide of some slices and read their masks anew.

    Parameters
    ----------
    series
        Echoes, with masks of the other slices.
    slices
        Which slices.
    networks
        What segments.
    drawn
        A reader's guide of these slices on their first-acquired echo; None to find one.
    """
    shape = series.echoes.shape
    masks = _copy(series.masks, (3, *shape), torch.bool)
    guides = _copy(series.guide, (3, shape[0], *shape[2:]), torch.bool)
    confidence = _copy(series.confidence, shape[:2], torch.float32)
    reference, notes = series.reference().clone(), list(series.guide_notes or [None] * shape[0])
    for index in slices:
        echoes, spacing_mm = series.echoes[index], series.pixel_spacing_mm
        first = int(series.acquisition_index[index].argmin())
        guide = (
            find_guide(
                lambda images: base_probability(networks.base, images, spacing_mm),  # noqa: B023
                echoes,
                spacing_mm,
                first,
            )
            if drawn is None
            else reader_guide(drawn, echoes, spacing_mm, first)
        )
        masks[:, index], guides[:, index], confidence[index], notes[index] = False, False, torch.nan, None
        reference[index] = first
        if guide is None:
            continue
        found = networks.guided(echoes, spacing_mm, guide, ALPHA)
        masks[:, index], guides[:, index], confidence[index] = found.masks, guide.masks, found.confidence
        reference[index], notes[index] = guide.echo, _note(guide)
    return replace(
        series,
        masks=masks,
        guide=guides,
        confidence=confidence,
        reference_echo=reference,
        guide_notes=tuple(notes),
    )


def write_scan(drawn: DrawnScan, file: Path) -> None:
    """Keep a scan."""
    kept = {
        role: (
            {one.name: getattr(drawn.series[role], one.name) for one in fields(Series)}
            | {"guide_notes": [note and _plain(note) for note in drawn.series[role].guide_notes]},
            _plain(drawn.truth[role]),
        )
        for role in ROLES
    }
    aside = file.with_suffix(".part")
    of_scan = {name: getattr(drawn, name) for name in ("hematocrit_fraction", "field_strength_t")}
    torch.save(kept | of_scan, aside)
    aside.replace(file)


def read_scan(file: Path) -> DrawnScan:
    """Read a kept scan."""
    kept: dict[str, Any] = torch.load(file)
    series, truth = {}, {}
    for role in ROLES:
        values, true = kept[role]
        notes = tuple(note and GuideNote(**note) for note in values.pop("guide_notes"))
        series[role], truth[role] = Series(**values, guide_notes=notes), TrueRole(**true)
    return DrawnScan(series, truth, kept["hematocrit_fraction"], kept["field_strength_t"])


def _series(scan: SimulatedScan, echoes: RoleEchoes) -> Series:
    """Echoes by inversion time, in whole numbers as DICOM has them, still without masks."""
    order = echoes.ti_ms.argsort(dim=1)
    place = order[:, :, None, None].expand_as(echoes.echoes)
    geometry = scan.geometry
    return Series(
        echoes=echoes.echoes.round().gather(1, place),
        ti_ms=echoes.ti_ms.gather(1, order).double(),
        acquisition_index=order,
        masks=None,
        guide=None,
        confidence=None,
        positions_mm=torch.as_tensor(geometry.positions_mm, dtype=torch.float64),
        pixel_spacing_mm=geometry.pixel_spacing_mm,
        orientation=tuple(geometry.orientation),
        anterior=(-1.0, 0.0),
        levels=scan.levels,
        scheme=echoes.scheme,
    )


def _truth(scan: SimulatedScan, role: Role, order: Int[Tensor, "slice ti"]) -> TrueRole:
    echoes: RoleEchoes = getattr(scan, role)
    walls: Tensor = echoes.labels[0].gather(1, order[:, :, None, None].expand_as(echoes.labels[0]))
    ideal = tuple(float(one[f"t1_{role}_ms_ideal"]) for one in scan.truth.slices)
    return TrueRole(walls, echoes.labels[:, :, 0].clone(), ideal)


def _note(guide: Guide) -> GuideNote:
    return GuideNote(guide.origin, guide.score, guide.findings, guide.rejected)


def _plain(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the records here
    return {one.name: getattr(record, one.name) for one in fields(record)}


def _copy(
    values: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype
) -> Float[Tensor, "..."] | Bool[Tensor, "..."]:
    return torch.zeros(shape, dtype=dtype) if values is None else values.clone()
