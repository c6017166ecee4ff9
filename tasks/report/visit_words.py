"""What the rows of a visit say, in words: verdict and reasons, numbers, provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmrcore.quantify.checks import CHECKS
from tasks.reasons import SEVERITIES, told_once

Row = Mapping[str, Any]

BLINDED_CODES = frozenset({"ecv_implausible", "ecv_changed"})
"""Flags that tell ECV or change, which a reader shall not know before the decision."""

HIDDEN_CODES = frozenset({"ecv_changed"})
"""Those whose very name tells it, and which no decision settles: their line is hidden whole."""

VERDICTS = {
    "pass": "nothing was found against it",
    "review": "look at it before its numbers are used",
    "fail": "its numbers are not to be used",
}
STATES = {
    "done": "computed",
    "flagged": "computed, with flags",
    "waiting": "nothing was uploaded yet",
    "refused": "the upload cannot be used; send it again",
    "failed": "the computation failed",
}
ROLE_NAMES = {"native": "native", "post": "post-contrast"}


@dataclass(frozen=True, slots=True)
class FlagLine:
    """Raised flags of one code and severity."""

    code: str
    """Key of the table of checks."""
    severity: str
    """``fail``, ``review`` or ``note``."""
    meaning: str
    """The check in words."""
    found: tuple[tuple[str, str], ...]
    """Where it was raised, and its message."""
    is_blinded: bool
    """Whether it tells ECV or change."""
    is_hidden: bool
    """Whether its name tells so, too."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of the scan."""

    name: str
    """What it is."""
    text: str
    """Value with unit."""
    note: str
    """Where it comes from or what it rests on."""
    is_blinded: bool = False
    """Whether it is shown only after the decision."""


def flag_lines(flags: Sequence[Row]) -> tuple[FlagLine, ...]:
    """Group flags by code, the worst first; a reading that breaks several limits is told once."""
    grouped: dict[tuple[int, str], list[Row]] = {}
    for flag in told_once(flags):
        grouped.setdefault((SEVERITIES.index(flag["severity"]), flag["code"]), []).append(flag)
    return tuple(
        FlagLine(
            code=code,
            severity=SEVERITIES[order],
            # Rows of other versions may name checks that are no more.
            meaning=CHECKS[code].meaning if code in CHECKS else "a check that this version does not know",
            found=tuple((_place(flag), flag["message"]) for flag in raised),
            is_blinded=code in BLINDED_CODES,
            is_hidden=code in HIDDEN_CODES,
        )
        for (order, code), raised in sorted(grouped.items())
    )


def _place(flag: Row) -> str:
    parts = [ROLE_NAMES.get(flag["role"], "")]
    if flag["slice_index"] is not None:
        parts.append(f"{flag['level']} slice {flag['slice_index']}")
    return " ".join(filter(None, parts)) or "scan"


def quantities(scan: Row) -> tuple[Quantity, ...]:
    """Give the numbers of a scan that a reader looks for first."""
    hours, has_ecv = scan["hematocrit_hours"], scan["ecv_fraction"] is not None
    return (
        Quantity("native T1 ± SD", _ms(scan, "t1_native"), _slices(scan, "native")),
        Quantity("native T1, septum", _value(scan["t1_native_septal_ms"], " ms"), ""),
        Quantity("post-contrast T1 ± SD", _ms(scan, "t1_post"), _minutes(scan)),
        Quantity(
            "blood T1",
            f"{_value(scan['blood_t1_native_ms'])} / {_value(scan['blood_t1_post_ms'])} ms",
            "native / post",
        ),
        Quantity(
            "mean R²",
            f"{_value(scan['r_squared_native_mean'], decimals=3)} / "
            f"{_value(scan['r_squared_post_mean'], decimals=3)}",
            "native / post",
        ),
        Quantity(
            "hematocrit",
            _value(scan["hematocrit_fraction"], decimals=3),
            "" if hours is None else f"{hours:.1f} h from the scan",
        ),
        Quantity(
            "ECV ± uncertainty",
            _ecv(scan, "ecv"),
            _slices(scan, "ecv") if has_ecv else "",
            is_blinded=has_ecv,
        ),
        Quantity("ECV, septum", _value(scan["ecv_septal_fraction"], " %", 100.0, 1), "", is_blinded=has_ecv),
    )


def _value(value: float | None, unit: str = "", factor: float = 1.0, decimals: int = 0) -> str:
    return "-" if value is None else f"{factor * value:.{decimals}f}{unit}"


def _ms(scan: Row, stem: str) -> str:
    value, spread = scan[f"{stem}_ms"], scan[f"{stem}_sd_ms"]
    return _value(value, " ms") if value is None or spread is None else f"{value:.0f} ± {spread:.0f} ms"


def _ecv(scan: Row, stem: str) -> str:
    value, error = scan[f"{stem}_fraction"], scan[f"{stem}_uncertainty_fraction"]
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" + ("" if error is None else f" ± {100 * error:.1f}")


def _slices(scan: Row, mean: str) -> str:
    used = scan[f"n_slices_used_{mean}"]
    return "" if used is None else f"{used} of {scan['n_slices']} slices"


def _minutes(scan: Row) -> str:
    minutes = scan["minutes_since_contrast"]
    return "" if minutes is None else f"{minutes:.0f} min after contrast"


def review_words(reviews: Sequence[Row], *, is_honored: bool) -> str:
    """Say who reviewed a visit, when, and what was decided; empty where nobody did.

    Parameters
    ----------
    reviews
        Rows of the table ``reviews`` of the visit.
    is_honored
        Whether the published result was computed with these decisions.
    """
    if not reviews:
        return ""
    counts = {
        "accepted": sum(row["decision"] == "accept" for row in reviews),
        "excluded": sum(row["decision"] == "exclude" for row in reviews),
        "to be scanned again": sum(row["decision"] == "repeat" for row in reviews),
    }
    said = [f"{n} {word}" for word, n in counts.items() if n]
    n_redraw = sum(row["guide"] == "redraw" for row in reviews)
    if n_redraw:
        said.append(f"guide to be redrawn on {n_redraw}")
    first = reviews[0]
    pending = "" if is_honored else "; the numbers follow it from the next night on"
    head = f"Reviewed by {first['reader_id']} on {first['decided_at']:%Y-%m-%d} UTC"
    return f"{head}, slices of both series: {', '.join(said)}{pending}."
