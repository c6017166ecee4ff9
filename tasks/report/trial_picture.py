"""The trial's key picture, subjects by visits, as an image that stands where no page can."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from tasks.report.trial_visits import OUTCOMES, Record

SIGNS = {
    "pass": "✓",
    "review": "?",
    "fail": "✗",
    "failed": "!",
    "refused": "↩",
    "overdue": "◔",
    "waiting": "…",
    "new": "·",
}
"""Mark of each outcome, as on the trial's page."""

NEEDS_ATTENTION = ("failed", "refused", "fail", "review", "overdue")
"""Outcomes that somebody should look at, the most urgent first."""

MOST_SUBJECTS = 160
"""Rows of the picture; of a larger trial, it shows subjects that need attention."""

_COLORS = {
    "pass": ("#009e73", "#fff"),
    "review": ("#e69f00", "#000"),
    "fail": ("#d55e00", "#fff"),
    "failed": ("#fff", "#d55e00"),
    "refused": ("#fff", "#b0679a"),
    "overdue": ("#fff", "#6a4c00"),
    "waiting": ("#fff", "#8a929b"),
    "new": ("#fff", "#b4bac1"),
}
"""Fill and mark of each outcome, as on the trial's page: filled where a visit has numbers."""

_CELL, _ROW, _GAP, _LETTER = 26, 19, 24, 7
_WIDTH = 600
"""Widest picture; what Prefect shows beside menu and details without making it smaller [px]."""
_LEAST_DOWN = 10
"""Subjects below each other before others are put beside them."""


def trial_picture(planned: Sequence[Record]) -> tuple[str, int]:
    """Draw subjects by visits as on the trial's page, each cell with the mark of its outcome.

    Parameters
    ----------
    planned
        Planned visits, see `visit_records`.

    Returns
    -------
        Data URI of an SVG image; subjects that it leaves out, none of which is more urgent than those in it.
    """
    subjects: dict[str, dict[str, Record]] = {}
    for record in planned:
        subjects.setdefault(record["subject"], {})[record["visit"]] = record
    shown = list(subjects)
    if len(shown) > MOST_SUBJECTS:
        shown = sorted(shown, key=lambda subject: _urgency(subjects[subject]))[:MOST_SUBJECTS]
    visits = list(dict.fromkeys(record["visit"] for record in planned))
    column = max(len(name) for name in visits) * _LETTER + 6
    cell, label = max(_CELL, column), max(len(name) for name in shown) * _LETTER + 8
    block = label + cell * len(visits) + _GAP
    n_across = max(1, (_WIDTH + _GAP) // block)
    n_down = min(len(shown), max(_LEAST_DOWN, -(-len(shown) // n_across)))
    parts = []
    for number, subject in enumerate(shown):
        left, top = number // n_down * block, _ROW * (number % n_down + 1)
        if number % n_down == 0:
            parts += [
                _text(left + label + cell * place + cell / 2, 13, name, "middle")
                for place, name in enumerate(visits)
            ]
        parts.append(_text(left + label - 6, top + 13, subject, "end"))
        parts += [
            f'<use href="#{subjects[subject][name]["outcome"]}" '
            f'x="{left + label + cell * place + (cell - _CELL) / 2:g}" y="{top}"/>'
            for place, name in enumerate(visits)
            if name in subjects[subject]
        ]
    width, height = block * -(-len(shown) // n_down) - _GAP, _ROW * (n_down + 1)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-size="12" '
        f'font-family="sans-serif"><rect width="100%" height="100%" fill="#fff"/>'
        f"<defs>{_marks()}</defs>{''.join(parts)}</svg>"
    )
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}", len(subjects) - len(shown)


def _marks() -> str:
    """Give a cell of each outcome."""
    return "".join(
        f'<g id="{outcome}"><rect x="1" y="1" width="{_CELL - 2}" height="{_ROW - 3}" rx="3" '
        f'fill="{fill}" stroke="{_COLORS[outcome][fill == "#fff"]}" stroke-width="1.5"/>'
        f'<text x="{_CELL / 2:g}" y="13" text-anchor="middle" font-weight="700" fill="{sign}">'
        f"{SIGNS[outcome]}</text></g>"
        for outcome, (fill, sign) in ((outcome, _COLORS[outcome]) for outcome in OUTCOMES)
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _urgency(visits: Mapping[str, Record]) -> int:
    """Place of a subject's most urgent visit; behind all others where nothing needs attention."""
    outcomes = {record["outcome"] for record in visits.values()}
    return next((place for place, one in enumerate(NEEDS_ATTENTION) if one in outcomes), len(NEEDS_ATTENTION))
