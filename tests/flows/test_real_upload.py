"""A measured ShMOLLI series as an upload of its own, from DICOM to the published T1 map."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import optimize

from storage import open_trial
from tests.flows.trials import Cmrtrials, published_row, set_segmentation

pytestmark = pytest.mark.slow

TI_MS = [100, 180, 260, 1100, 2100, 3100, 4100]
PHANTOM_PLAN = """\
subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id
phantom,2018,2018-07-09,3,,,01
"""
PHANTOM_RULES = {
    'subject_from = ["folder", "patient_id"]': 'subject_from = ["folder"]',
    "slices = 3": "slices = 1",
    "'(?i)molli.*native'": "'^ShMOLLI'",
    '["5(3)3", "3(3)3(3)5"]': '["5(1)1(1)1"]',
}


@pytest.fixture(scope="module")
def phantom_night(real_data: Path, tmp_path_factory: pytest.TempPathFactory, on_site: Cmrtrials) -> Path:
    """Trial of one visit, the measured phantom, after one night."""
    root = tmp_path_factory.mktemp("phantom") / "trial"
    shutil.copytree(real_data / "shmolli-phantom", root / "incoming" / "phantom_2018")
    rules = Path(__file__).parents[2].joinpath("deploy", "trials", "demo.toml").read_text()
    for demo, phantom in PHANTOM_RULES.items():
        assert demo in rules
        rules = rules.replace(demo, phantom, 1)
    (root / "trial.toml").write_text(rules)
    set_segmentation(root)  # a bottle has no heart to find
    (root / "subjects.csv").write_text(PHANTOM_PLAN)
    night = on_site("run", root)
    assert night.returncode == 0, night.stdout + night.stderr
    return root


def test_magnitude_frames_have_their_inversion_times(phantom_night: Path) -> None:
    """The frames come unsorted in acquisition order and beside seven phase images of the same slice."""
    arrays = open_trial(phantom_night).arrays("phantom", "2018")
    assert np.asarray(arrays["native/ti_ms"]).tolist() == [TI_MS]
    assert np.asarray(arrays["native/acquisition_index"]).tolist() == [[0, 5, 6, 1, 2, 3, 4]]
    assert np.asarray(arrays["native/echoes"]).shape == (1, 7, 288, 384)
    assert arrays["native"].attrs["ti_source"] == [["InversionTime (0018,0082)"] * 7]


def test_each_frame_is_the_image_of_its_inversion_time(phantom_night: Path, real_data: Path) -> None:
    """The stored echo of each time equals the pixels of the file that states this time."""
    echoes = np.asarray(open_trial(phantom_night).arrays("phantom", "2018")["native/echoes"])[0]
    for file in (real_data / "shmolli-phantom" / "magnitude").glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        index = TI_MS.index(int(dataset.InversionTime))
        np.testing.assert_array_equal(echoes[index], dataset.pixel_array.astype(np.float32))


@pytest.mark.parametrize("row_col", [(195, 154), (198, 217), (164, 57)], ids=["vial 7", "vial 9", "bottle"])
def test_t1_is_that_of_an_independent_fit(phantom_night: Path, row_col: tuple[int, int]) -> None:
    """Where seven frames are enough (T1 to 600 ms), the map equals SciPy's fit of the mean signal."""
    arrays = open_trial(phantom_night).arrays("phantom", "2018")
    row, col = row_col
    region = (slice(row - 3, row + 4), slice(col - 3, col + 4))
    signal = np.asarray(arrays["native/echoes"])[(0, slice(None), *region)].mean(axis=(1, 2))
    fits = [restored_fit(signal, n_negative) for n_negative in range(len(TI_MS))]
    t1_ms = min(fits, key=lambda fit: fit[0])[1]
    assert np.median(np.asarray(arrays["native/t1_ms"])[(0, *region)]) == pytest.approx(t1_ms, rel=0.01)
    assert np.median(np.asarray(arrays["native/r_squared"])[(0, *region)]) > 0.99


def restored_fit(magnitude: np.ndarray, n_negative: int) -> tuple[float, float]:
    """Fit A - B exp(-TI / T1*) with the first samples negative; give cost and corrected T1 [ms]."""
    signal = np.where(np.arange(len(TI_MS)) < n_negative, -magnitude, magnitude)

    def residual(parameters: np.ndarray) -> np.ndarray:
        a, b, t1_star_ms = parameters
        return np.asarray(a - b * np.exp(-np.array(TI_MS) / t1_star_ms) - signal)

    start = (magnitude[-1], 2 * magnitude[-1], 500.0)
    found = optimize.least_squares(residual, start, bounds=([0, 0, 10], [np.inf, np.inf, 10_000]))
    a, b, t1_star_ms = found.x
    return float(found.cost), float(t1_star_ms * (b / a - 1))


def test_the_visit_is_flagged_and_says_what_is_missing(phantom_night: Path) -> None:
    """No guide, no post-contrast series and no hematocrit: flagged with reasons, not lost."""
    visit = published_row(phantom_night, "visits", "phantom", "2018")
    assert visit["state"] == "flagged"
    assert {"guide_missing", "post_missing", "hematocrit_missing"} <= {
        reason.split(":")[0] for reason in visit["reason"].split("; ")
    }
    scan = published_row(phantom_night, "scans", "phantom", "2018")
    assert scan["scheme_native"] == "5(1)1(1)1"
    assert scan["field_strength_t"] == 3.0
    assert np.isnan(scan["t1_native_ms"])
