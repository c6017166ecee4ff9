"""A reader's points: from patient coordinates to pixels, and what is wrong with a file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.dicom_read import FileSource
from storage.errors import RefusedError
from storage.geometry import StackGeometry, col_direction, row_direction
from storage.intake import VisitIntake, intake_visit
from storage.landmarks import MAX_BYTES, place_landmarks, read_landmarks
from storage.upload import hash_upload, list_uploads
from tests.storage.drawn_uploads import (
    ORIENTATION,
    SHAPE,
    SPACING_MM,
    demo_config,
    slice_position,
    stack_geometry,
    write_series,
    write_visit,
)

SOURCE = FileSource("u-1", 7, "digest")
RULES = demo_config()


def at(slice_number: int, row: float, col: float) -> list[float]:
    """Give the patient coordinates of a pixel of the drawn series, LPS [mm]."""
    way = row * SPACING_MM[0] * row_direction(ORIENTATION) + col * SPACING_MM[1] * col_direction(ORIENTATION)
    return [float(value) for value in np.array(slice_position(slice_number)) + way]


def points_file(points: Sequence[Any], **changed: object) -> str:
    """Give the text of a file with such points."""
    return json.dumps(
        {"format": "cmrtrials-landmarks", "version": 1, "rv_insertion_anterior": points} | changed
    )


def place(path: Path, points: Sequence[Any], geometry: StackGeometry) -> np.ndarray[Any, Any]:
    """Read a file with such points and place them on the native stack."""
    path.write_text(points_file(points))
    return place_landmarks(read_landmarks(path, SOURCE), "native", geometry, 1.0)


def intake_of(root: Path, files: dict[str, str]) -> VisitIntake:
    """Take a visit in that came with such files."""
    folder = root / "incoming" / "S01_a"
    if not folder.exists():
        write_visit(folder)
    for name, text in files.items():
        (folder / name).write_text(text)
    uploads = [hash_upload(listing) for listing in list_uploads(root, RULES.uploads)]
    return intake_visit(uploads, RULES.intake)


def test_a_point_lies_where_the_reader_saw_it(tmp_path: Path) -> None:
    """Rows and columns have different spacings and run obliquely; a slice without a point has none."""
    points = [{"position_mm": at(2, 3.25, 7.5)}, {"position_mm": at(0, 10.0, 1.0), "role": "native"}]
    placed = place(tmp_path / "landmarks.json", points, stack_geometry())
    assert placed[[2, 0]] == pytest.approx(np.array([[3.25, 7.5], [10.0, 1.0]]))
    assert np.isnan(placed[1]).all()


def test_a_mirrored_image_has_the_same_point(tmp_path: Path) -> None:
    """Columns counted from the other side: the same place in the patient is the mirrored pixel."""
    step = (SHAPE[1] - 1) * SPACING_MM[1] * col_direction(ORIENTATION)
    moved = [tuple((np.array(one) + step).tolist()) for one in stack_geometry().positions_mm]
    mirrored = replace(
        stack_geometry(),
        positions_mm=tuple((x, y, z) for x, y, z in moved),
        orientation=(*(-col_direction(ORIENTATION)).tolist(), *row_direction(ORIENTATION).tolist()),
    )
    point = [{"position_mm": at(1, 3.0, 2.0)}]
    straight = place(tmp_path / "landmarks.json", point, stack_geometry())[1]
    assert place(tmp_path / "landmarks.json", point, mirrored)[1] == pytest.approx(
        [straight[0], SHAPE[1] - 1 - straight[1]]
    )


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [{"position_mm": at(0, 3, 2)}, {"position_mm": at(0, 4, 2)}],
            "point 2 is the second one on slice 0",
        ),
        ([{"position_mm": at(0, 3, -2)}], "point 1 lies outside of the images"),
        (
            [{"position_mm": [0, 0, 0]}],
            r"point 1 is \d+\.\d mm from the nearest slice, expected at most 1 mm",
        ),
    ],
    ids=["twice", "outside", "no slice"],
)
def test_a_point_that_is_nowhere_is_refused(tmp_path: Path, points: list[Any], message: str) -> None:
    """A reader who used other coordinates must hear of it."""
    with pytest.raises(RefusedError, match=message):
        place(tmp_path / "landmarks.json", points, stack_geometry())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Jane Doe", "the file: Invalid JSON"),
        (points_file([]), "rv_insertion_anterior: Tuple should have at least 1 item"),
        (points_file([{"position_mm": [1, 2]}]), r"rv_insertion_anterior\.0\.position_mm\.2: Field required"),
        (points_file([{"position_mm": [1, 2, 1e9]}]), r"position_mm\.2: Input should be less than"),
        (points_file([{"position_mm": [1, 2, 3], "role": "Jane Doe"}]), "'native' or 'post'"),
        (points_file([{"position_mm": [1, 2, 3]}], **{"Jane Doe": 1}), "storage/landmarks.py: unknown key$"),
        (points_file([{"position_mm": [1, 2, 3]}], version=2), "version: Input should be 1"),
        ("[" * MAX_BYTES + " ", f"landmarks of {MAX_BYTES + 1} bytes, expected at most {MAX_BYTES}"),
    ],
    ids=["no JSON", "empty", "two numbers", "far away", "role", "unknown key", "version", "huge"],
)
def test_a_file_that_is_none_is_refused_without_quoting_it(tmp_path: Path, text: str, message: str) -> None:
    """What a reader typed may be a patient's name."""
    file = tmp_path / "landmarks.json"
    file.write_text(text)
    with pytest.raises(RefusedError, match=message) as raised:
        read_landmarks(file, SOURCE)
    assert str(raised.value).startswith("upload u-1, file 7: ")
    assert "Jane" not in str(raised.value)


def test_points_come_with_the_images(tmp_path: Path) -> None:
    """One file for both roles, one for post-contrast images alone; the rest of the upload is as it was."""
    files = {
        "Landmarks.json": points_file([{"position_mm": at(0, 3, 2)}]),
        "post_landmarks.json": points_file([{"position_mm": at(1, 5, 4), "role": "post"}]),
    }
    taken = intake_of(tmp_path, files)
    assert (taken.refused_files, taken.other_files) == ((), frozenset())
    native, post = taken.insertions_px["native"], taken.insertions_px["post"]
    assert native[0] == pytest.approx([3, 2])
    assert np.isnan(native[1:]).all()
    assert post[:2] == pytest.approx(np.array([[3, 2], [5, 4]]))


def test_two_files_for_one_slice_are_both_left_out(tmp_path: Path) -> None:
    """Nobody can say which reader is right; the images are taken in all the same."""
    files = {
        "a_landmarks.json": points_file([{"position_mm": at(0, 3, 2)}]),
        "b_landmarks.json": points_file([{"position_mm": at(0, 3, 3), "role": "native"}]),
    }
    taken = intake_of(tmp_path, files)
    assert taken.insertions_px == {}
    assert [file.reason for file in taken.refused_files] == [
        "native: another file marks the same slice; upload one point a slice"
    ] * 2
    assert {file.remedy for file in taken.refused_files} == {"mend"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Jane Doe", "no landmarks file of version 1, see storage/landmarks.py: the file: Invalid JSON"),
        (points_file([{"position_mm": at(0, 99, 2)}]), "native: point 1 lies outside of the images"),
        (
            points_file([{"position_mm": at(0, 3, 2), "role": "post"}]),
            "marks post images, which are not in the upload",
        ),
    ],
    ids=["no JSON", "outside", "no such series"],
)
def test_points_that_cannot_be_used_are_left_out_by_name(tmp_path: Path, text: str, message: str) -> None:
    """Upload and file number say which; the visit goes on by its masks."""
    write_series(tmp_path / "incoming" / "S01_a")
    taken = intake_of(tmp_path, {"landmarks.json": text})
    (file,) = taken.refused_files
    assert file.reason.startswith(message)
    assert file.remedy == "mend"
    assert taken.insertions_px == {}
