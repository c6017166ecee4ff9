"""A kill at any point leaves a whole lock or none."""

import itertools
import shutil
from pathlib import Path

import pandas as pd
import pytest

from storage import audit
from storage.errors import AlreadyWrittenError
from storage.lock import lock_names, verify_lock
from storage.record import verify_record
from tests.storage.kills import killed
from tests.storage.lock.drawn import FLAGS, edit, free, lock, publish_result


def test_what_a_kill_left_aside_is_no_lock(root: Path) -> None:
    """Without its line in the log it is thrown away, read-only or not."""
    left = root / "locks/.interim.tmp/tables"
    left.mkdir(parents=True)
    (left / "x.parquet").write_text("x")
    left.chmod(0o555)
    assert lock_names(root) == ()
    made = lock(root)
    assert verify_lock(root, "interim") == made
    assert [path.name for path in (root / "locks").iterdir()] == ["interim"]


def test_what_was_entered_but_not_moved_into_place_is_completed(locked: Path) -> None:
    """With the contents of then, though a night came between; not if somebody changed it meanwhile."""
    folder, staging = locked / "locks/interim", locked / "locks/.interim.tmp"
    folder.rename(staging)
    publish_result(locked, "later", ecv_fraction=0.4)
    assert lock(locked) == verify_lock(locked, "interim")
    assert pd.read_parquet(folder / "tables/scans")["ecv_fraction"].tolist() == [1.5]
    folder.rename(staging)
    free(staging)
    edit(FLAGS)(staging)
    with pytest.raises(AlreadyWrittenError, match="but it is gone"):
        lock(locked)


@pytest.mark.slow
def test_a_kill_at_any_point_leaves_no_half_lock(drawn: Path, tmp_path: Path) -> None:
    """Either there is none or a whole one; locking again makes it, once."""
    outcomes = set()
    # Coarsely while files are copied, then at every third step: the log's line stands for two or three.
    for kill_at in itertools.chain(range(1, 140, 23), itertools.count(140, 3)):
        root = Path(shutil.copytree(drawn, tmp_path / str(kill_at)))
        if not killed(root, lock, kill_at):
            break
        exists = (root / "locks/interim").exists()
        outcomes.add((exists, any(event["event"] == "locked" for event in audit.read_events(root))))
        if exists:
            assert verify_lock(root, "interim").n_arrays == 1
        else:
            assert lock_names(root) == ()
            lock(root)
        assert verify_lock(root, "interim").n_arrays == 1
        assert sum(event["event"] == "locked" for event in audit.read_events(root)) == 1
        assert verify_record(root).n_visits == 2
        publish_result(root, "later")
    assert (False, False) in outcomes
    assert (False, True) in outcomes
