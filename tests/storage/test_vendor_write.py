"""Series as vendors write them: valid by the standard, and read as they were meant."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from storage.dicom_series import assemble
from storage.vendor_write import SCANNERS, SYNTAXES, Flavor, Syntax, n_files
from tests.storage.drawn_uploads import NATIVE, NATIVE_TI_MS, POST, demo_config, on_slices, read_instances
from tests.storage.vendor_series import drawn_value, write_flavor

INTAKE = demo_config().intake
ONE_SLICE = INTAKE.model_copy(update={"slices": 1})
FLAVORS = list(SCANNERS)

KNOWN_FAULTS: dict[Flavor, list[str]] = {"philips": ["InversionTime(0018,0082)"]}
"""What a flavor leaves out on purpose, because its scanners do."""

TI_SOURCES: dict[Flavor, str] = {
    "phantom": "InversionTime (0018,0082)",
    "siemens-ve": "InversionTime (0018,0082)",
    "siemens-xa": "InversionTimes (0018,9079)",
    "philips": "Philips MR Imaging DD 006 (2005,1572)",
    "philips-enhanced": "InversionTimes (0018,9079)",
    "ge": "InversionTime (0018,0082)",
}


@pytest.fixture(scope="session")
def dciodvfy() -> str:
    """Path of David Clunie's validator."""
    path = shutil.which("dciodvfy")
    if path is None:
        pytest.skip("no dciodvfy: apt-get install dicom3tools")
    return path


@pytest.mark.parametrize("flavor", FLAVORS)
def test_every_flavor_is_valid_dicom(tmp_path: Path, flavor: Flavor, dciodvfy: str) -> None:
    """What the reader is tested on is no DICOM of our own."""
    kinds: dict[tuple[str, ...], Path] = {}
    for path in write_flavor(tmp_path, flavor, on_slices(NATIVE, 0)):
        kinds.setdefault(tuple(pydicom.dcmread(path).ImageType), path)
    for path in kinds.values():
        report = subprocess.run([dciodvfy, "-new", path], capture_output=True, text=True, check=False)
        lines = (report.stdout + report.stderr).splitlines()
        errors = [line for line in lines if line.startswith("Error")]
        known = KNOWN_FAULTS.get(flavor, [])
        assert not [error for error in errors if not any(fault in error for fault in known)]
        assert lines, "the validator said nothing"


@pytest.mark.parametrize("flavor", FLAVORS)
def test_every_flavor_is_written_strictly(tmp_path: Path, flavor: Flavor) -> None:
    """Where there is no validator, pydicom's own rules for values hold."""
    for path in write_flavor(tmp_path, flavor, on_slices(NATIVE, 0)):
        dataset = pydicom.dcmread(path)
        strict = pydicom.config.RAISE
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pydicom.config.settings, "reading_validation_mode", strict)
            patch.setattr(pydicom.config.settings, "writing_validation_mode", strict)
            pydicom.dcmread(path).walk(lambda _, element: element.value)
            dataset.save_as(tmp_path / "again.dcm", enforce_file_format=True)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_every_flavor_is_read_as_it_was_meant(tmp_path: Path, flavor: Flavor) -> None:
    """Times, pixels and order come back, whatever the scanner does to them; copies and maps stay out."""
    files = write_flavor(tmp_path, flavor)
    assert len(files) == n_files(3, len(NATIVE_TI_MS), flavor)
    result = assemble(read_instances(files[::-1]), INTAKE)
    stack = result.native
    order = np.argsort(NATIVE_TI_MS)
    assert stack.echoes.shape[:2] == (3, len(NATIVE_TI_MS))
    assert result.refused_files == ()
    assert {name for names in stack.ti_source for name in names} == {TI_SOURCES[flavor]}
    for slice_index in range(3):
        assert stack.ti_ms[slice_index] == pytest.approx(np.sort(NATIVE_TI_MS), rel=1e-6)
        assert stack.acquisition_index[slice_index].tolist() == order.tolist()
        expected = [drawn_value(slice_index, ti_ms) for ti_ms in sorted(NATIVE_TI_MS)]
        # Twelve bits and a scale: half a step of the coarsest.
        assert stack.echoes[slice_index, :, 5, 5] == pytest.approx(expected, abs=1.4)
    assert stack.manufacturer == SCANNERS[flavor][0]


@pytest.mark.parametrize("flavor", FLAVORS)
def test_native_and_post_of_every_flavor_are_told_apart(tmp_path: Path, flavor: Flavor) -> None:
    """Both are in one upload, with all that the scanner adds."""
    files = [*write_flavor(tmp_path / "a", flavor), *write_flavor(tmp_path / "b", flavor, POST)]
    result = assemble(read_instances(files), INTAKE)
    assert result.post is not None
    assert (result.native.scheme, result.post.scheme) == ("5(3)3", "4(1)3(1)2")
    expected = {"siemens-ve": 12, "philips": 2}
    assert result.n_other_series == expected.get(flavor, 0)


@pytest.mark.parametrize("syntax", list(SYNTAXES))
@pytest.mark.parametrize("flavor", ["siemens-ve", "siemens-xa"])
def test_every_transfer_syntax_is_read(tmp_path: Path, flavor: Flavor, syntax: Syntax) -> None:
    """Archives compress; nothing may change by it."""
    series, shape = on_slices(NATIVE, 0), (40, 36)  # JPEG 2000 wants more than a dozen pixels
    plain = write_flavor(tmp_path / "plain", flavor, series, shape=shape)
    coded = write_flavor(tmp_path / "coded", flavor, series, syntax, shape)
    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in coded} == {SYNTAXES[syntax]}
    one, other = (assemble(read_instances(files), ONE_SLICE).native for files in (plain, coded))
    assert np.array_equal(one.echoes, other.echoes)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """Upload ids are digests of bytes."""
    for flavor in FLAVORS:
        one, other = (write_flavor(tmp_path / name / flavor, flavor) for name in ("one", "other"))
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
