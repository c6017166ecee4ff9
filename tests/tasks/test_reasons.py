"""State and reason of a visit, from its flags."""

from dataclasses import asdict, replace

from cmrcore.quantify.checks import Severity
from cmrcore.quantify.qc import Flag
from tasks.reasons import state_of, told_once

APART = Flag("masks_disagree", "review", "off by 4 pixels, expected at most 2", "post", 1, "mid", 4.0, 2.0)
FAR = replace(APART, code="mask_off_others", severity="fail", message="off by 4 pixels, expected at most 3")


def note(code: str, severity: Severity) -> Flag:
    """Give a flag without a value."""
    return Flag(code, severity, "why")


def test_a_note_flags_no_visit() -> None:
    """It stands in the table of flags; the state and the reason are for what asks for a look."""
    flags = [asdict(note("r_squared_pixels", "note")), asdict(note("t1_apart", "review"))]
    assert state_of(flags[:1]) == ("done", "")
    assert state_of(flags) == ("flagged", "t1_apart: why")


def test_one_reading_that_breaks_two_limits_is_told_once() -> None:
    """By the worse one; another slice's reading of the same size is another one."""
    elsewhere = replace(APART, slice_index=2)
    flags = [asdict(flag) for flag in (APART, FAR, elsewhere)]
    assert told_once(flags) == flags[1:]
    assert state_of(flags[:2]) == ("flagged", f"mask_off_others: {FAR.message}")


def test_findings_without_a_value_are_all_told() -> None:
    """Their messages may be alike, and what they say is not."""
    flags = [asdict(note("guide_missing", "review")), asdict(note("mask_no_ring", "fail"))]
    assert told_once(flags) == flags
