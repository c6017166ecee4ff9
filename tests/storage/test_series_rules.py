"""Which series is which, by the rules of trial.toml."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest

from storage.config_intake import IntakeConfig, SeriesMatch
from storage.dicom_series import assemble
from storage.errors import RefusedError
from storage.series_rules import Role, sort_series
from tests.storage.drawn_uploads import (
    NATIVE,
    POST,
    POST_TI_MS,
    SCANNED_AT,
    DrawnSeries,
    demo_config,
    on_slices,
    read_instances,
    write_series,
)

INTAKE = demo_config().intake
ANYTHING: dict[str, Any] = {
    "description": "",
    "protocol": "",
    "image_type": "",
    "minutes_since_contrast": (),
    "minutes_since_first": (),
}
SAME_NAME = DrawnSeries(
    description="MOLLI SAX",
    ti_ms=POST_TI_MS,
    slice_numbers=(0,),
    uid_seed="later",
    started_at=SCANNED_AT + timedelta(minutes=20),
)


def _rules(native: dict[str, Any], post: dict[str, Any]) -> IntakeConfig:
    """Rules that say no more than what is given."""
    return INTAKE.model_copy(
        update={
            "slices": 1,
            "native": INTAKE.native.model_copy(update={**ANYTHING, **native}),
            "post": INTAKE.post.model_copy(update={**ANYTHING, **post}),
        }
    )


def _two_of_one_name(folder: Path) -> list[Path]:
    """Write a native and a later series that bear the same name."""
    return [
        *write_series(folder, replace(SAME_NAME, ti_ms=NATIVE.ti_ms, uid_seed="", started_at=SCANNED_AT)),
        *write_series(folder, SAME_NAME),
    ]


def _set(paths: list[Path], **values: Any) -> None:
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


def _counts(paths: list[Path], intake: IntakeConfig) -> dict[Role, int]:
    found = sort_series(read_instances(paths), intake)
    return {role: len(images) for role, images in found.by_role.items()}


def test_the_time_since_the_first_image_tells_series_of_one_name_apart(tmp_path: Path) -> None:
    """Many protocols name both the same; the order of the scan does not lie."""
    intake = _rules({"minutes_since_first": (0.0, 5.0)}, {"minutes_since_first": (10.0, 40.0)})
    assert _counts(_two_of_one_name(tmp_path), intake) == {"native": 8, "post": 9}


def test_the_time_since_contrast_tells_series_of_one_name_apart(tmp_path: Path) -> None:
    """The scanner notes the bolus in the images that follow it."""
    paths = _two_of_one_name(tmp_path)
    _set(paths[8:], ContrastBolusStartTime="103500")
    intake = _rules({"minutes_since_contrast": (-60.0, 0.0)}, {"minutes_since_contrast": (10.0, 40.0)})
    assert _counts(paths, intake) == {"native": 8, "post": 9}


def test_without_a_time_of_contrast_the_refusal_says_so(tmp_path: Path) -> None:
    """A rule that cannot be judged fits nothing, and nobody should have to guess why."""
    intake = _rules({"minutes_since_contrast": (-60.0, 0.0)}, {"minutes_since_contrast": (10.0, 40.0)})
    with pytest.raises(RefusedError, match="no image states ContrastBolusStartTime"):
        assemble(read_instances(_two_of_one_name(tmp_path)), intake)


@pytest.mark.parametrize(
    ("native", "post", "values"),
    [
        (
            {"protocol": "pre"},
            {"protocol": "post"},
            ({"ProtocolName": "T1 pre"}, {"ProtocolName": "T1 post"}),
        ),
        (
            {"image_type": r"M\\ND$"},
            {"image_type": r"M\\DIS2D$"},
            (
                {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]},
                {"ImageType": ["ORIGINAL", "PRIMARY", "M", "DIS2D"]},
            ),
        ),
    ],
    ids=["protocol", "image-type"],
)
def test_protocol_and_image_type_tell_series_apart(
    tmp_path: Path,
    native: dict[str, str],
    post: dict[str, str],
    values: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """Where the description says too little."""
    paths = _two_of_one_name(tmp_path)
    _set(paths[:8], **values[0])
    _set(paths[8:], **values[1])
    assert _counts(paths, _rules(native, post)) == {"native": 8, "post": 9}


def test_every_ambiguous_series_is_named_without_its_text(tmp_path: Path) -> None:
    """Number, size, time and rules; a description is the site's text and may hold a name."""
    paths = _two_of_one_name(tmp_path)
    _set(paths, SeriesDescription="MOLLI of Jane Doe")
    _set(paths[8:], SeriesNumber=7)
    with pytest.raises(RefusedError) as refused:
        assemble(read_instances(paths), _rules({}, {}))
    assert str(refused.value) == (
        "series 1 (8 images, 10:30) fits native and post; series 7 (9 images, 10:50) fits native and post; "
        "make the rules in [intake] exclusive"
    )


def test_other_kinds_of_series_can_be_told_from_both(tmp_path: Path) -> None:
    """A stress map of the same name is neither native nor post-contrast once a rule names it."""
    stress = replace(on_slices(NATIVE, 0), description="MOLLI native stress", uid_seed="stress")
    paths = [*write_series(tmp_path, on_slices(NATIVE, 0)), *write_series(tmp_path, stress)]
    rule = SeriesMatch(**{**ANYTHING, "description": "stress"})
    declared = INTAKE.model_copy(update={"slices": 1, "other": {"stress": rule}})
    with pytest.raises(RefusedError, match="fits native and stress"):
        assemble(read_instances(paths), declared)
    exclusive = declared.model_copy(
        update={"native": INTAKE.native.model_copy(update={"description": "native$"})}
    )
    result = assemble(read_instances(paths), exclusive)
    assert (result.native.repeats, result.n_other_series) == ((), 1)


def test_copies_alone_are_no_series_and_are_named(tmp_path: Path) -> None:
    """A site that exports only what the scanner made of the images is told which to send."""
    paths = write_series(tmp_path, on_slices(NATIVE, 0))
    _set(paths, ImageType=["DERIVED", "PRIMARY", "M", "DIS2D", "MOCO"])
    paths += write_series(tmp_path, on_slices(POST, 0))
    with pytest.raises(
        RefusedError, match=r"no native series.*; set aside: 1 series of motion corrected images; send"
    ):
        assemble(read_instances(paths), INTAKE)


def test_phase_images_alone_say_which_images_are_missing(tmp_path: Path) -> None:
    """They bear the series' name, so "no series" would be no help."""
    paths = write_series(tmp_path)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "P", "ND"]
        dataset.save_as(path)
    expected = r"1 other series found; set aside: 1 series of phase images; send the magnitude images"
    with pytest.raises(RefusedError, match=expected):
        assemble(read_instances(paths), INTAKE)
