"""Nights in which networks draw: with a reader's guide, and without any."""

from pathlib import Path

import pandas as pd
import pytest

from tests.flows.trials import Cmrtrials, published_row, set_segmentation
from tests.tasks.weights import write_weights

pytestmark = pytest.mark.slow


def test_a_guided_night_reads_every_echo_with_the_readers_guide(small_copy: Path, on_site: Cmrtrials) -> None:
    """Workers find the weights in the trial's root; networks that know nothing cost flags, not the night."""
    weights = small_copy / "weights"
    base, guided = write_weights(weights, guided=False), write_weights(weights, guided=True)
    set_segmentation(small_copy, method="guided", base=base, guided=guided)
    night = on_site("run", small_copy)
    assert night.returncode == 0, night.stdout + night.stderr
    echoes = pd.read_parquet(small_copy / "tables" / "echoes")
    assert set(echoes["guide_origin"]) == {"reader"}
    assert echoes["guide_score"].between(0, 1).all()
    first = echoes["echo_index"] == echoes["reference_echo_index"]
    assert (echoes.loc[first, "acquisition_index"] == 0).all()


def test_the_default_night_needs_no_reader(tmp_path: Path, cmrtrials: Cmrtrials) -> None:
    """The packaged networks find every guide; scan means stay near the ideal fit."""
    root = tmp_path / "trial"
    options = ("--subjects", "1", "--visits", "1", "--no-faults", "--difficulty", "clean", "--guides", "none")
    assert cmrtrials("simulate", root, *options).returncode == 0
    night = cmrtrials("run", root, CMR_WORKERS="1")
    assert night.returncode == 0, night.stdout + night.stderr
    echoes = pd.read_parquet(root / "tables" / "echoes")
    assert set(echoes["guide_origin"]) == {"model"}
    assert echoes["dice_guide"].mean() > 0.8
    scan = published_row(root, "scans", "S01", "V1")
    (ideal,) = pd.read_parquet(root / "truth" / "scans.parquet").to_dict("records")
    assert abs(scan["t1_native_ms"] - ideal["t1_native_ms_ideal"]) < 30
    assert abs(scan["ecv_fraction"] - ideal["ecv_fraction_ideal"]) < 0.03
