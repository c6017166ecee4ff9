"""Images of several orientations: which stack is taken."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest

from storage.dicom_series import EchoStack, assemble
from storage.errors import RefusedError
from storage.geometry import col_direction, row_direction, slice_normal
from tests.storage.drawn_uploads import (
    NATIVE,
    ORIENTATION,
    DrawnSeries,
    demo_config,
    on_slices,
    read_instances,
    write_series,
)

INTAKE = demo_config().intake
ONE_SLICE = INTAKE.model_copy(update={"slices": 1})


def _write_turned(
    folder: Path, series: DrawnSeries, degrees: float, minutes: float, numbers: slice = slice(None)
) -> list[Path]:
    """Write a series whose planes are turned about their rows, so many minutes after the sound one."""
    started_at = NATIVE.started_at + timedelta(minutes=minutes)
    paths = write_series(folder, replace(series, uid_seed=f"turned by {degrees}", started_at=started_at))
    col, row, normal = (part(ORIENTATION) for part in (col_direction, row_direction, slice_normal))
    angle = np.radians(degrees)
    turned = np.cos(angle) * row + np.sin(angle) * normal
    for path in paths[numbers]:
        dataset = pydicom.dcmread(path)
        dataset.ImageOrientationPatient = [f"{value:.8g}" for value in (*col, *turned)]
        dataset.SeriesNumber = 7
        dataset.save_as(path)
    return paths


def _stack(paths: list[Path]) -> EchoStack:
    return assemble(read_instances(paths), INTAKE).native


def _numbers(stack: EchoStack) -> set[int]:
    return {source.file_number for sources in stack.sources for source in sources}


@pytest.mark.parametrize("minutes", [-5.0, 5.0], ids=["before", "after"])
def test_a_slice_that_was_planned_askew_and_repeated_does_not_refuse_the_visit(
    tmp_path: Path, minutes: float
) -> None:
    """The complete stack is taken, whenever it was acquired; the other slice is named."""
    paths = write_series(tmp_path)
    stack = _stack([*paths, *_write_turned(tmp_path, on_slices(NATIVE, 1), 8.0, minutes)])
    assert _numbers(stack) == set(range(1, 25))
    assert stack.orientation == pytest.approx(ORIENTATION)
    when = "10:25" if minutes < 0 else "10:35"
    assert stack.repeats == (
        f"native: series 7 (8 images, {when}) of another orientation, which was not taken: it is no complete "
        "stack: 1 slices, expected 3 (images from base to apex: 8)",
    )


@pytest.mark.parametrize(
    ("minutes", "taken", "other"),
    [
        (5.0, range(25, 49), "series 1 (24 images, 10:30)"),
        (-5.0, range(1, 25), "series 7 (24 images, 10:25)"),
    ],
    ids=["later", "earlier"],
)
def test_of_two_complete_stacks_the_last_is_taken(
    tmp_path: Path, minutes: float, taken: range, other: str
) -> None:
    """As of two acquisitions of a slice."""
    stack = _stack([*write_series(tmp_path), *_write_turned(tmp_path, NATIVE, 8.0, minutes)])
    assert _numbers(stack) == set(taken)
    (named,) = stack.repeats
    assert named == (
        f"native: {other} of another orientation, which was not taken: it came before another one"
    )


def test_images_that_are_askew_within_a_series_leave_the_repeat_of_their_slice(tmp_path: Path) -> None:
    """The first acquisition of slice 2 is broken by one image, the second is whole."""
    paths = _write_turned(tmp_path, NATIVE, 8.0, 0.0, slice(9, 10))
    repeat = replace(on_slices(NATIVE, 1), started_at=NATIVE.started_at + timedelta(minutes=5))
    stack = _stack([*paths, *write_series(tmp_path, repeat)])
    assert {source.file_number for source in stack.sources[1]} == set(range(25, 33))
    assert sum("which was not taken" in named for named in stack.repeats) == len(stack.repeats) == 2


def test_a_stack_of_mixed_orientations_is_refused_with_what_each_lacks(tmp_path: Path) -> None:
    """Slices that are tilted against each other are no stack."""
    paths = _write_turned(tmp_path, NATIVE, 8.0, 0.0, slice(8, 16))
    expected = (
        r"native: orientation of .* file 9 differs from that of .* file 1 .*; no orientation has a complete "
        r"stack: 2 slices, expected 3 .*; 1 slices, expected 3"
    )
    with pytest.raises(RefusedError, match=expected):
        _stack(paths)


def test_two_views_of_one_name_are_not_taken_for_a_repeat(tmp_path: Path) -> None:
    """A long-axis image acquired later must not replace the short axis."""
    paths = [
        *write_series(tmp_path, on_slices(NATIVE, 0)),
        *_write_turned(tmp_path, on_slices(NATIVE, 0), 80.0, 5.0),
    ]
    with pytest.raises(RefusedError, match=r"each has a complete stack: series 1 .*; series 7 .*exclusive"):
        assemble(read_instances(paths), ONE_SLICE)


def test_stacks_of_different_size_are_not_taken_for_repeats(tmp_path: Path) -> None:
    """Where any number of slices will do, a slice of another tilt may be one more slice."""
    paths = [*write_series(tmp_path), *_write_turned(tmp_path, on_slices(NATIVE, 1), 8.0, 5.0)]
    with pytest.raises(RefusedError, match="each has a complete stack"):
        assemble(read_instances(paths), INTAKE.model_copy(update={"slices": 0}))


def test_a_trial_that_refuses_repeats_refuses_other_orientations(tmp_path: Path) -> None:
    """Which of the two is the good one is for the site to say."""
    paths = [*write_series(tmp_path), *_write_turned(tmp_path, on_slices(NATIVE, 1), 8.0, 5.0)]
    with pytest.raises(RefusedError, match=r'orientation of .*intake.repeats = "refuse"'):
        assemble(read_instances(paths), INTAKE.model_copy(update={"repeats": "refuse"}))


def test_a_file_without_a_time_is_named_whichever_stack_is_taken(tmp_path: Path) -> None:
    """Every file is accounted for."""
    paths = [*write_series(tmp_path), *_write_turned(tmp_path, on_slices(NATIVE, 1), 8.0, 5.0)]
    dataset = pydicom.dcmread(paths[-1])
    dataset.InversionTime = None
    dataset.save_as(paths[-1])
    askew_alone = [paths[number] for number in (*range(8), *range(24, 32))]
    with pytest.raises(RefusedError, match="no orientation has a complete stack") as refused:
        assemble(read_instances(askew_alone), INTAKE)
    assert refused.value.files == ()
    three = assemble(read_instances(paths), INTAKE)
    assert three.native.echoes.shape[:2] == (3, 8)
    with pytest.raises(RefusedError, match="no orientation has a complete stack") as refused:
        assemble(read_instances([*paths[:7], *paths[24:]]), ONE_SLICE)
    (file,) = refused.value.files
    assert file.file_number == 15
