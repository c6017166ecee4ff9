"""Maps and masks as a BIDS-style tree, read back by nibabel."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.arrays import read_stack
from storage.export_bids import bids_label, session_folder, write_bids, write_index
from storage.export_folder import export_folder, remove_export, write_export
from storage.export_visit import ExportedVisit
from storage.guide import LABELS
from storage.labelled import LABEL_VALUES
from tests.storage.drawn_export import (
    LEFT_OUT,
    ORIENTATIONS,
    VISIT,
    DrawnVisit,
    DrawnVisits,
    original_names,
    source_places,
    stored_masks,
    writable_copy,
)
from tests.storage.drawn_uploads import SHAPE

STEM = "sub-S01_ses-V1"
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)


@pytest.fixture(scope="module")
def visit(drawn_visits: DrawnVisits) -> DrawnVisit:
    """Give a visit."""
    return drawn_visits()


@pytest.fixture(scope="module")
def anat(visit: DrawnVisit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of its exported images."""
    folder = tmp_path_factory.mktemp("files")
    write_bids(folder, VISIT, visit.store)
    return folder / "anat"


def load(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Values with axes col, row, slice, and affine to LPS."""
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj), np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine


def check_places(path: Path, expected: dict[int, np.ndarray[Any, Any]]) -> int:
    """Compare where each pixel lies with its source image; give the number of pixels with a value."""
    seconds, affine = load(path)
    n_checked = 0
    for index, value in np.ndenumerate(seconds):
        if np.isfinite(value):
            place = (affine @ [*index, 1])[:3]
            assert np.abs(place - expected[round(float(value) * 1000)]).max() < 0.01
            n_checked += 1
    return n_checked


def test_a_sidecar_says_which_slices_the_means_use(visit: DrawnVisit, tmp_path: Path) -> None:
    """Whoever averages the maps anew must know what a reader left out; unevenly spaced slices each alone."""
    store = writable_copy(visit, tmp_path)
    store.attrs["rows"] = LEFT_OUT
    write_bids(tmp_path, VISIT, store)
    said = {path.name: json.loads(path.read_text()) for path in (tmp_path / "anat").glob("*.json")}
    native, post = said[f"{STEM}_T1map.json"], said[f"{STEM}_ce-gadolinium_dseg.json"]
    assert (native["SlicesUsed"], native["SliceFailures"]) == (
        [True, False, True],
        [[], ["reader_excluded"], []],
    )
    assert (post["SlicesUsed"], post["SliceFailures"]) == ([True, True, False], [[], [], ["fit_failed"]])
    ecv = said[f"{STEM}_ECVmap.json"]
    assert ecv["SlicesUsed"] == [True, False, False]
    assert ecv["SliceFailures"] == [[], ["reader_excluded"], ["fit_failed"]]


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_pixel_lies_where_its_source_lies(drawn_visits: DrawnVisits, tmp_path: Path, name: str) -> None:
    """NIfTI counts right, anterior, superior, and its first axis is the column."""
    visit = drawn_visits(name)
    write_bids(tmp_path, VISIT, visit.store)
    n_checked = check_places(tmp_path / f"anat/{STEM}_T1map.nii.gz", source_places(visit.images["native"]))
    n_checked += check_places(
        tmp_path / f"anat/{STEM}_ce-gadolinium_T1map.nii.gz", source_places(visit.images["post"])
    )
    assert n_checked == 2 * 3 * (SHAPE[0] * SHAPE[1] - 1)


def test_slices_that_are_not_evenly_spaced_are_files_of_their_own(
    drawn_visits: DrawnVisits, tmp_path: Path
) -> None:
    """No affine fits them, and to say so of the middle one would put it elsewhere."""
    visit = drawn_visits("oblique", "uneven")
    write_bids(tmp_path, VISIT, visit.store)
    files = sorted((tmp_path / "anat").glob("*ses-V1_chunk-*_T1map.nii.gz"))
    assert [file.name for file in files] == [f"{STEM}_chunk-{number}_T1map.nii.gz" for number in (1, 2, 3)]
    expected = source_places(visit.images["native"])
    assert [check_places(file, expected) for file in files] == 3 * [SHAPE[0] * SHAPE[1] - 1]
    levels = [
        json.loads(file.with_name(file.name[:-7] + ".json").read_text())["SliceLevel"] for file in files
    ]
    assert levels == [["basal"], ["mid"], ["apical"]]


def test_slices_that_shear_keep_their_affine(drawn_visits: DrawnVisits, tmp_path: Path) -> None:
    """A quaternion cannot say it: the header then has the affine alone."""
    visit = drawn_visits("oblique", "sheared")
    write_bids(tmp_path, VISIT, visit.store)
    path = tmp_path / f"anat/{STEM}_T1map.nii.gz"
    assert check_places(path, source_places(visit.images["native"])) == 3 * (SHAPE[0] * SHAPE[1] - 1)
    header: Any = nibabel.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)


def test_t1_is_in_seconds_and_the_rest_as_it_is(anat: Path, visit: DrawnVisit) -> None:
    """As the sidecars say; NaN where there is no value."""
    for name, array, scale, unit in (
        ("T1map", "native/t1_ms", 1000, "s"),
        ("ce-gadolinium_T1map", "post/t1_ms", 1000, "s"),
        ("ECVmap", "ecv_fraction", 1, "1"),
        ("Rsquaredmap", "native/r_squared", 1, "1"),
        ("ce-gadolinium_Rsquaredmap", "post/r_squared", 1, "1"),
    ):
        stored: Any = visit.store[array]
        values, _ = load(anat / f"{STEM}_{name}.nii.gz")
        assert values.dtype == np.float32
        np.testing.assert_allclose(values.T * scale, stored[...], rtol=1e-6)
        assert np.isnan(values).sum() == 3
        assert json.loads((anat / f"{STEM}_{name}.json").read_text())["Units"] == unit


def test_a_sidecar_says_sources_and_verdict(anat: Path, visit: DrawnVisit) -> None:
    """What one must know before one uses a map."""
    sidecar = json.loads((anat / f"{STEM}_ce-gadolinium_T1map.json").read_text())
    stack = read_stack(visit.store, "post")
    assert sidecar["SourceFiles"][0][0]["sha256"] == stack.sources[0][0].sha256
    np.testing.assert_allclose(sidecar["InversionTimes"], stack.ti_ms / 1000)
    assert (sidecar["QCVerdict"], sidecar["QCReasons"]) == ("review", ["center_jumps"])
    assert sidecar["DisplayWindow"] == [0.15, 0.75]
    assert sidecar["MagneticFieldStrength"] == 3.0


def test_labels_are_those_of_the_table(anat: Path) -> None:
    """The table stands beside the image."""
    values, _ = load(anat / f"{STEM}_dseg.nii.gz")
    with (anat / f"{STEM}_dseg.tsv").open(newline="") as file:
        names = {row["name"]: int(row["index"]) for row in csv.DictReader(file, delimiter="\t")}
    assert names == LABEL_VALUES.model_dump()
    for label, mask in zip(LABELS, stored_masks(), strict=True):
        assert np.array_equal(names[label] == values.T, mask)
    sidecar = json.loads((anat / f"{STEM}_dseg.json").read_text())
    assert sidecar["GuideOrigin"] == ["reader", "model", None]
    assert sidecar["Segmentation"]["guided"] == f"sha256:{'a' * 64}"
    assert sidecar["Manual"] is False


def test_what_a_result_has_not_is_not_written(visit: DrawnVisit, tmp_path: Path) -> None:
    """Neither an empty map nor empty labels."""
    store = writable_copy(visit, tmp_path)
    del store["ecv_fraction"], store["post/masks"]
    write_bids(tmp_path, VISIT, store)
    names = {file.name for file in (tmp_path / "anat").iterdir()}
    assert not {name for name in names if "ECV" in name or "gadolinium_dseg" in name}
    assert f"{STEM}_dseg.tsv" in names


@given(st.lists(IDS, min_size=2, max_size=2, unique_by=str.casefold))
def test_labels_are_letters_and_digits_and_never_collide(ids: list[str]) -> None:
    """Also where a file system does not tell capitals; the id can be read from the label."""
    labels = [bids_label(identifier) for identifier in ids]
    assert all(re.fullmatch("[A-Za-z0-9]+", label) for label in labels)
    assert labels[0].casefold() != labels[1].casefold()
    decoded = [re.sub("Z(..)", lambda found: chr(int(found[1], 16)), label) for label in labels]
    assert decoded == ids


def rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file, delimiter="\t")


def export(root: Path, visit: ExportedVisit, drawn: DrawnVisit) -> Path:
    """Export a visit and write what stands above it; give the dataset's folder."""
    with export_folder(root, "bids") as exports:
        folder = session_folder(exports, visit.subject_id, visit.visit_id)
        write_export(exports, folder, visit, "bids", lambda place: write_bids(place, visit, drawn.store))
        write_index(exports)
    return exports


def test_ids_and_quantities_stand_in_the_tables(visit: DrawnVisit, tmp_path: Path) -> None:
    """The labels of files lead back to the trial's ids there, and every column is described."""
    export(tmp_path, VISIT, visit)
    exports = export(tmp_path, replace(VISIT, subject_id="S-01", visit_id="W.52"), visit)
    assert list(rows(exports / "participants.tsv")) == [
        {"participant_id": "sub-S01", "subject_id": "S01", "site_id": "01"},
        {"participant_id": "sub-SZ2d01", "subject_id": "S-01", "site_id": "01"},
    ]
    table = exports / "sub-SZ2d01" / "sub-SZ2d01_sessions.tsv"
    (session,) = rows(table)
    assert (session["session_id"], session["visit_id"]) == ("ses-WZ2e52", "W.52")
    assert session["acq_time"] == "2026-03-04T10:30:00"
    assert (session["t1_native_ms"], session["ecv_fraction"]) == ("1011.5", "n/a")
    assert (session["qc_verdict"], session["qc_reasons"]) == ("review", "center_jumps")
    described = json.loads(table.with_suffix(".json").read_text())
    assert described.keys() == session.keys() - {"session_id"}
    assert described["t1_native_ms"]["Units"] == "ms"
    description = json.loads((exports / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "cmrtrials"


def test_a_subject_without_sessions_goes_from_the_tables(visit: DrawnVisit, tmp_path: Path) -> None:
    """Its result is published no more."""
    export(tmp_path, VISIT, visit)
    exports = export(tmp_path, replace(VISIT, subject_id="S02"), visit)
    assert remove_export(exports, session_folder(exports, "S01", "V1"))
    write_index(exports)
    assert [row["subject_id"] for row in rows(exports / "participants.tsv")] == ["S02"]
    assert [folder.name for folder in exports.glob("sub-*")] == ["sub-S02"]


def test_the_same_result_gives_the_same_bytes_without_names_of_the_site(
    visit: DrawnVisit, tmp_path: Path
) -> None:
    """Neither the clock nor a UID of the scanner is in them."""
    written = [export(tmp_path / name, VISIT, visit) for name in ("a", "b")]
    first, second = (
        {
            file.relative_to(exports).as_posix(): file.read_bytes()
            for file in exports.rglob("*")
            if file.is_file()
        }
        for exports in written
    )
    assert first == second
    assert len(first) > 20
    names = original_names(visit)
    assert not [name for name in names for data in first.values() if name.encode() in data]
