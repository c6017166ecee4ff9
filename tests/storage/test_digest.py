"""Digests."""

import hashlib
import math
from pathlib import Path

import pytest

from storage.digest import canonical_digest, file_digest


def test_key_order_and_tuples_do_not_change_a_digest() -> None:
    """Equal values have equal digests, whichever way they were built."""
    assert canonical_digest({"a": 1, "b": [1, 2]}) == canonical_digest({"b": (1, 2), "a": 1})


@pytest.mark.parametrize("other", [{"a": 2}, {"a": 1, "b": None}, {"a": 1.5}, {}], ids=str)
def test_any_change_of_a_value_changes_its_digest(other: dict[str, object]) -> None:
    """Empty and default values count too."""
    assert canonical_digest({"a": 1}) != canonical_digest(other)


def test_a_digest_is_sha256_of_canonical_json() -> None:
    """The digest of a stored value can be computed again with any tool."""
    assert canonical_digest({"ü": [1, "x"]}) == hashlib.sha256('{"ü":[1,"x"]}'.encode()).hexdigest()


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_values_without_a_json_form_have_no_digest(value: float) -> None:
    """NaN differs from itself, so it identifies nothing."""
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_digest({"value": value})


def test_file_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    """Uploads are identified by it."""
    (tmp_path / "file").write_bytes(b"bytes")
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"bytes").hexdigest()
