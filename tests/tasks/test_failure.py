"""How a failed task run is told, and what the next night tries again."""

import errno

import pytest

from cmrcore.errors import InvalidInputError
from storage.errors import (
    AlreadyWrittenError,
    NotStoredError,
    RefusedError,
    UnreadableError,
    UploadChangedError,
)
from tasks.failure import describe, may_pass
from tasks.fanout import Failure, OverdueError

SITE_FILE = "/data/incoming/Mustermann_Max/IM1.dcm"


@pytest.mark.parametrize(
    ("failure", "passes"),
    [
        pytest.param(Failure("crashed", RuntimeError("killed")), True, id="worker-died"),
        pytest.param(Failure("error", OSError(errno.ENOSPC, "No space left on device")), True, id="disk"),
        pytest.param(Failure("error", MemoryError()), True, id="memory"),
        pytest.param(Failure("error", UnreadableError("file 3")), True, id="unreadable"),
        pytest.param(Failure("error", UploadChangedError("it changed")), True, id="still-arriving"),
        pytest.param(Failure("error", RefusedError("no images")), False, id="refused"),
        pytest.param(Failure("error", AlreadyWrittenError("another result")), False, id="written"),
        pytest.param(Failure("error", NotStoredError("no arrays")), False, id="not-stored"),
        pytest.param(Failure("error", InvalidInputError("3 times")), False, id="science"),
        pytest.param(Failure("error", ZeroDivisionError("defect")), False, id="defect"),
        pytest.param(Failure("overdue", OverdueError("took 30 min")), False, id="overdue"),
    ],
)
def test_only_what_the_machine_or_the_moment_did_may_pass(failure: Failure, passes: bool) -> None:
    """What is tried again in vain costs every night; what is not tried again stays lost."""
    assert may_pass(failure) is passes


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        pytest.param(
            Failure("crashed", RuntimeError(SITE_FILE)),
            "the worker died (RuntimeError); the next night tries again",
            id="crashed",
        ),
        pytest.param(
            Failure("overdue", OverdueError("took longer than 30 min")),
            "took longer than 30 min (a visit has CMR_VISIT_MINUTES); run it again when the cause is known",
            id="overdue",
        ),
        pytest.param(Failure("error", RefusedError("no images")), "no images", id="storage"),
        pytest.param(Failure("error", InvalidInputError("3 times")), "3 times", id="science"),
        pytest.param(
            Failure("error", PermissionError(errno.EACCES, "Permission denied", SITE_FILE)),
            "PermissionError: Permission denied; the next night tries again",
            id="file",
        ),
        pytest.param(Failure("error", OSError("no route")), "OSError: no route", id="no-number"),
        pytest.param(Failure("error", KeyError("rows")), "KeyError: 'rows'", id="defect"),
    ],
)
def test_a_failure_is_told_without_the_sites_names(failure: Failure, text: str) -> None:
    """Folders of a site may be called after patients; our own messages name no file."""
    assert describe(failure) == text
