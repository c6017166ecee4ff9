"""Which attribute is believed, vendor by vendor."""

import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from storage.dicom_dialect import (
    DIALECTS,
    Rescale,
    TimeValue,
    choose_times,
    describe_candidates,
    spin_lock_sources,
    vendor_of,
)
from storage.dicom_pixels import read_frames
from storage.dicom_read import read_file
from storage.dicom_series import EchoStack, assemble
from storage.errors import RefusedError
from storage.vendor_write import PHILIPS_NONE, Flavor
from tests.storage.drawn_uploads import (
    NATIVE,
    NATIVE_TI_MS,
    POST,
    demo_config,
    on_slices,
    read_instances,
    source,
)
from tests.storage.vendor_series import change_all, drawn_value, write_flavor

INTAKE = demo_config().intake.model_copy(update={"slices": 1})
TI, TIS, TRIGGER = "InversionTime (0018,0082)", "InversionTimes (0018,9079)", "TriggerTime (0018,1060)"
COMMENT = "ImageComments (0020,4000)"
XA, PHILIPS = "SIEMENS MR SDI 02 (0021,1189)", "Philips MR Imaging DD 006 (2005,1572)"


def _stack(files: list[Path]) -> EchoStack:
    return assemble(read_instances(files), INTAKE).native


def _frames(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    return list(dataset.get("PerFrameFunctionalGroupsSequence") or [])


def _without_ti(dataset: pydicom.Dataset) -> None:
    dataset.InversionTime = None


def _set(dataset: pydicom.Dataset, keyword: str, value: object) -> None:
    setattr(dataset, keyword, value)


def _zero_ti(dataset: pydicom.Dataset) -> None:
    dataset.InversionTime = 0


def _constant_ti(dataset: pydicom.Dataset) -> None:
    dataset.InversionTime = 300


def _without_public_times(dataset: pydicom.Dataset) -> None:
    for groups in _frames(dataset):
        del groups.MRModifierSequence[0].InversionTimes


def _only_the_philips_none(dataset: pydicom.Dataset) -> None:
    for groups in _frames(dataset):
        groups.MRModifierSequence[0].InversionTimes = [0.0, PHILIPS_NONE]


def _trigger_instead(dataset: pydicom.Dataset) -> None:
    dataset.TriggerTime = dataset.InversionTime
    dataset.InversionTime = None


def _no_creators(dataset: pydicom.Dataset) -> None:
    for tag in [key for key in dataset.keys() if key.is_private_creator]:  # noqa: SIM118
        del dataset[tag]


def _moved_block(dataset: pydicom.Dataset) -> None:
    if (0x2005, 0x1572) in dataset:
        value = dataset[0x2005, 0x1572].value
        del dataset[0x2005, 0x1572], dataset[0x2005, 0x0015]
        dataset.add_new((0x2005, 0x0023), "LO", "Philips MR Imaging DD 006")
        dataset.add_new((0x2005, 0x2372), "FL", value)
        dataset.add_new((0x2005, 0x0015), "LO", "something else")
        dataset.add_new((0x2005, 0x1572), "FL", 123.0)


def _unknown_type(dataset: pydicom.Dataset) -> None:
    if (0x2005, 0x1572) in dataset:
        value = struct.pack("<f", dataset[0x2005, 0x1572].value)
        dataset.add_new((0x2005, 0x1572), "UN", value)


@pytest.mark.parametrize(
    ("flavor", "change", "expected"),
    [
        pytest.param("siemens-ve", _without_ti, COMMENT, id="siemens-comment"),
        pytest.param("siemens-ve", _constant_ti, COMMENT, id="siemens-constant-ti"),
        pytest.param("siemens-xa", _without_public_times, XA, id="siemens-xa-private"),
        pytest.param("philips", _zero_ti, PHILIPS, id="philips-zero-ti"),
        pytest.param("philips", _no_creators, PHILIPS, id="philips-creators-stripped"),
        pytest.param("philips", _moved_block, PHILIPS, id="philips-other-block"),
        pytest.param("philips", _unknown_type, PHILIPS, id="philips-unknown-vr"),
        pytest.param("philips-enhanced", _only_the_philips_none, PHILIPS, id="philips-enhanced-none"),
        pytest.param("ge", _trigger_instead, TRIGGER, id="trigger-time-re-used"),
    ],
)
def test_the_first_source_that_varies_is_believed(
    tmp_path: Path, flavor: Flavor, change: Callable[[pydicom.Dataset], None], expected: str
) -> None:
    """Where the usual attribute is missing, zero or the same in all images, the next of the table holds."""
    stack = _stack(change_all(write_flavor(tmp_path, flavor, on_slices(NATIVE, 0)), change))
    assert {name for names in stack.ti_source for name in names} == {expected}
    assert stack.ti_ms[0] == pytest.approx(sorted(NATIVE_TI_MS), rel=1e-6)
    values = [drawn_value(0, ti_ms) for ti_ms in sorted(NATIVE_TI_MS)]
    assert stack.echoes[0, :, 5, 5] == pytest.approx(values, abs=1.4)


def test_a_series_without_varying_times_is_refused_with_what_was_found(tmp_path: Path) -> None:
    """Whoever reads it sees what the header holds; the trigger's wandering delay is no inversion time."""

    def change(dataset: pydicom.Dataset) -> None:
        dataset.InversionTime = 300
        dataset.TriggerTime = 530 + dataset.InstanceNumber
        if "ImageComments" in dataset:
            del dataset.ImageComments

    files = change_all(write_flavor(tmp_path, "siemens-ve", on_slices(NATIVE, 0)), change)
    with pytest.raises(RefusedError, match="native: slice 1 has no inversion times that vary") as refused:
        _stack(files)
    assert f"{TI}: 300 ms in 8 of 8; {TIS}: absent; {XA}: absent; {COMMENT}: absent" in str(refused.value)
    assert f"{TRIGGER}: 531, 532, 533, 534, ... ms in 8 of 8" in str(refused.value)


def test_one_image_without_a_time_does_not_change_the_source(tmp_path: Path) -> None:
    """It is left out by its number, not read by another rule than its neighbors."""
    files = write_flavor(tmp_path, "ge", on_slices(NATIVE, 0))
    change_all(files[:1], _without_ti)
    with pytest.raises(RefusedError, match="slice 1 has 7 inversion times") as refused:
        _stack(files)
    (file,) = refused.value.files
    assert (file.file_number, file.reason.startswith(f"no inversion time in {TI}")) == (1, True)


def test_a_source_in_every_image_is_preferred_to_one_with_gaps(tmp_path: Path) -> None:
    """A comment that stands in all images is better than a number that one image lacks."""
    files = write_flavor(tmp_path, "siemens-ve", on_slices(NATIVE, 0))
    originals = [path for path in files if "MOCO" not in pydicom.dcmread(path).SeriesDescription]
    change_all(originals[:1], _without_ti)
    assert _stack(files).ti_source == ((COMMENT,) * 8,)


def test_the_trigger_time_is_no_stand_in_for_one_missing_time(tmp_path: Path) -> None:
    """Where it counts on from beat to beat it varies in every image, and is no inversion time in any."""

    def count_on(dataset: pydicom.Dataset) -> None:
        dataset.TriggerTime = 850 * dataset.InstanceNumber

    files = change_all(write_flavor(tmp_path, "ge", on_slices(NATIVE, 0)), count_on)
    change_all(files[:1], _without_ti)
    with pytest.raises(RefusedError, match="slice 1 has 7 inversion times"):
        _stack(files)


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [
        ("SIEMENS", "siemens"),
        ("Siemens Healthineers", "siemens"),
        ("Philips Medical Systems", "philips"),
        ("GE MEDICAL SYSTEMS", "ge"),
        ("General Electric", "ge"),
        ("Gedeon", "other"),
        ("", "other"),
    ],
)
def test_the_vendor_is_known_by_the_manufacturer(manufacturer: str, vendor: str) -> None:
    """Vendors change how they spell themselves."""
    assert vendor_of(manufacturer) == vendor


def _scaled(dataset: pydicom.Dataset) -> None:
    if "RescaleSlope" in dataset:
        dataset.add_new((0x2005, 0x100E), "FL", 0.0)


def test_philips_images_without_a_scale_slope_are_scaled_as_displayed(tmp_path: Path) -> None:
    """The next rule of the table holds, for all images alike."""
    files = change_all(write_flavor(tmp_path, "philips", on_slices(NATIVE, 0)), _scaled)
    instance = read_instances(files[:1])[0]
    assert instance.rescale == Rescale("rescale", 1.7, 0.0)


def test_images_that_are_scaled_in_different_ways_are_refused(tmp_path: Path) -> None:
    """One image in displayed units among others in the scanner's own would bend the curve."""
    files = write_flavor(tmp_path, "philips", on_slices(NATIVE, 0))
    change_all(files[:1], _scaled)
    expected = r"slice 1 has images scaled in 2 ways \(philips scale slope, rescale\)"
    with pytest.raises(RefusedError, match=expected):
        _stack(files)


@pytest.mark.parametrize(
    ("values", "t2prep_ms", "found"),
    [
        ({"EchoTime": (1.1, 26.1, 56.1)}, (1.1, 26.1, 56.1), "EchoTime (0018,0081)"),
        (
            {
                "EchoTime": (1.1, 1.1, 1.1),
                "ImageComments": [f"T2 prep. duration = {ms} ms" for ms in (0, 25, 55)],
            },
            (0.0, 25.0, 55.0),
            COMMENT,
        ),
    ],
    ids=["echo-time", "comment"],
)
def test_t2_preparation_is_read(
    tmp_path: Path, values: dict[str, Any], t2prep_ms: tuple[float, ...], found: str
) -> None:
    """The standard has no attribute for its duration; zero is a duration too."""
    files = write_flavor(tmp_path, "ge", on_slices(NATIVE, 0))[:3]
    for keyword, of_files in values.items():
        for path, value in zip(files, of_files, strict=True):
            change_all([path], partial(_set, keyword=keyword, value=value))
    change_all(files, lambda one: setattr(one, "Manufacturer", "SIEMENS"))
    times = [instance.times for instance in read_instances(files)]
    assert choose_times(times, "t2_preparation", DIALECTS["siemens"].times["t2_preparation"], 1000.0) == (
        found,
        list(t2prep_ms),
    )


def test_no_vendor_is_believed_to_state_a_spin_lock_time() -> None:
    """None is known to; a trial has to say them."""
    assert not any("spin_lock" in dialect.times for dialect in DIALECTS.values())
    assert choose_times([(), ()], "spin_lock", spin_lock_sources(()), 1000.0) == (None, [None, None])


def test_implausible_times_are_not_believed() -> None:
    """Negative, zero, infinite and absurd values stand in headers for nothing at all."""
    images = [[TimeValue("inversion_time", TI, ms)] for ms in (-1.0, 0.0, np.inf, np.nan, 10_001.0)]
    sources = DIALECTS["ge"].times["inversion_time"]
    assert choose_times(images, "inversion_time", sources, 10_000.0) == (None, [None] * 5)
    assert "absent" in describe_candidates(images, "inversion_time", sources)


@pytest.mark.parametrize(
    ("image_type", "description", "content"),
    [
        (["ORIGINAL", "PRIMARY", "M", "DIS2D"], "MOLLI native", "acquired"),
        (["ORIGINAL", "PRIMARY", "M", "DIS2D", "MOCO"], "MOLLI native", "motion corrected"),
        (["ORIGINAL", "PRIMARY", "M", "DIS2D"], "T1MAP_PRECON_SAX7_MOCO", "motion corrected"),
        (["ORIGINAL", "PRIMARY", "M", "DIS2D"], "T1MAP_PRECON_SAX7_MOCO_T1", "map"),
        (["ORIGINAL", "PRIMARY", "M", "DIS2D"], "T1MAP_PRECON_SAX7", "acquired"),
        (["DERIVED", "PRIMARY", "T1_MAP", "DIS2D"], "MOLLI native", "map"),
        (["DERIVED", "PRIMARY", "MYOMAPS_T1"], "x", "map"),
        (["ORIGINAL", "PRIMARY", "T1 MAP", "T1", "UNSPECIFIED"], "MOLLI", "map"),
        (["DERIVED", "PRIMARY", "T1", "T1", "MAP"], "MOLLI", "map"),
        (["ORIGINAL", "PRIMARY", "T1", "NONE"], "MOLLI", "acquired"),
        (["ORIGINAL", "PRIMARY", "M"], "ShMOLLI_192i_SAX_b2s_SAX_b2s_SAX_b2s_T1MAP", "map"),
        (["ORIGINAL", "PRIMARY", "M"], "ShMOLLI_192i_SAX_b2s_SAX_b2s_FITPARAMS", "map"),
        (["ORIGINAL", "PRIMARY", "M"], "ShMOLLI_192i_SAX_b2s", "acquired"),
        (["DERIVED", "SECONDARY", "OTHER"], "screen save", "other"),
    ],
)
def test_maps_and_motion_corrected_copies_are_known(
    tmp_path: Path, image_type: list[str], description: str, content: str
) -> None:
    """ImageType first, the name second; names as public data sets have them."""

    def change(dataset: pydicom.Dataset) -> None:
        dataset.ImageType, dataset.SeriesDescription = image_type, description

    files = change_all(write_flavor(tmp_path, "phantom", on_slices(NATIVE, 0))[:1], change)
    assert read_instances(files)[0].content == content


@pytest.mark.parametrize(
    ("code", "component"), [(0, "magnitude"), (1, "phase"), (2, "real"), (3, "imaginary")]
)
def test_ge_says_the_component_in_a_private_number(tmp_path: Path, code: int, component: str) -> None:
    """Its ImageType says OTHER."""

    def change(dataset: pydicom.Dataset) -> None:
        dataset[0x0043, 0x102F].value = code

    files = change_all(write_flavor(tmp_path, "ge", on_slices(NATIVE, 0))[:1], change)
    assert read_instances(files)[0].component == component


def test_frames_that_contradict_their_number_are_refused(tmp_path: Path) -> None:
    """A few bytes may promise a billion frames."""
    files = write_flavor(tmp_path, "siemens-xa", on_slices(NATIVE, 0))
    change_all(files, lambda one: setattr(one, "NumberOfFrames", 1_000_000_000))
    with pytest.raises(RefusedError, match="file 17: 1000000000 frames, but functional groups of 8"):
        read_file(files[0], source())


def test_every_frame_has_a_place_of_its_own(tmp_path: Path) -> None:
    """Geometry stands per frame, and the frames of an XA file come in no order."""
    (file,) = write_flavor(tmp_path, "siemens-xa", POST)
    instances = read_instances([file])
    assert [instance.frame_index for instance in instances] == list(range(27))
    assert len({instance.position_mm for instance in instances}) == 3
    starts = [instance.acquired_at for instance in instances]
    assert len(set(starts)) == 27
    assert starts != sorted(starts, key=str)


def test_the_measured_series_is_read_from_its_comments_too(real_data: Path, tmp_path: Path) -> None:
    """The scanner's own words: where the number is taken away, the text gives the same times."""
    folder = real_data / "shmolli-phantom"
    files = []
    for path in sorted(folder.glob("*/*.dcm")):
        dataset = pydicom.dcmread(path)
        del dataset.InversionTime
        files.append(tmp_path / path.name)
        dataset.save_as(files[-1])
    rule = INTAKE.native.model_copy(update={"description": "ShMOLLI", "schemes": ("5(1)1(1)1",)})
    result = assemble(read_instances(files), INTAKE.model_copy(update={"native": rule}))
    assert result.native.ti_ms.tolist() == [[100, 180, 260, 1100, 2100, 3100, 4100]]
    assert result.native.ti_source == ((COMMENT,) * 7,)
    assert {instance.component for instance in read_instances(files)} == {"magnitude", "phase"}


def test_a_measured_image_of_another_kind_is_read_but_is_no_echo(real_data: Path) -> None:
    """A single short-axis image of a vendor that the table does not name: a magnitude without a time."""
    (instance,) = read_instances([real_data / "short-axis-slice" / "test_slice.dcm"])
    assert (instance.vendor, instance.component, instance.content) == ("other", "magnitude", "acquired")
    assert read_frames([instance]).shape == (1, 200, 200)
    everything = INTAKE.native.model_copy(update={"description": ""})
    with pytest.raises(RefusedError, match="slice 1 has no inversion times that vary"):
        assemble([instance], INTAKE.model_copy(update={"native": everything}))


def test_the_parts_of_a_complex_image_may_share_a_file(tmp_path: Path) -> None:
    """Philips exports magnitude and phase of a series as frames of one file."""
    (file,) = write_flavor(tmp_path, "philips-enhanced", on_slices(NATIVE, 0))

    def change(dataset: pydicom.Dataset) -> None:
        dataset.ComplexImageComponent = "MIXED"
        for groups in _frames(dataset)[::2]:
            groups.MRImageFrameTypeSequence[0].ComplexImageComponent = "PHASE"

    components = [instance.component for instance in read_instances(change_all([file], change))]
    assert components == ["phase", "magnitude"] * 4


def test_a_header_travels_to_another_process(tmp_path: Path) -> None:
    """Strangers' bytes are parsed in a child."""
    instances = read_instances(write_flavor(tmp_path, "siemens-xa", on_slices(NATIVE, 0)))
    assert pickle.loads(pickle.dumps(instances)) == instances


def test_frames_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    """A file is decoded once, for all or some of its frames."""
    (file,) = write_flavor(tmp_path, "siemens-xa", on_slices(NATIVE, 0))
    instances = read_instances([file])
    chosen = [instances[5], instances[2]]
    assert np.array_equal(read_frames(chosen), read_frames(instances)[[5, 2]])
