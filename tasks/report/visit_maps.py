"""The maps of a visit: one row a slice, each with the outline of the myocardium that it was read in."""

from dataclasses import dataclass

import numpy as np

from tasks.report.visit_arrays import MYOCARDIUM, Array, SliceArrays, VisitArrays
from tasks.report.visit_colors import ECV, R_SQUARED, ColorScale, t1_scale
from tasks.report.visit_images import Crop, color_bar, heart_crop, map_image
from tasks.report.visit_outlines import outline
from tasks.report.visit_window import heart_of


@dataclass(frozen=True, slots=True)
class Column:
    """A kind of map."""

    title: str
    """What it shows."""
    scale: ColorScale
    """Its colors."""
    bar: str
    """Bar of its colors, as a data URI."""
    is_blinded: bool
    """Whether it is shown only after the decision."""


@dataclass(frozen=True, slots=True)
class MapCell:
    """One map of one slice."""

    image: str
    """Data URI."""
    crop: Crop
    """What part of the slice it is."""
    outline: str
    """Path of the myocardium's borders."""
    alt: str
    """What it shows, in words."""


@dataclass(frozen=True, slots=True)
class MapRow:
    """The maps of one slice."""

    index: int
    """Index of the slice."""
    level: str
    """Its level."""
    cells: tuple[MapCell | None, ...]
    """One for each column; None where there is no such map."""


def map_columns(field_strength_t: float | None) -> tuple[tuple[Column, ...], str]:
    """Kinds of maps in the order they are shown, and the field strength that the T1 windows are made for."""
    native, field = t1_scale("native", field_strength_t)
    post, _ = t1_scale("post", field_strength_t)
    kinds = (
        ("T1 native", native, False),
        ("T1 post-contrast", post, False),
        ("ECV", ECV, True),
        ("R² native", R_SQUARED, False),
        ("R² post-contrast", R_SQUARED, False),
    )
    return tuple(
        Column(title, scale, color_bar(scale), is_blinded) for title, scale, is_blinded in kinds
    ), field


def slice_crops(visit: VisitArrays) -> dict[tuple[str, int], Crop]:
    """Part of each slice that is shown, the same for both roles where they have the same pixels.

    A slice without masks borrows the place of the heart from the others.
    """
    hearts: dict[str, Array] = {}
    crops = {}
    for role, slices in visit.slices.items():
        hearts[role] = np.any([heart_of(one) for one in slices], axis=0)
    for role, slices in visit.slices.items():
        other = hearts.get("native" if role == "post" else "post")
        for one in slices:
            heart = heart_of(one)
            twin = visit.find("native" if role == "post" else "post", one.index)
            if twin is not None and twin.t1_ms.shape == one.t1_ms.shape:
                heart = heart | heart_of(twin)
            if not heart.any():
                heart = hearts[role]
            if not heart.any() and other is not None and other.shape == heart.shape:
                heart = other
            crops[role, one.index] = heart_crop(
                (one.t1_ms.shape[0], one.t1_ms.shape[1]), one.spacing_mm, heart
            )
    return crops


def map_rows(
    visit: VisitArrays, columns: tuple[Column, ...], crops: dict[tuple[str, int], Crop]
) -> tuple[MapRow, ...]:
    """Every map of every slice."""
    rows = []
    for index in range(visit.n_slices):
        native, post = visit.find("native", index), visit.find("post", index)
        ecv = None if visit.ecv_fraction is None or native is None else visit.ecv_fraction[index]
        if ecv is not None and not np.isfinite(ecv).any():
            ecv = None
        maps = (
            (native, None if native is None else native.t1_ms),
            (post, None if post is None else post.t1_ms),
            (native, ecv),
            (native, None if native is None else native.r_squared),
            (post, None if post is None else post.r_squared),
        )
        shown = native or post
        cells = tuple(
            None if one is None or values is None else _cell(one, values, column, crops[one.role, index])
            for (one, values), column in zip(maps, columns, strict=True)
        )
        rows.append(MapRow(index, "" if shown is None else shown.level, cells))
    return tuple(rows)


def _cell(one: SliceArrays, values: Array, column: Column, crop: Crop) -> MapCell:
    around = "with the myocardium outlined" if one.has_masks else "without a mask"
    return MapCell(
        image=map_image(crop.of(values), column.scale),
        crop=crop,
        outline=outline(one.reference_masks[MYOCARDIUM], crop),
        alt=f"{column.title}, {one.level} slice {one.index}, {around}",
    )
