"""What a reason says of ECV or change does not reach readers, whole or in part."""

from typing import Any

import pytest

from tasks.report.trial_blinding import blinded_records

SHORT, LONG = "mean ECV 83.2 %", "mean ECV 83.2 %, 41.7 % in the septum"


@pytest.mark.parametrize("messages", [(SHORT, LONG), (LONG, SHORT)])
def test_a_message_that_begins_like_another_hides_both(messages: tuple[str, str]) -> None:
    """Whichever was raised first."""
    told = [f"ecv_implausible: {message}" for message in messages]
    reason = "; ".join([*told, "center_jumps: center off by 11 mm"])
    record: dict[str, Any] = {"subject": "S01", "visit": "V1", "reason": reason, "codes": {}}
    flags = [
        {"subject_id": "S01", "visit_id": "V1", "code": "ecv_implausible", "message": message}
        for message in messages
    ]
    (blinded,) = blinded_records([record], flags)
    hidden = "ecv_implausible: what was found is among the results"
    assert blinded["reason"] == f"{hidden}; {hidden}; center_jumps: center off by 11 mm"
