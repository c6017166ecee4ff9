"""Every answer of storage/COOKBOOK.md, from its own text, on a small published trial."""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.query import run_query
from storage.reviews import record_review
from storage.tables import publish
from tests.flows.published import publish_small_trial
from tests.storage.drawn_rows import row

COOKBOOK = Path(__file__).parents[2] / "storage" / "COOKBOOK.md"
ARMS = "subject_id,arm\n01,A\n02,B\n03,A\n"

_SECTIONS = re.split(r"(?m)^## ", COOKBOOK.read_text())


def recipes(number: int, language: str) -> str:
    """Give the one block of a question in a language; 0 is what stands before the first."""
    (block,) = re.findall(rf"(?ms)^```{language}\n(.*?)^```", _SECTIONS[number])
    return str(block)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the published trial."""
    root = tmp_path_factory.mktemp("cookbook") / "trial"
    publish_small_trial(root)
    return root


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the table of treatment arms, which lies elsewhere."""
    path = tmp_path_factory.mktemp("randomization") / "arms.csv"
    path.write_text(ARMS)
    return path


@pytest.fixture
def run_python(root: Path, arms: Path) -> Callable[[int], Any]:
    """Run the Python of a question as a reader would, after that of the introduction."""

    def run(number: int) -> Any:  # noqa: ANN401
        names: dict[str, Any] = {"ROOT": str(root), "ARMS": str(arms)}
        for text in (recipes(0, "python"), recipes(number, "python")):
            exec(compile(text, COOKBOOK.name, "exec"), names)
        return names["answer"]

    return run


@pytest.fixture
def ask(root: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Ask the SQL of a question."""

    def run(number: int, **outside: Path) -> list[tuple[Any, ...]]:
        return run_query(root, recipes(number, "sql"), outside)[1]

    return run


def test_there_are_eleven_questions() -> None:
    """Numbered, each with something to run, and no block in another language."""
    assert [section.split(".")[0] for section in _SECTIONS[1:]] == [str(number) for number in range(1, 12)]
    assert all(re.findall(r"(?m)^```(?:sql|python)$", section) for section in _SECTIONS)
    assert COOKBOOK.read_text().count("```") == 2 * 14


def test_change_of_ecv(run_python: Callable[[int], Any]) -> None:
    """Of the two subjects with both visits."""
    assert run_python(1).round(6).to_dict() == {"01": -0.02, "02": 0.035}


def test_failures_by_site(ask: Callable[..., list[tuple[Any, ...]]]) -> None:
    """Sites are text."""
    assert ask(2) == [("10", 6, 1), ("20", 2, 0)]


def test_outliers(ask: Callable[..., list[tuple[Any, ...]]]) -> None:
    """One native T1 is far from the median at 1.5 T; those at 3 T are far from it too, and no outliers."""
    assert ask(3) == [("t1_native_ms", "02", "W52", 1600.0, 1007.5)]


def test_missing_hematocrit(ask: Callable[..., list[tuple[Any, ...]]]) -> None:
    """At one baseline."""
    assert [row[:3] for row in ask(4)] == [("20", "03", "BL")]


def test_overdue_visits(ask: Callable[..., list[tuple[Any, ...]]], root: Path) -> None:
    """Not the one of 2099."""
    assert [row[:3] for row in ask(5, plan=root / "subjects.csv")] == [("20", "03", "W52")]


def test_segments_wide(run_python: Callable[[int], Any]) -> None:
    """Ten pixels of one slice, thirty of another; none of one that failed."""
    wide = run_python(6)
    assert wide.columns.tolist() == [7]
    assert wide.loc[("01", "BL"), 7] == pytest.approx((10 * 0.30 + 30 * 0.5) / 40)
    assert wide.loc[("02", "BL-R"), 7] == pytest.approx(0.27)
    assert wide.loc[("03", "BL"), 7] == pytest.approx(0.5)
    assert len(wide) == 8


def test_repeatability(run_python: Callable[[int], Any]) -> None:
    """Differences of 10, -20 and 5 ms."""
    within_sd_ms = ((100 + 400 + 25) / 3 / 2) ** 0.5
    expected = {"pairs": 3, "within_sd_ms": within_sd_ms, "repeatability_ms": 2.7718585 * within_sd_ms}
    assert run_python(7) == pytest.approx(expected)


def test_flags_by_scanner(ask: Callable[..., list[tuple[Any, ...]]]) -> None:
    """Two flags of one scan count once."""
    assert ask(8) == [("10", "Aera", "echoes_unaligned", 1, 6)]


def test_changes_since_a_lock(
    ask: Callable[..., list[tuple[Any, ...]]], run_python: Callable[[int], Any], root: Path
) -> None:
    """The visit that ran again, and why."""
    assert ask(9, locked=root / "locks/interim/tables/scans") == [("02", "W52", 0.29, 0.295)]
    (change,) = run_python(9).to_dict("records")
    assert (change["subject_id"], change["visit_id"], change["who"]) == ("02", "W52", "core lab")
    assert change["why"] == "rerun: a reader's guide came"
    history = root / "history/02/W52" / str(int(change["history_number"]))
    assert pd.read_parquet(history / "scans.parquet")["ecv_fraction"].tolist() == [0.29]


def test_treatment_arms(
    ask: Callable[..., list[tuple[Any, ...]]], run_python: Callable[[int], Any], root: Path, arms: Path
) -> None:
    """The same in SQL and pandas; nothing of them is left in the trial's folder."""
    assert ask(10, arms=arms) == [("A", 1, 0.28, None), ("B", 1, 0.295, None)]
    frame = run_python(10)
    assert frame["count"].to_dict() == {"A": 1, "B": 1}
    assert frame["mean"].to_dict() == {"A": 0.28, "B": 0.295}
    assert not list(root.rglob("*arm*"))


def test_what_readers_left_out(ask: Callable[..., list[tuple[Any, ...]]], root: Path) -> None:
    """One decision that a night has honored, one that it is about to; accepted slices are not asked for."""
    decided = {("01", "BL"): "digest-1", ("02", "BL-R"): "first of 02/BL-R"}
    for (subject_id, visit_id), digest in decided.items():
        about = {"subject_id": subject_id, "visit_id": visit_id, "site_id": "10", "result_digest": digest}
        rows = [
            row("reviews", **about, role="native", slice_index=0, decision="exclude", comment="ghosts"),
            row("reviews", **about, role="post", slice_index=0, decision="accept", comment=None),
        ]
        assert record_review(root, rows) == "recorded"
    ids = {"subject_id": "01", "visit_id": "BL", "site_id": "10", "result_digest": "second of 01/BL"}
    flag = row("flags", **ids, code="reader_excluded", severity="fail", role="native", slice_index=0)
    visit = row("visits", **ids, state="flagged", visit_date=date(2024, 1, 10))
    publish(root, visit, {"scans": [row("scans", **ids)], "flags": [flag]}, "core lab", "night")
    assert [(line[0], line[5], line[6], line[7]) for line in ask(11)] == [
        ("01", "exclude", "ghosts", "reader_excluded"),
        ("02", "exclude", "ghosts", "next night"),
    ]
