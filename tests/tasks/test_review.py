"""Decisions held against the published visit, and against the masks of today."""

import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import Trial, open_trial
from storage.arrays import open_store, read_array, slice_digests, write_store
from storage.decisions import Decisions
from storage.errors import DecisionsError
from storage.reviews import ReviewedSlice, read_reviews, record_review
from storage.tables import publish
from tasks.digests import stage_digests
from tasks.review import decisions_of, review_rows
from tests.storage.drawn_reviews import RESULT, SLICES, Slices, decisions, publish_visit, write_seen
from tests.storage.drawn_rows import visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG

NOW = datetime(2026, 3, 7, tzinfo=UTC)
EXCLUDE: Slices = {("native", 1): {"decision": "exclude", "comment": "ghosts"}}
FLAGS: list[dict[str, Any]] = [
    {"code": "fit_poor", "severity": "review", "role": "native", "slice_index": 0, "value": 0.12},
    {"code": "ecv_implausible", "severity": "review", "role": None, "slice_index": 0, "value": 0.31},
    {"code": "t1_apart", "severity": "note", "role": "post", "slice_index": 1, "value": None},
    {"code": "echoes_unaligned", "severity": "note", "role": "post", "slice_index": 1},
    {"code": "fit_failed", "severity": "fail", "role": "post", "slice_index": 1},
    {"code": "reader_asks_redraw", "severity": "review", "role": "post", "slice_index": 1},
    {"code": "of_an_older_version", "severity": "review", "role": "post", "slice_index": 1},
    {"code": "hematocrit_old", "severity": "review", "role": None, "slice_index": None},
]


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Give a trial with one published visit."""
    shutil.copy(DEMO_CONFIG, tmp_path / "trial.toml")
    publish_visit(tmp_path, flags=FLAGS)
    return open_trial(tmp_path)


def rows_of(trial: Trial, contents: dict[str, Any]) -> list[dict[str, Any]]:
    """Check decisions, and give their rows."""
    found = Decisions.model_validate(
        contents | {"decided_at": datetime(2026, 3, 6, tzinfo=UTC)}, strict=False
    )
    return review_rows(trial, found, "file-1", "J. Doe", NOW)


def reviewed(trial: Trial, of_slices: Slices) -> tuple[ReviewedSlice, ...]:
    """Record decisions, and give those with an effect."""
    assert record_review(trial.folder, rows_of(trial, decisions(of_slices))) == "recorded"
    return read_reviews(trial.folder)["S01", "V1"]


def test_rows_say_what_was_decided_and_what_was_seen(trial: Trial) -> None:
    """By whom, about which result, and with the digests of the slice."""
    rows = rows_of(trial, decisions(EXCLUDE))
    assert [(row["role"], row["slice_index"]) for row in rows] == SLICES
    assert [row["decision"] for row in rows] == ["accept", "exclude", "accept", "accept"]
    assert [row["comment"] for row in rows] == [None, "ghosts", None, None]
    store = open_store(trial.folder, "S01", "V1", RESULT)
    for row in rows:
        seen = slice_digests(store, row["role"], row["slice_index"])
        assert (row["slice_digest"], row["guide_digest"]) == seen
        assert (row["recorded_by"], row["recorded_at"], row["file_digest"]) == ("J. Doe", NOW, "file-1")
    assert len({row["slice_digest"] for row in rows}) == 2  # both series are drawn alike


def test_accepting_covers_what_the_slice_has_raised(trial: Trial) -> None:
    """What asks for a review, or did before a former review; neither notes, failures nor a reader's words."""
    rows = rows_of(trial, decisions())
    assert [row["accepted_flags"] for row in rows] == [
        ["ecv_implausible", "fit_poor"],
        [],
        ["ecv_implausible"],
        ["t1_apart"],
    ]
    assert [row["accepted_values"] for row in rows] == [["0.31", "0.12"], [], ["0.31"], [""]]
    for other in ({"guide": "redraw"}, {"decision": "exclude", "comment": "ghosts"}):
        assert rows_of(trial, decisions({("native", 0): other}))[0]["accepted_flags"] == []


def test_the_worst_of_several_findings_is_what_a_reader_saw(trial: Trial) -> None:
    """A check of both series and one of a single one may be raised by the same name."""
    found = {"code": "t1_apart", "severity": "review", "slice_index": 0, "threshold": 0.1}
    flags = [found | {"role": role, "value": value} for role, value in (("post", 0.3), (None, 0.2))]
    publish_visit(trial.folder, "ef" * 32, flags=flags)
    rows = rows_of(trial, decisions(result_digest="ef" * 32))
    assert [row["accepted_values"] for row in rows] == [["0.2"], [], ["0.3"], []]


def test_accepted_values_reach_the_checks(trial: Trial) -> None:
    """NaN where a check had none; a review of a former version accepts whatever a check finds."""
    found = reviewed(trial, {})
    store = open_store(trial.root, "S01", "V1", RESULT)
    (native, _) = decisions_of(store, "native", 2, found)
    (_, post) = decisions_of(store, "post", 2, found)
    assert native is not None
    assert native.accepted == {"ecv_implausible": 0.31, "fit_poor": 0.12}
    assert post is not None
    assert post.accepted == {"t1_apart": pytest.approx(math.nan, nan_ok=True)}
    former = tuple(replace(one, accepted_values=()) for one in found)
    (native, _) = decisions_of(store, "native", 2, former)
    assert native is not None
    assert native.accepted == {"ecv_implausible": None, "fit_poor": None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trial_id": "other"}, "is of trial 'other', this one is 'demo'"),
        ({"visit_id": "V9"}, "S01/V9: nothing is published of such a visit"),
        ({"result_digest": "cd" * 32}, "S01/V1 never had the result cdcdcdcdcdcd; take the page of this"),
        (
            {"slices": decisions()["slices"][1:]},
            "S01/V1: nothing is decided about native slice 0$",
        ),
        (
            {"slices": [*decisions()["slices"], decisions()["slices"][0] | {"slice_index": 7}]},
            "the visit has no native slice 7",
        ),
    ],
    ids=["trial", "visit", "result", "too-few", "too-many"],
)
def test_decisions_about_something_else_are_refused(
    trial: Trial, values: dict[str, Any], message: str
) -> None:
    """With what was found and what is there."""
    with pytest.raises(DecisionsError, match=message):
        rows_of(trial, decisions(**values))


def test_decisions_about_a_replaced_result_are_refused(trial: Trial) -> None:
    """The reader is told where the former one lies."""
    publish_visit(trial.folder, "cd" * 32)
    message = r"decided on result abababababab, which another one replaced \(see history/S01/V1/1/superseded"
    with pytest.raises(DecisionsError, match=message):
        rows_of(trial, decisions())


def test_a_visit_without_a_result_has_nothing_to_decide_on(trial: Trial) -> None:
    """It failed since."""
    publish(trial.folder, visit_row(state="failed", result_digest=None), {}, "core lab", "night")
    with pytest.raises(DecisionsError, match="S01/V1 is failed now, so there is no result"):
        rows_of(trial, decisions())


def test_decisions_of_the_future_are_refused(trial: Trial) -> None:
    """Nothing could supersede them; a clock in another zone is no matter."""
    for ahead, is_refused in ((timedelta(hours=14), False), (timedelta(days=2), True)):
        found = Decisions.model_validate(decisions() | {"decided_at": NOW + ahead}, strict=False)
        if is_refused:
            with pytest.raises(DecisionsError, match="decided at 2026-03-09 00:00 UTC, which is to come"):
                review_rows(trial, found, "file-1", "J. Doe", NOW)
        else:
            assert review_rows(trial, found, "file-1", "J. Doe", NOW)


def test_a_decision_holds_while_images_and_masks_of_its_slice_stand(trial: Trial) -> None:
    """Another slice may have changed; another guide of the same masks changes nothing."""
    found = reviewed(trial, EXCLUDE | {("post", 0): {"decision": "repeat", "comment": "arrhythmia"}})
    pixels = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    masks = np.stack([pixels % 2 > 0] * 3)
    masks[:, 0, 0, 0, 0] ^= True
    echoes = pixels.copy()
    echoes[0, 0, 0, 0] += 1
    guide = np.zeros((3, 2, 4, 4), dtype=bool)
    changes: dict[str, tuple[dict[str, Any], tuple[bool, bool]]] = {
        "nothing": ({}, (True, True)),
        "other-slice": ({"native_masks": masks, "native_echoes": echoes}, (True, True)),
        "masks": ({"native_masks": np.roll(masks, 1, axis=1)}, (False, True)),
        "echoes": ({"post_echoes": echoes}, (True, False)),
        "guide": ({"native_guide": guide}, (True, True)),
    }
    for name, (arrays, expected) in changes.items():
        with write_store(trial.folder, "S01", "V1", name) as store:
            write_seen(store, **arrays)
            native, post = decisions_of(store, "native", 2, found), decisions_of(store, "post", 2, found)
        assert native[1] is not None
        assert post[0] is not None
        assert (native[1].holds, post[0].holds) == expected, name


def test_a_decision_follows_its_slice_to_another_index(trial: Trial) -> None:
    """A later upload may lack the slice below; one whose images are gone lapses, and is not forgotten."""
    found = reviewed(trial, EXCLUDE)
    seen = open_store(trial.folder, "S01", "V1", RESULT)
    last = {name: read_array(seen, f"native/{name}") for name in ("echoes", "ti_ms", "masks", "guide")}
    axes = {"echoes": 0, "ti_ms": 0, "masks": 1, "guide": 1}
    for name, values in last.items():
        assert values is not None
        last[name] = np.take(values, [1], axis=axes[name])
    for name, holds in (("same", True), ("other", False)):
        drawn: dict[str, Any] = {f"native_{array}": values for array, values in last.items()}
        if not holds:
            drawn["native_echoes"] = drawn["native_echoes"] + np.float32(1)
        with write_store(trial.folder, "S01", "V1", name) as store:
            write_seen(store, **drawn, native_reference_echo=np.zeros(1, dtype=np.int64))
            (decision,) = decisions_of(store, "native", 1, found)
        assert decision is not None, name
        assert (decision.decision, decision.holds) == ("exclude", holds), name


@pytest.mark.parametrize(
    ("origin", "is_drawn_anew", "is_asked_for"),
    [("model", False, True), ("reader", False, True), ("model", True, True), ("reader", True, False)],
)
def test_another_guide_is_asked_for_until_a_reader_draws_one(
    trial: Trial, *, origin: str, is_drawn_anew: bool, is_asked_for: bool
) -> None:
    """The one that was seen, and one that a network found, do not do."""
    found = reviewed(trial, {("native", 0): {"guide": "redraw"}})
    guide = {"native_guide": np.ones((3, 2, 4, 4), dtype=bool)} if is_drawn_anew else {}
    with write_store(trial.folder, "S01", "V1", "next") as store:
        write_seen(store, origin=origin, **guide)
        (decision, _) = decisions_of(store, "native", 2, found)
    assert decision is not None
    assert (decision.redraw, decision.holds) == (is_asked_for, True)


def test_without_a_review_there_are_no_decisions(trial: Trial) -> None:
    """And the digest of the result is as it was before there were any."""
    store = open_store(trial.folder, "S01", "V1", RESULT)
    assert decisions_of(store, "native", 2, ()) == ()


def test_decisions_are_an_input_of_the_result_alone(trial: Trial) -> None:
    """Echoes and masks stand; other decisions make another result, none the former one."""
    (trial.folder / "subjects.csv").write_text(
        "subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id\n"
        "S01,V1,2026-03-04,7,,,01\n"
    )
    (line,) = trial.plan()
    found = reviewed(trial, EXCLUDE)
    without, with_all, with_fewer = (
        stage_digests(trial.config, line, ["content"], None, reviewed=some) for some in ((), found, found[1:])
    )
    assert {stage for stage in without if without[stage] != with_all[stage]} == {"quantify"}
    assert without == stage_digests(trial.config, line, ["content"], None)
    assert len({one["quantify"] for one in (without, with_all, with_fewer)}) == 3
