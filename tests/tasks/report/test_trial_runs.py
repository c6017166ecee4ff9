"""Nights as the published rows and the audit log tell them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage import audit
from storage.tables import publish, read_table
from tasks.report.trial_runs import run_history, slowest_visits, stray_uploads
from tests.storage.drawn_rows import visit_row


def published(root: Path, day: int, run_id: str | None, why: str = "night", **values: Any) -> None:
    """Publish a visit's row of a run."""
    when = datetime(2026, 3, day, 2, tzinfo=UTC)
    taken = dict.fromkeys(("seconds_intake", "seconds_segment", "seconds_quantify"), 2.0)
    row = visit_row(**{**taken, "run_id": run_id, "published_at": when, **values})
    publish(root, row, {}, "core lab", why)


def runs_of(root: Path) -> list[dict[str, Any]]:
    """Give the trial's nights."""
    return run_history(root, read_table(root, "visits").to_pylist())


def test_each_night_tells_what_it_did(tmp_path: Path) -> None:
    """Count what was computed, renewed, refused and waited for, over current and former rows."""
    published(tmp_path, 1, "first", state="waiting", result_digest=None)
    published(tmp_path, 1, "first", visit_id="V2", state="refused", result_digest=None)
    published(tmp_path, 2, "second")
    published(tmp_path, 3, "third", why="rerun: a guide came", result_digest="digest-2")
    published(tmp_path, 4, "fourth", result_digest="digest-2", summary_digest="another")

    fourth, third, second, first = runs_of(tmp_path)

    assert (first["waiting"], first["refused"], first["computed"], first["seconds"]) == (1, 1, 0, 0.0)
    assert (second["computed"], second["seconds"], second["why"]) == (1, 6.0, "night")
    assert (third["computed"], third["why"]) == (1, "rerun: a guide came")
    # A summary made anew keeps the seconds of the stages that did not run.
    assert (fourth["renewed"], fourth["computed"], fourth["seconds"]) == (1, 0, 0.0)


def test_a_correction_is_no_work_of_the_night_it_corrects(tmp_path: Path) -> None:
    """A corrected line of the plan is published under the former run's id, days later."""
    published(tmp_path, 1, "first", state="waiting", result_digest=None)
    published(tmp_path, 9, "first", state="waiting", result_digest=None, site_id="02")

    (run,) = runs_of(tmp_path)

    assert run["waiting"] == 1
    assert run["last"].day == 1


def test_rows_of_no_known_run_are_left_out(tmp_path: Path) -> None:
    """Rows of former versions may not say which run they are of."""
    published(tmp_path, 1, None)

    assert runs_of(tmp_path) == []


def test_the_slowest_come_first() -> None:
    """Add up what is known; a visit that took no time is not there."""
    records = [{"seconds": seconds} for seconds in ([1.0, 2.0, 3.0], [None, None, None], [None, 9.0, None])]

    assert slowest_visits(records, 5) == [2, 0]
    assert slowest_visits(records, 1) == [2]


def test_an_upload_is_stray_until_a_visit_takes_it(tmp_path: Path) -> None:
    """What the plan did not know is told until the plan was mended; a refused visit's upload is its own."""

    def settled(event: str, upload: str, **about: str) -> dict[str, Any]:
        return {"event": event, "upload_id": f"u-{upload}", "upload_digest": upload, **about}

    audit.append(
        tmp_path,
        settled("refused", "a", reason="no planned visit of this subject"),
        settled("refused", "b", reason="no such subject"),
        settled("refused", "c", reason="3 inversion times", subject_id="S01", visit_id="V1"),
        settled("accepted", "a", subject_id="S01", visit_id="V2"),
    )

    (stray,) = stray_uploads(tmp_path)

    assert (stray["upload_id"], stray["reason"]) == ("u-b", "no such subject")
