"""Guiding masks."""

import gzip
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from storage.config_intake import NiftiLabels
from storage.dicom_write import write_guide_nifti, write_guide_seg
from storage.errors import RefusedError
from storage.geometry import StackGeometry
from storage.guide import is_nifti, place_guide, read_nifti, read_seg
from tests.storage.drawn_uploads import drawn_masks, source, stack_geometry, write_series

LABELS = NiftiLabels(rv=1, myocardium=2, blood_pool=3)
TOLERANCE_MM = 1.0


@pytest.fixture
def seg(tmp_path: Path) -> Path:
    """Give the drawn masks as a DICOM segmentation."""
    write_guide_seg(tmp_path / "guide.dcm", drawn_masks(), write_series(tmp_path)[::8], "seed")
    return tmp_path / "guide.dcm"


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    """Give the drawn masks as a NIfTI label image."""
    write_guide_nifti(tmp_path / "guide.nii.gz", drawn_masks(), stack_geometry(), LABELS.model_dump())
    return tmp_path / "guide.nii.gz"


def _changed(path: Path, change: Callable[[pydicom.Dataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def test_a_segmentation_lands_on_its_slices(seg: Path) -> None:
    """Label, slice, row and column are all where the reader drew them."""
    guide = read_seg(seg, source())
    assert np.array_equal(place_guide(guide, stack_geometry(), TOLERANCE_MM), drawn_masks())
    assert len(guide.series_uids) == 1


def test_a_nifti_guide_lands_on_its_slices(nifti: Path) -> None:
    """The same, from RAS coordinates."""
    guide = read_nifti(nifti, source(), LABELS)
    assert np.array_equal(place_guide(guide, stack_geometry(), TOLERANCE_MM), drawn_masks())
    assert guide.series_uids == frozenset()


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param([[0, -1], [1, -1], [2, 1]], id="both-flipped"),
        pytest.param([[1, 1], [0, 1], [2, 1]], id="transposed"),
        pytest.param([[1, 1], [0, -1], [2, -1]], id="turned-and-slices-reversed"),
    ],
)
def test_a_nifti_guide_may_be_stored_in_another_orientation(nifti: Path, axes: list[list[int]]) -> None:
    """Converters flip rows or slices; the affine says so."""
    image: Any = nibabel.load(nifti)
    nibabel.save(image.as_reoriented(np.array(axes)), nifti)
    guide = read_nifti(nifti, source(), LABELS)
    assert np.array_equal(place_guide(guide, stack_geometry(), TOLERANCE_MM), drawn_masks())


def test_a_guide_for_one_slice_leaves_the_others_empty(tmp_path: Path) -> None:
    """A reader may have drawn one slice only."""
    images = write_series(tmp_path)
    write_guide_seg(tmp_path / "guide.dcm", drawn_masks()[:, 1:2], images[8:9], "seed")
    masks = place_guide(read_seg(tmp_path / "guide.dcm", source()), stack_geometry(), TOLERANCE_MM)
    assert np.array_equal(masks[:, 1], drawn_masks()[:, 1])
    assert not masks[:, [0, 2]].any()


def _rename_segments(dataset: pydicom.Dataset) -> None:
    for segment, label in zip(dataset.SegmentSequence, ("Myocardium", "Blood pool", "RV"), strict=True):
        segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "123"
        segment.SegmentLabel = label


def _as_labelmap(dataset: pydicom.Dataset) -> None:
    groups, frames = dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array
    planes: dict[str, tuple[pydicom.Dataset, np.ndarray[Any, Any]]] = {}
    for group, frame in zip(groups, frames, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        _, labels = planes.setdefault(
            str(group.PlanePositionSequence[0].ImagePositionPatient), (group, np.zeros_like(frame))
        )
        labels[frame > 0] = number
    dataset.PerFrameFunctionalGroupsSequence = [group for group, _ in planes.values()]
    dataset.NumberOfFrames = len(planes)
    dataset.SegmentationType = "LABELMAP"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = b"".join(labels.tobytes() for _, labels in planes.values())


def test_a_label_map_segmentation_lands_on_its_slices(seg: Path) -> None:
    """The newer kind of segmentation keeps all labels in one frame."""
    guide = read_seg(_changed(seg, _as_labelmap), source())
    assert np.array_equal(place_guide(guide, stack_geometry(), TOLERANCE_MM), drawn_masks())


def test_segments_without_codes_are_known_by_name(seg: Path) -> None:
    """Not every drawing tool writes codes."""
    guide = read_seg(_changed(seg, _rename_segments), source())
    assert np.array_equal(place_guide(guide, stack_geometry(), TOLERANCE_MM), drawn_masks())


def _foreign_segments(dataset: pydicom.Dataset) -> None:
    _rename_segments(dataset)
    for segment in dataset.SegmentSequence:
        segment.SegmentLabel = "liver"


def _no_segments(dataset: pydicom.Dataset) -> None:
    del dataset.SegmentSequence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            _foreign_segments, "the guide is empty, expected at least one of myocardium", id="foreign"
        ),
        pytest.param(_no_segments, "the segmentation cannot be read", id="no-segments"),
    ],
)
def test_an_unusable_segmentation_is_refused(
    seg: Path, change: Callable[[pydicom.Dataset], None], message: str
) -> None:
    """With upload and file number."""
    with pytest.raises(RefusedError, match=f"upload u-3fa9c1d2e4, file 17: .*{message}"):
        read_seg(_changed(seg, change), source())


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        pytest.param(
            replace(stack_geometry(), shape=(10, 12)), "grid is 12 x 10 at 1.5 x 1.25 mm", id="shape"
        ),
        pytest.param(
            replace(stack_geometry(), pixel_spacing_mm=(1.5, 1.3)),
            "that of the series .* 1.3 mm",
            id="spacing",
        ),
        pytest.param(
            replace(stack_geometry(), orientation=(1, 0, 0, 0, 1, 0)),
            "not parallel to the series",
            id="tilted",
        ),
        pytest.param(stack_geometry(2), "10.0 mm from the nearest slice", id="slice"),
        pytest.param(
            replace(
                stack_geometry(),
                positions_mm=tuple((x + 0.8, y + 0.6, z) for x, y, z in stack_geometry().positions_mm),
            ),
            "shifted by 0.8 pixels",
            id="shifted",
        ),
    ],
)
def test_a_guide_off_the_grid_is_refused(
    seg: Path, nifti: Path, geometry: StackGeometry, message: str
) -> None:
    """A guide a pixel off measures blood; nothing is resampled behind the reader's back."""
    for guide in (read_seg(seg, source()), read_nifti(nifti, source(), LABELS)):
        with pytest.raises(RefusedError, match=message):
            place_guide(guide, geometry, TOLERANCE_MM)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(np.full((4, 4, 2), 7, dtype=np.uint8), r"unknown values \[7\]", id="label"),
        pytest.param(np.full((4, 4, 2), 0.5, dtype=np.float32), r"unknown values \[0.5\]", id="fraction"),
        pytest.param(np.zeros((4, 4, 2, 2), dtype=np.uint8), "NIfTI guide with 4 axes", id="axes"),
        pytest.param(np.zeros((4, 4, 2), dtype=np.uint8), "the guide is empty", id="empty"),
    ],
)
def test_an_unusable_nifti_guide_is_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    """A label image under other numbers would swap wall and cavity."""
    image = nibabel.Nifti1Image(values, np.eye(4))  # type: ignore[no-untyped-call]
    nibabel.save(image, tmp_path / "guide.nii")
    with pytest.raises(RefusedError, match=message):
        read_nifti(tmp_path / "guide.nii", source(), LABELS)


def test_a_cut_off_nifti_guide_is_refused(nifti: Path) -> None:
    """Uploads break in the middle."""
    nifti.write_bytes(nifti.read_bytes()[:-30])
    with pytest.raises(RefusedError, match="the NIfTI file cannot be read"):
        read_nifti(nifti, source(), LABELS)


def _unknown_data_type(header: np.ndarray) -> None:
    header["datatype"] = 999


def _half_a_quaternion(header: np.ndarray) -> None:
    header["sform_code"], header["qform_code"] = 0, 1
    header["quatern_b"] = header["quatern_c"] = 0.9


def _no_dimensions(header: np.ndarray) -> None:
    header["dim"] = 0


def _five_dimensions_of_ten(header: np.ndarray) -> None:
    header["dim"] = [10, *[1] * 7]


def _many_voxels(header: np.ndarray) -> None:
    header["dim"] = [3, 4096, 4096, 4096, 1, 1, 1, 1]


def _negative_axis(header: np.ndarray) -> None:
    header["dim"] = [3, 4, -4, 4, 1, 1, 1, 1]


def _no_spacing(header: np.ndarray) -> None:
    header["srow_x"] = header["srow_y"] = header["srow_z"] = 0


def _no_number(header: np.ndarray) -> None:
    header["srow_x"] = np.nan


def _data_beyond_the_end(header: np.ndarray) -> None:
    header["vox_offset"] = 1e6


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(_unknown_data_type, "cannot be read .HeaderDataError", id="data-type"),
        pytest.param(_half_a_quaternion, "cannot be read", id="quaternion"),
        pytest.param(_no_dimensions, "cannot be read|expected", id="no-dimensions"),
        pytest.param(_five_dimensions_of_ten, "cannot be read|expected", id="ten-dimensions"),
        pytest.param(_many_voxels, "of 4096 x 4096 x 4096 voxels, expected 1 to 4096", id="many-voxels"),
        pytest.param(_negative_axis, "of 4 x -4 x 4 voxels|cannot be read", id="negative-axis"),
        pytest.param(_no_spacing, "affine is no geometry", id="no-spacing"),
        pytest.param(_no_number, "affine is no geometry", id="no-number"),
        pytest.param(_data_beyond_the_end, "cannot be read", id="offset"),
    ],
)
def test_a_malformed_nifti_guide_is_refused(
    tmp_path: Path, change: Callable[[np.ndarray], None], message: str, suffix: str
) -> None:
    """A header written by anything; the file is refused and the visit goes on."""
    path = tmp_path / f"guide{suffix}"
    image = nibabel.Nifti1Image(np.ones((4, 4, 2), dtype=np.uint8), np.eye(4))  # type: ignore[no-untyped-call]
    whole = image.to_bytes()
    header = np.frombuffer(whole[:348], dtype=image.header.template_dtype)[0].copy()
    change(header)
    data = header.tobytes() + whole[348:]
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    with pytest.raises(RefusedError, match=f"^upload u-3fa9c1d2e4, file 17: .*({message})"):
        read_nifti(path, source(), LABELS)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x1f\x8b\x08\0" + b"\xff" * 100, id="broken-gzip"),
        pytest.param(b"no gzip at all" * 100, id="text"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_is_no_nifti_at_all_is_refused(tmp_path: Path, data: bytes, suffix: str) -> None:
    """Only the name says that it is a guide; what is refused shows no path."""
    path = tmp_path / f"guide{suffix}"
    path.write_bytes(data)
    with pytest.raises(RefusedError, match="the NIfTI file cannot be read") as refused:
        read_nifti(path, source(), LABELS)
    assert str(tmp_path) not in "".join(traceback.format_exception(refused.value))


def test_a_nifti_2_guide_is_read(nifti: Path) -> None:
    """Some tools write the newer header under the same suffix."""
    first: Any = nibabel.load(nifti)
    nibabel.save(nibabel.Nifti2Image(np.asarray(first.dataobj), first.affine), nifti)  # type: ignore[no-untyped-call]
    guide = read_nifti(nifti, source(), LABELS)
    assert np.array_equal(place_guide(guide, stack_geometry(), TOLERANCE_MM), drawn_masks())


@pytest.mark.parametrize(
    ("name", "expected"), [("a.nii", True), ("A.NII.GZ", True), ("a.dcm", False), ("a.gz", False)]
)
def test_nifti_is_known_by_its_suffix(name: str, expected: bool) -> None:
    """The format has no reliable mark at its start when compressed."""
    assert is_nifti(Path(name)) is expected
