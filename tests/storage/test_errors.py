"""Errors of storage."""

import pickle
from pathlib import Path

import pytest

from storage.errors import (
    AlreadyWrittenError,
    ConfigError,
    DecisionsError,
    NotStoredError,
    PlanError,
    RefusedError,
    RefusedFile,
    StorageError,
    UnreadableError,
    os_reason,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        pytest.param(RefusedError, ValueError, id="refused"),
        pytest.param(PlanError, ValueError, id="plan"),
        pytest.param(DecisionsError, ValueError, id="decisions"),
        pytest.param(ConfigError, ValueError, id="config"),
        pytest.param(AlreadyWrittenError, FileExistsError, id="already-written"),
        pytest.param(NotStoredError, FileNotFoundError, id="not-stored"),
        pytest.param(UnreadableError, OSError, id="unreadable"),
    ],
)
def test_errors_are_also_the_builtin_they_resemble(error: type[Exception], builtin: type[Exception]) -> None:
    """Callers may catch the base of the package or the builtin."""
    assert issubclass(error, StorageError)
    assert issubclass(error, builtin)


def test_a_refusal_travels_between_processes() -> None:
    """A worker's refusal reaches the flow pickled, with its reason and its files."""
    files = (RefusedFile("u-3fa9c1d2e4", 17, "cut off", Path("incoming/a/b"), "5f"),)
    copy = pickle.loads(pickle.dumps(RefusedError("native: 2 slices, expected 3", files)))
    assert (str(copy), copy.reason, copy.files) == (
        "native: 2 slices, expected 3",
        "native: 2 slices, expected 3",
        files,
    )


def test_a_refused_file_is_named_by_number_only() -> None:
    """Neither text nor representation of a refusal may carry the site's file name into a log."""
    file = RefusedFile("u-3fa9c1d2e4", 17, "cut off", Path("incoming/Jane_Doe/IM1"), "5f")
    assert str(file) == "upload u-3fa9c1d2e4, file 17: cut off"
    assert "Jane" not in repr(RefusedError("refused", (file,)))


def test_the_reason_of_a_machines_error_holds_no_path(tmp_path: Path) -> None:
    """The error's own text does."""
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "Jane_Doe").read_bytes()
    assert os_reason(missing.value) == "No such file or directory"
    assert os_reason(OSError(f"{tmp_path} is gone")) == "OSError"
