"""Enhanced MR images: one file with a frame per echo and slice, as newer scanners export a whole series."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from jaxtyping import UInt16
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import EnhancedMRImageStorage

from storage.dicom_write import MrHeader, decimal, describe_study, deterministic_uid, new_file, set_pixels


def enhanced_dataset(
    headers: Sequence[MrHeader], pixels: UInt16[np.ndarray, "frame row col"], bits_stored: int
) -> FileDataset:
    """Make one enhanced MR image of a series' frames, valid by the standard, in the order given.

    A vendor adds its private groups and changes what it writes differently.

    Parameters
    ----------
    headers
        Header of each frame; what is the same in all of them is taken from the first.
    pixels
        Stored values.
    bits_stored
        Bits that hold them.
    """
    first = headers[0]
    dataset = new_file(EnhancedMRImageStorage, deterministic_uid(f"{first.series_uid}/enhanced"))
    describe_study(dataset, first)
    _describe_equipment(dataset, first)
    _describe_acquisition(dataset, first)
    _describe_dimensions(dataset, first)
    set_pixels(dataset, pixels, bits_stored)
    dataset.NumberOfFrames = len(headers)
    dataset.SharedFunctionalGroupsSequence = [_shared_groups(first)]
    places = sorted({header.position_mm for header in headers})
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame_groups(header, places.index(header.position_mm) + 1) for header in headers
    ]
    return dataset


def item(**values: Any) -> Dataset:
    """Make one item of a sequence."""
    made = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _describe_equipment(dataset: Dataset, header: MrHeader) -> None:
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = header.software_version


def _describe_acquisition(dataset: Dataset, header: MrHeader) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "T1", "NONE"]
    dataset.InstanceNumber = 1
    dataset.AcquisitionNumber = 1
    dataset.AcquisitionDateTime = f"{header.acquired_at:%Y%m%d%H%M%S.%f}"
    dataset.AcquisitionDuration = 60.0
    dataset.ProtocolName = header.protocol_name or header.series_description
    dataset.ResonantNucleus = "1H"
    dataset.KSpaceFiltering = "NONE"
    dataset.MagneticFieldStrength = header.field_strength_t
    dataset.ApplicableSafetyStandardAgency = "IEC"
    dataset.ApplicableSafetyStandardDescription = ""
    dataset.PixelPresentation = "MONOCHROME"
    dataset.VolumetricProperties = "SAMPLED"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.ComplexImageComponent = "MAGNITUDE"
    dataset.AcquisitionContrast = "T1"
    dataset.ContentQualification = "RESEARCH"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.PulseSequenceName = "molli"
    dataset.MRAcquisitionType = "2D"
    dataset.EchoPulseSequence = "GRADIENT"
    dataset.MultiPlanarExcitation = "NO"
    dataset.PhaseContrast = "NO"
    dataset.TimeOfFlightContrast = "NO"
    dataset.SteadyStatePulseSequence = "FREE_PRECESSION"
    dataset.EchoPlanarPulseSequence = "NO"
    dataset.SaturationRecovery = "NO"
    dataset.SpectrallySelectedSuppression = "NONE"
    dataset.OversamplingPhase = "NONE"
    dataset.GeometryOfKSpaceTraversal = "RECTILINEAR"
    dataset.RectilinearPhaseEncodeReordering = "LINEAR"
    dataset.SegmentedKSpaceTraversal = "SINGLE"
    dataset.NumberOfKSpaceTrajectories = 1
    dataset.CardiacSynchronizationTechnique = "PROSPECTIVE"
    dataset.CardiacSignalSource = "ECG"
    dataset.CardiacRRIntervalSpecified = 1000.0
    dataset.CardiacBeatRejectionTechnique = "NONE"
    dataset.LowRRValue = dataset.HighRRValue = dataset.IntervalsAcquired = dataset.IntervalsRejected = None
    dataset.RespiratoryMotionCompensationTechnique = "BREATH_HOLD"
    dataset.RespiratorySignalSource = "NONE"
    dataset.AcquisitionContextSequence = []


def _describe_dimensions(dataset: Dataset, header: MrHeader) -> None:
    uid = deterministic_uid(f"{header.series_uid}/dimension")
    dataset.DimensionOrganizationSequence = [item(DimensionOrganizationUID=uid)]
    dataset.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=uid,
            DimensionIndexPointer=pydicom.tag.Tag(keyword),
            FunctionalGroupPointer=pydicom.tag.Tag("FrameContentSequence"),
        )
        for keyword in ("StackID", "InStackPositionNumber", "TemporalPositionIndex")
    ]


def _shared_groups(header: MrHeader) -> Dataset:
    spacing = [decimal(value) for value in header.pixel_spacing_mm]
    return item(
        PixelMeasuresSequence=[item(PixelSpacing=spacing, SliceThickness=decimal(header.slice_thickness_mm))],
        PlaneOrientationSequence=[
            item(ImageOrientationPatient=[decimal(value) for value in header.orientation])
        ],
        FrameAnatomySequence=[
            item(
                FrameLaterality="U",
                AnatomicRegionSequence=[
                    item(CodeValue="80891009", CodingSchemeDesignator="SCT", CodeMeaning="Heart")
                ],
            )
        ],
        MRTimingAndRelatedParametersSequence=[
            item(
                RepetitionTime=2.7,
                FlipAngle=35.0,
                EchoTrainLength=1,
                RFEchoTrainLength=0,
                GradientEchoTrainLength=1,
                OperatingModeSequence=[
                    item(OperatingModeType=kind, OperatingMode="IEC_NORMAL")
                    for kind in ("STATIC FIELD", "RF", "GRADIENT")
                ],
                GradientOutputType="DB_DT",
                GradientOutput=0.0,
                SpecificAbsorptionRateSequence=[
                    item(SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY", SpecificAbsorptionRateValue=0.5)
                ],
            )
        ],
        MRFOVGeometrySequence=[
            item(
                InPlanePhaseEncodingDirection="COLUMN",
                MRAcquisitionFrequencyEncodingSteps=192,
                MRAcquisitionPhaseEncodingStepsInPlane=144,
                PercentSampling=100.0,
                PercentPhaseFieldOfView=100.0,
            )
        ],
        MRReceiveCoilSequence=[
            item(
                ReceiveCoilName="BODY",
                ReceiveCoilManufacturerName="",
                ReceiveCoilType="BODY",
                QuadratureReceiveCoil="YES",
            )
        ],
        MRTransmitCoilSequence=[
            item(TransmitCoilName="BODY", TransmitCoilManufacturerName="", TransmitCoilType="BODY")
        ],
        MRAveragesSequence=[item(NumberOfAverages=1.0)],
        MRImagingModifierSequence=[
            item(
                MagnetizationTransfer="NONE",
                BloodSignalNulling="NO",
                Tagging="NONE",
                TransmitterFrequency=42.577 * header.field_strength_t,
                PixelBandwidth=900.0,
            )
        ],
    )


def _frame_groups(header: MrHeader, place: int) -> Dataset:
    moment = f"{header.acquired_at:%Y%m%d%H%M%S.%f}"
    groups = item(
        FrameContentSequence=[
            item(
                FrameAcquisitionNumber=1,
                FrameReferenceDateTime=moment,
                FrameAcquisitionDateTime=moment,
                FrameAcquisitionDuration=200.0,
                StackID="1",
                InStackPositionNumber=place,
                TemporalPositionIndex=header.instance_number,
                DimensionIndexValues=[1, place, header.instance_number],
            )
        ],
        PlanePositionSequence=[item(ImagePositionPatient=[decimal(value) for value in header.position_mm])],
        MRImageFrameTypeSequence=[
            item(
                FrameType=list(header.image_type),
                PixelPresentation="MONOCHROME",
                VolumetricProperties="SAMPLED",
                VolumeBasedCalculationTechnique="NONE",
                ComplexImageComponent="MAGNITUDE",
                AcquisitionContrast="T1",
            )
        ],
        MREchoSequence=[item(EffectiveEchoTime=1.1)],
        CardiacSynchronizationSequence=[
            item(
                NominalCardiacTriggerDelayTime=header.trigger_time_ms,
                RRIntervalTimeNominal=1000.0,
                ActualCardiacTriggerDelayTime=header.trigger_time_ms,
            )
        ],
        PixelValueTransformationSequence=[item(RescaleIntercept="0", RescaleSlope="1", RescaleType="US")],
    )
    modifier = item(
        InversionRecovery="NO" if header.inversion_time_ms is None else "YES",
        FlowCompensation="NONE",
        Spoiling="NONE",
        T2Preparation="NO",
        SpectrallySelectedExcitation="NONE",
        SpatialPresaturation="NONE",
        PartialFourier="NO",
        ParallelAcquisition="NO",
    )
    if header.inversion_time_ms is not None:
        modifier.InversionTimes = [header.inversion_time_ms]
    groups.MRModifierSequence = [modifier]
    return groups
