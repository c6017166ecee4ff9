"""Guiding masks from a reader: a DICOM segmentation or a NIfTI label image, placed on a stack's grid.

Whatever the file, a guide becomes a set of planes in the patient; a plane is turned and flipped until it runs
as the stack does, and then must lie on the stack's grid. Nothing is interpolated.
"""

import errno
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Bool, Float64

from storage.config_intake import NiftiLabels
from storage.dicom_read import PARSE_ERRORS, FileSource
from storage.errors import RefusedError
from storage.geometry import (
    UNIT_TOLERANCE,
    Orientation,
    StackGeometry,
    col_direction,
    row_direction,
    slice_normal,
)

LABELS = ("myocardium", "blood_pool", "rv")

SEGMENT_CODES: dict[str, tuple[str, str, str]] = {
    "myocardium": ("74281007", "SCT", "Myocardium"),
    "blood_pool": ("87878005", "SCT", "Left ventricle"),
    "rv": ("53085002", "SCT", "Right ventricle"),
}
"""SNOMED CT code, scheme and meaning of each label."""

MAX_AXIS = 4096
"""Largest number of pixels or slices along an axis of a NIfTI guide."""

MAX_VOXELS = 64 * 2**20
"""Largest number of voxels of a NIfTI guide."""

MAX_POSITION_MM = 1e6
"""No position or pixel spacing of a scan comes near this [mm]."""

GRID_TOLERANCE_PIXELS = 0.25
"""Largest shift in the plane between a guide's grid and the stack's [pixels]."""

_LABEL_BY_CODE = {code: label for label, (code, _, _) in SEGMENT_CODES.items()}
_LABEL_BY_NAME = {
    **{label: label for label in LABELS},
    "left_ventricle": "blood_pool",
    "right_ventricle": "rv",
}


@dataclass(frozen=True, slots=True, eq=False)
class GuidePlane:
    """One label on one plane."""

    label: str
    """One of `LABELS`."""
    mask: Bool[np.ndarray, "row col"]
    """Where the label is."""
    position_mm: Float64[np.ndarray, " 3"]
    """Centre of the first pixel, LPS [mm]."""
    orientation: Float64[np.ndarray, " 6"]
    """Directions of growing col, then of growing row."""
    pixel_spacing_mm: tuple[float, float]
    """Distance between rows, between columns [mm]."""


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """All planes of one guide file."""

    source: FileSource
    """File the guide came in."""
    path: Path = field(repr=False)
    """Where it lies in incoming/."""
    planes: tuple[GuidePlane, ...]
    """Planes with at least one pixel set."""
    series_uids: frozenset[str] = field(repr=False)
    """Series the file says it was drawn on; empty where it says nothing."""


def is_nifti(path: Path) -> bool:
    """Whether the file's name says NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_seg(path: Path, source: FileSource) -> Guide:
    """Read a DICOM segmentation; segments are known by their SNOMED CT code, else by their label.

    Raises
    ------
    RefusedError
        If it cannot be read, or no segment is one of `LABELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            labels = _segment_labels(dataset)
            planes = tuple(plane for plane in _seg_planes(dataset, labels) if plane.mask.any())
            referenced = dataset.get("ReferencedSeriesSequence") or ()
            series_uids = frozenset(str(item.SeriesInstanceUID) for item in referenced)
    except PARSE_ERRORS as error:
        message = f"{source}: the segmentation cannot be read ({type(error).__name__})"
        raise RefusedError(message) from None  # the parser's text may quote the file
    return _checked(Guide(source, path, planes, series_uids))


def read_nifti(path: Path, source: FileSource, labels: NiftiLabels) -> Guide:
    """Read a NIfTI label image, whose slices are its third axis.

    Raises
    ------
    RefusedError
        If it cannot be read, has not three axes, or holds values that are not in ``labels``.
    """
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, HeaderTypeError, ImageDataError
    from nibabel.wrapstruct import WrapStructError

    broken = (
        *PARSE_ERRORS,
        HeaderDataError,
        HeaderTypeError,
        ImageDataError,
        ImageFileError,
        MemoryError,
        OSError,
        WrapStructError,
    )
    try:
        with warnings.catch_warnings(action="ignore"):
            image: Any = _nifti_class(path).from_filename(path)
            _check_size(source, image.shape)
            values = np.asarray(image.dataobj)
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    except RefusedError:
        raise
    except broken as error:
        # A file that is cut off gives an OSError of nibabel's own, an absurd offset the system's EINVAL.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        message = f"{source}: the NIfTI file cannot be read ({type(error).__name__})"
        raise RefusedError(message) from None
    label_values = labels.model_dump()
    unknown = sorted(set(np.unique(values).tolist()) - {0, *label_values.values()})
    if values.ndim != 3 or unknown:
        message = (
            f"{source}: NIfTI guide with {values.ndim} axes and unknown values {unknown[:5]}, "
            f"expected 3 axes and the values 0 and {label_values}"
        )
        raise RefusedError(message)
    with np.errstate(over="ignore", invalid="ignore"):
        spacing = np.linalg.norm(affine[:3, :2], axis=0)
    if not (np.all(np.abs(affine) < MAX_POSITION_MM) and np.all(spacing > 0)):  # NaN is neither
        message = (
            f"{source}: the NIfTI guide's affine is no geometry; save it with its position in the patient"
        )
        raise RefusedError(message)
    planes = tuple(
        GuidePlane(
            label=label,
            mask=mask.T,
            position_mm=affine[:3, 3] + index * affine[:3, 2],
            orientation=(affine[:3, :2] / spacing).T.reshape(6),
            pixel_spacing_mm=(float(spacing[1]), float(spacing[0])),
        )
        for label, value in label_values.items()
        for index, mask in enumerate(np.moveaxis(values, 2, 0) == value)
        if mask.any()
    )
    return _checked(Guide(source, path, planes, frozenset()))


def _nifti_class(path: Path) -> type[Any]:
    """Class that reads the file: NIfTI-2 where its header says so, else NIfTI-1."""
    import nibabel  # a third of a second, and only where a visit has a NIfTI file

    is_second, _ = nibabel.Nifti2Image.path_maybe_image(path)
    return nibabel.Nifti2Image if is_second else nibabel.Nifti1Image


def _check_size(source: FileSource, shape: Sequence[int]) -> None:
    """Refuse an image before it is unpacked: a few bytes may promise more than any memory holds."""
    if not all(0 < size <= MAX_AXIS for size in shape) or math.prod(shape) > MAX_VOXELS:
        found = " x ".join(map(str, shape))
        message = (
            f"{source}: NIfTI guide of {found} voxels, "
            f"expected 1 to {MAX_AXIS} along each axis and at most {MAX_VOXELS} in all"
        )
        raise RefusedError(message)


def place_guide(
    guide: Guide, geometry: StackGeometry, tolerance_mm: float
) -> Bool[np.ndarray, "label slice row col"]:
    """Put a guide's planes on a stack's grid; False where it says nothing.

    Raises
    ------
    RefusedError
        If a plane lies on no slice of the stack, or its pixels are not those of the stack.
    """
    masks = np.zeros((len(LABELS), len(geometry.positions_mm), *geometry.shape), dtype=bool)
    for plane in guide.planes:
        turned = _turned_like(plane, geometry.orientation)
        if turned is None:
            message = f"{guide.source}: the guide's planes are not parallel to the series"
            raise RefusedError(message)
        _check_grid(guide.source, turned, geometry)
        masks[LABELS.index(plane.label), _slice_of(guide.source, turned, geometry, tolerance_mm)] |= (
            turned.mask
        )
    return masks


def _checked(guide: Guide) -> Guide:
    if not guide.planes:
        message = f"{guide.source}: the guide is empty, expected at least one of {', '.join(LABELS)}"
        raise RefusedError(message)
    return guide


def _segment_labels(dataset: pydicom.Dataset) -> dict[int, str]:
    """Label of each segment number that is one of ours."""
    labels = {}
    for segment in dataset.SegmentSequence:
        code = str(segment.SegmentedPropertyTypeCodeSequence[0].CodeValue)
        name = str(segment.SegmentLabel).strip().lower().replace(" ", "_")
        label = _LABEL_BY_CODE.get(code) or _LABEL_BY_NAME.get(name)
        if label is not None:
            labels[int(segment.SegmentNumber)] = label
    return labels


def _seg_planes(dataset: pydicom.Dataset, labels: dict[int, str]) -> Iterator[GuidePlane]:
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    threshold = int(dataset.get("MaximumFractionalValue") or 1) / 2
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):

        def macro(name: str, groups: pydicom.Dataset = groups) -> pydicom.Dataset:
            sequence: Sequence[pydicom.Dataset] = (groups if name in groups else shared)[name].value
            return sequence[0]

        position: Sequence[float] = macro("PlanePositionSequence").ImagePositionPatient
        orientation: Sequence[float] = macro("PlaneOrientationSequence").ImageOrientationPatient
        spacing: Sequence[float] = macro("PixelMeasuresSequence").PixelSpacing
        if str(dataset.SegmentationType) == "LABELMAP":
            masks = {number: frame == number for number in labels}
        else:
            number = int(macro("SegmentIdentificationSequence").ReferencedSegmentNumber)
            masks = {number: frame > threshold} if number in labels else {}
        for number, mask in masks.items():
            yield GuidePlane(
                label=labels[number],
                mask=mask,
                position_mm=np.array(position, dtype=np.float64),
                orientation=np.array(orientation, dtype=np.float64),
                pixel_spacing_mm=(float(spacing[0]), float(spacing[1])),
            )


def _turned_like(plane: GuidePlane, orientation: Orientation) -> GuidePlane | None:
    """Transpose and flip a plane until its rows and columns run as given; None where that cannot be."""
    if abs(col_direction(plane.orientation) @ col_direction(orientation)) < 0.5:
        plane = replace(
            plane,
            mask=plane.mask.T,
            orientation=np.roll(plane.orientation, 3),
            pixel_spacing_mm=plane.pixel_spacing_mm[::-1],
        )
    rows, cols = plane.mask.shape
    if col_direction(plane.orientation) @ col_direction(orientation) < 0:
        step = col_direction(plane.orientation) * plane.pixel_spacing_mm[1]
        plane = replace(
            plane,
            mask=plane.mask[:, ::-1],
            position_mm=plane.position_mm + (cols - 1) * step,
            orientation=plane.orientation * [-1, -1, -1, 1, 1, 1],
        )
    if row_direction(plane.orientation) @ row_direction(orientation) < 0:
        step = row_direction(plane.orientation) * plane.pixel_spacing_mm[0]
        plane = replace(
            plane,
            mask=plane.mask[::-1],
            position_mm=plane.position_mm + (rows - 1) * step,
            orientation=plane.orientation * [1, 1, 1, -1, -1, -1],
        )
    return plane if np.allclose(plane.orientation, orientation, rtol=0, atol=UNIT_TOLERANCE) else None


def _check_grid(source: FileSource, plane: GuidePlane, geometry: StackGeometry) -> None:
    same_spacing = np.allclose(plane.pixel_spacing_mm, geometry.pixel_spacing_mm, rtol=UNIT_TOLERANCE, atol=0)
    if plane.mask.shape != geometry.shape or not same_spacing:
        found = _grid_text(plane.mask.shape, plane.pixel_spacing_mm)
        expected = _grid_text(geometry.shape, geometry.pixel_spacing_mm)
        message = f"{source}: the guide's grid is {found}, that of the series {expected}"
        raise RefusedError(message)


def _slice_of(source: FileSource, plane: GuidePlane, geometry: StackGeometry, tolerance_mm: float) -> int:
    """Index of the slice a plane lies on."""
    offsets = plane.position_mm - np.asarray(geometry.positions_mm, dtype=np.float64)
    distances_mm = np.abs(offsets @ slice_normal(geometry.orientation))
    index = int(np.argmin(distances_mm))
    if distances_mm[index] > tolerance_mm:
        message = f"{source}: a plane of the guide is {distances_mm[index]:.1f} mm from the nearest slice"
        raise RefusedError(message)
    shift_row = abs(offsets[index] @ row_direction(geometry.orientation)) / geometry.pixel_spacing_mm[0]
    shift_col = abs(offsets[index] @ col_direction(geometry.orientation)) / geometry.pixel_spacing_mm[1]
    if max(shift_row, shift_col) > GRID_TOLERANCE_PIXELS:
        message = (
            f"{source}: the guide's grid is shifted by {max(shift_row, shift_col):.1f} pixels in the plane"
        )
        raise RefusedError(message)
    return index


def _grid_text(shape: Sequence[int], spacing_mm: tuple[float, float]) -> str:
    return f"{shape[0]} x {shape[1]} at {spacing_mm[0]:g} x {spacing_mm[1]:g} mm"
