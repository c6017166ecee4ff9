"""Acquisitions of one slice: where the inversion times stand, whether it is complete, which one is taken.

Of several acquisitions of a slice the last complete one is taken: as many images as a scheme has, each with a
time of its own, scaled alike, on one grid at one place. The others are kept in the upload and named.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32

from storage.config_intake import IntakeConfig, SeriesRule
from storage.dicom_dialect import DIALECTS, choose_times, describe_candidates
from storage.dicom_read import Instance, describe_files
from storage.errors import RefusedError, RefusedFile, Remedy
from storage.geometry import UNIT_TOLERANCE, Vector, col_direction, row_direction
from storage.schemes import describe_schemes, scheme_of
from storage.series_rules import describe_series

GridPart = Literal["pixel grid", "pixel spacing", "orientation", "field strength"]
GRID: tuple[GridPart, ...] = get_args(GridPart)
"""What the images of a stack must have in common."""

_MAX_NAMED_TIMES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One usable image of a role; what an `Instance` may lack is there."""

    instance: Instance
    """Its header."""
    position_mm: Vector
    """Centre of the first pixel, LPS [mm]."""
    orientation: tuple[float, ...]
    """Directions of growing col, then of growing row."""
    pixel_spacing_mm: tuple[float, float]
    """Distance between rows, between columns [mm]."""
    pixels: Float32[np.ndarray, "row col"]
    """Magnitudes [a.u.]."""


@dataclass(frozen=True, slots=True, eq=False)
class Echo:
    """One image with its inversion time."""

    frame: Frame
    """The image."""
    ti_ms: float
    """Inversion time [ms]."""
    ti_source: str
    """Attribute that it was read from."""


@dataclass(frozen=True, slots=True, eq=False)
class Acquisition:
    """All images of one slice that are of one series."""

    frames: tuple[Frame, ...]
    """Its images."""
    echoes: tuple[Echo, ...]
    """Those that have an inversion time, by that time."""
    problem: str
    """Why it is not complete; empty where it is."""
    refused: tuple[RefusedFile, ...]
    """Images without an inversion time where the others have one."""

    def __str__(self) -> str:
        return describe_series([frame.instance for frame in self.frames])


def split_acquisitions(frames: Sequence[Frame], rule: SeriesRule, intake: IntakeConfig) -> list[Acquisition]:
    """Split a slice by series, in the order of time."""
    by_series: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_series[frame.instance.series_instance_uid].append(frame)

    def moment(acquisition: Acquisition) -> tuple[datetime, int]:
        images = [frame.instance for frame in acquisition.frames]
        started = min((image.acquired_at for image in images if image.acquired_at), default=datetime.min)
        return (started, images[0].series_number or 0)

    found = [_acquisition(of_series, rule, intake) for of_series in by_series.values()]
    return sorted(found, key=moment)


def _acquisition(frames: Sequence[Frame], rule: SeriesRule, intake: IntakeConfig) -> Acquisition:
    """Find the inversion times of a slice's images, and what is wrong with them."""
    limit_ms = intake.inversion_time_max_ms
    sources = DIALECTS[frames[0].instance.vendor].times["inversion_time"]
    candidates = [frame.instance.times for frame in frames]
    source, times = choose_times(candidates, "inversion_time", sources, limit_ms)
    if source is None:
        found = describe_candidates(candidates, "inversion_time", sources)
        problem = f"has no inversion times that vary and are at most {limit_ms:g} ms ({found})"
        return Acquisition(tuple(frames), (), problem, ())
    echoes = [
        Echo(frame, ti_ms, source) for frame, ti_ms in zip(frames, times, strict=True) if ti_ms is not None
    ]
    echoes.sort(key=lambda echo: echo.ti_ms)
    refused = tuple(
        refused_file(frame.instance, _no_time(frame.instance, source, limit_ms))
        for frame, ti_ms in zip(frames, times, strict=True)
        if ti_ms is None
    )
    problem = (
        _repeated_times(echoes, lambda: describe_candidates(candidates, "inversion_time", sources))
        or _incomplete(echoes, rule)
        or _mixed_grids(echoes)
        or _elsewhere(echoes, intake.position_tolerance_mm)
    )
    return Acquisition(tuple(frames), tuple(echoes), problem, refused)


def _no_time(image: Instance, source: str, limit_ms: float) -> str:
    written = [
        value.ms for value in image.times if (value.quantity, value.source) == ("inversion_time", source)
    ]
    found = f"inversion time {written[0]:g} ms" if written else "no inversion time"
    return f"{found} in {source}, expected more than 0 and at most {limit_ms:g} ms"


def _repeated_times(echoes: Sequence[Echo], describe: Callable[[], str]) -> str:
    """Say which times stand in more than one image, and what all attributes hold; empty where none do."""
    times = [echo.ti_ms for echo in echoes]
    repeated = sorted({ti_ms for ti_ms in times if times.count(ti_ms) > 1})
    if not repeated:
        return ""
    named = repeated[:_MAX_NAMED_TIMES]
    files = {ti_ms: {one.frame.instance.source for one in echoes if one.ti_ms == ti_ms} for ti_ms in named}
    found = ", ".join(f"{ti_ms:g} ms ({describe_files(sources)})" for ti_ms, sources in files.items())
    if len(repeated) > _MAX_NAMED_TIMES:
        found += f" and {len(repeated) - _MAX_NAMED_TIMES} others"
    return f"has more than one image at inversion time {found}; {describe()}"


def _incomplete(echoes: Sequence[Echo], rule: SeriesRule) -> str:
    """Say what keeps a slice's images from being a scheme; empty where nothing does."""
    times = [echo.ti_ms for echo in echoes]
    if scheme_of(len(times), rule.schemes) is None:
        return f"has {len(times)} inversion times, expected {describe_schemes(rule.schemes)}"
    scalings = sorted({echo.frame.instance.rescale.rule for echo in echoes})
    if len(scalings) > 1:
        return f"has images scaled in {len(scalings)} ways ({', '.join(scalings)}), which cannot be compared"
    return ""


def _mixed_grids(echoes: Sequence[Echo]) -> str:
    """Say which image is on another grid; empty where all are on one."""
    first = echoes[0].frame
    found = next(filter(None, (grid_difference(echo.frame, first) for echo in echoes)), "")
    return f"is on several grids: {found}" if found else ""


def _elsewhere(echoes: Sequence[Echo], tolerance_mm: float) -> str:
    """Say which images are shifted in the plane: their pixels are not the same tissue."""
    orientation = echoes[0].frame.orientation
    axes = np.stack([row_direction(orientation), col_direction(orientation)], axis=1)
    in_plane_mm = np.array([echo.frame.position_mm for echo in echoes]) @ axes
    apart_mm = np.linalg.norm(in_plane_mm[:, None] - in_plane_mm, axis=-1)
    one, other = divmod(int(np.argmax(apart_mm)), len(echoes))
    if apart_mm[one, other] <= tolerance_mm:
        return ""
    return (
        f"has images {apart_mm[one, other]:.1f} mm apart in the plane "
        f"({echoes[one].frame.instance.source}, {echoes[other].frame.instance.source}), "
        f"expected at most {tolerance_mm:g} mm"
    )


def grid_difference(frame: Frame, first: Frame, parts: Sequence[GridPart] = GRID) -> str:
    """Say in which parts of its grid an image differs from another; empty where it does not."""
    spacings = (frame.pixel_spacing_mm, first.pixel_spacing_mm)
    orientations = (frame.orientation, first.orientation)
    same = {
        "pixel grid": frame.pixels.shape == first.pixels.shape,
        "pixel spacing": spacings[0] == spacings[1] or np.allclose(*spacings, rtol=UNIT_TOLERANCE, atol=0),
        "orientation": orientations[0] == orientations[1]
        or np.allclose(*orientations, rtol=0, atol=UNIT_TOLERANCE),
        "field strength": frame.instance.field_strength_t == first.instance.field_strength_t,
    }
    different = " and ".join(name for name in parts if not same[name])
    if not different:
        return ""
    one, other = first.instance.source, frame.instance.source
    return (
        f"{different} of {other} differs from that of {one} "
        f"({_grid_text(frame)} against {_grid_text(first)}), expected one grid"
    )


def _grid_text(frame: Frame) -> str:
    rows, cols = frame.pixels.shape
    between_rows, between_cols = frame.pixel_spacing_mm
    directions = ", ".join(f"{value:.3g}" for value in frame.orientation)
    field = frame.instance.field_strength_t
    return (
        f"{rows} x {cols} pixels of {between_rows:g} x {between_cols:g} mm along ({directions})"
        f"{'' if field is None else f' at {field:g} T'}"
    )


def choose_acquisition(
    acquisitions: Sequence[Acquisition], intake: IntakeConfig
) -> tuple[Acquisition, list[str]]:
    """Take the last complete acquisition of a slice; give the others with why they were not taken.

    Raises
    ------
    RefusedError
        If none is complete, or there are several and the trial refuses that.
    """
    if len(acquisitions) > 1 and intake.repeats == "refuse":
        found = "; ".join(map(str, acquisitions))
        message = f'is in {len(acquisitions)} series, expected one (intake.repeats = "refuse"): {found}'
        raise RefusedError(message)
    complete = [acquisition for acquisition in acquisitions if not acquisition.problem]
    if not complete:
        if len(acquisitions) == 1:
            raise RefusedError(acquisitions[0].problem)
        found = "; ".join(f"{acquisition} {acquisition.problem}" for acquisition in acquisitions)
        message = f"is in {len(acquisitions)} series, none of them complete: {found}"
        raise RefusedError(message)
    taken = complete[-1]
    others = [
        f"is also in {other}, which was not taken: it "
        + (other.problem or "came before another complete one")
        for other in acquisitions
        if other is not taken
    ]
    return taken, others


def refused_file(instance: Instance, reason: str, remedy: Remedy = "send") -> RefusedFile:
    """Refuse the file of an image."""
    source = instance.source
    reason = reason.removeprefix(f"{source}: ")
    return RefusedFile(source.upload_id, source.file_number, reason, instance.path, source.sha256, remedy)
