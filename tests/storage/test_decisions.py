"""The decisions file: read whole, or refused with what is wrong."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storage.decisions import MAX_BYTES, read_decisions
from storage.errors import DecisionsError, NotStoredError
from tests.storage.drawn_reviews import decisions, write_decisions

NATIVE_0 = ("native", 0)


def test_all_that_the_file_says_is_kept(tmp_path: Path) -> None:
    """Comments with umlauts and lines, a time in another zone; the digest is that of the bytes."""
    slices = {NATIVE_0: {"guide": "redraw", "decision": "exclude", "comment": "Bewegung,\nfünf\u00a0Echos"}}
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps(decisions(slices, decided_at="2026-03-06T21:30:00+01:00")), encoding="utf-8")
    found, digest = read_decisions(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.decided_at_utc == datetime(2026, 3, 6, 20, 30, tzinfo=UTC)
    assert [one.model_dump() for one in found.slices] == decisions(slices)["slices"]
    named = ("format", "version", "trial_id", "subject_id", "visit_id", "result_digest", "reader_id")
    assert {name: getattr(found, name) for name in named} == {name: decisions()[name] for name in named}


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    """Some editors write one."""
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps(decisions()), encoding="utf-8-sig")
    assert read_decisions(path)[0].reader_id == "R1"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        pytest.param({"version": 2}, "version: found 2, expected: Input should be 1", id="version"),
        pytest.param({"version": "1"}, "version: found '1', expected: Input should be 1", id="text"),
        pytest.param({"reader": "R1"}, "reader: unknown key, remove it", id="unknown"),
        pytest.param({"reader_id": ""}, "reader_id: found '', expected: .* at least 1", id="nobody"),
        pytest.param({"reader_id": " R1"}, "reader_id: begins or ends with a space", id="space"),
        pytest.param({"reader_id": "R\x1b[1"}, "reader_id: .* control characters", id="control"),
        pytest.param({"result_digest": "ab"}, "result_digest: found 'ab', expected: .*64", id="digest"),
        pytest.param({"decided_at": "2026-03-06T20:30:00"}, "decided_at: found .*timezone", id="naive"),
        pytest.param({"decided_at": 1772829000}, "decided_at: found 1772829000", id="seconds"),
        pytest.param({"decided_at": "0001-01-01T00:00:00+10:00"}, "decided_at: lies before", id="early"),
        pytest.param({"subject_id": "../visits/S01"}, "subject_id: expected 1 to 64 of", id="elsewhere"),
        pytest.param({"visit_id": "V" * 300}, "visit_id: expected 1 to 64 of", id="long"),
        pytest.param({"slices": {}}, "slices: Input should be a valid (tuple|array)", id="no-slices"),
        pytest.param(
            {"slices": decisions()["slices"] * 2}, "more than once: native slice 0, nat", id="twice"
        ),
        pytest.param({"slices": [{"role": "native"}]}, r"slices\.0\.slice_index is missing", id="missing"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(
    tmp_path: Path, contents: dict[str, Any], message: str
) -> None:
    """Nothing is guessed, and nothing passed over."""
    with pytest.raises(DecisionsError, match=message):
        read_decisions(write_decisions(tmp_path / "decisions.json", decisions(**contents)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decision": "excluded"}, r"slices\.0\.decision: found 'excluded', expected: .*'exclude'"),
        ({"guide": "ok"}, r"slices\.0\.guide: found 'ok', expected: .*'redraw'"),
        ({"role": "both"}, r"slices\.0\.role: found 'both', expected: .*'post'"),
        ({"slice_index": "0"}, r"slices\.0\.slice_index: found '0', expected: .*integer"),
        ({"slice_index": 0.5}, r"slices\.0\.slice_index: found 0\.5, expected"),
        ({"slice_index": -1}, r"slices\.0\.slice_index: found -1, expected"),
        ({"decision": "exclude"}, r"slices\.0: decision is exclude, so comment must say why"),
        ({"decision": "repeat", "comment": " \n"}, r"slices\.0: decision is repeat, so comment must"),
        ({"comment": "\x07"}, r"slices\.0\.comment: holds control characters"),
    ],
)
def test_a_wrong_slice_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """By its place in the file."""
    with pytest.raises(DecisionsError, match=message):
        read_decisions(write_decisions(tmp_path / "decisions.json", decisions({NATIVE_0: changes})))


def test_a_comment_is_never_repeated(tmp_path: Path) -> None:
    """It may hold what belongs into no log."""
    with pytest.raises(DecisionsError) as raised:
        read_decisions(
            write_decisions(
                tmp_path / "decisions.json", decisions({NATIVE_0: {"comment": "Mrs Miller" * 300}})
            )
        )
    assert "slices.0.comment: String should have at most 2000" in str(raised.value)
    assert "Miller" not in str(raised.value)


def test_every_error_is_listed(tmp_path: Path) -> None:
    """So that one look mends the file."""
    slices = {NATIVE_0: {"guide": "ok"}, ("post", 1): {"decision": "no"}}
    with pytest.raises(DecisionsError, match=r"version: .*slices\.0\.guide.*slices\.3\.decision"):
        read_decisions(write_decisions(tmp_path / "decisions.json", decisions(slices, version=3)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no JSON"),
        (b'{"format": "cmrtrials-decisions", "vers', "is no JSON: .*; download it again"),
        (b"[1]", 'is no decisions file: expected an object with "format": "cmrtrials-decisions"'),
        (b'{"format": "other"}', "is no decisions file"),
        (b'"\xff"', "is no UTF-8"),
        (b"[" * 200_000, "is no JSON"),
        (b'{"version": ' + b"1" * 5000 + b"}", "is no JSON: Exceeds the limit"),
        (b" " * (MAX_BYTES + 1), f"over {MAX_BYTES} bytes"),
    ],
    ids=["empty", "cut", "list", "other", "latin", "deep", "digits", "long"],
)
def test_what_is_no_decisions_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    """Whatever lies under that name."""
    (tmp_path / "decisions.json").write_bytes(data)
    with pytest.raises(DecisionsError, match=message):
        read_decisions(tmp_path / "decisions.json")


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """JSON's own rule would drop the first of both decisions without a word."""
    text = json.dumps(decisions()).replace(
        '"decision": "accept"', '"decision": "exclude", "decision": "accept"', 1
    )
    (tmp_path / "decisions.json").write_text(text)
    with pytest.raises(DecisionsError, match="keys more than once in one object: 'decision'"):
        read_decisions(tmp_path / "decisions.json")


def test_a_missing_file_is_named_as_such(tmp_path: Path) -> None:
    """Without its path."""
    with pytest.raises(NotStoredError, match="there is no such file; name the file"):
        read_decisions(tmp_path / "decisions.json")
