"""The digital trial on disk: the same recipe gives the same bytes, and never over something else."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import pytest

from flows.simulate import DEMO_FAULTS, FLAVORS, NotEmptyError, Recipe, simulate_trial
from flows.simulated_visit import Fault

ONE_VISIT = Recipe(n_subjects=1, n_visits=1, seed=4)


def digests(root: Path) -> dict[str, str]:
    """Digest of every file."""
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digest of every file of a trial."""
    root = tmp_path_factory.mktemp("simulated") / "trial"
    simulate_trial(root, ONE_VISIT, on_visit=lambda _: None)
    return digests(root)


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path, simulated: dict[str, str]) -> None:
    """A figure measured on a digital trial can be measured again."""
    simulate_trial(tmp_path / "trial", ONE_VISIT, on_visit=lambda _: None)
    assert digests(tmp_path / "trial") == simulated


def test_another_seed_gives_another_trial(tmp_path: Path, simulated: dict[str, str]) -> None:
    """Seeds reach the images."""
    simulate_trial(tmp_path / "trial", replace(ONE_VISIT, seed=5), on_visit=lambda _: None)
    one, two = (
        {digest for name, digest in files.items() if name.startswith("incoming")}
        for files in (simulated, digests(tmp_path / "trial"))
    )
    assert not one & two


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """Nobody loses a trial to a digital one."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(NotEmptyError, match="not empty"):
        simulate_trial(tmp_path, ONE_VISIT, on_visit=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("guides", "n_with"), [("all", 12), ("some", 4), ("none", 0)])
def test_readers_guides_come_with_as_many_visits_as_asked(
    guides: Literal["all", "some", "none"], n_with: int
) -> None:
    """A night finds the other guides by itself."""
    visits = Recipe(n_subjects=6, n_visits=2, seed=1, guides=guides).visits()
    assert sum(visit.guide_format is not None for visit in visits) == n_with


def test_the_demo_has_every_kind_of_upload() -> None:
    """Eleven images, NIfTI guides, and one each of what goes wrong."""
    visits = list(Recipe(n_subjects=6, n_visits=2, seed=1, faults=DEMO_FAULTS).visits())
    assert {visit.scheme_native for visit in visits} == {"5(3)3", "3(3)3(3)5"}
    assert {visit.guide_format for visit in visits} == {"seg", "nifti"}
    struck = [fault for visit in visits for fault in visit.faults]
    assert sorted(struck) == sorted(DEMO_FAULTS)


def test_every_site_has_a_scanner_of_the_vendor() -> None:
    """And keeps it, unless the recipe says that it was replaced."""
    recipe = Recipe(n_subjects=10, n_visits=2, seed=1, vendor="mixed")
    by_site = {visit.site_id: visit.flavor for visit in recipe.visits()}
    assert sorted(by_site.values()) == sorted(FLAVORS["mixed"])
    assert all(visit.flavor == by_site[visit.site_id] for visit in recipe.visits())
    replaced = [
        (visit.site_id, visit.visit_id)
        for visit in replace(recipe, faults=("scanner_change",)).visits()
        if visit.flavor != by_site[visit.site_id]
    ]
    assert set(replaced) == {("01", "V2")}


@pytest.mark.parametrize("fault", get_args(Fault))
def test_every_fault_strikes_a_visit(fault: Fault) -> None:
    """A fault that is asked for and never comes would prove nothing."""
    recipe = Recipe(n_subjects=6, n_visits=2, seed=1, faults=(fault,), vendor="siemens")
    struck = [visit for visit in recipe.visits() if fault in visit.faults]
    assert struck
    assert all((visit.syntax != "explicit") == (fault == "compressed") for visit in struck)
