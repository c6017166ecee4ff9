"""Reading single DICOM files."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from storage.dicom_dialect import TimeValue
from storage.dicom_pixels import read_frames
from storage.dicom_read import Instance, read_file
from storage.errors import RefusedError
from tests.storage.drawn_uploads import (
    BROKEN_DICOM,
    NATIVE,
    ORIENTATION,
    SHAPE,
    SPACING_MM,
    TI_SOURCE,
    on_slices,
    source,
    write_series,
)

DICM = b"\0" * 128 + b"DICM"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give one drawn MR image."""
    return write_series(tmp_path, on_slices(NATIVE, 0))[0]


def _changed(path: Path, change: Callable[[pydicom.Dataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def _read(path: Path) -> Instance:
    found = read_file(path, source())
    assert found is not None
    (instance,) = found
    return instance


def _ti_ms(instance: Instance) -> list[float]:
    return [value.ms for value in instance.times if value.quantity == "inversion_time"]


def read_pixels(instance: Instance) -> np.ndarray:
    """Read the one frame of a classic file."""
    pixels: np.ndarray = read_frames([instance])[0]
    return pixels


@pytest.mark.parametrize("bits_stored", [8, 12, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("is_signed", [0, 1])
def test_pixels_are_those_of_pydicom(image: Path, bits_stored: int, photometric: str, is_signed: int) -> None:
    """Bits above those that are stored may hold an overlay."""
    dataset = pydicom.dcmread(image)
    noise = np.random.default_rng(bits_stored).integers(0, 2**16, SHAPE, dtype=np.uint16)
    dataset.PixelData = noise.tobytes()
    dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = photometric, is_signed
    dataset.save_as(image)
    assert np.array_equal(read_pixels(_read(image)), pydicom.dcmread(image).pixel_array)


def test_a_header_becomes_a_record_with_units(image: Path) -> None:
    """What the pipeline needs from a header, once and in its own units."""
    instance = _read(image)
    assert (instance.kind, instance.component, instance.shape) == ("mr", "magnitude", SHAPE)
    assert TimeValue("inversion_time", TI_SOURCE, 100.0) in instance.times
    assert instance.acquired_at == datetime(2026, 3, 4, 10, 30)
    assert instance.orientation == ORIENTATION
    assert instance.pixel_spacing_mm == SPACING_MM
    assert (instance.slice_thickness_mm, instance.field_strength_t) == (8.0, 3.0)


@pytest.mark.parametrize(
    "content", [b"", b"DICM", b"\0" * 132, b"name,value\n"], ids=["empty", "short", "zeros", "text"]
)
def test_a_file_without_the_dicom_prefix_is_no_dicom(tmp_path: Path, content: bytes) -> None:
    """Uploads hold all sorts of files; that alone is no error."""
    (tmp_path / "file").write_bytes(content)
    assert read_file(tmp_path / "file", source()) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(BROKEN_DICOM, "cannot be read", id="unreadable"),
        pytest.param(
            b"\0" * 128 + b"DICM\x02\x00\x10\x00UI\xff\xffJane Doe", "has no SOPClassUID", id="no-object"
        ),
    ],
)
def test_a_broken_header_is_refused_by_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, problem: str
) -> None:
    """Message and log name upload and file number, not the site's path nor a header's content."""
    (tmp_path / "Jane").write_bytes(content)
    with pytest.raises(RefusedError, match=f"^upload u-3fa9c1d2e4, file 17: its header {problem}") as refused:
        read_file(tmp_path / "Jane", source())
    assert "Jane" not in str(refused.value) + caplog.text


def test_a_dicomdir_is_another_kind_of_file(tmp_path: Path) -> None:
    """Exports on disc have one; it is no broken image."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    index = pydicom.FileDataset("DICOMDIR", {}, file_meta=meta, preamble=b"\0" * 128)
    index.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    assert _read(tmp_path / "DICOMDIR").kind == "other"


@pytest.mark.parametrize(
    ("image_type", "complex_component", "expected"),
    [
        pytest.param(["ORIGINAL", "PRIMARY", "M", "DIS2D"], None, "magnitude", id="siemens-magnitude"),
        pytest.param(["ORIGINAL", "PRIMARY", "P", "DIS2D"], None, "phase", id="siemens-phase"),
        pytest.param(["ORIGINAL", "PRIMARY", "PHASE"], None, "phase", id="word"),
        pytest.param(["ORIGINAL", "PRIMARY", "OTHER"], "MAGNITUDE", "magnitude", id="attribute"),
        pytest.param(["ORIGINAL", "PRIMARY", "M"], "PHASE", "phase", id="attribute-first"),
        pytest.param(["P", "M", "OTHER"], None, "other", id="first-two-values-mean-something-else"),
        pytest.param(["ORIGINAL", "PRIMARY", "R"], None, "real", id="real"),
        pytest.param("COMPOSITE", None, "other", id="one-value"),
    ],
)
def test_magnitude_and_phase_are_told_apart(
    image: Path, image_type: list[str] | str, complex_component: str | None, expected: str
) -> None:
    """A phase image fitted as a magnitude gives a plausible wrong T1."""

    def change(dataset: pydicom.Dataset) -> None:
        dataset.ImageType = image_type
        if complex_component:
            dataset.ComplexImageComponent = complex_component

    assert _read(_changed(image, change)).component == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(
            {"AcquisitionDateTime": "20260304113000.5+0100"},
            datetime(2026, 3, 4, 11, 30, 0, 500_000),
            id="dt",
        ),
        pytest.param({"AcquisitionDateTime": "2026"}, datetime(2026, 3, 4, 10, 30), id="mere-year"),
        pytest.param({"AcquisitionTime": "1129"}, datetime(2026, 3, 4, 11, 29), id="minutes"),
        pytest.param(
            {"AcquisitionTime": "", "SeriesDate": "20260305", "SeriesTime": "08"},
            datetime(2026, 3, 5, 8),
            id="series",
        ),
        pytest.param({"AcquisitionDate": None}, datetime(2026, 3, 4, 10, 30), id="study"),
        pytest.param({"AcquisitionDate": None, "StudyDate": "", "StudyTime": "10"}, None, id="nothing"),
    ],
)
def test_the_time_of_a_scan_is_found_where_it_is(
    image: Path, values: dict[str, str], expected: datetime | None
) -> None:
    """The hematocrit's age hangs on it; the scanner's clock is taken as it is."""

    def change(dataset: pydicom.Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    assert _read(_changed(image, change)).acquired_at == expected


def test_malformed_dates_and_times_are_as_good_as_none(image: Path) -> None:
    """A typing error in a date must not lose the image; what hangs on the date is flagged."""
    _changed(image, lambda dataset: setattr(dataset, "AcquisitionDateTime", "20260304103000"))
    image.write_bytes(image.read_bytes().replace(b"20260304", b"20261304").replace(b"103000", b"1O3000"))
    instance = _read(image)
    assert (instance.study_date, instance.acquired_at) == (None, None)


def test_a_date_without_a_time_is_no_moment(image: Path) -> None:
    """Midnight would be a guess."""
    image.write_bytes(image.read_bytes().replace(b"103000.000000", b"1O3000.000000"))
    assert _read(image).acquired_at is None


@pytest.mark.parametrize("value", [None, "", "1.797e308e1", "nan"], ids=str)
def test_an_unreadable_inversion_time_is_none(image: Path, value: str | None) -> None:
    """None is refused later with a reason; zero would be fitted."""
    raw = image.read_bytes()
    assert raw.count(b"\x18\x00\x82\x00DS\x04\x00100 ") == 1
    text = (value or "").encode()
    text += b" " * (len(text) % 2)
    image.write_bytes(
        raw.replace(
            b"\x18\x00\x82\x00DS\x04\x00100 ", b"\x18\x00\x82\x00DS" + len(text).to_bytes(2, "little") + text
        )
    )
    if value == "1.797e308e1":
        with pytest.raises(RefusedError, match="header cannot be read"):
            read_file(image, source())
    else:
        assert not np.isfinite(_ti_ms(_read(image))).any()


def test_pixels_are_rescaled(image: Path) -> None:
    """Some vendors store scaled integers."""

    def change(dataset: pydicom.Dataset) -> None:
        dataset.RescaleSlope = 0.5
        dataset.RescaleIntercept = -10

    pixels = read_pixels(_read(_changed(image, change)))
    assert pixels.dtype == np.float32
    assert pixels[1, 1] == 0.5 * 100 - 10


def test_pixels_keep_rows_and_columns(image: Path) -> None:
    """Axes are row, col; a transposed image would look plausible."""
    pixels = read_pixels(_read(image))
    assert pixels.shape == SHAPE
    assert pixels[0, 0] == 1


@pytest.mark.parametrize("cut", [1, 100, 230], ids=str)
def test_a_truncated_file_is_refused(image: Path, cut: int) -> None:
    """Its header is whole, so only the pixel data's length tells."""
    image.write_bytes(image.read_bytes()[:-cut])
    with pytest.raises(RefusedError, match=r"file 17: (its pixel data are missing|\d+ bytes of pixel data)"):
        read_pixels(_read(image))


def _shorten(dataset: pydicom.Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:-2]


def _drop(dataset: pydicom.Dataset) -> None:
    del dataset.PixelData


def _two_frames(dataset: pydicom.Dataset) -> None:
    dataset.NumberOfFrames = 2
    dataset.PixelData = dataset.PixelData * 2


def _overflow(dataset: pydicom.Dataset) -> None:
    dataset.RescaleSlope = 1e38


def _no_slope(dataset: pydicom.Dataset) -> None:
    with pytest.warns(UserWarning, match="Invalid value for VR DS"):
        dataset.RescaleSlope = "nan"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(_no_slope, "slope or intercept of its rescale is no finite number", id="slope"),
        pytest.param(_shorten, "238 bytes of pixel data, expected 240", id="short"),
        pytest.param(_drop, "missing or cut off", id="missing"),
        pytest.param(_two_frames, "2 frames, expected one", id="frames"),
        pytest.param(_overflow, "not finite", id="not-finite"),
    ],
)
def test_wrong_pixel_data_are_refused(
    image: Path, change: Callable[[pydicom.Dataset], None], message: str
) -> None:
    """Nothing is padded, guessed or cut."""
    with pytest.raises(RefusedError, match=f"upload u-3fa9c1d2e4, file 17: .*{message}"):
        read_pixels(_read(_changed(image, change)))


def test_compressed_pixel_data_are_decoded(image: Path) -> None:
    """Archives compress; the length check is for what is not compressed."""
    before = read_pixels(_read(image))
    dataset = pydicom.dcmread(image)
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    dataset.save_as(image)
    assert np.array_equal(read_pixels(_read(image)), before)
