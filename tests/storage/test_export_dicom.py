"""Maps and masks as DICOM, read back by pydicom, by highdicom and by the reader of guides."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import zarr
from pydicom import Dataset

from storage.arrays import read_stack
from storage.export_dicom import _description, write_dicom
from storage.export_sources import derived_uid
from storage.guide import place_guide, read_seg
from storage.source_headers import stored_source_header
from tests.storage.drawn_export import (
    LEFT_OUT,
    ORIENTATIONS,
    SETTINGS,
    VISIT,
    DrawnVisit,
    DrawnVisits,
    original_names,
    source_places,
    stored_masks,
    writable_copy,
)
from tests.storage.drawn_uploads import SHAPE, source

FILES = {
    *("t1_native.dcm", "t1_post.dcm", "ecv.dcm", "r_squared_native.dcm", "r_squared_post.dcm"),
    *("masks_native.dcm", "masks_post.dcm"),
}


def exported(tmp_path: Path, store: zarr.Group) -> Path:
    """Write a visit's files; give their folder."""
    folder = tmp_path / "exported"
    folder.mkdir(parents=True)
    write_dicom(folder, VISIT, store)
    return folder


@pytest.fixture(scope="module")
def visit(drawn_visits: DrawnVisits) -> DrawnVisit:
    """Give a visit whose headers the trial does not keep."""
    return drawn_visits()


@pytest.fixture(scope="module")
def folder(visit: DrawnVisit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give its exported files."""
    return exported(tmp_path_factory.mktemp("files"), visit.store)


@pytest.fixture(scope="module")
def kept(drawn_visits: DrawnVisits) -> DrawnVisit:
    """Give the same visit of a trial that keeps cleaned headers."""
    return drawn_visits(keep_headers=True)


@pytest.mark.parametrize("name", [*ORIENTATIONS, "uneven"])
def test_a_pixel_lies_where_its_source_lies(drawn_visits: DrawnVisits, tmp_path: Path, name: str) -> None:
    """Whatever the orientation, and where slices are not evenly spaced."""
    visit = drawn_visits("oblique", "uneven") if name == "uneven" else drawn_visits(name)
    folder = exported(tmp_path, visit.store)
    for role in ("native", "post"):
        expected = source_places(visit.images[role])
        image = pydicom.dcmread(folder / f"t1_{role}.dcm")
        values, n_checked = image.pixel_array, 0
        for frame, groups in zip(values, image.PerFrameFunctionalGroupsSequence, strict=True):
            for (row, col), value in np.ndenumerate(frame):
                if np.isfinite(value):
                    place = pixel_place(image, groups, row, col)
                    assert np.abs(place - expected[int(value)]).max() < 0.01
                    n_checked += 1
        measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert measures.get("SpacingBetweenSlices") == (None if name == "uneven" else pytest.approx(10.0))
        assert n_checked == 3 * (SHAPE[0] * SHAPE[1] - 1)


def pixel_place(image: Dataset, groups: Dataset, row: int, col: int) -> np.ndarray[Any, Any]:
    """Where a pixel of a frame lies, LPS [mm]."""
    shared = image.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    along = np.asarray(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=np.float64)
    first = np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
    spacing = np.asarray(measures.PixelSpacing, dtype=np.float64)
    place: np.ndarray[Any, Any] = first + col * spacing[1] * along[:3] + row * spacing[0] * along[3:]
    return place


@pytest.mark.parametrize(
    ("name", "array", "unit", "quantity"),
    [
        ("t1_native", "native/t1_ms", ("ms", "UCUM"), ("113063", "DCM")),
        ("t1_post", "post/t1_ms", ("ms", "UCUM"), ("113063", "DCM")),
        ("ecv", "ecv_fraction", ("1", "UCUM"), ("ECV", "99CMRTRIALS")),
        ("r_squared_native", "native/r_squared", ("1", "UCUM"), ("R2FIT", "99CMRTRIALS")),
        ("r_squared_post", "post/r_squared", ("1", "UCUM"), ("R2FIT", "99CMRTRIALS")),
    ],
)
def test_a_map_has_its_values_and_its_unit(
    folder: Path,
    visit: DrawnVisit,
    name: str,
    array: str,
    unit: tuple[str, str],
    quantity: tuple[str, str],
) -> None:
    """Not rounded, and NaN where there is none; highdicom finds the same as real-world values."""
    image = highdicom.imread(folder / f"{name}.dcm")
    stored: Any = visit.store[array]
    by_place = {tuple(place): index for index, place in enumerate(stack_places(visit, array))}
    order = [
        by_place[tuple(np.round(np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, float), 6))]
        for groups in image.PerFrameFunctionalGroupsSequence
    ]
    expected = stored[...][order]
    assert np.isnan(expected).sum() == 3
    assert np.array_equal(pydicom.dcmread(folder / f"{name}.dcm").pixel_array, expected, equal_nan=True)
    real_world = image.get_frames(apply_real_world_transform=True)
    assert np.array_equal(real_world.astype(np.float32), expected, equal_nan=True)
    (mapping,) = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    (units,) = mapping.MeasurementUnitsCodeSequence
    assert (units.CodeValue, units.CodingSchemeDesignator) == unit
    (code,) = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == quantity
    used = {item.CodingSchemeDesignator for item in image.get("CodingSchemeIdentificationSequence", ())}
    assert used == ({"99CMRTRIALS"} if quantity[1] == "99CMRTRIALS" else set())


def stack_places(visit: DrawnVisit, array: str) -> np.ndarray[Any, Any]:
    """Positions of the slices of an array [mm]."""
    stack = read_stack(visit.store, "post" if array.startswith("post") else "native")
    return np.round(np.asarray(stack.positions_mm), 6)


@pytest.mark.parametrize("role", ["native", "post"])
def test_masks_come_back_as_a_guide(folder: Path, visit: DrawnVisit, role: str) -> None:
    """A reader can draw on an export and send it in: it is read and placed as any guide."""
    stack = read_stack(visit.store, role)  # type: ignore[arg-type]
    guide = read_seg(folder / f"masks_{role}.dcm", source())
    assert np.array_equal(place_guide(guide, stack.geometry, 1.0), stored_masks())
    segments = pydicom.dcmread(folder / f"masks_{role}.dcm").SegmentSequence
    codes = [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in segments]
    assert codes == ["74281007", "87878005", "53085002"]


@pytest.mark.parametrize(
    ("method", "origins", "expected"),
    [
        ("guided", ("model", "model", None), "AUTOMATIC"),
        ("guided", ("reader", "model", None), "SEMIAUTOMATIC"),
        ("carry", ("reader", "model", None), "SEMIAUTOMATIC"),
        ("carry", ("reader", "reader", None), "MANUAL"),
        ("guided", ("baseline by model", "model", None), "AUTOMATIC"),
        ("guided", ("baseline by reader", "model", None), "SEMIAUTOMATIC"),
        ("carry", ("baseline by reader", "reader", None), "SEMIAUTOMATIC"),
    ],
)
def test_who_drew_is_said_with_the_weights(
    visit: DrawnVisit, tmp_path: Path, method: str, origins: tuple[str | None, ...], expected: str
) -> None:
    """An algorithm is named by its settings and the digests of its weights; a reader alone has none."""
    store = writable_copy(visit, tmp_path)
    store.attrs["segmentation"] = SETTINGS | {"method": method}
    notes: list[dict[str, Any] | None] = []
    for origin in origins:
        name, _, drawn_there_by = (origin or "").partition(" by ")
        source = {"origin": drawn_there_by} if drawn_there_by else None
        notes.append({"origin": name, "source": source} if origin else None)
    store["native/guide"].attrs["guides"] = notes
    folder = exported(tmp_path, store)
    for segment in pydicom.dcmread(folder / "masks_native.dcm").SegmentSequence:
        assert segment.SegmentAlgorithmType == expected
        if expected == "MANUAL":
            assert "SegmentationAlgorithmIdentificationSequence" not in segment
        else:
            (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
            stated = dict(item.split("=") for item in algorithm.AlgorithmParameters.split(","))
            assert stated == {
                "method": method,
                "alpha": "0.25",
                "guided": f"sha256:{'a' * 64}",
                "stage": "e" * 64,
            }


def test_frames_refer_to_the_images_of_their_slice(folder: Path, visit: DrawnVisit) -> None:
    """By UIDs made of the files' digests, where no header was kept; and the file says so."""
    stack = read_stack(visit.store, "native")
    image = pydicom.dcmread(folder / "t1_native.dcm")
    by_place = {
        place: {derived_uid("image", one.sha256) for one in sources}
        for place, sources in zip(stack.positions_mm, stack.sources, strict=True)
    }
    for groups in image.PerFrameFunctionalGroupsSequence:
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        nearest = min(by_place, key=lambda known: np.abs(np.subtract(known, place)).max())
        named = groups.DerivationImageSequence[0].SourceImageSequence
        assert {one.ReferencedSOPInstanceUID for one in named} == by_place[nearest]
        assert len(named) == 8
    assert named_in(image) == {uid for uids in by_place.values() for uid in uids}
    assert "references: UIDs made of the SHA-256 of the source files" in image.DeidentificationMethod
    assert len(named_in(pydicom.dcmread(folder / "ecv.dcm"))) == 3 * (8 + 9)


def test_a_map_says_which_slices_the_mean_leaves_out(visit: DrawnVisit, tmp_path: Path) -> None:
    """In its description, and in each such frame with what failed it."""
    store = writable_copy(visit, tmp_path)
    store.attrs["rows"] = LEFT_OUT
    ecv = pydicom.dcmread(exported(tmp_path, store) / "ecv.dcm")
    assert ecv.ContentDescription == "extracellular volume fraction; not in the mean: slice 1, 2"
    said = {
        str(groups.DerivationImageSequence[0].get("DerivationDescription", ""))
        for groups in ecv.PerFrameFunctionalGroupsSequence
    }
    why = {f"left out of the scan's mean: {code}" for code in ("reader_excluded", "fit_failed")}
    assert said == {"", *why}
    post = pydicom.dcmread(tmp_path / "exported" / "t1_post.dcm")
    assert post.ContentDescription == "post-contrast T1; not in the mean: slice 2"
    assert len(_description("R2 of the native T1 fit", dict.fromkeys(range(12), ()))) <= 64


def named_in(image: Dataset) -> set[str]:
    """UIDs of all images that a file refers to."""
    return {
        one.ReferencedSOPInstanceUID
        for series in image.ReferencedSeriesSequence
        for one in series.ReferencedInstanceSequence
    }


def test_kept_headers_give_the_references(kept: DrawnVisit, tmp_path: Path) -> None:
    """Pseudonyms that the key leads back from; study and frame of reference are those of the header."""
    folder = exported(tmp_path, kept.store)
    header = stored_source_header(kept.store, "post")
    assert header is not None
    image = pydicom.dcmread(folder / "t1_post.dcm")
    assert named_in(image) == {uid for uids in header.sop_instance_uids for uid in uids}
    assert image.StudyInstanceUID == header.study_instance_uid
    cleaned = Dataset.from_json(header.header)
    assert image.FrameOfReferenceUID == cleaned.FrameOfReferenceUID
    assert image.StudyTime == cleaned.StudyTime
    names = original_names(kept)
    assert not [name for name in names for file in folder.iterdir() if name.encode() in file.read_bytes()]


def test_another_study_is_named_as_such(kept: DrawnVisit, tmp_path: Path) -> None:
    """An ECV map of series from two studies refers to both of them."""
    store = writable_copy(kept, tmp_path)
    store["post/source"].attrs["study_instance_uid"] = "2.25.77"
    folder = exported(tmp_path, store)
    image = pydicom.dcmread(folder / "ecv.dcm")
    (study,) = image.StudiesContainingOtherReferencedInstancesSequence
    assert study.StudyInstanceUID == "2.25.77"
    assert len(named_in(image)) == 3 * 8
    assert len(named_in(study)) == 3 * 9


def test_nothing_of_the_site_is_in_the_files(folder: Path, visit: DrawnVisit) -> None:
    """No UID of a scanner, and nobody's name."""
    assert {file.name for file in folder.iterdir()} == FILES
    names = original_names(visit)
    assert len(names) == 2 + 3 * (8 + 9) + 2 + 2
    for file in folder.iterdir():
        data = file.read_bytes()
        assert not [name for name in names if name.encode() in data]
        image = pydicom.dcmread(file)
        assert (image.PatientID, str(image.PatientName), image.PatientBirthDate) == ("S01", "", "")
        assert image.PatientIdentityRemoved == "YES"
        assert image.StudyDate == image.ContentDate == image.SeriesDate == "20260304"
        assert image.InstanceCreationDate == "20260304"


def test_the_same_result_gives_the_same_bytes(folder: Path, visit: DrawnVisit, tmp_path: Path) -> None:
    """Neither the clock nor chance is in them; another verdict gives other UIDs."""
    again = exported(tmp_path / "again", visit.store)
    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    other = tmp_path / "other"
    other.mkdir()
    write_dicom(other, replace(VISIT, qc_verdict="fail"), visit.store)
    uids = {
        file: pydicom.dcmread(file).SOPInstanceUID for where in (folder, other) for file in where.iterdir()
    }
    assert len(set(uids.values())) == 2 * len(FILES)
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids.values())


def test_what_a_result_has_not_is_not_written(visit: DrawnVisit, tmp_path: Path) -> None:
    """A scan without hematocrit, of whose post-contrast series nothing could be fitted, without its guide."""
    store = writable_copy(visit, tmp_path)
    del store["ecv_fraction"], store["post/masks"]
    store["post/t1_ms"][...] = np.nan
    store["native/masks"][...] = False
    left = {file.name for file in exported(tmp_path, store).iterdir()}
    assert left == {"t1_native.dcm", "r_squared_native.dcm", "r_squared_post.dcm"}


def test_slices_with_a_refused_guide_have_no_masks(visit: DrawnVisit, tmp_path: Path) -> None:
    """No number of the tables was read from them."""
    flag = {"code": "guide_implausible", "severity": "review", "role": "native", "slice_index": 0}
    store = writable_copy(visit, tmp_path)
    store.attrs["rows"] = {"flags": [flag]}
    folder = exported(tmp_path, store)
    guide = read_seg(folder / "masks_native.dcm", source())
    placed = place_guide(guide, read_stack(store, "native").geometry, 1.0)
    assert placed[:, 1].any()
    assert not placed[:, 0].any()


@pytest.mark.parametrize("headers", ["none", "basic"])
def test_the_files_are_valid_dicom(headers: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """David Clunie's validator finds no error."""
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("no dciodvfy: apt-get install dicom3tools")
    visit = request.getfixturevalue("kept" if headers == "basic" else "visit")
    for file in exported(tmp_path, visit.store).iterdir():
        report = subprocess.run([validator, "-new", file], capture_output=True, text=True, check=False)
        lines = (report.stdout + report.stderr).splitlines()
        assert lines, "the validator said nothing"
        assert not [line for line in lines if line.startswith("Error")]
