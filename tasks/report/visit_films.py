"""Every echo of a slice in a row, as acquired and as aligned, with the guide and the echo's own contours."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tasks.report.visit_arrays import BLOOD, MYOCARDIUM, RV, Array, SliceArrays
from tasks.report.visit_images import Crop, film_strip
from tasks.report.visit_outlines import outline


@dataclass(frozen=True, slots=True)
class Strip:
    """Echoes side by side."""

    image: str
    """Data URI."""
    walls: tuple[str, ...]
    """Borders of the myocardium on each echo, as paths."""
    ventricles: tuple[str, ...]
    """Border of the RV on each echo."""


@dataclass(frozen=True, slots=True)
class Film:
    """The echoes of one slice of one role."""

    role: str
    """``native`` or ``post``."""
    index: int
    """Index of the slice."""
    level: str
    """Its level."""
    crop: Crop
    """What part of the slice is shown."""
    guide: str
    """Borders of the guide's myocardium and RV, as a path; empty without a guide."""
    acquired: Strip
    """Echoes where they were acquired."""
    aligned: Strip | None
    """Echoes on the pixels of the reference; None where alignment moved none."""
    ti_ms: Array
    """Inversion time of each echo [ms]."""
    captions: tuple[str, ...]
    """What is to be said of each echo."""
    reference: int
    """Echo that the guide was drawn on."""
    about_guide: str
    """Where the guide came from and how it passed its checks."""
    before_mm: Array
    """Distance of the heart's center from that on the reference echo as acquired; NaN without a mask [mm]."""
    after_mm: Array
    """The same as aligned [mm]."""


def make_film(one: SliceArrays, aligned: torch.Tensor, crop: Crop, rows: list[dict[str, Any]]) -> Film:
    """Draw the echoes of a slice.

    Parameters
    ----------
    one
        The slice.
    aligned
        Its aligned echoes.
    crop
        What is shown.
    rows
        Rows of the table ``echoes`` of this slice and role.
    """
    masks_aligned = one.aligned_masks()
    guide = outline(one.guide[MYOCARDIUM], crop) + outline(one.guide[RV], crop)
    of_echo = {row["echo_index"]: row for row in rows}
    return Film(
        role=one.role,
        index=one.index,
        level=one.level,
        crop=crop,
        guide=guide,
        acquired=_strip(one.echoes, one.masks, crop),
        aligned=_strip(aligned.numpy(), masks_aligned, crop) if one.is_moved else None,
        ti_ms=one.ti_ms,
        captions=tuple(_caption(one, echo, of_echo.get(echo)) for echo in range(len(one.ti_ms))),
        reference=one.reference,
        about_guide=_about_guide(one),
        before_mm=_off_reference_mm(one, one.masks),
        after_mm=_off_reference_mm(one, masks_aligned),
    )


def _strip(echoes: Array, masks: Array, crop: Crop) -> Strip:
    return Strip(
        image=film_strip(crop.of(echoes)),
        walls=tuple(outline(mask, crop) for mask in masks[MYOCARDIUM]),
        ventricles=tuple(outline(mask, crop) for mask in masks[RV]),
    )


def _caption(one: SliceArrays, echo: int, row: dict[str, Any] | None) -> str:
    """Say what a reader wants to know of an echo."""
    parts = [
        f"echo {echo + 1} of {len(one.ti_ms)}",
        f"TI {one.ti_ms[echo]:.0f} ms",
        f"acquired as no. {one.acquisition_index[echo] + 1}",
    ]
    if row is None:
        return " · ".join(parts)
    if echo == one.reference:
        parts.append("reference, on which the guide lies")
    else:
        state = row["alignment"].replace("_", " ")
        moved = row["aligned_mm"]
        parts.append(f"{state} ({moved:.1f} mm)" if moved else state)
    if row["dice_guide"] is not None:
        parts.append(f"Dice with guide {row['dice_guide']:.2f}")
    return " · ".join(parts)


_ORIGINS = {
    "reader": "drawn by a reader",
    "model": "found by the network",
    "baseline": "lent by the first visit",
}
"""Who drew a guide, in words."""


def _about_guide(one: SliceArrays) -> str:
    note = one.guide_note
    if not one.guide[MYOCARDIUM].any():
        return "no guide"
    if note is None:
        return "guide of unknown origin"
    origin = _ORIGINS[note["origin"]]
    found = f"; {'; '.join(note['findings'])}" if note["findings"] else ""
    return f"guide {origin}, score {note['score']:.2f}{found}"


def _off_reference_mm(one: SliceArrays, masks: Array) -> Array:
    """Distance of the LV's center on each echo from that on the reference echo [mm]; NaN without a mask."""
    ventricle = masks[MYOCARDIUM] | masks[BLOOD]
    centers = np.array([_center_mm(mask, one.spacing_mm) for mask in ventricle])
    distance: Array = np.linalg.norm(centers - centers[one.reference], axis=1)
    return distance


def _center_mm(mask: Array, spacing_mm: tuple[float, float]) -> Array:
    if not mask.any():
        return np.full(2, np.nan)
    rows, cols = np.nonzero(mask)
    return np.array([rows.mean(), cols.mean()]) * spacing_mm
