"""From images to echo stacks."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from storage.config_intake import IntakeConfig
from storage.dicom_read import Instance
from storage.dicom_series import EchoStack, assemble
from storage.errors import RefusedError
from tests.storage.drawn_uploads import (
    NATIVE,
    NATIVE_TI_MS,
    ORIENTATION,
    POST,
    POST_TI_MS,
    SPACING_MM,
    TI_SOURCE,
    demo_config,
    image_value,
    on_slices,
    read_instances,
    slice_position,
    write_series,
    write_visit,
)

INTAKE = demo_config().intake


def _native(instances: Sequence[Instance], intake: IntakeConfig = INTAKE) -> EchoStack:
    return assemble(instances, intake).native


def _change(path: Path, **values: Any) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    if "SOPInstanceUID" in values:
        dataset.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"]
    dataset.save_as(path)


def test_frames_are_keyed_by_position_and_inversion_time(tmp_path: Path) -> None:
    """File names and order say nothing, so any order of the files gives the same stack."""
    instances = read_instances(write_series(tmp_path))
    for order in (instances, instances[::-1], sorted(instances, key=lambda one: one.path.name)):
        stack = _native(order)
        for slice_index in range(3):
            for ti_index, ti_ms in enumerate(sorted(NATIVE_TI_MS)):
                assert stack.ti_ms[slice_index, ti_index] == ti_ms
                assert stack.echoes[slice_index, ti_index, 5, 5] == image_value(slice_index, ti_ms)


def test_slices_run_from_base_to_apex(tmp_path: Path) -> None:
    """The scanner's order is as good as any."""
    stack = _native(read_instances(write_series(tmp_path, on_slices(NATIVE, 2, 0, 1))))
    assert np.allclose(stack.positions_mm, [slice_position(number) for number in range(3)])
    assert stack.levels == ("basal", "mid", "apical")


def test_the_guides_echo_is_the_first_acquired(tmp_path: Path) -> None:
    """The shortest inversion time is not always the first image."""
    late_first = replace(NATIVE, ti_ms=(180.0, 1180.0, 2180.0, 3180.0, 4180.0, 100.0, 1100.0, 2100.0))
    stack = _native(read_instances(write_series(tmp_path, late_first)))
    assert stack.ti_ms[0].tolist() == sorted(late_first.ti_ms)
    assert stack.acquisition_index[0].tolist() == [5, 0, 6, 1, 7, 2, 3, 4]


def test_acquisition_order_falls_back_to_the_instance_number(tmp_path: Path) -> None:
    """Some exports give all images of a slice one time."""
    paths = write_series(tmp_path)
    for path in paths:
        _change(path, AcquisitionTime="103000")
    stack = _native(read_instances(paths))
    assert stack.acquisition_index[1].tolist() == np.argsort(NATIVE_TI_MS).tolist()


def test_native_and_post_are_told_apart_by_description(tmp_path: Path) -> None:
    """Each with its scheme, which the number of images gives."""
    paths = write_visit(tmp_path)
    result = assemble(read_instances([*paths["post"], *paths["native"]]), INTAKE)
    assert result.post is not None
    assert (result.native.scheme, result.post.scheme) == ("5(3)3", "4(1)3(1)2")
    assert result.post.ti_ms[2].tolist() == sorted(POST_TI_MS)
    assert result.native.acquired_at == NATIVE.started_at
    assert result.post.acquired_at == POST.started_at


def test_other_series_are_counted_not_used(tmp_path: Path) -> None:
    """Phase images and localizers come with every export."""
    paths = [
        *write_series(tmp_path),
        *write_series(tmp_path, replace(NATIVE, component="P")),
        *write_series(tmp_path, replace(NATIVE, description="localizer")),
    ]
    result = assemble(read_instances(paths), INTAKE)
    assert result.n_other_series == 2
    assert result.native.echoes.shape[:2] == (3, 8)


def test_post_may_be_missing(tmp_path: Path) -> None:
    """Quantify flags it; the native map is worth having."""
    assert assemble(read_instances(write_series(tmp_path)), INTAKE).post is None


def test_a_missing_native_series_is_refused(tmp_path: Path) -> None:
    """Without it there is nothing to quantify; the rule that found none is named."""
    with pytest.raises(
        RefusedError, match=r"no native series.*intake\.native \(description.*; 0 other series"
    ):
        assemble(read_instances(write_series(tmp_path, POST)), INTAKE)


def test_one_series_per_slice_is_one_stack(tmp_path: Path) -> None:
    """Scanners write either; the slices are merged by position."""
    paths = []
    for number in range(3):
        paths += write_series(tmp_path, replace(on_slices(NATIVE, number), uid_seed=str(number)))
    split = _native(read_instances(paths))
    whole = _native(read_instances(write_series(tmp_path / "whole")))
    assert np.array_equal(split.ti_ms, whole.ti_ms)
    assert np.array_equal(split.echoes[..., 5, 5], whole.echoes[..., 5, 5])


def test_every_echo_names_its_file(tmp_path: Path) -> None:
    """A stored value can say where it came from."""
    stack = _native(read_instances(write_series(tmp_path)))
    numbers = [[source.file_number for source in sources] for sources in stack.sources]
    assert numbers[0] == (np.argsort(NATIVE_TI_MS) + 1).tolist()
    assert np.array_equal(numbers, stack.echoes[:, :, 0, 0].astype(int))
    assert stack.ti_source == ((TI_SOURCE,) * len(NATIVE_TI_MS),) * len(numbers)


def test_geometry_is_that_of_the_header(tmp_path: Path) -> None:
    """Rows and columns are not swapped on the way."""
    geometry = _native(read_instances(write_series(tmp_path))).geometry
    assert np.allclose(geometry.orientation, ORIENTATION)
    assert (geometry.pixel_spacing_mm, geometry.shape) == (SPACING_MM, (12, 10))


def _remove_one(paths: list[Path]) -> None:
    paths.pop(9)


def _repeat_time(paths: list[Path]) -> None:
    _change(paths[9], InversionTime="100")


def _lose_slice(paths: list[Path]) -> None:
    del paths[8:16]


def _turn(paths: list[Path]) -> None:
    _change(paths[3], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])


def _rescale(paths: list[Path]) -> None:
    _change(paths[3], PixelSpacing=[1.4, 1.25])


def _other_field(paths: list[Path]) -> None:
    _change(paths[3], MagneticFieldStrength=1.5)


def _crop(paths: list[Path]) -> None:
    _change(paths[3], Rows=6, PixelData=b"\0" * 120)


def _other_day(paths: list[Path]) -> None:
    _change(paths[3], StudyDate="20260311")


def _shift(paths: list[Path]) -> None:
    _change(paths[3], ImagePositionPatient=[0, 0, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            _remove_one,
            r"native: slice 2 has 7 inversion times, expected 8 \(5\(3\)3\) or 11 \(3\(3\)3\(3\)5\)",
            id="too-few",
        ),
        pytest.param(
            _repeat_time,
            r"slice 2 has more than one image at inversion time 100 ms \(2 files: upload u",
            id="repeated-time",
        ),
        pytest.param(
            _lose_slice, r"native: 2 slices, expected 3 \(images from base to apex: 8, 8\)", id="slices"
        ),
        pytest.param(
            _turn, "native: orientation of upload u-3fa9c1d2e4, file 4 differs from", id="orientation"
        ),
        pytest.param(
            _rescale,
            r"slice 1 is on several grids: pixel spacing of .* file 4 differs .*1\.4 x 1\.25 mm.*1\.5 x",
            id="spacing",
        ),
        pytest.param(
            _other_field,
            r"native: slice 1 is on several grids: field strength of .* file 4 differs .*1\.5 T.* 3 T",
            id="field",
        ),
        pytest.param(
            _crop,
            "native: slice 1 is on several grids: pixel grid of upload u-3fa9c1d2e4, file 4 differs",
            id="grid",
        ),
        pytest.param(
            _other_day,
            r"dates \(the first in 23 files: .*, \.\.\.; 7 d later in 1 file: .*file \d+\)",
            id="dates",
        ),
        pytest.param(_shift, "native: 4 slices, expected 3", id="position"),
    ],
)
def test_an_incomplete_or_mixed_series_is_refused(
    tmp_path: Path, change: Callable[[list[Path]], None], message: str
) -> None:
    """Half a series would fit, and fit wrongly."""
    paths = write_series(tmp_path)
    change(paths)
    with pytest.raises(RefusedError, match=message):
        assemble(read_instances(paths), INTAKE)


def test_slices_of_different_schemes_are_refused(tmp_path: Path) -> None:
    """Each slice fits a scheme, but not the same one."""
    eleven = tuple(float(ti_ms) for ti_ms in range(100, 1200, 100))
    paths = write_series(tmp_path, on_slices(NATIVE, 0, 1))
    paths += write_series(tmp_path, replace(on_slices(NATIVE, 2), ti_ms=eleven, uid_seed="2"))
    with pytest.raises(RefusedError, match=r"the slices have \[8, 8, 11\] inversion .* in each$"):
        assemble(read_instances(paths), INTAKE)


def test_a_scheme_in_seconds_has_as_many_images_as_the_heart_beats(tmp_path: Path) -> None:
    """At 75 a minute, seven before five seconds have passed and four before three."""
    rule = INTAKE.native.model_copy(update={"schemes": ("5s(3s)3s",)})
    intake = INTAKE.model_copy(update={"native": rule})
    eleven = tuple(float(ti_ms) for ti_ms in range(100, 1200, 100))
    paths = write_series(tmp_path, replace(NATIVE, ti_ms=eleven))
    stack = _native(read_instances(paths), intake)
    assert (stack.scheme, stack.echoes.shape[:2]) == ("5s(3s)3s", (3, 11))
    with pytest.raises(RefusedError, match=r"have \[10, 11, 11\] .* follows the heart rate, which one stack"):
        _native(read_instances(paths[1:]), intake)


REPEAT = replace(on_slices(NATIVE, 1), uid_seed="repeat", started_at=NATIVE.started_at + timedelta(minutes=2))


def test_of_a_repeated_slice_the_last_complete_acquisition_is_taken(tmp_path: Path) -> None:
    """An operator repeats what went wrong; the earlier one is kept in the upload and named."""
    paths = [*write_series(tmp_path), *write_series(tmp_path, REPEAT)]
    stack = _native(read_instances(paths))
    assert {source.file_number for source in stack.sources[1]} == set(range(25, 33))
    assert {source.file_number for source in stack.sources[0]} == set(range(1, 9))
    assert stack.repeats == (
        "native: slice 2 is also in series 1 (8 images, 10:30), which was not taken: "
        "it came before another complete one",
    )


def test_an_incomplete_repeat_does_not_replace_a_complete_acquisition(tmp_path: Path) -> None:
    """A repeat that was broken off is no better than the first."""
    paths = [*write_series(tmp_path), *write_series(tmp_path, REPEAT)[:5]]
    stack = _native(read_instances(paths))
    assert {source.file_number for source in stack.sources[1]} == set(range(9, 17))
    (named,) = stack.repeats
    assert "which was not taken: it has 5 inversion times, expected 8 (5(3)3) or 11" in named


@pytest.mark.parametrize("values", [{"PixelSpacing": [1.4, 1.25]}, {"MagneticFieldStrength": "1.5"}, None])
def test_a_repeat_that_is_not_taken_may_have_another_grid(
    tmp_path: Path, values: dict[str, object] | None
) -> None:
    """Whoever repeats a slice may do so because its matrix was wrong; only what is used must fit."""
    wrong = replace(REPEAT, started_at=NATIVE.started_at - timedelta(minutes=2))
    first = write_series(tmp_path, wrong)
    for path in first:
        if values is None:
            _crop([path] * 5)
        else:
            _change(path, **values)
    stack = _native(read_instances([*first, *write_series(tmp_path)]))
    assert stack.echoes.shape[:2] == (3, 8)
    (named,) = stack.repeats
    assert "it came before another complete one" in named


def test_a_repeat_of_mixed_grids_is_not_complete(tmp_path: Path) -> None:
    """The one before it is taken, and the reason named."""
    paths = write_series(tmp_path)
    repeat = write_series(tmp_path, REPEAT)
    _change(repeat[3], PixelSpacing=[1.4, 1.25])
    stack = _native(read_instances([*paths, *repeat]))
    assert {source.file_number for source in stack.sources[1]} == set(range(9, 17))
    (named,) = stack.repeats
    assert "which was not taken: it is on several grids: pixel spacing of upload" in named


def test_slices_that_are_taken_need_one_grid(tmp_path: Path) -> None:
    """Each slice is one acquisition of its own, and complete."""
    paths = write_series(tmp_path)
    for path in paths[8:16]:
        _change(path, PixelSpacing=[1.4, 1.25])
    with pytest.raises(RefusedError, match=r"native: pixel spacing of .* file 9 differs .*expected one grid"):
        assemble(read_instances(paths), INTAKE)


def test_a_slice_without_a_complete_acquisition_is_refused_with_all_of_them(tmp_path: Path) -> None:
    """The site sees what it has sent."""
    paths = [*write_series(tmp_path, on_slices(NATIVE, 1))[:6], *write_series(tmp_path, REPEAT)[:5]]
    intake = INTAKE.model_copy(update={"slices": 1})
    expected = r"slice 1 is in 2 series, none of them complete: .* 10:30\) has 6 .* 10:32\) has 5 inversion"
    with pytest.raises(RefusedError, match=expected):
        assemble(read_instances(paths), intake)


def test_a_trial_may_refuse_repeats(tmp_path: Path) -> None:
    """Where a protocol allows one acquisition only, which is the good one is for the site to say."""
    paths = [*write_series(tmp_path), *write_series(tmp_path, REPEAT)]
    intake = INTAKE.model_copy(update={"repeats": "refuse"})
    with pytest.raises(RefusedError, match="native: slice 2 is in 2 series, expected one"):
        assemble(read_instances(paths), intake)


def test_a_description_that_fits_both_rules_is_refused(tmp_path: Path) -> None:
    """Rules that overlap must be mended, not ranked."""
    paths = write_series(tmp_path, replace(NATIVE, description="MOLLI native and post"))
    expected = r"series 1 \(24 images, 10:30\) fits native and post; make the rules in \[intake\] exclusive"
    with pytest.raises(RefusedError, match=expected):
        assemble(read_instances(paths), INTAKE)


@pytest.mark.parametrize("across", [ORIENTATION[:3], ORIENTATION[3:]], ids=["columns", "rows"])
def test_a_slice_whose_images_are_shifted_in_the_plane_is_refused(
    tmp_path: Path, across: tuple[float, ...]
) -> None:
    """Along the normal they agree, but their pixels are other tissue."""
    paths = write_series(tmp_path)
    position = np.array(slice_position(1))
    _change(paths[8], ImagePositionPatient=(position + 0.6 * np.array(across)).tolist())
    assert _native(read_instances(paths)).echoes.shape[0] == 3
    _change(paths[12], ImagePositionPatient=(position - 0.6 * np.array(across)).tolist())
    expected = (
        r"native: slice 2 has images 1\.2 mm apart in the plane "
        r"\(upload u-3fa9c1d2e4, file \d+, upload u-3fa9c1d2e4, file \d+\), expected at most 1 mm"
    )
    with pytest.raises(RefusedError, match=expected):
        _native(read_instances(paths))


def test_the_study_date_is_known_without_a_time(tmp_path: Path) -> None:
    """The age of a blood sample in days needs no more."""
    paths = write_series(tmp_path)
    for path in paths:
        _change(path, AcquisitionTime=None, SeriesTime=None, StudyTime=None)
    stack = _native(read_instances(paths))
    assert (stack.acquired_at, stack.study_date) == (None, NATIVE.started_at.date())


def test_any_number_of_slices_where_the_trial_says_so(tmp_path: Path) -> None:
    """Zero in trial.toml leaves it open."""
    stack = _native(
        read_instances(write_series(tmp_path, on_slices(NATIVE, 1))), INTAKE.model_copy(update={"slices": 0})
    )
    assert stack.levels == ("mid",)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param(
            {"InversionTime": None}, r"no inversion time in InversionTime \(0018,0082\)", id="no-time"
        ),
        pytest.param(
            {"InversionTime": "0"}, "inversion time 0 ms .* more than 0 and at most 10000 ms", id="zero"
        ),
        pytest.param({"InversionTime": "1.797e308"}, "inversion time 1.797e\\+308 ms", id="philips-none"),
        pytest.param(
            {"ImagePositionPatient": None}, "position, orientation or pixel spacing is missing", id="position"
        ),
        pytest.param(
            {"SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage}, "is no MR image", id="capture"
        ),
    ],
)
def test_an_unusable_image_is_left_out_by_number(
    tmp_path: Path, values: dict[str, object], reason: str
) -> None:
    """The file is refused with its reason; that the slice is then incomplete refuses the visit."""
    paths = write_series(tmp_path)
    _change(paths[4], **values)
    with pytest.raises(RefusedError, match="slice 1 has 7 inversion times") as refused:
        assemble(read_instances(paths), INTAKE)
    (file,) = refused.value.files
    assert file.file_number == 5
    assert re.search(reason, file.reason)


def test_the_same_file_twice_counts_once(tmp_path: Path) -> None:
    """A second upload may repeat images of the first."""
    paths = write_series(tmp_path)
    instances = read_instances(paths)
    again = replace(instances[3], source=replace(instances[3].source, file_number=99))
    result = assemble([*instances, again], INTAKE)
    assert result.refused_files == ()
    assert {source.file_number for source in result.native.sources[0]} == set(range(1, 9))


def test_an_instance_identifier_with_other_content_goes_to_quarantine(tmp_path: Path) -> None:
    """The first copy stands."""
    paths = write_series(tmp_path)
    first = pydicom.dcmread(paths[3])
    paths += write_series(tmp_path / "more", on_slices(NATIVE, 0))[:1]
    _change(paths[-1], SOPInstanceUID=first.SOPInstanceUID)
    result = assemble(read_instances(paths), INTAKE)
    (file,) = result.refused_files
    assert file.file_number == 25
    assert "has the SOPInstanceUID of upload u-3fa9c1d2e4, file 4 but other content" in file.reason
    assert file.remedy == "choose"


def test_a_whole_copy_replaces_a_truncated_one(tmp_path: Path) -> None:
    """A site mends an upload by sending the file again; the broken first copy does not stand."""
    paths = write_series(tmp_path)
    whole = tmp_path / "again.dcm"
    whole.write_bytes(paths[0].read_bytes())
    paths[0].write_bytes(paths[0].read_bytes()[:-50])
    result = assemble(read_instances([*paths, whole]), INTAKE)
    assert [file.file_number for file in result.refused_files] == [1]
    assert result.native.sources[0][0].file_number == 25


def test_the_shmolli_phantom_is_read_as_measured(real_data: Path) -> None:
    """Real files: inversion times per frame, magnitude told from phase, acquisition order, geometry."""
    text = demo_config().intake
    rule = text.native.model_copy(update={"description": "ShMOLLI", "schemes": ("5(1)1(1)1",)})
    intake = text.model_copy(update={"slices": 1, "native": rule})
    folder = real_data / "shmolli-phantom"
    files = sorted([*folder.glob("phase/*.dcm"), *folder.glob("magnitude/*.dcm")], reverse=True)
    result = assemble(read_instances(files), intake)
    stack = result.native
    assert stack.ti_ms.tolist() == [[100, 180, 260, 1100, 2100, 3100, 4100]]
    assert stack.acquisition_index.tolist() == [[0, 5, 6, 1, 2, 3, 4]]
    assert result.n_other_series == 1
    assert stack.echoes.shape == (1, 7, 288, 384)
    assert stack.pixel_spacing_mm == (0.9375, 0.9375)
    assert stack.anterior == pytest.approx((-1, 0))
    assert (stack.field_strength_t, stack.manufacturer, stack.scanner_model) == (3.0, "SIEMENS", "Prisma")
    for ti_ms, source, echo in zip(stack.ti_ms[0], stack.sources[0], stack.echoes[0], strict=True):
        dataset = pydicom.dcmread(files[source.file_number - 1])
        assert dataset.ImageComments == f"TIeff {ti_ms:.0f} ms"
        assert np.array_equal(dataset.pixel_array, echo)
