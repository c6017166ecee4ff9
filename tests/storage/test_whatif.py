"""Settings changed for one visit, and the small trial that it becomes."""

import json
from pathlib import Path

import numpy as np
import pytest

from storage.arrays import link_store, open_store, write_array, write_store
from storage.config import load_config
from storage.errors import ConfigError
from storage.plan import read_plan
from storage.trial import open_trial
from storage.whatif import read_variant, whatif_root, write_whatif
from tests.storage.drawn_uploads import DEMO_CONFIG

HEADER = "subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Root of a trial with one planned visit, and weights of its own."""
    (tmp_path / "trial.toml").write_bytes(DEMO_CONFIG.read_bytes())
    (tmp_path / "subjects.csv").write_text(HEADER + "S01,V1,2026-01-12,14,0.42,2026-01-12,01\n")
    (tmp_path / "weights").mkdir()
    return tmp_path


def test_a_setting_changes_what_it_names_and_nothing_else(root: Path) -> None:
    """A what-if with a second difference would answer another question."""
    before = load_config(root / "trial.toml")
    variant = read_variant(root, ["segment.alpha = 0.5", "quantify.qc.wall_max_mm=30"])
    assert variant.config.segment.alpha == 0.5
    assert variant.config.quantify.qc.wall_max_mm == 30.0
    restored = variant.config.model_dump()
    restored["segment"]["alpha"] = before.segment.alpha
    restored["quantify"]["qc"]["wall_max_mm"] = before.quantify.qc.wall_max_mm
    assert restored == before.model_dump()
    assert variant.changes["segment.alpha"] == (before.segment.alpha, 0.5)


def test_text_needs_no_quotes_and_comments_stay(root: Path) -> None:
    """A form is filled in by people; the file that comes of it is read by people."""
    variant = read_variant(root, ["align.method=none"])
    assert variant.config.align.method == "none"
    (line,) = (line for line in variant.text.splitlines() if line.startswith('method = "none"  '))
    assert "#" in line


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("segment.alpha", "section.key=value"),
        ("alpha=0.5", "section.key=value"),
        ("segment.alfa=0.5", "segment.alfa: trial.toml has no such key"),
        ("segment.alpha.x=0.5", "segment.alpha.x: trial.toml has no such key"),
        ("privacy.dates=keep", "only these sections can be changed"),
        ("trial_id.x=other", "only these sections can be changed"),
        ("segment.alpha=2.0", "segment.alpha: found 2.0, expected"),
        ("align.method=magic", "align.method: found 'magic'"),
    ],
)
def test_what_cannot_be_set_is_named(root: Path, setting: str, message: str) -> None:
    """The form of the UI shows the message of the run, so it must say which setting."""
    with pytest.raises(ConfigError) as caught:
        read_variant(root, [setting])
    assert message in str(caught.value)


def test_settings_that_are_so_already_are_refused(root: Path) -> None:
    """Before and after would be equal, which says nothing."""
    alpha = load_config(root / "trial.toml").segment.alpha
    with pytest.raises(ConfigError, match="nothing is changed"):
        read_variant(root, [f"segment.alpha={alpha}"])


def test_the_place_is_a_trial_with_that_visit_alone(root: Path) -> None:
    """`status`, `query` and `compare` read it; the place follows from visit and settings."""
    (line,) = read_plan(root)
    variant = read_variant(root, ["segment.alpha=0.5"])
    folder = whatif_root(root, "S01", "V1", variant.config)
    assert folder == whatif_root(root, "S01", "V1", read_variant(root, ["segment.alpha = 0.50"]).config)
    assert folder != whatif_root(root, "S01", "V2", variant.config)
    for _ in range(2):
        write_whatif(root, folder, variant, line)
    small = open_trial(folder)
    assert small.plan() == (line,)
    assert small.config == variant.config
    assert (folder / "weights").resolve() == (root / "weights").resolve()
    changes = json.loads((folder / "whatif.json").read_text())["changes"]
    assert list(changes) == ["segment.alpha"]
    assert changes["segment.alpha"]["to"] == 0.5


def test_arrays_of_the_record_are_taken_over_without_a_second_copy(tmp_path: Path) -> None:
    """What no changed setting touches is not computed again, and takes no room."""
    record, other = tmp_path / "record", tmp_path / "other"
    values = np.arange(6.0).reshape(1, 2, 3)
    with write_store(record, "S01", "V1", "d1") as store:
        write_array(store, "t1_ms", values, "ms", "slice row col")
    link_store(record, other, "S01", "V1", "d1")
    np.testing.assert_array_equal(np.asarray(open_store(other, "S01", "V1", "d1")["t1_ms"]), values)
    files = [path for path in (other / "arrays").rglob("*") if path.is_file()]
    assert {file.stat().st_nlink for file in files} == {2}
