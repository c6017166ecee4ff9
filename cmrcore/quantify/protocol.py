"""How a scan was acquired, and how that differs from its baseline; scanners are `check_scanner`'s."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cmrcore.quantify.qc import Flag, raise_flag
from cmrcore.quantify.records import Value


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a scan was acquired."""

    scheme_native: str | None
    """Native acquisition scheme; None without the series."""
    scheme_post: str | None
    """Post-contrast acquisition scheme; None without the series."""
    pixel_spacing_mm: tuple[float, float] | None
    """Distance of rows and columns [mm]; None if unknown."""
    slice_distances_mm: tuple[float, ...]
    """Distance of each native slice from the first one [mm], 0 for that itself."""


def protocol_of(scan: Mapping[str, Value], slices: Sequence[Mapping[str, Value]]) -> Protocol:
    """Read the protocol from a row of ``scans`` and those of its ``slices``, base first."""
    rows_mm, cols_mm = scan["row_spacing_mm"], scan["col_spacing_mm"]
    distances_mm = [row["slice_distance_mm"] for row in slices]
    return Protocol(
        scheme_native=_text(scan["scheme_native"]),
        scheme_post=_text(scan["scheme_post"]),
        pixel_spacing_mm=None if rows_mm is None or cols_mm is None else (float(rows_mm), float(cols_mm)),
        # A slice that only the post-contrast series has is without a distance.
        slice_distances_mm=tuple(float(distance) for distance in distances_mm if distance is not None),
    )


def check_protocol(
    now: Protocol,
    baseline: Protocol,
    baseline_name: str,
    pixel_tolerance_mm: float,
    slice_distance_tolerance_mm: float,
) -> list[Flag]:
    """Flag what makes a visit's T1 hard to compare with that of its baseline.

    A patient never lies twice in the same place, so positions are compared within the stack: by the distance
    of each slice from the first one.

    Parameters
    ----------
    now, baseline
        Protocols of the visit and of its baseline.
    baseline_name
        The baseline's visit, for the messages.
    pixel_tolerance_mm, slice_distance_tolerance_mm
        How far pixel spacings and distances of slices may differ [mm].
    """
    flags: list[Flag] = []
    for role in ("native", "post"):
        scheme, before = (getattr(one, f"scheme_{role}") for one in (now, baseline))
        if scheme is not None and before is not None and scheme != before:
            message = f"{role} scheme {scheme}, {before} at baseline {baseline_name}"
            flags.append(raise_flag("scheme_differs", message))
    pixels = (now.pixel_spacing_mm, baseline.pixel_spacing_mm)
    apart_mm = pixels_apart_mm(*pixels)
    if apart_mm is not None and apart_mm > pixel_tolerance_mm:
        here, there = (" x ".join(f"{one:.3g}" for one in spacing or ()) for spacing in pixels)
        message = f"pixels of {here} mm, {there} mm at baseline {baseline_name}"
        flags.append(raise_flag("pixels_differ", message, value=apart_mm, threshold=pixel_tolerance_mm))
    n_now, n_before = len(now.slice_distances_mm), len(baseline.slice_distances_mm)
    if n_now != n_before:
        message = f"{n_now} slices, {n_before} at baseline {baseline_name}"
        flags.append(raise_flag("slices_differ", message, value=float(n_now), threshold=float(n_before)))
        return flags
    off_mm = max(
        (
            abs(one - other)
            for one, other in zip(now.slice_distances_mm, baseline.slice_distances_mm, strict=True)
        ),
        default=0.0,
    )
    if off_mm > slice_distance_tolerance_mm:
        message = (
            f"slices lie up to {off_mm:.1f} mm otherwise along the heart than at baseline {baseline_name}, "
            f"expected at most {slice_distance_tolerance_mm:g} mm"
        )
        threshold = slice_distance_tolerance_mm
        flags.append(raise_flag("slice_distances_differ", message, value=off_mm, threshold=threshold))
    return flags


def pixels_apart_mm(one: tuple[float, float] | None, other: tuple[float, float] | None) -> float | None:
    """Largest difference of the spacing of rows and columns [mm]; None where either is unknown."""
    if one is None or other is None:
        return None
    return max(abs(here - there) for here, there in zip(one, other, strict=True))


def _text(value: Value) -> str | None:
    return None if value is None else str(value)
