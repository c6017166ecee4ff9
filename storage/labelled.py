"""A folder of labelled images for training: a folder for each patient, NIfTI images and masks in pairs.

::

    FOLDER/PATIENT/NAME_image.nii.gz   axes col, row, slice and, where there are echoes, echo
    FOLDER/PATIENT/NAME_mask.nii.gz    the same axes; without the echo axis it is the mask of every echo

Echoes stand in the order of acquisition. Messages name files by their number, as names may be a patient's.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from storage.config_intake import NiftiLabels
from storage.errors import RefusedError
from storage.guide import LABELS

IMAGE_SUFFIX, MASK_SUFFIX = "_image.nii.gz", "_mask.nii.gz"

LABEL_VALUES = NiftiLabels(rv=1, myocardium=2, blood_pool=3)
"""Voxel values of the masks."""


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An image with its mask."""

    number: int
    """Number of the image in the folder, from 1, sorted by name."""
    patient: str = field(repr=False)
    """Name of the patient's folder; patients are split by it."""
    image: Path = field(repr=False)
    """Magnitudes."""
    mask: Path = field(repr=False)
    """Labels."""


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """One slice of a file."""

    images: Float32[np.ndarray, "ti row col"]
    """Magnitudes [a.u.] in the order of acquisition."""
    masks: Bool[np.ndarray, "ti label row col"]
    """Masks in the order of `storage.guide.LABELS`."""
    spacing_mm: tuple[float, float]
    """Distance between rows and between columns [mm]."""


def list_labelled(folder: Path) -> tuple[LabelledFile, ...]:
    """Find the pairs of image and mask in a folder.

    Raises
    ------
    RefusedError
        If there are none, or an image has no mask.
    """
    images = sorted(folder.glob(f"*/*{IMAGE_SUFFIX}"))
    found = []
    for number, image in enumerate(images, start=1):
        mask = image.with_name(image.name.removesuffix(IMAGE_SUFFIX) + MASK_SUFFIX)
        if not mask.is_file():
            message = f"labelled images, file {number}: no {MASK_SUFFIX} beside its {IMAGE_SUFFIX}"
            raise RefusedError(message)
        found.append(LabelledFile(number, image.parent.name, image, mask))
    if not found:
        message = (
            f"no labelled images: expected PATIENT/NAME{IMAGE_SUFFIX} with NAME{MASK_SUFFIX} in the folder"
        )
        raise RefusedError(message)
    return tuple(found)


def split_patients(
    files: Sequence[LabelledFile], held_out_fraction: float, seed: int
) -> tuple[tuple[LabelledFile, ...], tuple[LabelledFile, ...]]:
    """Split files into those to learn from and those held out, never a patient into both.

    Parameters
    ----------
    files
        Files of all patients.
    held_out_fraction
        Share of the patients to hold out, 0-1; at least one is.
    seed
        Which ones.

    Raises
    ------
    RefusedError
        If there are fewer than two patients.
    """
    patients = sorted({file.patient for file in files})
    if len(patients) < 2:
        message = f"labelled images of {len(patients)} patient, expected at least 2, so that one is held out"
        raise RefusedError(message)
    n_held_out = min(max(1, round(held_out_fraction * len(patients))), len(patients) - 1)
    held_out = set(np.random.default_rng(seed).permutation(patients)[:n_held_out].tolist())
    return (
        tuple(file for file in files if file.patient not in held_out),
        tuple(file for file in files if file.patient in held_out),
    )


def read_labelled(file: LabelledFile) -> Iterator[LabelledImages]:
    """Read the slices of a file on which a left ventricle is drawn: its myocardium, its blood pool or both.

    Raises
    ------
    RefusedError
        If image and mask do not fit each other, the image has pixels that are no finite numbers, or the mask
        has values that are no labels.
    """
    images, labels, spacing_mm = _load(file)
    values = LABEL_VALUES.model_dump()
    for index in range(images.shape[2]):
        masks = np.stack([labels[:, :, index] == values[label] for label in LABELS])  # label col row ti
        if masks[[LABELS.index("myocardium"), LABELS.index("blood_pool")]].any():
            yield LabelledImages(
                images=np.ascontiguousarray(images[:, :, index].transpose(2, 1, 0)),
                masks=np.ascontiguousarray(masks.transpose(3, 0, 2, 1)),
                spacing_mm=spacing_mm,
            )


def _load(file: LabelledFile) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], tuple[float, float]]:
    """Image and labels with axes ``col row slice ti``, and the spacing of rows and columns [mm]."""
    import nibabel  # a third of a second, and only for training on one's own images

    try:
        image: Any = nibabel.load(file.image)
        mask: Any = nibabel.load(file.mask)
        magnitudes = np.asarray(image.dataobj, dtype=np.float32)
        labels = np.asarray(mask.dataobj)
    except (nibabel.filebasedimages.ImageFileError, EOFError, OSError, zlib.error) as error:
        message = f"labelled images, file {file.number}: cannot be read ({type(error).__name__})"
        raise RefusedError(message) from None  # the library's text holds the path
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *LABEL_VALUES.model_dump().values()})
    if unknown:
        message = (
            f"labelled images, file {file.number}: values {unknown[:5]} in the mask, "
            f"expected 0 and {LABEL_VALUES.model_dump()}"
        )
        raise RefusedError(message)
    n_bad = magnitudes.size - int(np.isfinite(magnitudes).sum())
    if n_bad:
        message = (
            f"labelled images, file {file.number}: {n_bad} of {magnitudes.size} voxels of the image are no "
            "finite numbers; write 0 where nothing was measured"
        )
        raise RefusedError(message)
    if magnitudes.ndim == 3:
        magnitudes = magnitudes[..., None]
    if labels.ndim == 3:
        labels = np.repeat(labels[..., None], magnitudes.shape[-1], axis=-1)
    if magnitudes.ndim != 4 or labels.shape != magnitudes.shape:
        message = (
            f"labelled images, file {file.number}: image {magnitudes.shape} and mask {labels.shape} differ, "
            "expected col, row, slice and echo, or a mask without echoes"
        )
        raise RefusedError(message)
    col_mm, row_mm = (float(one) for one in image.header.get_zooms()[:2])
    return magnitudes, labels, (row_mm, col_mm)
