"""What the rows of a visit say in words."""

from datetime import UTC, datetime
from typing import Any

from tasks.report.visit_words import flag_lines, review_words


def flag(code: str, severity: str) -> dict[str, Any]:
    """Give a flag of a whole scan."""
    return {
        "code": code,
        "severity": severity,
        "role": None,
        "slice_index": None,
        "level": None,
        "value": None,
        "message": "-",
    }


def reviewed(decision: str, guide: str = "accepted") -> dict[str, Any]:
    """Give a row of the table reviews."""
    decided_at = datetime(2026, 11, 21, 20, 30, tzinfo=UTC)
    return {"reader_id": "R1", "decided_at": decided_at, "decision": decision, "guide": guide}


def test_the_name_of_a_change_is_hidden_that_of_a_check_to_settle_is_not() -> None:
    """Whoever reads that ECV changed is not blind; whoever accepts a finding must know that there is one."""
    flags = [flag("ecv_changed", "note"), flag("r_squared_mean", "note"), flag("ecv_implausible", "review")]
    told = {line.code: (line.is_blinded, line.is_hidden) for line in flag_lines(flags)}
    assert told == {
        "ecv_implausible": (True, False),
        "ecv_changed": (True, True),
        "r_squared_mean": (False, False),
    }


def test_a_review_is_told_with_what_was_decided() -> None:
    """And whether the numbers follow it already."""
    rows = [reviewed("accept"), reviewed("accept", "redraw"), reviewed("exclude"), reviewed("repeat")]
    assert review_words(rows, is_honored=True) == (
        "Reviewed by R1 on 2026-11-21 UTC, slices of both series: 2 accepted, 1 excluded, "
        "1 to be scanned again, guide to be redrawn on 1."
    )
    assert review_words(rows[:1], is_honored=False).endswith(
        "1 accepted; the numbers follow it from the next night on."
    )
    assert review_words([], is_honored=True) == ""
