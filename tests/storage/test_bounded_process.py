"""The child process itself: requests in their order, one child after another, nothing left behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.bounded_process import ChildProcess, DeadChildError

HOSTILE = "tests.storage.hostile_child"
MEMORY_BYTES = 200 * 2**20


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    """Give a child that does what a file tells it; it is started with the first request."""
    process = ChildProcess(HOSTILE, MEMORY_BYTES, wall_factor=20.0)
    yield process
    process.close()


def _request(folder: Path, word: str) -> dict[str, Any]:
    path = folder / f"{word}.txt"
    path.write_text(word)
    return {"do": "identity", "path": str(path), "source": None, "cpu_s": 1, "wall_s": 20}


def _open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_answers_come_in_the_order_of_the_requests(tmp_path: Path, child: ChildProcess) -> None:
    """One child for all of them, started when it is first needed."""
    assert child.n_started == 0
    words = ("fine", "raise", "fine")
    answers = [text for text, _ in child.exchange([_request(tmp_path, word) for word in words])]
    assert ["refused" in text for text in answers] == [False, True, False]
    assert child.n_started == 1


@pytest.mark.parametrize(
    ("word", "how", "may_pass"),
    [
        ("segfault", "it crashes its reader (SIGSEGV); export it again", True),
        ("exit", "it crashes its reader (exit code 3); export it again", True),
        ("loop", "reading it takes more than 1 s of processor time (uploads.read_seconds)", False),
    ],
)
def test_a_death_says_how_and_whether_to_try_again(
    tmp_path: Path, child: ChildProcess, word: str, how: str, may_pass: bool
) -> None:
    """What came before it is answered, what comes after is for the next child."""
    answers = child.exchange([_request(tmp_path, name) for name in ("fine", word, "fine")])
    assert "identity" in next(answers)[0]
    with pytest.raises(DeadChildError) as death:
        next(answers)
    assert (death.value.how, death.value.may_pass) == (how, may_pass)
    assert len(list(child.exchange([_request(tmp_path, "fine")]))) == 1
    assert child.n_started == 2


def test_answers_that_nobody_takes_meet_no_later_question(tmp_path: Path, child: ChildProcess) -> None:
    """The child that has them is ended."""
    answers = child.exchange([_request(tmp_path, "fine")] * 3)
    next(answers)
    answers.close()
    assert len(list(child.exchange([_request(tmp_path, "fine")]))) == 1
    assert child.n_started == 2


def test_a_closed_child_leaves_no_pipe_open(tmp_path: Path, child: ChildProcess) -> None:
    """A worker reads thousands of visits; closing twice is closing once."""
    before = _open_files()
    for _ in range(2):
        assert list(child.exchange([_request(tmp_path, "fine")]))
        assert len(_open_files()) == len(before) + 3
        child.close()
        child.close()
    assert _open_files() == before


def test_a_child_that_does_not_start_is_the_machines_fault(tmp_path: Path) -> None:
    """It says how to see why."""
    before = _open_files()
    child = ChildProcess("tests.storage.no_such_child", MEMORY_BYTES, wall_factor=20.0)
    with pytest.raises(OSError, match=r"does not start; try python -m tests\.storage\.no_such_child"):
        list(child.exchange([_request(tmp_path, "fine")]))
    assert _open_files() == before
