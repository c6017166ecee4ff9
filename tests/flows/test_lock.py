"""The command that locks, and the one that verifies."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from flows.lock import lock_app
from storage.record import verify_record
from storage.reviews import record_review
from tests.flows.published import publish_small_trial
from tests.storage.drawn_rows import row


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a published trial with a lock ``interim``, to be copied."""
    root = tmp_path_factory.mktemp("lock") / "trial"
    publish_small_trial(root)
    return root


@pytest.fixture
def root(drawn: Path, tmp_path: Path) -> Path:
    """Give the trial."""
    return Path(shutil.copytree(drawn, tmp_path / "trial"))


def run_lock(*arguments: str | Path) -> Result:
    """Run ``cmrtrials lock`` in this process."""
    return CliRunner().invoke(lock_app, [str(argument) for argument in arguments])


def test_a_lock_is_made_and_verified(root: Path) -> None:
    """Both print the digest to note, and what is in the lock."""
    made = run_lock(root, "final", "--reason", "final analysis")
    assert made.exit_code == 0, made.stderr
    assert "files, 7 done, 1 flagged, 2 waiting" in made.stdout
    verified = run_lock("verify", root, "final")
    assert verified.exit_code == 0, verified.stderr
    assert verified.stdout.splitlines()[:2] == made.stdout.splitlines()[:2]
    assert verified.stdout.endswith("as locked\n")
    assert pd.read_parquet(root / "locks/final/tables/scans")["site_id"].tolist() == ["10"] * 6 + ["20"] * 2


def test_a_changed_lock_is_found(root: Path) -> None:
    """Exit code 1, and the file's name; the record is none of its business."""
    file = root / "locks/interim/subjects.csv"
    file.chmod(0o644)
    file.write_text(file.read_text().replace("14", "15", 1))
    verified = run_lock("verify", root, "interim")
    assert verified.exit_code == 1
    assert "locks/interim/subjects.csv was changed" in verified.stderr
    assert verify_record(root).n_visits == 10


def test_what_cannot_be_locked_is_refused_in_one_line(root: Path) -> None:
    """Exit code 2: a name that is taken, one that is none, a trial that is none."""
    for place, name, said in (
        (root, "interim", "there is a lock interim already"),
        (root, "../x", "cannot be the name of a lock"),
        (root / "tables", "final", "trial.toml is missing"),
    ):
        refused = run_lock(place, name)
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert refused.exception is None or isinstance(refused.exception, SystemExit)
    assert run_lock("verify", root, "final").exit_code == 2


def test_rows_of_another_configuration_are_told(root: Path) -> None:
    """The waiting visits were published under none here."""
    assert "under another trial.toml than the one in the lock: 03/W104, 03/W52" in (
        run_lock("verify", root, "interim").stdout
    )


def test_decisions_that_no_night_has_honored_are_told(root: Path) -> None:
    """Only then."""
    assert "not honored yet" not in run_lock("verify", root, "interim").stdout
    ids = {"subject_id": "01", "visit_id": "BL", "site_id": "10"}
    record_review(root, [row("reviews", **ids, decision="exclude")])
    made = run_lock(root, "final")
    assert "reviewed, and not honored yet: 01/BL; run a night, and lock under another" in made.stdout


def test_help_names_both_forms() -> None:
    """`lock ROOT NAME` is short for `lock make ROOT NAME`."""
    shown = run_lock("--help").stdout
    assert "cmrtrials lock ROOT NAME" in shown
    assert "verify" in shown
