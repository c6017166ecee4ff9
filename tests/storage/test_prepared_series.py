"""T2 and T1rho series, vendor by vendor."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest

from storage.config_intake import IntakeConfig, SeriesMatch, SpinLockRule
from storage.dicom_read import read_file
from storage.dicom_series import assemble
from storage.prepared_series import PreparedSeries
from storage.vendor_write import Flavor
from tests.storage.drawn_uploads import NATIVE, DrawnSeries, demo_config, on_slices, source
from tests.storage.vendor_series import change_all, write_flavor

FLAVORS: tuple[Flavor, ...] = ("phantom", "siemens-ve", "siemens-xa", "philips", "philips-enhanced", "ge")
DESCRIPTION, COMMENT = "SeriesDescription (0008,103E)", "ImageComments (0020,4000)"
ECHO_TIME, TRIGGER = "EchoTime (0018,0081)", "TriggerTime (0018,1060)"
EFFECTIVE, FRAME_COMMENT = "EffectiveEchoTime (0018,9082)", "FrameComments (0020,9158)"
IN_NAME = {"attribute": "SeriesDescription", "pattern": r"(?i)TSL_?(?P<ms>\d+)"}

Change = Callable[[pydicom.Dataset, int], None]


def _rules(*spin_lock: dict[str, Any]) -> IntakeConfig:
    anything: dict[str, Any] = {
        "protocol": "",
        "image_type": "",
        "minutes_since_contrast": (),
        "minutes_since_first": (),
    }
    other = {
        "t2": SeriesMatch(description="^T2 ", **anything),
        "t1rho": SeriesMatch(description="^T1rho", **anything),
    }
    rules = tuple(SpinLockRule(**rule) for rule in spin_lock)
    return demo_config().intake.model_copy(update={"slices": 1, "other": other, "spin_lock": rules})


def _prepared(folder: Path, intake: IntakeConfig) -> tuple[PreparedSeries, ...]:
    """Read all files of a folder under the trial's rules; a native slice is there as well."""
    write_flavor(folder, "phantom", on_slices(NATIVE, 0))
    paths = sorted(folder.iterdir())
    found = [read_file(path, source(number), intake.spin_lock) for number, path in enumerate(paths, 1)]
    return assemble([image for images in found for image in images or ()], intake).prepared


def _write(
    folder: Path, flavor: Flavor, description: str, n_images: int = 3, slices: Sequence[int] = (0, 1)
) -> list[Path]:
    """Write a series whose images differ in nothing that tells a time but their numbers."""
    times = tuple(100.0 + number for number in range(n_images))
    drawn = DrawnSeries(description=description, ti_ms=times, slice_numbers=slices)

    def strip(dataset: pydicom.Dataset) -> None:
        for one in (dataset, *(modifier for _, modifier in _frames(dataset, "MRModifierSequence"))):
            for keyword in ("InversionTime", "InversionTimes", "ImageComments"):
                if keyword in one:
                    del one[keyword]

    return change_all(write_flavor(folder, flavor, drawn), strip)


def _frames(dataset: pydicom.Dataset, sequence: str) -> list[tuple[int, pydicom.Dataset]]:
    """Functional group of each frame, with the frame's number in its slice, from 0."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    numbers = [group.FrameContentSequence[0].TemporalPositionIndex for group in groups]
    return [(number - 1, group[sequence][0]) for number, group in zip(numbers, groups, strict=True)]


def _set_times(paths: list[Path], keyword: str, values: Sequence[object], sequence: str = "") -> None:
    """Give each image of a slice the value of its number in the slice."""

    def change(dataset: pydicom.Dataset) -> None:
        n_images = len(values)
        if sequence:
            for number, item in _frames(dataset, sequence):
                setattr(item, keyword, values[number % n_images])
        else:
            setattr(dataset, keyword, values[(dataset.InstanceNumber - 1) % n_images])

    change_all(paths, change)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_spin_lock_time_in_the_name_of_a_series_is_read(tmp_path: Path, flavor: Flavor) -> None:
    """Some protocols give every time a series, and every vendor a series its name."""
    for ms in (40, 0, 20):
        _write(tmp_path, flavor, f"T1rho_TSL_{ms}ms", n_images=1)
    (found,) = _prepared(tmp_path, _rules(IN_NAME))
    assert found.kind == "t1rho"
    assert [(one.times_ms, one.source) for one in found.slices] == [((0.0, 20.0, 40.0), DESCRIPTION)] * 2
    n_series = 6 if flavor == "siemens-ve" else 3
    assert str(found) == (
        f"t1rho {n_series} series: 2 slices x 3 images, spin-lock time 0, 20, 40 ms from {DESCRIPTION}"
    )


@pytest.mark.parametrize(
    ("flavor", "keyword", "sequence", "values", "rules", "expected"),
    [
        pytest.param(
            "siemens-ve",
            "ImageComments",
            "",
            ["TSL 0 ms", "TSL 25 ms", "TSL 50 ms"],
            [{"attribute": "ImageComments", "pattern": r"TSL (?P<ms>[\d.]+) ms"}],
            COMMENT,
            id="siemens-comment",
        ),
        pytest.param(
            "siemens-xa",
            "FrameComments",
            "FrameContentSequence",
            ["TSL 0 ms", "TSL 25 ms", "TSL 50 ms"],
            [{"attribute": "FrameComments", "pattern": r"TSL (?P<ms>[\d.]+) ms"}],
            FRAME_COMMENT,
            id="siemens-xa-comment",
        ),
        pytest.param(
            "ge",
            "EchoTime",
            "",
            ["0", "25", "50"],
            [{"attribute": "EchoTime", "pattern": "(?P<ms>.+)"}],
            ECHO_TIME,
            id="ge-echo-time",
        ),
        pytest.param(
            "philips",
            "TriggerTime",
            "",
            ["0", "25", "50"],
            [{"attribute": "TriggerTime", "pattern": "(?P<ms>.+)"}],
            TRIGGER,
            id="philips-trigger-time",
        ),
        pytest.param(
            "philips-enhanced",
            "EffectiveEchoTime",
            "MREchoSequence",
            [0.0, 25.0, 50.0],
            [{"attribute": "EffectiveEchoTime", "pattern": "(?P<ms>.+)"}],
            EFFECTIVE,
            id="philips-enhanced-echo-time",
        ),
    ],
)
def test_an_attribute_that_a_vendor_uses_for_it_is_read(
    tmp_path: Path,
    flavor: Flavor,
    keyword: str,
    sequence: str,
    values: list[object],
    rules: list[dict[str, Any]],
    expected: str,
) -> None:
    """The trial names it, and a rule that fits nothing is passed over."""
    _set_times(_write(tmp_path, flavor, "T1rho"), keyword, values, sequence)
    (found,) = _prepared(tmp_path, _rules(IN_NAME, *rules))
    assert [(one.times_ms, one.source) for one in found.slices] == [((0.0, 25.0, 50.0), expected)] * 2


def test_a_study_may_have_a_table_of_its_own(tmp_path: Path) -> None:
    """Where no header says anything, the protocol does, image by image."""
    _write(tmp_path, "ge", "T1rho", slices=(0,))
    table = [
        {"attribute": "InstanceNumber", "pattern": f"^{number}$", "ms": ms}
        for number, ms in ((1, 0.0), (2, 20.0), (3, 50.0))
    ]
    (found,) = _prepared(tmp_path, _rules(*table))
    assert found.slices[0].times_ms == (0.0, 20.0, 50.0)


def test_without_a_source_the_look_says_so(tmp_path: Path) -> None:
    """A site's protocol is wrong, or trial.toml is; nothing is guessed from the order of the images."""
    _write(tmp_path, "ge", "T1rho")
    (found,) = _prepared(tmp_path, _rules())
    assert str(found) == (
        "t1rho 1 series: 2 slices x 3 images without a spin-lock time that varies "
        "(intake.spin_lock names no source)"
    )
    (found,) = _prepared(tmp_path, _rules(IN_NAME))
    assert f"({DESCRIPTION}: absent)" in str(found)


def test_what_is_no_number_is_no_time(tmp_path: Path) -> None:
    """A pattern that takes in too much must not stop the visit."""
    _write(tmp_path, "ge", "T1rho")
    (found,) = _prepared(tmp_path, _rules({"attribute": "SeriesDescription", "pattern": "(?P<ms>.+)"}))
    assert found.slices[0].times_ms == (None,) * 3


@pytest.mark.parametrize(
    ("flavor", "keyword", "sequence", "values", "expected"),
    [
        pytest.param(
            "siemens-ve",
            "ImageComments",
            "",
            [f"T2 prep. duration = {ms} ms" for ms in (0, 30, 55)],
            COMMENT,
            id="siemens-ve",
        ),
        pytest.param(
            "siemens-xa",
            "FrameComments",
            "FrameContentSequence",
            [f"T2 prep. duration = {ms} ms" for ms in (0, 30, 55)],
            FRAME_COMMENT,
            id="siemens-xa",
        ),
        pytest.param("philips", "EchoTime", "", ["0", "30", "55"], ECHO_TIME, id="philips"),
        pytest.param(
            "philips-enhanced",
            "EffectiveEchoTime",
            "MREchoSequence",
            [0.0, 30.0, 55.0],
            EFFECTIVE,
            id="philips-enhanced",
        ),
        pytest.param("ge", "EchoTime", "", ["0", "30", "55"], ECHO_TIME, id="ge"),
    ],
)
def test_t2_preparation_is_listed_for_every_slice(
    tmp_path: Path, flavor: Flavor, keyword: str, sequence: str, values: list[object], expected: str
) -> None:
    """From where the vendor writes it."""
    _set_times(_write(tmp_path, flavor, "T2 prep"), keyword, values, sequence)
    (found,) = _prepared(tmp_path, _rules())
    assert [(one.times_ms, one.source) for one in found.slices] == [((0.0, 30.0, 55.0), expected)] * 2


def test_slices_that_differ_are_listed_apart(tmp_path: Path) -> None:
    """One has an image too few; an image that states no time is counted, and one sent twice is one."""
    paths = _write(tmp_path, "ge", "T2 prep")
    _set_times(paths, "EchoTime", ["0", "30", "55"])
    by_number = {pydicom.dcmread(path).InstanceNumber: path for path in paths}
    by_number[1].unlink()
    change_all([by_number[5]], lambda one: setattr(one, "EchoTime", None))
    (tmp_path / "again.dcm").write_bytes(by_number[4].read_bytes())
    (found,) = _prepared(tmp_path, _rules())
    assert str(found) == (
        f"t2 1 series: 1 slice x 2 images, T2 preparation 30, 55 ms from {ECHO_TIME}; "
        f"1 slice x 3 images, T2 preparation 0, 55, none ms from {ECHO_TIME}"
    )


def test_images_without_geometry_are_listed_last(tmp_path: Path) -> None:
    """They are of no slice, and still of the protocol."""
    paths = _write(tmp_path, "ge", "T2 prep", slices=(0,))
    _set_times(paths, "EchoTime", ["0", "30", "55"])
    change_all(
        [path for path in paths if pydicom.dcmread(path).InstanceNumber == 2],
        lambda one: setattr(one, "ImagePositionPatient", None),
    )
    (found,) = _prepared(tmp_path, _rules())
    assert [one.times_ms for one in found.slices] == [(0.0, 55.0), (None,)]
