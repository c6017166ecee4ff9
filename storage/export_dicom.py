"""A visit's maps as DICOM parametric maps and its masks as DICOM segmentations, one multi-frame file each.

The same result gives the same bytes: UIDs follow from digests, and dates are those of the examination as the
record gives them, never the day of the export, which would give away a shifted one. A pixel without a value
is NaN, which PS3.5, section 8, allows in float pixel data.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from jaxtyping import Bool, Float32
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from storage.arrays import read_stack, stored_roles
from storage.dicom_series import EchoStack
from storage.dicom_write import ANATOMICAL_STRUCTURE, SOFTWARE, decimal
from storage.export_sources import SeriesSources, SourceReference, derived_uid, series_sources
from storage.export_visit import (
    MAPS,
    ExportedVisit,
    MapKind,
    drawn_by,
    is_even,
    left_out,
    read_map,
    read_masks,
    segmentation_settings,
)
from storage.geometry import positions_along_normal
from storage.guide import LABELS, SEGMENT_CODES
from storage.series_rules import ROLES, Role

if TYPE_CHECKING:
    import highdicom

PRIVATE_SCHEME = "99CMRTRIALS"
"""Coding scheme of quantities that no standard has a code for."""

FIRST_SERIES_NUMBER = 9001
_LONG_STRING = 64
"""Most letters of a text of value representation LO."""

_Code = tuple[str, str, str]
_QUANTITY: _Code = ("246205007", "SCT", "Quantity")
_METHOD: _Code = ("370129005", "SCT", "Measurement Method")
_INVERSION_RECOVERY: _Code = ("126351", "DCM", "T1 by Inversion Recovery")
_QUANTITIES: dict[str, _Code] = {
    "t1": ("113063", "DCM", "T1"),
    "ecv": ("ECV", PRIVATE_SCHEME, "Myocardial extracellular volume fraction"),
    "r_squared": ("R2FIT", PRIVATE_SCHEME, "Coefficient of determination of the fit"),
}
_UNITS: dict[str, _Code] = {"ms": ("ms", "UCUM", "millisecond"), "1": ("1", "UCUM", "no units")}
_SOURCE_IMAGE: _Code = ("121322", "DCM", "Source image for image processing operation")
_ALGORITHM_TYPES = {"reader": "MANUAL", "reader and network": "SEMIAUTOMATIC", "network": "AUTOMATIC"}
_ARTIFICIAL_INTELLIGENCE: _Code = ("123110", "DCM", "Artificial Intelligence")


@dataclass(frozen=True, slots=True)
class _ExportedSeries:
    """A role's images as the exported files need them."""

    visit: ExportedVisit
    stack: EchoStack
    sources: SeriesSources


def write_dicom(folder: Path, visit: ExportedVisit, store: zarr.Group) -> None:
    """Write a visit's maps and masks into a folder: ``t1_native.dcm``, ``masks_native.dcm`` and so on.

    What the result does not have is not written.
    """
    series: dict[Role, _ExportedSeries] = {}
    for role in stored_roles(store):
        stack = read_stack(store, role)
        series[role] = _ExportedSeries(visit, stack, series_sources(store, stack, visit))
    for number, kind in enumerate(MAPS, FIRST_SERIES_NUMBER):
        values = read_map(store, kind)
        if values is not None:
            further = [series["post"].sources] if kind.quantity == "ecv" and "post" in series else []
            out = left_out(store, kind.quantity, kind.role)
            image = _parametric_map(values, kind, series[kind.role], number, further, out)
            image.save_as(folder / f"{kind.name}.dcm")
    for number, role in enumerate(ROLES, FIRST_SERIES_NUMBER + len(MAPS)):
        masks = read_masks(store, role) if role in series else None
        if masks is not None:
            image = _segmentation(masks, series[role], number, store)
            image.save_as(folder / f"masks_{role}.dcm")


def _parametric_map(
    values: Float32[np.ndarray, "slice row col"],
    kind: MapKind,
    series: _ExportedSeries,
    series_number: int,
    further: Sequence[SeriesSources],
    out: Mapping[int, tuple[str, ...]],
) -> Dataset:
    import highdicom  # half a second, and only needed here

    low, high = kind.window(series.stack.field_strength_t)
    found = values[np.isfinite(values)]
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=kind.name.upper(),
        lut_explanation=kind.meaning,
        unit=_concept(_UNITS[kind.unit]),
        value_range=(float(found.min()), float(found.max())),
        quantity_definition=_concept(_QUANTITIES[kind.quantity]),
    )
    if kind.quantity == "t1":
        mapping.QuantityDefinitionSequence.append(
            highdicom.sr.CodeContentItem(name=_concept(_METHOD), value=_concept(_INVERSION_RECOVERY))
        )
    image = highdicom.pm.ParametricMap(
        source_images=_planes(series),
        pixel_array=values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            # Values are real numbers: the plain linear function takes whole ones, and no width under 1.
            highdicom.VOILUTTransformation(
                window_center=(low + high) / 2,
                window_width=high - low,
                voi_lut_function=highdicom.VOILUTFunctionValues.LINEAR_EXACT,
            )
        ],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=kind.name.upper(),
        content_description=_description(kind.meaning, out),
        coding_schemes=_private_scheme() if _QUANTITIES[kind.quantity][1] == PRIVATE_SCHEME else None,
        **_identity(kind.name, kind.meaning, series, series_number),
    )
    _finished(image, kind.name, series, further)
    for index, groups in _frames(image, series):
        if index in out:
            why = ", ".join(out[index]) or "no value, or that of its blood is left out"
            groups.DerivationImageSequence[0].DerivationDescription = f"left out of the scan's mean: {why}"
    return image


def _description(meaning: str, out: Mapping[int, tuple[str, ...]]) -> str:
    """Say what a map shows, and that the scan's mean leaves slices out: in the 64 letters there are."""
    if not out:
        return meaning
    slices = ", ".join(map(str, sorted(out)))  # from 0 at the base, as everywhere
    said = f"{meaning}; not in the mean: slice {slices}"
    return said if len(said) <= _LONG_STRING else f"{meaning}; {len(out)} slices not in the mean"


def _segmentation(
    masks: Bool[np.ndarray, "label slice row col"],
    series: _ExportedSeries,
    series_number: int,
    store: zarr.Group,
) -> Dataset:
    import highdicom  # half a second, and only needed here

    name = f"masks_{series.stack.role}"
    kind = _ALGORITHM_TYPES[drawn_by(store, series.stack.role)]
    image = highdicom.seg.Segmentation(
        source_images=_planes(series),
        pixel_array=np.moveaxis(masks, 0, -1).astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=label,
                segmented_property_category=_concept(ANATOMICAL_STRUCTURE),
                segmented_property_type=_concept(SEGMENT_CODES[label]),
                algorithm_type=kind,
                algorithm_identification=None if kind == "MANUAL" else _algorithm(series.visit, store),
            )
            for number, label in enumerate(LABELS, 1)
        ],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=name.upper(),
        content_description="heart on the images the maps are on",
        **_identity(name, f"masks, {series.stack.role}", series, series_number),
    )
    return _finished(image, name, series, [])


def _algorithm(visit: ExportedVisit, store: zarr.Group) -> "highdicom.AlgorithmIdentificationSequence":
    """Name the networks by the digests of their weights."""
    import highdicom

    settings = segmentation_settings(store) | {"stage": visit.segment_digest}
    return highdicom.AlgorithmIdentificationSequence(
        name=f"{SOFTWARE} segmentation",
        family=_concept(_ARTIFICIAL_INTELLIGENCE),
        version=visit.code_version,
        source=SOFTWARE,
        parameters={name: str(value) for name, value in settings.items()},
    )


def _concept(code: _Code) -> "highdicom.sr.CodedConcept":
    import highdicom

    return highdicom.sr.CodedConcept(*code)


def _private_scheme() -> list[Dataset]:
    """Say whose the private coding scheme is."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    name = f"quantities of {SOFTWARE}"
    return [CodingSchemeIdentificationItem(PRIVATE_SCHEME, name=name, responsible_organization=SOFTWARE)]


def _planes(series: _ExportedSeries) -> list[Dataset]:
    """Make an image of each slice that says where it lies and whose it is; it stands in for the source."""
    stack, sources, visit = series.stack, series.sources, series.visit
    moment = visit.moment(stack)
    along_mm = positions_along_normal(stack.positions_mm, stack.orientation)
    spacing_mm = float(abs(along_mm[-1] - along_mm[0]) / max(len(along_mm) - 1, 1)) or 1.0
    planes = []
    for index, position in enumerate(stack.positions_mm):
        plane = Dataset()
        plane.SpecificCharacterSet = "ISO_IR 192"
        plane.SOPClassUID = MRImageStorage
        plane.SOPInstanceUID = derived_uid("plane", str(index))
        plane.PatientID = visit.subject_id
        plane.PatientName = plane.PatientBirthDate = plane.PatientSex = ""
        plane.StudyInstanceUID = sources.study_uid
        plane.SeriesInstanceUID = derived_uid("planes")
        plane.StudyDate = (stack.study_date or moment).strftime("%Y%m%d")
        plane.StudyTime = sources.study_time
        plane.StudyID = plane.AccessionNumber = plane.ReferringPhysicianName = ""
        plane.Modality = "MR"
        plane.Manufacturer, plane.ManufacturerModelName = stack.manufacturer, stack.scanner_model
        plane.FrameOfReferenceUID = sources.frame_of_reference_uid
        plane.Rows, plane.Columns = stack.geometry.shape
        plane.ImagePositionPatient = [decimal(value) for value in position]
        plane.ImageOrientationPatient = [decimal(value) for value in stack.orientation]
        plane.PixelSpacing = [decimal(value) for value in stack.pixel_spacing_mm]
        plane.SliceThickness = decimal(stack.slice_thickness_mm or spacing_mm)
        # What the library works out by itself can have more digits than DICOM allows.
        plane.SpacingBetweenSlices = decimal(spacing_mm)
        planes.append(plane)
    return planes


def _identity(name: str, description: str, series: _ExportedSeries, series_number: int) -> dict[str, Any]:
    """Name a file; the names change with whatever it is made from."""
    digest = series.visit.digest("dicom")
    return {
        "series_instance_uid": derived_uid("exported series", digest, name),
        "series_number": series_number,
        "series_description": f"{SOFTWARE}: {description}",
        "sop_instance_uid": derived_uid("exported", digest, name),
        "instance_number": 1,
        "manufacturer": SOFTWARE,
        "manufacturer_model_name": SOFTWARE,
        "software_versions": series.visit.code_version,
        "device_serial_number": "0",
    }


def _finished(
    image: Dataset, name: str, series: _ExportedSeries, further: Sequence[SeriesSources]
) -> Dataset:
    """Put in what the library fills with the clock, with chance or with the stand-ins for the sources."""
    moment = series.visit.moment(series.stack)
    for event in ("InstanceCreation", "Series", "Content"):
        setattr(image, f"{event}Date", moment.strftime("%Y%m%d"))
        setattr(image, f"{event}Time", moment.strftime("%H%M%S"))
    for item in image.ContributingEquipmentSequence:
        item.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S")
    dimension = derived_uid("dimension", series.visit.digest("dicom"), name)
    for item in (*image.DimensionOrganizationSequence, *image.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimension
    if len(series.stack.positions_mm) == 1 or not is_even(series.stack.geometry):
        image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].pop("SpacingBetweenSlices", None)
    image.BodyPartExamined = "HEART"
    image.PatientIdentityRemoved = "YES"
    image.DeidentificationMethod = ["made from pseudonymous arrays", series.sources.naming]
    image.StudyDescription = series.visit.visit_id
    image.ClinicalTrialSponsorName = "not stated"  # the standard wants a text
    image.ClinicalTrialProtocolID = series.visit.trial_id
    image.ClinicalTrialProtocolName = image.ClinicalTrialSiteName = ""
    image.ClinicalTrialSiteID = series.visit.site_id
    image.ClinicalTrialSubjectID = series.visit.subject_id
    image.ClinicalTrialTimePointID = series.visit.visit_id
    _refer(image, series, further)
    return image


def _refer(image: Dataset, series: _ExportedSeries, further: Sequence[SeriesSources]) -> None:
    """Refer to the source images: all of them once, and each frame to those of its slice."""
    image.pop("SourceImageSequence", None)
    for index, groups in _frames(image, series):
        (derivation,) = groups.DerivationImageSequence
        derivation.SourceImageSequence = [_source(one) for one in series.sources.references[index]]
    here = [one for one in (series.sources, *further) if one.study_uid == series.sources.study_uid]
    elsewhere = [one for one in further if one not in here]
    image.ReferencedSeriesSequence = _by_series(here)
    image.pop("StudiesContainingOtherReferencedInstancesSequence", None)
    if elsewhere:
        studies = []
        for one in elsewhere:
            study = Dataset()
            study.StudyInstanceUID = one.study_uid
            study.ReferencedSeriesSequence = _by_series([one])
            studies.append(study)
        image.StudiesContainingOtherReferencedInstancesSequence = studies


def _frames(image: Dataset, series: _ExportedSeries) -> Iterator[tuple[int, Dataset]]:
    """Give the functional groups of each frame with the index of its slice."""
    positions = np.asarray(series.stack.positions_mm)
    for groups in image.PerFrameFunctionalGroupsSequence:
        place = np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
        yield int(np.linalg.norm(positions - place, axis=1).argmin()), groups


def _by_series(sources: Sequence[SeriesSources]) -> list[Dataset]:
    of_series: dict[str, dict[SourceReference, None]] = {}
    for reference in (one for source in sources for of_slice in source.references for one in of_slice):
        of_series.setdefault(reference.series_uid, {})[reference] = None
    items = []
    for series_uid, references in of_series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_uid
        item.ReferencedInstanceSequence = [_instance(reference) for reference in references]
        items.append(item)
    return items


def _instance(reference: SourceReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _source(reference: SourceReference) -> Dataset:
    item = _instance(reference)
    item.PurposeOfReferenceCodeSequence = [_concept(_SOURCE_IMAGE)]
    return item
