"""Simulated uploads of every vendor, read by intake; and each fault, found by it."""

import zipfile
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest

from cmrcore.phantom import SimulatedScan, simulate_scan
from flows.simulate import SCHEME_NATIVE, SCHEME_POST, UnknownFaultError, parse_faults
from flows.simulated_upload import write_upload
from flows.simulated_visit import Fault, SimulatedVisit
from storage.config import CONFIG_FILE
from storage.errors import RefusedError
from storage.intake import VisitIntake, intake_visit
from storage.upload import hash_upload, list_uploads
from storage.vendor_write import SCANNERS, Flavor
from tests.storage.drawn_uploads import DEMO_CONFIG, demo_config

VISIT = SimulatedVisit(
    subject_index=0,
    visit_index=0,
    site_index=0,
    planned_on=date(2026, 1, 12),
    scanned_at=datetime(2026, 1, 12, 10),
    scheme_native=SCHEME_NATIVE,
    scheme_post=SCHEME_POST,
    guide_format="seg",
    flavor="phantom",
    syntax="explicit",
    faults=frozenset(),
)


@pytest.fixture(scope="module")
def scan() -> SimulatedScan:
    """Give one simulated scan, which takes seconds."""
    return simulate_scan(3, 0, 0, scheme_native=SCHEME_NATIVE, scheme_post=SCHEME_POST)


def _write(root: Path, scan: SimulatedScan, visit: SimulatedVisit) -> None:
    root.mkdir(exist_ok=True)
    (root / CONFIG_FILE).write_bytes(DEMO_CONFIG.read_bytes())
    write_upload(root, visit, scan, seed=3)


def _intake(root: Path) -> VisitIntake:
    config = demo_config()
    return intake_visit([hash_upload(one) for one in list_uploads(root, config.uploads)], config.intake)


@pytest.mark.parametrize("flavor", list(SCANNERS))
def test_the_upload_of_every_vendor_is_the_scan(tmp_path: Path, scan: SimulatedScan, flavor: Flavor) -> None:
    """Times, images, places and guiding masks come back as they were simulated."""
    _write(tmp_path, scan, replace(VISIT, flavor=flavor))
    taken = _intake(tmp_path)
    assert taken.post is not None
    assert taken.refused_files == ()
    for stack, simulated in ((taken.native, scan.native), (taken.post, scan.post)):
        order = np.argsort(simulated.ti_ms.numpy(), axis=1)
        assert stack.ti_ms == pytest.approx(np.sort(simulated.ti_ms.numpy(), axis=1), rel=1e-6)
        expected = np.take_along_axis(simulated.echoes.numpy(), order[:, :, None, None], axis=1)
        scale = np.median(stack.echoes[expected > 100] / expected[expected > 100])
        assert np.abs(stack.echoes - scale * expected).max() < 2.0
        assert np.allclose(stack.positions_mm, scan.geometry.positions_mm.numpy(), atol=1e-3)
        # One NIfTI guide serves both roles; segmentations are drawn on the first image of each.
        is_shared = flavor in {"siemens-xa", "philips-enhanced"}
        drawn = scan.labels if is_shared else simulated.labels[:, :, 0]
        assert np.array_equal(taken.guides[stack.role], drawn.numpy())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing_echo", r"native: slice 2 has 7 inversion times, expected 8 \(5\(3\)3\)"),
        ("repeated_time", "native: slice 2 has more than one image at inversion time"),
        ("broken_file", r"native: slice 2 has 7 inversion times.*; left out: .*pixel data"),
    ],
)
def test_what_makes_an_upload_incomplete_refuses_it(
    tmp_path: Path, scan: SimulatedScan, fault: Fault, message: str
) -> None:
    """With the slice and the numbers."""
    _write(tmp_path, scan, replace(VISIT, faults=frozenset({fault, "no_guide"})))
    with pytest.raises(RefusedError, match=message):
        _intake(tmp_path)


def test_an_attempt_that_was_broken_off_is_named_and_not_taken(tmp_path: Path, scan: SimulatedScan) -> None:
    """The repeat is complete."""
    _write(tmp_path, scan, replace(VISIT, flavor="siemens-ve", faults=frozenset({"repeated_slice"})))
    (named,) = _intake(tmp_path).native.repeats
    assert "slice 2 is also in series" in named
    assert "it has 5 inversion times" in named


def test_a_copy_under_the_same_identifier_is_left_out(tmp_path: Path, scan: SimulatedScan) -> None:
    """The first stands."""
    _write(tmp_path, scan, replace(VISIT, faults=frozenset({"same_uid"})))
    (refused,) = _intake(tmp_path).refused_files
    assert "has the SOPInstanceUID of" in refused.reason


def test_post_contrast_slices_may_lie_elsewhere(tmp_path: Path, scan: SimulatedScan) -> None:
    """Quantification flags it; here it must only be there."""
    _write(tmp_path, scan, replace(VISIT, faults=frozenset({"post_elsewhere", "no_guide"})))
    taken = _intake(tmp_path)
    assert taken.post is not None
    apart = np.subtract(taken.post.positions_mm, taken.native.positions_mm)
    assert np.linalg.norm(apart, axis=1) == pytest.approx([5.0] * 3, abs=1e-3)


@pytest.mark.parametrize("fault", ["duplicate_upload", "zip"])
def test_an_upload_may_come_twice_or_packed(tmp_path: Path, scan: SimulatedScan, fault: Fault) -> None:
    """Both hold the same files as the plain one."""
    _write(tmp_path / "plain", scan, VISIT)
    _write(tmp_path / "other", scan, replace(VISIT, faults=frozenset({fault})))
    plain = sorted(path.read_bytes() for path in (tmp_path / "plain" / VISIT.folder).iterdir())
    packed = tmp_path / "other" / VISIT.folder.with_suffix(".zip")
    if fault == "zip":
        with zipfile.ZipFile(packed) as archive:
            again = sorted(archive.read(name) for name in archive.namelist())
        assert not (tmp_path / "other" / VISIT.folder).exists()
    else:
        folder = tmp_path / "other" / f"{VISIT.folder}_again"
        again = sorted(path.read_bytes() for path in folder.iterdir())
    assert plain == again


def test_compressed_uploads_hold_the_same_images(tmp_path: Path, scan: SimulatedScan) -> None:
    """Nothing is lost."""
    _write(tmp_path / "plain", scan, VISIT)
    _write(tmp_path / "coded", scan, replace(VISIT, syntax="jpeg-ls"))
    one, other = (_intake(tmp_path / name).native.echoes for name in ("plain", "coded"))
    assert np.array_equal(one, other)


def test_faults_are_read_from_a_list() -> None:
    """``demo`` stands for three; what is unknown is named with what there is."""
    assert parse_faults("demo, zip,zip") == ("broken_file", "no_guide", "no_hematocrit", "zip")
    assert parse_faults("") == ()
    with pytest.raises(UnknownFaultError, match=r"no fault fire; there are broken_file, .*demo"):
        parse_faults("zip,fire")
