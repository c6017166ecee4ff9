"""The table of reviews: the newest one holds, former ones stay, and the record knows them all."""

import itertools
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from storage import audit
from storage.errors import DecisionsError, StorageError, TamperedError
from storage.lock import lock_record, verify_lock
from storage.record import verify_record
from storage.reviews import (
    ReviewedSlice,
    former_result,
    pending_reviews,
    read_reviews,
    record_review,
    reviews_digest,
    was_recorded,
)
from storage.tables import publish, read_table, recover
from tests.storage.drawn_reviews import DECIDED_AT, RESULT, SLICES, publish_visit, review_rows_of
from tests.storage.drawn_rows import row, visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG
from tests.storage.kills import killed

KEY = ("S01", "V1")
LATER = DECIDED_AT + timedelta(days=1)
EXCLUDED = review_rows_of(decision="exclude", comment="ghosts")
ACCEPTED = review_rows_of(reader_id="R2", decided_at=LATER, file_digest="file-2", decision="accept")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a trial with one published visit."""
    publish_visit(tmp_path)
    return tmp_path


def reader_of(root: Path) -> set[str]:
    """Name the readers of the reviews that hold."""
    return set(read_table(root, "reviews")["reader_id"].to_pylist())


def test_a_review_is_read_as_it_was_recorded(root: Path) -> None:
    """And it is a table as any other to whoever reads the folder."""
    assert record_review(root, EXCLUDED) == "recorded"
    assert read_table(root, "reviews").to_pylist() == EXCLUDED
    frame = pd.read_parquet(root / "tables" / "reviews")
    assert frame["decision"].tolist() == ["exclude"] * len(SLICES)
    (event,) = [event for event in audit.read_events(root) if event["event"] == "reviewed"]
    assert (event["reader_id"], event["result_digest"]) == ("R1", RESULT)
    assert event["history_number"] is None


def test_the_same_review_again_changes_nothing(root: Path) -> None:
    """Nor does one that was superseded since."""
    record_review(root, EXCLUDED)
    record_review(root, ACCEPTED)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for rows in (EXCLUDED, ACCEPTED):
        assert record_review(root, rows) == "unchanged"
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_the_newest_review_holds_and_the_former_one_stays(root: Path) -> None:
    """In history/, with who superseded it by what."""
    record_review(root, EXCLUDED)
    record_review(root, ACCEPTED)
    assert reader_of(root) == {"R2"}
    former = pd.read_parquet(root / "history/S01/V1/1/reviews.parquet")
    assert set(former["reader_id"]) == {"R1"}
    assert '"reader_id": "R2"' in (root / "history/S01/V1/1/superseded.json").read_text()


@pytest.mark.parametrize("late_s", [0, 1])
def test_a_review_that_was_decided_earlier_does_not_take_the_place_of_a_later_one(
    root: Path, late_s: int
) -> None:
    """It is refused, and the message says which one holds."""
    record_review(root, ACCEPTED)
    earlier = review_rows_of(decided_at=LATER - timedelta(seconds=late_s), file_digest="file-3")
    with pytest.raises(
        DecisionsError, match=r"not after the review that holds, by R2 at 2026-03-07 20:30:00"
    ):
        record_review(root, earlier)
    assert reader_of(root) == {"R2"}
    assert [was_recorded(root, KEY, name) for name in ("file-2", "file-3")] == [True, False]


def test_reviews_outlast_the_result_they_are_about(root: Path) -> None:
    """A night replaces the result and touches no review; both have their places in history."""
    record_review(root, EXCLUDED)
    publish_visit(root, "cd" * 32)
    assert read_table(root, "reviews").to_pylist() == EXCLUDED
    record_review(root, ACCEPTED)
    found = verify_record(root)
    assert (found.n_visits, found.n_former, found.n_reviews) == (1, 1, 2)
    assert former_result(root, KEY, RESULT) == "history/S01/V1/1"
    assert former_result(root, KEY, "cd" * 32) is None
    assert not (root / "history/S01/V1/1/reviews.parquet").exists()
    assert [path.name for path in (root / "history/S01/V1/2").iterdir()] != []


def test_only_decisions_with_an_effect_are_inputs(root: Path) -> None:
    """A visit whose slices were all accepted, and raised nothing, is as it was."""
    assert read_reviews(root) == {}
    rows = review_rows_of(decision="accept", guide="accepted", comment=None)
    rows[1] |= {"accepted_flags": ["fit_poor"]}
    rows[2] |= {"guide": "redraw"}
    rows[3] |= {"decision": "repeat", "comment": "arrhythmia"}
    record_review(root, rows)
    found = read_reviews(root)
    assert [(one.role, one.slice_index) for one in found[KEY]] == SLICES[1:]
    assert reviews_digest(found[KEY]) != reviews_digest(found[KEY][1:])
    assert reviews_digest(()) is None
    assert found[KEY][0].accepted() == {"fit_poor": None}


def test_reviews_of_former_versions_keep_their_digest() -> None:
    """Results that honor them stand; one that names what was found has another."""
    former = "cdb904a0b656d9a8aafa66f7022697be7878ead97a0cd449cae6a241db501bb7"
    one = ReviewedSlice("native", 0, "R1", "accepted", "accept", None, ("fit_poor",), "a", "b")
    assert reviews_digest([one]) == former
    assert reviews_digest([replace(one, accepted_values=("0.3",))]) != former


def test_a_review_is_pending_until_a_result_honors_it(root: Path) -> None:
    """One without an effect never is."""
    record_review(root, review_rows_of(decision="accept", guide="accepted"))
    assert pending_reviews(root) == []
    record_review(root, review_rows_of(decided_at=LATER, file_digest="file-2", decision="exclude"))
    assert pending_reviews(root) == ["S01/V1"]
    digest = reviews_digest(read_reviews(root)[KEY])
    visit = visit_row(result_digest="cd" * 32, reviews_digest=digest)
    publish(root, visit, {"scans": [row("scans", result_digest="cd" * 32)]}, "core lab", "night")
    assert pending_reviews(root) == []
    publish(root, visit_row(state="failed", result_digest=None, reviews_digest=None), {}, "core lab", "night")
    assert pending_reviews(root) == []


def test_no_night_publishes_reviews(tmp_path: Path) -> None:
    """They would go with the result."""
    with pytest.raises(StorageError, match="table reviews: it is recorded by itself"):
        publish(tmp_path, visit_row(), {"reviews": [row("reviews")]}, "core lab", "night")


@pytest.mark.parametrize("place", ["tables/reviews/S01/V1.parquet", "history/S01/V1/1/reviews.parquet"])
@pytest.mark.parametrize("change", ["edited", "removed"])
def test_a_changed_review_is_named(root: Path, place: str, change: str) -> None:
    """Whether it holds or is a former one."""
    record_review(root, EXCLUDED)
    record_review(root, ACCEPTED)
    data = (root / place).read_bytes()
    (root / place).unlink()
    if change == "edited":
        (root / place).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TamperedError, match=f"{place} was changed|{place} is missing"):
        verify_record(root)


def test_a_review_that_nobody_recorded_is_named(root: Path) -> None:
    """It would change the next night."""
    record_review(root, EXCLUDED)
    shutil.copytree(root / "tables/reviews/S01", root / "tables/reviews/S02")
    with pytest.raises(TamperedError, match=r"tables/reviews/S02/V1\.parquet: the log knows of no such"):
        verify_record(root)


def _record(root: Path) -> None:
    record_review(root, ACCEPTED)


@pytest.mark.slow
def test_a_kill_at_any_point_is_made_whole(tmp_path: Path) -> None:
    """Either the new review holds and the former one is in history, or nothing happened."""
    begun = tmp_path / "begun"
    publish(begun, visit_row(result_digest=RESULT), {}, "core lab", "night")
    record_review(begun, EXCLUDED)
    readers: list[str] = []
    for kill_at in itertools.count(1):
        root = Path(shutil.copytree(begun, tmp_path / str(kill_at)))
        if not killed(root, _record, kill_at):
            break
        recover(root)
        readers += reader_of(root)
        if reader_of(root) == {"R1"}:
            assert record_review(root, ACCEPTED) == "recorded"
        assert (verify_record(root).n_reviews, reader_of(root)) == (2, {"R2"})
    assert set(readers) == {"R1", "R2"}


def test_a_lock_holds_reviews_and_names_those_not_honored(root: Path) -> None:
    """Who analyses it knows that a reader has said more; its proof covers them."""
    shutil.copy(DEMO_CONFIG, root / "trial.toml")
    header = "subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id\n"
    (root / "subjects.csv").write_text(header + "S01,V1,2026-03-01,14,,,01\n")
    record_review(root, EXCLUDED)
    lock = lock_record(root, "interim", "J. Doe", "analysis", "1.0")
    assert lock.pending_reviews == ("S01/V1",)
    assert pd.read_parquet(root / "locks/interim/tables/reviews")["decision"].tolist() == ["exclude"] * 4
    record_review(root, ACCEPTED)
    assert verify_lock(root, "interim").pending_reviews == ("S01/V1",)
    assert lock_record(root, "final", "J. Doe", "analysis", "1.0").pending_reviews == ()


def test_a_wrong_row_is_refused(root: Path) -> None:
    """Before anything is written."""
    wrong: list[dict[str, Any]] = review_rows_of(decision="perhaps")
    with pytest.raises(StorageError, match="column decision: found 'perhaps'"):
        record_review(root, wrong)
    assert read_table(root, "reviews").num_rows == 0
