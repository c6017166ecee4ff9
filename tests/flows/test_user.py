"""Who asks for a run."""

import getpass
import os

import pytest

from flows.user import current_user


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """As in a container."""

    def nameless() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert current_user() == f"uid {os.getuid()}"


def test_a_user_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of the account."""
    monkeypatch.setenv("LOGNAME", "jdoe")
    assert current_user() == "jdoe"
