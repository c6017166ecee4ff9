"""Segmentation of a visit: echo stacks and readers' guides in, guides and masks of every echo out."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import zarr
from jaxtyping import Bool, Float
from prefect import task
from prefect.cache_policies import NO_CACHE
from torch import Tensor

from cmrcore.segmentation import (
    LABELS,
    EarlierGuides,
    EchoMasks,
    Guide,
    GuidedSegmenter,
    Lent,
    Planes,
    Segmenter,
    base_probability,
    carry_guide,
    choose_guide,
    guide_from_earlier,
)
from cmrcore.segmentation.heart import Look
from cmrcore.threads import one_thread
from storage.arrays import (
    open_store,
    read_array,
    read_notes,
    read_stack,
    stored_roles,
    write_array,
    write_store,
)
from storage.config_segment import SegmentConfig
from storage.dicom_series import EchoStack
from storage.place import Place
from storage.series_rules import Role
from tasks.stage import GuideSource, StageResult, VisitRef, run_stage
from tasks.weights import load_network

GuideFinder = Callable[
    [Float[Tensor, "ti row col"], tuple[float, float], int, Bool[Tensor, "label row col"] | None],
    Guide | None,
]
"""Finds the guide of a slice: magnitudes, pixel spacing [mm], first-acquired echo, masks of a reader."""

GuideLender = Callable[[Guide, Float[Tensor, "row col"], int], Guide]
"""Lets another visit's guide take the place of a slice's own: own guide, its echo [a.u.], which slice."""


@dataclass(frozen=True, slots=True)
class SliceMasks:
    """What segmentation says of one slice."""

    guide: Guide
    """The guide, from a reader or found."""
    found: EchoMasks
    """Masks on every echo."""


@task(name="segment", task_run_name="segment {visit.label}", cache_policy=NO_CACHE, persist_result=False)
def segment(
    visit: VisitRef,
    echoes_digest: str,
    config: SegmentConfig,
    digest: str,
    force: bool,
    source: GuideSource | None = None,
) -> StageResult:
    """Find the labels on every echo of every slice that has a guide, or on which one is found.

    ``source`` is the visit that lends its guides to this one; None where trial.toml has none lent, or where
    there is none.

    Computed on one thread, so that a rerun on a CPU stores the same bytes, however many threads it is given.
    """
    ids = (visit.subject_id, visit.visit_id)
    device = compute_device()

    def work() -> str:
        segmenter, finder = segmenter_of(visit.path, config, device), finder_of(visit.path, config, device)
        slices: list[SliceMasks | None] = []
        with one_thread(), write_store(visit.path, *ids, digest, extends=echoes_digest) as store:
            store.attrs["segment_digest"] = digest
            store.attrs["segmentation"] = config.model_dump(mode="json")
            for role in stored_roles(store):
                stack = read_stack(store, role)
                uploaded = read_array(store, f"{role}/uploaded_guide")
                lender = None if source is None else lender_of(visit, source, role, stack)
                of_role = segment_series(segmenter, finder, stack, uploaded, config.alpha, lender)
                if any(of_role):
                    write_masks(store, role, of_role, stack, source)
                slices += of_role
        return f"method={config.method} alpha={config.alpha:g} {describe(slices)}"

    return run_stage(visit, "segment", digest, work, force=force, device=str(device))


def compute_device() -> torch.device:
    """GPU if this worker process sees one, else CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def segmenter_of(root: Place, config: SegmentConfig, device: torch.device) -> Segmenter:
    """Choose what trial.toml names as ``segment.method``; with a base network the guide follows the heart."""
    if config.method == "carry":
        return carry_guide
    return GuidedSegmenter(load_network(root, "guided", config.guided, device), look_of(root, config, device))


def look_of(root: Place, config: SegmentConfig, device: torch.device) -> Look | None:
    """Choose the base network; None where trial.toml names none."""
    if not config.base:
        return None
    return partial(base_probability, load_network(root, "base", config.base, device))


def finder_of(root: Place, config: SegmentConfig, device: torch.device) -> GuideFinder:
    """Choose what finds a guide; without a base network in trial.toml there are readers' guides only."""
    return partial(choose_guide, look_of(root, config, device))


def lender_of(visit: VisitRef, source: GuideSource, role: Role, stack: EchoStack) -> GuideLender:
    """Read what another visit of the subject lends to a series."""
    store = open_store(visit.path, visit.subject_id, source.visit_id, source.segment_digest)
    earlier, planes = read_guides(store, role), planes_of(stack)

    def lend(own: Guide, image: Float[Tensor, "row col"], index: int) -> Guide:
        return guide_from_earlier(own, image, planes, index, earlier)

    return lend


def read_guides(store: zarr.Group, role: Role) -> EarlierGuides | None:
    """Read the guides of a series; None where it has none."""
    masks = read_array(store, f"{role}/guide")
    if masks is None:
        return None
    notes = read_notes(store, f"{role}/guide")["guides"]
    known = tuple(
        None if note is None or note["findings"] else Lent(index, note["origin"], note["score"])
        for index, note in enumerate(notes)
    )
    return EarlierGuides(torch.from_numpy(masks), known, planes_of(read_stack(store, role)))


def planes_of(stack: EchoStack) -> Planes:
    """Give where the slices of a stack lie in the patient."""
    return Planes(stack.positions_mm, stack.orientation, stack.pixel_spacing_mm)


def segment_series(
    segmenter: Segmenter,
    finder: GuideFinder,
    stack: EchoStack,
    uploaded: np.ndarray[Any, Any] | None,
    alpha: float,
    lender: GuideLender | None = None,
) -> list[SliceMasks | None]:
    """Segment the slices of one series one by one; None where a slice has no guide.

    Parameters
    ----------
    segmenter
        Finds the labels on the echoes of one slice.
    finder
        Finds the guide, or takes the reader's.
    stack
        The series.
    uploaded
        Guides of a reader, axes ``label slice row col``, all False in a slice without one.
    alpha
        Weight of the guide, 0-1.
    lender
        What lets another visit's guide take the place of a found one; None to leave it.
    """
    slices: list[SliceMasks | None] = []
    for index, magnitudes in enumerate(stack.echoes):
        echoes = torch.from_numpy(magnitudes)
        first_acquired = int(stack.acquisition_index[index].argmin())
        drawn = None
        if uploaded is not None and uploaded[0, index].any():
            drawn = torch.from_numpy(uploaded[:, index].astype(bool))
        guide = finder(echoes, stack.pixel_spacing_mm, first_acquired, drawn)
        if guide is not None and lender is not None:
            guide = lender(guide, echoes[guide.echo], index)
        if guide is None:
            slices.append(None)
        else:
            slices.append(SliceMasks(guide, segmenter(echoes, stack.pixel_spacing_mm, guide, alpha)))
    return slices


def write_masks(
    store: zarr.Group,
    role: str,
    slices: list[SliceMasks | None],
    stack: EchoStack,
    source: GuideSource | None,
) -> None:
    """Write guides and masks of one role; a slice without a guide has empty masks and no confidence.

    The reference echo of such a slice is the first-acquired one.
    """
    n_slices, n_ti, n_rows, n_cols = stack.echoes.shape
    guides = np.zeros((len(LABELS), n_slices, n_rows, n_cols), dtype=bool)
    masks = np.zeros((len(LABELS), n_slices, n_ti, n_rows, n_cols), dtype=bool)
    confidence = np.full((n_slices, n_ti), np.nan, dtype=np.float32)
    agreement = confidence.copy()
    reference_echo = stack.acquisition_index.argmin(axis=1)
    for index, one in enumerate(slices):
        if one is not None:
            guides[:, index] = one.guide.masks.numpy()
            masks[:, index] = one.found.masks.numpy()
            confidence[index] = one.found.confidence.numpy()
            agreement[index] = one.found.agreement.numpy()
            reference_echo[index] = one.guide.echo
    notes = [None if one is None else note_of(one.guide, source) for one in slices]
    write_array(store, f"{role}/guide", guides, "1", "label slice row col", {"guides": notes})
    write_array(store, f"{role}/reference_echo", reference_echo, "1", "slice")
    write_array(store, f"{role}/masks", masks, "1", "label slice ti row col")
    write_array(store, f"{role}/confidence", confidence, "1", "slice ti")
    write_array(store, f"{role}/agreement", agreement, "1", "slice ti")


def note_of(guide: Guide, source: GuideSource | None = None) -> Mapping[str, Any]:
    """Say what is stored of a guide besides its masks; ``source`` is the visit that may have lent it."""
    return {
        "origin": guide.origin,
        "score": guide.score,
        "findings": list(guide.findings),
        "rejected": list(guide.rejected),
        "overlap": guide.overlap,
        "reader_replaced": guide.reader_replaced,
        "source": asdict(source) | asdict(guide.lent) if source and guide.lent else None,
        "not_carried": guide.not_carried,
    }


def describe(slices: list[SliceMasks | None]) -> str:
    """Count slices by the origin of their guide, and average how their masks agree with it."""
    origins = [one.guide.origin for one in slices if one is not None]
    agreements = [float(one.found.agreement.mean()) for one in slices if one is not None]
    counts = " ".join(f"by_{name}={origins.count(name)}" for name in ("reader", "model", "baseline"))
    counts += f" without_guide={len(slices) - len(origins)}"
    return counts + (f" agreement={np.mean(agreements):.3f}" if agreements else "")
