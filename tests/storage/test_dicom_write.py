"""Writing DICOM and NIfTI files."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from storage.dicom_write import deterministic_uid, write_guide_nifti, write_guide_seg
from storage.guide import LABELS
from tests.storage.drawn_uploads import (
    NATIVE_TI_MS,
    ORIENTATION,
    SHAPE,
    drawn_masks,
    slice_position,
    stack_geometry,
    write_series,
)

LABEL_VALUES = {"rv": 1, "myocardium": 2, "blood_pool": 3}


def test_a_uid_depends_on_its_seed_alone() -> None:
    """A simulated trial is the same trial on every machine."""
    assert deterministic_uid("a") == deterministic_uid("a") != deterministic_uid("b")
    assert pydicom.uid.UID(deterministic_uid("a")).is_valid


def test_a_written_image_is_a_valid_mr_image(tmp_path: Path) -> None:
    """Any DICOM reader finds the attributes where the standard has them."""
    path = write_series(tmp_path)[1]
    dataset = pydicom.dcmread(path)
    assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID == pydicom.uid.MRImageStorage
    assert dataset.InversionTime == NATIVE_TI_MS[1]
    assert dataset.ImagePositionPatient == pytest.approx(slice_position(0))
    assert dataset.ImageOrientationPatient == pytest.approx(ORIENTATION)
    assert dataset.pixel_array.shape == SHAPE
    assert dataset.AcquisitionTime == "103001.000000"


@pytest.mark.parametrize("kind", ["mr", "seg", "nifti"])
def test_writing_twice_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    """Upload ids are digests of bytes; the demo's must not change from run to run."""
    images = write_series(tmp_path / "images")
    written = []
    for name in ("a", "b"):
        path = tmp_path / name / "guide.nii.gz"
        if kind == "mr":
            path = write_series(tmp_path / name)[0]
        elif kind == "seg":
            write_guide_seg(path, drawn_masks(), images[::8], "seed")
        else:
            write_guide_nifti(path, drawn_masks(), stack_geometry(), LABEL_VALUES)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_a_segmentation_references_the_images_it_was_drawn_on(tmp_path: Path) -> None:
    """That is how intake knows its series."""
    images = write_series(tmp_path)
    write_guide_seg(tmp_path / "guide.dcm", drawn_masks(), images[::8], "seed")
    dataset = pydicom.dcmread(tmp_path / "guide.dcm")
    source = pydicom.dcmread(images[0])
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert dataset.StudyInstanceUID == source.StudyInstanceUID
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == list(LABELS)


def test_a_nifti_guide_lies_where_the_slices_lie(tmp_path: Path) -> None:
    """NIfTI counts right, anterior, superior; DICOM left, posterior, superior."""
    masks = drawn_masks()
    write_guide_nifti(tmp_path / "guide.nii.gz", masks, stack_geometry(), LABEL_VALUES)
    image: Any = nibabel.load(tmp_path / "guide.nii.gz")
    values = np.asarray(image.dataobj)
    assert values.shape == (SHAPE[1], SHAPE[0], 3)
    assert np.array_equal(values[:, :, 1].T == 2, masks[0, 1])
    ras = image.affine @ [0, 0, 2, 1]
    assert ras[:3] * [-1, -1, 1] == pytest.approx(slice_position(2))
