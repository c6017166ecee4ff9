"""A folder of labelled images for training."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from storage.errors import RefusedError
from storage.guide import LABELS
from storage.labelled import LABEL_VALUES, list_labelled, read_labelled, split_patients

SHAPE = (7, 5, 3, 2)
"""Columns, rows, slices, echoes."""


def write_pair(
    folder: Path, name: str, *, echo_masks: bool = True, values: tuple[int, ...] = (0, 1, 2, 3)
) -> None:
    """Write an image whose voxels count up and a mask of the values; the last slice has no label."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.25, 1.5, 8.0, 1.0])
    image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    mask = np.resize(np.array(values, dtype=np.uint8), SHAPE)
    mask[:, :, -1] = 0
    nibabel.Nifti1Image(image, affine).to_filename(folder / f"{name}_image.nii.gz")  # type: ignore[no-untyped-call]
    shown = mask if echo_masks else mask[..., 0]
    nibabel.Nifti1Image(shown, affine).to_filename(folder / f"{name}_mask.nii.gz")  # type: ignore[no-untyped-call]


def test_slices_come_with_echoes_first_and_rows_down(tmp_path: Path) -> None:
    """NIfTI counts columns first; a slice on which nobody drew a left ventricle is left out."""
    write_pair(tmp_path / "p1", "native")
    (file,) = list_labelled(tmp_path)
    first, second = read_labelled(file)
    assert first.images.shape == (2, 5, 7)
    assert first.images[1, 4, 6] == np.ravel_multi_index((6, 4, 0, 1), SHAPE)
    assert second.images[0, 0, 0] == np.ravel_multi_index((0, 0, 1, 0), SHAPE)
    assert first.spacing_mm == (1.5, 1.25)
    drawn = np.resize([0, 1, 2, 3], SHAPE)[:, :, 0].transpose(2, 1, 0)
    for index, label in enumerate(LABELS):
        assert np.array_equal(first.masks[:, index], drawn == LABEL_VALUES.model_dump()[label])


@pytest.mark.parametrize(("values", "n_slices"), [((0, 3), 2), ((0, 2), 2), ((0, 1), 0)], ids=str)
def test_a_slice_needs_a_left_ventricle(tmp_path: Path, values: tuple[int, ...], n_slices: int) -> None:
    """Many public sets have the blood pool alone; an RV alone is of no use."""
    write_pair(tmp_path / "p1", "cine", values=values)
    (file,) = list_labelled(tmp_path)
    assert len(list(read_labelled(file))) == n_slices


def test_a_mask_without_echoes_is_that_of_every_echo(tmp_path: Path) -> None:
    """Cine images and motion-corrected series have one mask."""
    write_pair(tmp_path / "p1", "cine", echo_masks=False)
    (file,) = list_labelled(tmp_path)
    for one in read_labelled(file):
        assert np.array_equal(one.masks[0], one.masks[1])


def test_no_patient_is_on_both_sides_of_a_split(tmp_path: Path) -> None:
    """Slices of one patient look alike: a score on some of them would flatter."""
    for number in range(10):
        for name in ("native", "post"):
            write_pair(tmp_path / f"p{number}", name)
    files = list_labelled(tmp_path)
    learned, held_out = split_patients(files, 0.2, seed=1)
    assert {file.patient for file in learned}.isdisjoint(file.patient for file in held_out)
    assert (len(learned), len(held_out)) == (16, 4)
    assert split_patients(files, 0.2, seed=1) == (learned, held_out)
    assert any(split_patients(files, 0.2, seed=seed)[1] != held_out for seed in range(2, 6))


def test_one_patient_cannot_be_split(tmp_path: Path) -> None:
    """There would be nobody to take the score on."""
    write_pair(tmp_path / "p1", "native")
    with pytest.raises(RefusedError, match="of 1 patient, expected at least 2"):
        split_patients(list_labelled(tmp_path), 0.2, seed=0)


def test_what_cannot_be_used_is_named_by_its_number(tmp_path: Path) -> None:
    """Folder and file names may be a patient's."""
    with pytest.raises(RefusedError, match=r"PATIENT/NAME_image\.nii\.gz"):
        list_labelled(tmp_path)
    write_pair(tmp_path / "Miller", "a")
    write_pair(tmp_path / "Smith", "a", values=(0, 1, 2, 9))
    broken = list_labelled(tmp_path)[1]
    with pytest.raises(RefusedError, match=r"file 2: values \[9\] in the mask") as refused:
        list(read_labelled(broken))
    assert "Smith" not in str(refused.value)
    (tmp_path / "Miller" / "a_image.nii.gz").write_bytes(b"\x1f\x8b not what it seems")
    with pytest.raises(RefusedError, match="file 1: cannot be read"):
        list(read_labelled(list_labelled(tmp_path)[0]))
    (tmp_path / "Miller" / "a_mask.nii.gz").unlink()
    with pytest.raises(RefusedError, match=r"file 1: no _mask\.nii\.gz"):
        list_labelled(tmp_path)


def test_an_image_with_holes_is_refused(tmp_path: Path) -> None:
    """One NaN would be in every weight after a step."""
    write_pair(tmp_path / "p1", "a")
    image = np.ones(SHAPE, dtype=np.float32)
    image[0, 0, 0], image[1, 0, 0, 0] = np.nan, np.inf
    holed = nibabel.Nifti1Image(image, np.eye(4))  # type: ignore[no-untyped-call]
    holed.to_filename(tmp_path / "p1" / "a_image.nii.gz")
    with pytest.raises(RefusedError, match="file 1: 3 of 210 voxels of the image are no finite numbers"):
        list(read_labelled(list_labelled(tmp_path)[0]))


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """Nothing of a folder is kept in memory, so what was mended is seen."""
    write_pair(tmp_path / "p1", "a")
    (file,) = list_labelled(tmp_path)
    assert len(list(read_labelled(file))) == 2
    write_pair(tmp_path / "p1", "a", values=(0, 1))
    assert list(read_labelled(file)) == []


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    """It was drawn on other images."""
    write_pair(tmp_path / "p1", "a")
    other = nibabel.Nifti1Image(np.zeros((7, 5, 2), dtype=np.uint8), np.eye(4))  # type: ignore[no-untyped-call]
    other.to_filename(tmp_path / "p1" / "a_mask.nii.gz")
    (file,) = list_labelled(tmp_path)
    with pytest.raises(RefusedError, match=r"file 1: image .* and mask .* differ"):
        list(read_labelled(file))
