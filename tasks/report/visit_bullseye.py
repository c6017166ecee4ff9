"""Bull's-eyes: the 16 AHA segments seen from the apex, anterior up, septum left."""

import math
from collections.abc import Mapping

from markupsafe import Markup

from cmrcore.quantify.aha import AHA_NAMES
from tasks.report.visit_charts import svg
from tasks.report.visit_colors import ColorScale

_CENTER = 150.0
_RINGS_PX = {"basal": (90.0, 130.0), "mid": (50.0, 90.0), "apical": (8.0, 50.0)}
_RIM = (
    *(("anterior", 90), ("anteroseptal", 150), ("inferoseptal", 210)),
    *(("inferior", 270), ("inferolateral", 330), ("anterolateral", 30)),
)
"""Walls of the basal and mid ring, and where they lie."""


def bullseye(values: Mapping[int, float], scale: ColorScale, label: str) -> Markup:
    """Draw the mean of each AHA segment in the colors of its map; gray where there is none.

    Parameters
    ----------
    values
        Stored value of each segment, 1 to 16.
    scale
        Colors and unit.
    label
        What is drawn, for those who cannot see it.

    References
    ----------
    Cerqueira et al. 2002, Circulation 105:539, doi:10.1161/hc0402.102975
    """
    parts = []
    for number, name in AHA_NAMES.items():
        middle_deg, width_deg, inner, outer = wedge(number)
        value = values.get(number)
        color = "#e3e6ea" if value is None else scale.css(value)
        parts.append(
            f'<path d="{_sector(middle_deg, width_deg, inner, outer)}" fill="{color}" stroke="#fff" '
            f'stroke-width="1.5"><title>{number} {name}: {scale.text(value)} {scale.unit}</title></path>'
        )
        x, y = _at(middle_deg, (inner + outer) / 2 + (4 if number > 12 else 0))
        ink = "#1a1d21" if _is_light(color) else "#fff"
        parts.append(
            f'<text x="{x:.1f}" y="{y - 1:.1f}" class="mid number" fill="{ink}">{scale.text(value)}</text>'
            f'<text x="{x:.1f}" y="{y + 9:.1f}" class="mid small" fill="{ink}">{number}</text>'
        )
    for name, at_deg in _RIM:
        x, y = _at(at_deg, 137.0)
        anchor = "mid" if at_deg in (90, 270) else "start" if at_deg in (30, 330) else "end"
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" class="small {anchor}">{name}</text>')
    numbers = ", ".join(f"{AHA_NAMES[number]} {scale.text(value)}" for number, value in values.items())
    picture = "".join(parts)
    return svg(
        390, 300, f"{label}: {numbers or 'no values'}", f'<g transform="translate(45 0)">{picture}</g>'
    )


def wedge(number: int) -> tuple[float, float, float, float]:
    """Middle and width of a segment [degrees, counter-clockwise from the right], inner and outer radius."""
    if number > 12:
        return 90.0 + 90.0 * (number - 13), 90.0, *_RINGS_PX["apical"]
    ring = _RINGS_PX["basal" if number <= 6 else "mid"]
    return 90.0 + 60.0 * ((number - 1) % 6), 60.0, *ring


def _sector(middle_deg: float, width_deg: float, inner: float, outer: float) -> str:
    first, last = middle_deg - width_deg / 2, middle_deg + width_deg / 2
    (ax, ay), (bx, by) = _at(first, outer), _at(last, outer)
    (cx, cy), (dx, dy) = _at(last, inner), _at(first, inner)
    return (
        f"M{ax:.1f} {ay:.1f}A{outer:g} {outer:g} 0 0 0 {bx:.1f} {by:.1f}"
        f"L{cx:.1f} {cy:.1f}A{inner:g} {inner:g} 0 0 1 {dx:.1f} {dy:.1f}z"
    )


def _at(angle_deg: float, radius: float) -> tuple[float, float]:
    angle = math.radians(angle_deg)
    return _CENTER + radius * math.cos(angle), _CENTER - radius * math.sin(angle)


def _is_light(color: str) -> bool:
    """Whether dark ink reads better than white on a color."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
