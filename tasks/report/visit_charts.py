"""Charts drawn as SVG: crisp at any size, small, and quick to make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from tasks.report.visit_curves import Curve

Array = np.ndarray[Any, Any]

OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#b8860b")
"""Colors that people with any color vision tell apart, the yellow darkened to be seen on white."""
BLOOD_COLOR = "#d55e00"
DASHES = ("", "6 2", "2 2", "8 2 2 2", "4 4", "1 2")
"""Strokes of lines, so that color alone says nothing."""

_TICKS = 5


@dataclass(frozen=True, slots=True)
class Axes:
    """A rectangle of a chart, with what its sides stand for."""

    left: float
    """Left side [px]."""
    top: float
    """Upper side [px]."""
    width: float
    """Width [px]."""
    height: float
    """Height [px]."""
    x: tuple[float, float]
    """Values of the left and right side."""
    y: tuple[float, float]
    """Values of the lower and upper side."""

    def px(self, x: float) -> float:
        """Place of a value along [px]."""
        low, high = self.x
        return round(self.left + (x - low) / (high - low) * self.width, 1)

    def py(self, y: float) -> float:
        """Place of a value down [px]."""
        low, high = self.y
        return round(self.top + self.height - (y - low) / (high - low) * self.height, 1)

    def path(self, x: Sequence[float] | Array, y: Sequence[float] | Array) -> str:
        """Line through points, as the ``d`` of a path."""
        return "M" + "L".join(f"{self.px(one):g} {self.py(other):g}" for one, other in zip(x, y, strict=True))

    def grid(self, x_label: str = "", y_label: str = "", *, y_ticks: Sequence[float] | None = None) -> str:
        """Ticks, their values and names of both sides; x ticks only where x is named."""
        parts = []
        right, bottom = self.left + self.width, self.top + self.height
        for value in ticks(*self.y) if y_ticks is None else y_ticks:
            y = self.py(value)
            parts.append(f'<path class="grid" d="M{self.left} {y:g}H{right:g}"/>')
            parts.append(f'<text x="{self.left - 4}" y="{y + 3.5:g}" class="end">{value:g}</text>')
        if x_label:
            for value in ticks(*self.x):
                x = self.px(value)
                parts.append(f'<path class="grid" d="M{x:g} {bottom:g}v4"/>')
                parts.append(f'<text x="{x:g}" y="{bottom + 15:g}" class="mid">{value:g}</text>')
            middle = self.left + self.width / 2
            parts.append(f'<text x="{middle:g}" y="{bottom + 29:g}" class="mid">{escape(x_label)}</text>')
        if y_label:
            parts.append(f'<text x="{self.left}" y="{self.top - 6:g}">{escape(y_label)}</text>')
        parts.append(f'<path class="axis" d="M{self.left} {self.top}V{bottom:g}H{right:g}"/>')
        return "".join(parts)


def ticks(low: float, high: float, n_most: int = _TICKS) -> list[float]:
    """Round values within a range, at most ``n_most`` of them about evenly spread."""
    rough = (high - low) / n_most
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def svg(width: float, height: float, label: str, content: str) -> Markup:
    """Wrap content as a picture with a name that is read out; ``content`` is SVG already."""
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{escape(label)}">{content}</svg>'
    )


def recovery_chart(curves: Sequence[Curve], label: str) -> Markup:
    """Mean signals with their fitted curves, and below what the fits leave, relative to A of each curve."""
    last = max(float(curve.ti_ms.max()) for curve in curves)
    signals = np.concatenate([curve.signal for curve in curves])
    low, high = float(signals.min()), max(float(signals.max()), *(curve.a for curve in curves))
    margin = 0.06 * (high - low)
    upper = Axes(52, 18, 300, 170, (0.0, 1.04 * last), (min(low, 0.0) - margin, high + margin))
    residuals = [_residual_percent(curve) for curve in curves]
    reach = max(2.0, 1.1 * max(float(np.abs(one).max()) for one in residuals))
    lower = Axes(52, 216, 300, 62, upper.x, (-reach, reach))
    parts = [
        upper.grid(y_label="mean signal, sign restored [a.u.]"),
        lower.grid("inversion time [ms]", "residual [% of A]", y_ticks=ticks(-reach, reach, 4)),
        f'<path class="zero" d="M52 {upper.py(0):g}h300M52 {lower.py(0):g}h300"/>',
    ]
    for curve, residual in zip(curves, residuals, strict=True):
        color, dash = curve_style(curve)
        times = np.linspace(float(curve.ti_ms.min()), upper.x[1], 60)
        parts.append(
            f'<path d="{upper.path(times, curve.at(times))}" fill="none" stroke="{color}" '
            f'stroke-dasharray="{dash}" stroke-width="1.4"/>'
        )
        for echo, (ti, value, rest) in enumerate(zip(curve.ti_ms, curve.signal, residual, strict=True)):
            fill = "#fff" if echo in curve.left_out else color
            for axes, y in ((upper, value), (lower, rest)):
                parts.append(
                    _dot(axes.px(ti), axes.py(float(y)), color, fill, square=curve.aha_segment is None)
                )
    return svg(362, 316, label, "".join(parts))


def curve_style(curve: Curve) -> tuple[str, str]:
    """Color and stroke of a curve: blood has its own, segments those of their place in the ring."""
    if curve.aha_segment is None:
        return BLOOD_COLOR, ""
    place = (curve.aha_segment - 1) % 6 if curve.aha_segment <= 12 else curve.aha_segment - 13
    return OKABE_ITO[place], DASHES[place]


def _residual_percent(curve: Curve) -> Array:
    rest: Array = 100 * (curve.signal - curve.at(curve.ti_ms)) / curve.a
    return rest


def _dot(x: float, y: float, color: str, fill: str, *, square: bool = False) -> str:
    if square:
        return f'<rect x="{x - 2.5:g}" y="{y - 2.5:g}" width="5" height="5" fill="{fill}" stroke="{color}"/>'
    return f'<circle cx="{x:g}" cy="{y:g}" r="2.4" fill="{fill}" stroke="{color}"/>'


def histogram_chart(values: Sequence[tuple[str, Array]], x_label: str, label: str) -> Markup:
    """Distributions of pixels, one line a slice, as shares of its pixels, with the median as a dotted line.

    The outermost bars hold what lies beyond the outermost 0.5 % of pixels.

    Parameters
    ----------
    values
        Name and values of each slice.
    x_label, label
        Name of the values with their unit, and of the chart.
    """
    every = np.concatenate([one for _, one in values])
    low, high = (float(one) for one in np.percentile(every, (0.5, 99.5)))
    margin = max(0.15 * (high - low), 1e-3 * abs(high), 1e-6)
    window = (low - margin, high + margin)
    edges = np.linspace(*window, 33)
    counted = []
    for name, one in values:
        counts = np.histogram(np.clip(one, *window), edges)[0]
        counted.append((name, 100 * counts / max(counts.sum(), 1), float(np.median(one))))
    top = max(float(shares.max()) for _, shares, _ in counted) * 1.08
    axes = Axes(40, 18, 300, 140, window, (0.0, top))
    parts = [axes.grid(x_label, "pixels [%]")]
    for place, (name, shares, median) in enumerate(counted):
        color, dash = OKABE_ITO[place % 6], DASHES[place % 6]
        steps = axes.path(np.repeat(edges, 2), np.concatenate([[0], np.repeat(shares, 2), [0]]))
        parts.append(
            f'<path d="{steps}" fill="{color}" fill-opacity=".1" stroke="{color}" stroke-dasharray="{dash}"/>'
            f'<path d="M{axes.px(median):g} 18v140" stroke="{color}" '
            f'stroke-dasharray="1 3"/><text x="336" y="{30 + 14 * place}" class="end" fill="{color}">'
            f"{escape(name)}: median {median:.{0 if median >= 100 else 1}f}</text>"
        )
    return svg(350, 196, label, "".join(parts))


def displacement_chart(before_mm: Array, after_mm: Array, label: str) -> Markup:
    """Distance of the heart's center from that on the reference echo, as acquired and as aligned."""
    top = max(4.0, 1.1 * float(np.nanmax([before_mm, after_mm], initial=0.0)))
    n_echoes = len(before_mm)
    axes = Axes(26, 18, 172, 90, (0.0, n_echoes + 1.0), (0.0, top))
    parts = [axes.grid("", "off the reference [mm]", y_ticks=ticks(0.0, top, 4))]
    for echo, (before, after) in enumerate(zip(before_mm, after_mm, strict=True)):
        x = axes.px(echo + 1)
        parts.append(f'<text x="{x:g}" y="122" class="mid">{echo + 1}</text>')
        if math.isnan(before):
            continue
        parts.append(
            f'<path d="M{x:g} {axes.py(before):g}V{axes.py(after):g}" stroke="#8a929b"/>'
            + _dot(x, axes.py(before), BLOOD_COLOR, "#fff")
            + _dot(x, axes.py(after), OKABE_ITO[0], OKABE_ITO[0])
        )
    parts.append('<text x="112" y="136" class="mid">echo by inversion time</text>')
    return svg(204, 140, label, "".join(parts))


def history_chart(
    points: Sequence[tuple[str, float | None]], shown: str, band: float | None, y_label: str, label: str
) -> Markup:
    """Values of a subject's visits in order, with the band that 95 of 100 unchanged hearts stay in.

    Parameters
    ----------
    points
        Visit and value; None where the visit has none.
    shown
        The visit of the page.
    band
        Repeatability coefficient, drawn about the first value; None without any.
    y_label, label
        Name of the values with their unit, and of the chart.
    """
    values = [value for _, value in points if value is not None]
    reach = max(band or 0.0, 0.02 * abs(values[0]))
    low, high = min([*values, values[0] - reach]), max([*values, values[0] + reach])
    margin = 0.12 * (high - low)
    axes = Axes(52, 18, 300, 150, (0.5, len(points) + 0.5), (low - margin, high + margin))
    parts = []
    if band is not None:
        upper, lower = axes.py(values[0] + band), axes.py(values[0] - band)
        parts.append(
            f'<rect x="52" y="{upper:g}" width="300" height="{lower - upper:g}" fill="#0072b2" '
            'fill-opacity=".14"/>'
        )
    parts.append(axes.grid(y_label=y_label))
    known = [(place + 1.0, value) for place, (_, value) in enumerate(points) if value is not None]
    line = axes.path([x for x, _ in known], [y for _, y in known])
    parts.append(f'<path d="{line}" fill="none" stroke="#1a1d21"/>')
    for place, (name, value) in enumerate(points):
        x = axes.px(place + 1)
        weight = ' font-weight="700"' if name == shown else ""
        parts.append(f'<text x="{x:g}" y="184" class="mid"{weight}>{escape(name)}</text>')
        if value is not None:
            fill = "#1a1d21" if name == shown else "#fff"
            parts.append(
                f'<circle cx="{x:g}" cy="{axes.py(value):g}" r="4.5" fill="{fill}" stroke="#1a1d21"/>'
            )
    return svg(362, 192, label, "".join(parts))
