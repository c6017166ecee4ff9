"""Digests that name values and files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from storage.objects import get
from storage.place import Place


def canonical_digest(value: Any) -> str:  # noqa: ANN401  (any JSON value)
    """SHA-256 of a JSON value in canonical form: sorted keys, no white space, no NaN.

    Tuples count as lists. Empty and default values stay in, so that a changed default changes the digest.

    Raises
    ------
    TypeError
        If the value holds something JSON has no form for.
    ValueError
        If it holds NaN or an infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Place) -> str:
    """SHA-256 of a file's bytes."""
    if not isinstance(path, Path):
        return hashlib.sha256(get(path)).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
