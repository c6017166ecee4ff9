"""The digital trial on disk: the same recipe gives the same bytes, and never over something else."""

import hashlib
from pathlib import Path

import pytest

from flows.simulate import DEMO_FAULTS, NotEmptyError, Recipe, simulate_trial

ONE_VISIT = Recipe(n_subjects=1, n_visits=1, seed=4)


def digests(root: Path) -> dict[str, str]:
    """Digest of every file."""
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file()
    }


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    """A figure measured on a digital trial can be measured again."""
    for name in ("one", "two"):
        simulate_trial(tmp_path / name, ONE_VISIT, on_visit=lambda _: None)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_another_seed_gives_another_trial(tmp_path: Path) -> None:
    """Seeds reach the images."""
    other = Recipe(n_subjects=1, n_visits=1, seed=5)
    simulate_trial(tmp_path / "one", ONE_VISIT, on_visit=lambda _: None)
    simulate_trial(tmp_path / "two", other, on_visit=lambda _: None)
    one, two = (
        {digest for name, digest in digests(tmp_path / part).items() if name.startswith("incoming")}
        for part in ("one", "two")
    )
    assert not one & two


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """Nobody loses a trial to a digital one."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(NotEmptyError, match="not empty"):
        simulate_trial(tmp_path, ONE_VISIT, on_visit=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_demo_has_every_kind_of_upload() -> None:
    """Eleven images, NIfTI guides, and one each of what goes wrong."""
    visits = list(Recipe(n_subjects=6, n_visits=2, seed=1, faults=DEMO_FAULTS).visits())
    assert {visit.scheme_native for visit in visits} == {"5(3)3", "3(3)3(3)5"}
    assert {visit.guide_format for visit in visits} == {"seg", "nifti"}
    struck = [fault for visit in visits for fault in visit.faults]
    assert sorted(struck) == sorted(DEMO_FAULTS)
