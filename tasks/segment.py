"""Segmentation of a visit: echo stacks and guides in, masks of every echo out."""

from typing import Any

import numpy as np
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE

from cmrcore.segmentation import Segmenter, carry_guide, complete_guide
from storage.arrays import read_array, read_stack, stored_roles, write_array, write_store
from storage.config import SegmentConfig
from tasks.stage import StageResult, VisitRef, run_stage

SEGMENTERS: dict[str, Segmenter] = {"carry": carry_guide}
"""What ``segment.method`` of trial.toml may name."""


@task(name="segment", task_run_name="segment {visit.label}", cache_policy=NO_CACHE, persist_result=False)
def segment(
    visit: VisitRef, echoes_digest: str, config: SegmentConfig, digest: str, force: bool
) -> StageResult:
    """Find the labels on every echo of every slice that has a guide."""
    segmenter = SEGMENTERS[config.method]
    ids = (visit.subject_id, visit.visit_id)

    def work() -> str:
        n_guided = 0
        with write_store(visit.path, *ids, digest, extends=echoes_digest) as store:
            store.attrs["segment_digest"] = digest
            for role in stored_roles(store):
                uploaded = read_array(store, f"{role}/uploaded_guide")
                if uploaded is None:
                    continue
                found = segment_series(segmenter, read_stack(store, role).echoes, uploaded, config.alpha)
                n_guided += int(uploaded[0].any(axis=(1, 2)).sum())
                write_array(store, f"{role}/guide", found["guide"], "1", "label slice row col")
                write_array(store, f"{role}/masks", found["masks"], "1", "label slice ti row col")
                write_array(store, f"{role}/confidence", found["confidence"], "1", "slice ti")
        return f"method={config.method} alpha={config.alpha} guided_slices={n_guided}"

    return run_stage(visit, "segment", digest, work, force=force)


def segment_series(
    segmenter: Segmenter, echoes: np.ndarray[Any, Any], uploaded: np.ndarray[Any, Any], alpha: float
) -> dict[str, np.ndarray[Any, Any]]:
    """Segment the slices of one series one by one.

    Parameters
    ----------
    segmenter
        Finds the labels on the echoes of one slice.
    echoes
        Magnitudes [a.u.], axes ``slice ti row col``.
    uploaded
        Guide as uploaded, axes ``label slice row col``; a slice without one is all False.
    alpha
        Weight of the guide, 0-1.
    """
    guides, masks, confidences = [], [], []
    for slice_index, slice_echoes in enumerate(echoes):
        guide = complete_guide(torch.from_numpy(uploaded[:, slice_index].astype(bool)))
        found = segmenter(torch.from_numpy(slice_echoes), guide, alpha)
        guides.append(guide.numpy())
        masks.append(found.masks.numpy())
        confidences.append(found.confidence.numpy())
    return {
        "guide": np.stack(guides, axis=1),
        "masks": np.stack(masks, axis=1),
        "confidence": np.stack(confidences),
    }
