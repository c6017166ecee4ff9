"""A reader's points for the anterior RV insertion, as far as they lie on the heart."""

import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from cmrcore.quantify.qc import Flag, Place, raise_flag
from cmrcore.quantify.records import Role, Series


def usable_insertions(
    role: Role, series: Series, myocardium: Bool[Tensor, "slice row col"], off_max_mm: float
) -> tuple[Float[Tensor, "slice 2"] | None, list[Flag]]:
    """Give a reader's points without those off the heart, and flags about these.

    Parameters
    ----------
    role
        What was marked.
    series
        With the points.
    myocardium
        On the reference echo of each slice.
    off_max_mm
        Largest distance of a point from the myocardium [mm].

    Returns
    -------
        Points (row, col), NaN where there is none; None where a reader marked nothing.
    """
    if series.insertions_px is None:
        return None, []
    points, flags = series.insertions_px.clone(), []
    for index, (point, muscle) in enumerate(zip(series.insertions_px, myocardium, strict=True)):
        if bool(point.isnan().any()) or not bool(muscle.any()):
            continue
        off_mm = ndimage.distance_transform_edt(~muscle.cpu().numpy(), sampling=series.pixel_spacing_mm)
        row, col = point.round().int().tolist()
        distance_mm = float(off_mm[row, col])
        if distance_mm > off_max_mm:
            points[index] = torch.nan
            message = f"the reader's anterior insertion lies {distance_mm:.1f} mm off the myocardium"
            place = Place(role, index, series.levels[index])
            flags.append(
                raise_flag("landmark_off_heart", message, place, value=distance_mm, threshold=off_max_mm)
            )
    return points, flags
