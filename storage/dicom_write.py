"""Write DICOM and NIfTI files as a scanner and a reader would, for the digital trial and the tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Bool, UInt8, UInt16
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from storage.geometry import StackGeometry, Vector, col_direction, row_direction, slice_normal
from storage.guide import LABELS, SEGMENT_CODES

SOFTWARE = "cmrtrials"
ANATOMICAL_STRUCTURE = ("123037004", "SCT", "Anatomical Structure")


@dataclass(frozen=True, slots=True, kw_only=True)
class MrHeader:
    """What the header of one MR image says."""

    patient_id: str
    """PatientID."""
    study_uid: str
    """StudyInstanceUID."""
    series_uid: str
    """SeriesInstanceUID."""
    instance_uid: str
    """SOPInstanceUID."""
    series_number: int
    """SeriesNumber."""
    instance_number: int
    """InstanceNumber."""
    series_description: str
    """SeriesDescription."""
    acquired_at: datetime
    """Start of the acquisition of this image, scanner's local time."""
    study_at: datetime
    """Start of the study, the same in all its images."""
    inversion_time_ms: float | None
    """InversionTime [ms]; None leaves it out."""
    position_mm: Vector
    """Centre of the first pixel, LPS [mm]."""
    orientation: tuple[float, ...]
    """Directions of growing col, then of growing row."""
    pixel_spacing_mm: tuple[float, float]
    """Distance between rows, between columns [mm]."""
    slice_thickness_mm: float
    """Thickness of the slice [mm]."""
    field_strength_t: float
    """Field strength [T]."""
    manufacturer: str = SOFTWARE
    """Manufacturer."""
    scanner_model: str = "digital phantom"
    """ManufacturerModelName."""
    software_version: str = SOFTWARE
    """SoftwareVersions."""
    protocol_name: str = ""
    """ProtocolName; empty leaves it out."""
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M")
    """ImageType; its third value is ``M`` for a magnitude, ``P`` for a phase."""
    trigger_time_ms: float | None = None
    """TriggerTime [ms]; None leaves it empty."""
    contrast_at: datetime | None = None
    """Start of the contrast bolus, scanner's local time; None where no contrast was given."""


def deterministic_uid(seed: str) -> str:
    """DICOM UID that depends on the seed alone."""
    return str(generate_uid(entropy_srcs=[seed]))


def decimal(value: float) -> str:
    """Write a number as a decimal string, which DICOM allows 16 characters."""
    return f"{value:.10g}"


def write_mr(path: Path, pixels: UInt16[np.ndarray, "row col"], header: MrHeader) -> None:
    """Write one classic single-frame MR image."""
    save(path, classic_dataset(header, pixels, bits_stored=16))


def classic_dataset(header: MrHeader, pixels: UInt16[np.ndarray, "row col"], bits_stored: int) -> FileDataset:
    """Make one classic single-frame MR image, valid by the standard; a vendor adds what is its own."""
    dataset = new_file(MRImageStorage, header.instance_uid)
    describe_study(dataset, header)
    _describe_acquisition(dataset, header)
    set_pixels(dataset, pixels, bits_stored)
    return dataset


def new_file(sop_class_uid: UID, instance_uid: str) -> FileDataset:
    """Begin a DICOM file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = instance_uid
    return dataset


def set_pixels(
    dataset: pydicom.Dataset, pixels: UInt16[np.ndarray, "*frame row col"], bits_stored: int
) -> None:
    """Put grey values into a file, all frames one after the other."""
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = bits_stored
    dataset.HighBit = bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.astype("<u2").tobytes()


def save(path: Path, dataset: FileDataset) -> None:
    """Write a file as the standard wants it; the same dataset gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_guide_seg(
    path: Path, masks: Bool[np.ndarray, "label slice row col"], source_files: Sequence[Path], seed: str
) -> None:
    """Write a guiding mask as a DICOM segmentation of the images it was drawn on.

    Parameters
    ----------
    path
        File to write.
    masks
        Labels in the order of `storage.guide.LABELS`.
    source_files
        The MR image of each slice.
    seed
        Determines the UIDs.
    """
    import highdicom  # half a second, and only needed here

    sources = [pydicom.dcmread(file) for file in source_files]
    segmentation = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=np.moveaxis(masks, 0, -1).astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=label,
                segmented_property_category=highdicom.sr.CodedConcept(
                    "123037004", "SCT", "Anatomical structure"
                ),
                segmented_property_type=highdicom.sr.CodedConcept(*SEGMENT_CODES[label]),
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
            )
            for number, label in enumerate(LABELS, 1)
        ],
        series_instance_uid=deterministic_uid(f"{seed}/series"),
        series_number=900,
        sop_instance_uid=deterministic_uid(f"{seed}/instance"),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name=SOFTWARE,
        software_versions=SOFTWARE,
        device_serial_number="0",
        content_label="GUIDE",
    )
    for keyword in ("InstanceCreation", "Series", "Content"):
        setattr(segmentation, f"{keyword}Date", sources[0].AcquisitionDate)
        setattr(segmentation, f"{keyword}Time", sources[0].AcquisitionTime)
    for item in segmentation.ContributingEquipmentSequence:
        item.ContributionDateTime = sources[0].AcquisitionDate + sources[0].AcquisitionTime
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = deterministic_uid(f"{seed}/dimension")
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)


def write_guide_nifti(
    path: Path,
    masks: Bool[np.ndarray, "label slice row col"],
    geometry: StackGeometry,
    label_values: dict[str, int],
) -> None:
    """Write a guiding mask as a NIfTI label image on a stack's grid, in RAS coordinates.

    Parameters
    ----------
    path
        File to write, ``.nii`` or ``.nii.gz``.
    masks
        Labels in the order of `storage.guide.LABELS`; where two overlap the later one stands.
    geometry
        Grid of the stack; its slices must be evenly spaced along their normal.
    label_values
        Voxel value of each label.
    """
    import nibabel  # a third of a second, and only needed here

    values: UInt8[np.ndarray, "slice row col"] = np.zeros(masks.shape[1:], dtype=np.uint8)
    for label, mask in zip(LABELS, masks, strict=True):
        values[mask] = label_values[label]
    first = np.asarray(geometry.positions_mm[0])
    last = np.asarray(geometry.positions_mm[-1])
    n_steps = len(geometry.positions_mm) - 1
    step = (last - first) / n_steps if n_steps else slice_normal(geometry.orientation)
    affine = np.eye(4)
    affine[:3, 0] = col_direction(geometry.orientation) * geometry.pixel_spacing_mm[1]
    affine[:3, 1] = row_direction(geometry.orientation) * geometry.pixel_spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = first
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.T, lps_to_ras @ affine), path)  # type: ignore[no-untyped-call]


def describe_study(dataset: pydicom.Dataset, header: MrHeader) -> None:
    """Say whose image it is, of which study and series, and when it was taken."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = header.patient_id
    dataset.PatientName = ""
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.StudyInstanceUID = header.study_uid
    dataset.StudyID = ""
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.SeriesInstanceUID = header.series_uid
    dataset.SeriesNumber = header.series_number
    dataset.SeriesDescription = header.series_description
    dataset.Modality = "MR"
    dataset.BodyPartExamined = "HEART"
    dataset.PatientPosition = "HFS"
    dataset.Manufacturer = header.manufacturer
    dataset.ManufacturerModelName = header.scanner_model
    dataset.FrameOfReferenceUID = deterministic_uid(f"{header.study_uid}/frame of reference")
    dataset.PositionReferenceIndicator = ""
    for event, moment in (
        ("Study", header.study_at),
        ("Acquisition", header.acquired_at),
        ("Content", header.acquired_at),
    ):
        setattr(dataset, f"{event}Date", moment.strftime("%Y%m%d"))
        setattr(dataset, f"{event}Time", moment.strftime("%H%M%S.%f"))


def _describe_acquisition(dataset: pydicom.Dataset, header: MrHeader) -> None:
    dataset.ImageType = list(header.image_type)
    dataset.ScanningSequence = "GR" if header.inversion_time_ms is None else ["GR", "IR"]
    dataset.SequenceVariant = "SS"
    dataset.ScanOptions = "CG"
    dataset.MRAcquisitionType = "2D"
    dataset.EchoTrainLength = 1
    dataset.EchoTime = None
    dataset.RepetitionTime = None
    dataset.InstanceNumber = header.instance_number
    dataset.MagneticFieldStrength = header.field_strength_t
    dataset.ImagePositionPatient = [decimal(value) for value in header.position_mm]
    dataset.ImageOrientationPatient = [decimal(value) for value in header.orientation]
    dataset.PixelSpacing = [decimal(value) for value in header.pixel_spacing_mm]
    dataset.SliceThickness = decimal(header.slice_thickness_mm)
    if header.inversion_time_ms is not None:
        dataset.InversionTime = decimal(header.inversion_time_ms)
    dataset.TriggerTime = None if header.trigger_time_ms is None else decimal(header.trigger_time_ms)
    if header.protocol_name:
        dataset.ProtocolName = header.protocol_name
    if header.software_version != SOFTWARE:
        dataset.SoftwareVersions = header.software_version
    if header.contrast_at is not None:
        dataset.ContrastBolusAgent = "gadolinium"
        dataset.ContrastBolusStartTime = f"{header.contrast_at:%H%M%S}"
