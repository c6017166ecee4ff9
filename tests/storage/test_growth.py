"""What is done for one visit must not grow with the trial: a night would take the square of its visits."""

from datetime import date
from pathlib import Path

import pytest

from storage.matching import Match, match_upload
from storage.plan import PlannedVisit, by_subject
from storage.schema import TABLES
from storage.tables import publish, read_tables
from tests.calls import count_calls
from tests.storage.drawn_rows import row, visit_row
from tests.storage.drawn_uploads import demo_config, read_upload

N_OTHERS = 60
GROWTH_MAX = 1.05
"""How much more one visit may cost in a trial of sixty others: dictionaries and folders grow a little."""


def publish_one(root: Path, subject_id: str) -> None:
    """Publish a visit with a row in two tables."""
    ids = {"subject_id": subject_id, "result_digest": f"digest of {subject_id}"}
    publish(root, visit_row(**ids), {"scans": [row("scans", **ids)]}, "core lab", "night")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Give the calls for one visit, in a trial without others and in one with many."""
    root = tmp_path_factory.mktemp("trial")
    found: dict[str, list[int]] = {"publish": [], "read": []}
    publish_one(root, "S000")  # once in a process: schemas, empty tables

    def measure(subject_id: str) -> None:
        found["publish"].append(count_calls(lambda: publish_one(root, subject_id)))
        read_tables(root, TABLES, subject_id)
        found["read"].append(count_calls(lambda: read_tables(root, TABLES, subject_id)))

    measure("S001")
    for number in range(N_OTHERS):
        publish_one(root, f"T{number:03d}")
    measure("S002")
    return found


@pytest.mark.parametrize("what", ["publish", "read"])
def test_a_visit_is_published_and_read_without_the_others(calls: dict[str, list[int]], what: str) -> None:
    """A page reads its own subject's files, and does not so much as list the others'."""
    alone, among_others = calls[what]
    assert among_others <= GROWTH_MAX * alone


def test_an_upload_is_matched_without_a_look_at_the_whole_plan(incoming: Path) -> None:
    """A first night matches every upload: with the whole plan each time, ten thousand take hours."""
    visit = PlannedVisit("S01", "V1", "01", date(2026, 3, 1), 7, None, None, None)
    others = [PlannedVisit(f"T{number:04d}", *rest(visit)) for number in range(2000)]
    upload, matching = read_upload(incoming.parent), demo_config().matching

    def match(plan: list[PlannedVisit]) -> int:
        planned = by_subject(plan)
        assert match_upload(upload, planned, matching) == Match("S01", "V1")
        return count_calls(lambda: match_upload(upload, planned, matching))

    assert match([visit, *others]) <= GROWTH_MAX * match([visit])


def rest(visit: PlannedVisit) -> tuple[str, str, date, int, None, None, None]:
    """All of a visit but its subject."""
    return (visit.visit_id, visit.site_id, visit.visit_date, visit.window_days, None, None, None)
