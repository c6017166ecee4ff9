"""A published visit of two slices that readers decide about, and their decisions files."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from storage.arrays import content_digest, store_path, write_array, write_store
from storage.tables import publish
from tests.storage.drawn_rows import row, visit_row

RESULT = "ab" * 32
SLICES = [(role, index) for role in ("native", "post") for index in (0, 1)]
Slices = dict[tuple[str, int], dict[str, Any]]
"""What a decisions file says of some slices."""

DECIDED_AT = datetime(2026, 3, 6, 20, 30, tzinfo=UTC)


def publish_visit(
    root: Path, result_digest: str = RESULT, flags: list[dict[str, Any]] | None = None, **arrays: Any
) -> None:
    """Publish the visit with its arrays; those named ``<role>_<array>`` take the place of the drawn ones."""
    with write_store(root, "S01", "V1", result_digest) as store:
        write_seen(store, **arrays)
    ids = {"result_digest": result_digest}
    echoes = [row("echoes", **ids, role=role, slice_index=index) for role, index in SLICES]
    rows = {
        "scans": [row("scans", **ids)],
        "echoes": echoes,
        "flags": [row("flags", **ids) | flag for flag in flags or []],
    }
    visit = visit_row(**ids, published_at=datetime.now(UTC), reviews_digest=None)
    arrays_digest = content_digest(store_path(root, "S01", "V1", result_digest))
    publish(root, visit, rows, "core lab", "night", arrays_digest)


def write_seen(store: zarr.Group, **arrays: Any) -> None:
    """Write what a reader sees of both series: echoes, masks, guides."""
    pixels = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    for role in ("native", "post"):
        drawn: dict[str, tuple[Any, str]] = {
            "echoes": (pixels, "slice ti row col"),
            "ti_ms": (np.array([[100.0, 1000.0, 2000.0]] * 2), "slice ti"),
            "masks": (np.stack([pixels % 2 > 0] * 3), "label slice ti row col"),
            "reference_echo": (np.zeros(2, dtype=np.int64), "slice"),
            "guide": (np.stack([pixels[:, 0] % 2 > 0] * 3), "label slice row col"),
        }
        for name, (values, axes) in drawn.items():
            values = arrays.get(f"{role}_{name}", values)
            notes = {"guides": [{"origin": arrays.get("origin", "model")}] * 2} if name == "guide" else None
            write_array(store, f"{role}/{name}", values, "1", axes, notes)


def decisions(of_slices: Slices | None = None, **values: Any) -> dict[str, Any]:
    """Give the contents of a decisions file: all accepted, but for some slices and values."""
    own = of_slices or {}
    return {
        "format": "cmrtrials-decisions",
        "version": 1,
        "trial_id": "demo",
        "subject_id": "S01",
        "visit_id": "V1",
        "result_digest": RESULT,
        "reader_id": "R1",
        "decided_at": "2026-03-06T20:30:00Z",
        "slices": [
            {"role": role, "slice_index": index, "guide": "accepted", "decision": "accept", "comment": ""}
            | own.get((role, index), {})
            for role, index in SLICES
        ],
    } | values


def write_decisions(path: Path, contents: dict[str, Any]) -> Path:
    """Write a decisions file."""
    path.write_text(json.dumps(contents))
    return path


def review_rows_of(**values: Any) -> list[dict[str, Any]]:
    """Give the rows of a review of the visit, with some values of their own."""
    usual = {
        "result_digest": RESULT,
        "reader_id": "R1",
        "accepted_flags": [],
        "accepted_values": [],
        "decided_at": DECIDED_AT,
        "file_digest": "file-1",
    }
    return [
        row("reviews", **{**usual, "role": role, "slice_index": index, **values}) for role, index in SLICES
    ]
