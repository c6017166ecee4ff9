"""Flags of a scan."""

import math
from dataclasses import replace

import pytest
import torch

from cmrcore.quantify import (
    CHECKS,
    GuideNote,
    quantify_scan,
)
from tests.cmrcore.hearts import PIXELS, drawn_heart
from tests.cmrcore.quantify.drawn_scans import (
    HEMATOCRIT,
    NATIVE,
    POST,
    SCAN_TIME,
    SETTINGS,
    masks_of,
    number,
    quantify,
    raised,
    series,
    stack,
)


def test_implausible_guide_costs_its_slice_only() -> None:
    """An open ring is not used; the other slices are measured."""
    guide = stack()
    guide[0, 1, 40:56, 48:] = False
    result = quantify(series(1100.0, [1600.0] * 3, guide))
    assert ("guide_implausible", "native", 1) in raised(result)
    assert result.slices[1]["t1_native_ms"] is None
    assert result.slices[1]["ecv_fraction"] is None
    assert result.slices[1]["t1_post_ms"] is not None
    assert result.scan["t1_native_ms"] == pytest.approx(1100, abs=0.1)


def test_guide_without_masks_is_named() -> None:
    """A segmentation that lost the heart is not the same as a reader who drew none."""
    result = quantify(replace(NATIVE, masks=torch.zeros_like(masks_of(NATIVE))))
    assert {("mask_missing", "native", index) for index in range(3)} <= raised(result)


def test_a_wrong_mask_on_the_reference_echo_is_flagged() -> None:
    """All statistics are read in it, and the other masks are the only ones that know."""
    masks, reference = masks_of(NATIVE).clone(), int(NATIVE.reference()[0])
    masks[:, 0, reference] = masks[:, 0, reference].roll(6, -1)
    result = quantify(replace(NATIVE, masks=masks))
    (flag,) = [flag for flag in result.flags if flag.code == "masks_disagree"]
    assert (flag.role, flag.slice_index, flag.threshold) == ("native", 0, 1)
    assert flag.value == pytest.approx(6, abs=0.2)


def test_what_the_checks_of_a_guide_found_is_flagged() -> None:
    """A guide that fell back to another echo, and one that failed a check and is used all the same."""
    note = GuideNote("model", 0.6, ("the wall is 3 mm thick",), ("echo 0: the ring is open",))
    sound = GuideNote("reader", 1.0, (), ())
    result = quantify(replace(NATIVE, guide_notes=(note, sound, sound)))
    assert raised(result) == {("guide_fell_back", "native", 0), ("guide_doubtful", "native", 0)}
    messages = {flag.code: flag.message for flag in result.flags}
    assert "echo 0: the ring is open" in messages["guide_fell_back"]
    assert "score 0.60" in messages["guide_doubtful"]
    assert "3 mm thick" in messages["guide_doubtful"]
    assert {
        (row["guide_origin"], row["guide_score"]) for row in result.echoes if row["role"] == "native"
    } == {
        ("model", 0.6),
        ("reader", 1.0),
    }


def test_a_readers_mask_that_was_replaced_asks_for_a_look() -> None:
    """A reader's mask wins over the network's; where it could not, the reader must hear of it."""
    why = ("reader: the ring is open", "echo 3: the wall is thin")
    notes = (GuideNote("model", 0.6, (), why, None, reader_replaced=True), None, None)
    result = quantify(replace(NATIVE, guide_notes=notes))
    (flag,) = result.flags
    assert (flag.code, flag.severity, flag.slice_index) == ("reader_guide_replaced", "review", 0)
    assert "that a reader drew" in flag.message
    assert "the ring is open" in flag.message
    assert result.verdict == "review"


def test_a_guide_that_could_not_be_carried_is_noted() -> None:
    """The visit's own is as good as ever, so the verdict stays; but the reader of a change must know."""
    why = "its RV lies turned by 60 degrees, expected at most 40"
    notes = (GuideNote("model", 0.6, (), (), not_carried=why), GuideNote("baseline", 0.8, (), ()), None)
    result = quantify(replace(NATIVE, guide_notes=notes))
    (flag,) = result.flags
    assert (flag.code, flag.severity, flag.slice_index) == ("guide_not_carried", "note", 0)
    assert flag.message.endswith(f"that of the baseline is not used: {why}")
    assert result.verdict == "pass"


def test_a_readers_insertion_is_honored_unless_it_lies_off_the_heart() -> None:
    """The first slice is marked at its right, where no RV is; the second in a corner of the image."""
    middle, nowhere = (PIXELS - 1) / 2, [math.nan, math.nan]
    points = torch.tensor([[middle, middle + 22.0], [0.0, 0.0], nowhere], dtype=torch.float64)
    marked, plain = (quantify(replace(NATIVE, insertions_px=one)) for one in (points, None))
    (flag,) = marked.flags
    assert (flag.code, flag.severity, flag.slice_index) == ("landmark_off_heart", "review", 1)
    assert flag.value == pytest.approx(1.5 * (math.hypot(middle, middle) - 22), abs=2)
    assert flag.threshold == 10
    segments = [one.maps["aha_segment"] for one in (marked, plain)]
    assert not torch.equal(segments[0][0], segments[1][0])
    assert torch.equal(segments[0][1:], segments[1][1:])


def test_a_guide_off_the_heart_costs_its_slice() -> None:
    """A reader's guide that the network contradicts outright is not measured with; a doubtful one is."""
    notes = [GuideNote("reader", 1.0, (), (), overlap) for overlap in (0.05, 0.31, None)]
    result = quantify(replace(NATIVE, guide_notes=tuple(notes)))
    (flag,) = [flag for flag in result.flags if flag.code == "guide_off_heart"]
    assert (flag.role, flag.slice_index, flag.value, flag.threshold) == ("native", 0, 0.05, 0.3)
    assert [row["qc_verdict"] for row in result.slices] == ["fail", "pass", "pass"]
    assert result.scan["n_slices_used_native"] == 2


def test_missing_hematocrit_leaves_the_partition_coefficient() -> None:
    """Everything but ECV can be measured without blood sample."""
    result = quantify(hematocrit=None)
    assert raised(result) == {("hematocrit_missing", None, None)}
    assert result.scan["partition_coefficient"] is not None
    assert result.scan["ecv_fraction"] is result.scan["n_pixels_ecv_invalid"] is None
    assert "ecv_fraction" not in result.maps
    assert result.verdict == "review"


def test_a_scan_with_a_date_only_has_a_hematocrit_of_the_day() -> None:
    """Its age in hours is unknown, in days it is none."""
    result = quantify_scan(NATIVE, POST, HEMATOCRIT, None, SCAN_TIME.date(), SETTINGS)
    assert result.flags == []
    assert result.scan["hematocrit_hours"] is None


def test_bad_fits_lower_r_squared() -> None:
    """Echoes that do not follow a recovery raise both R2 checks."""
    echoes = NATIVE.echoes.clone()
    echoes[1] = 100 * torch.rand(echoes[1].shape, generator=torch.Generator().manual_seed(6))
    result = quantify(replace(NATIVE, echoes=echoes))
    assert {("r_squared_mean", "native", 1), ("r_squared_pixels", "native", 1)} <= raised(result)
    assert number(result.slices[1]["r_squared_native_mean"]) < 0.9


IMPLAUSIBLE = {
    "native T1": (1900.0, 1950.0, 450.0, 380.0, ("t1_native_implausible", "native", 0)),
    "post T1": (1100.0, 1650.0, 950.0, 380.0, ("t1_post_implausible", "post", 0)),
    "native blood": (1100.0, 1150.0, 450.0, 380.0, ("blood_t1_implausible", "native", 0)),
    "post blood": (1100.0, 1650.0, 450.0, 950.0, ("blood_t1_implausible", "post", 0)),
    "ECV": (1100.0, 1650.0, 850.0, 300.0, ("ecv_implausible", None, 0)),
}


@pytest.mark.parametrize(
    ("native_ms", "native_blood_ms", "post_ms", "post_blood_ms", "expected"),
    IMPLAUSIBLE.values(),
    ids=IMPLAUSIBLE.keys(),
)
def test_implausible_values_are_flagged(
    native_ms: float,
    native_blood_ms: float,
    post_ms: float,
    post_blood_ms: float,
    expected: tuple[str, str | None, int],
) -> None:
    """Each quantity has limits of its own."""
    result = quantify(
        series(native_ms, [native_blood_ms], stack(1)), series(post_ms, [post_blood_ms], stack(1))
    )
    assert expected in raised(result)


def test_no_blood_pool_means_no_ecv() -> None:
    """A cavity that erosion swallows gives no blood T1, and says so."""
    guide = drawn_heart(inner=1.5, outer=8.0)[:, None]
    result = quantify(series(1100.0, [1450.0], guide), series(450.0, [400.0], guide))
    assert {("blood_missing", "native", 0), ("blood_missing", "post", 0)} <= raised(result)
    assert result.scan["ecv_fraction"] is result.scan["blood_t1_native_ms"] is None
    assert result.slices[0]["t1_native_ms"] is not None


def test_no_rv_means_no_segments() -> None:
    """T1 is measured, but no segment is guessed."""
    guide = drawn_heart(with_rv=False)[:, None]
    result = quantify(series(1100.0, [1600.0], guide), series(450.0, [400.0], guide))
    assert raised(result) == {("no_orientation", "native", None), ("no_orientation", "post", None)}
    assert result.segments == []
    assert result.scan["t1_native_ms"] == pytest.approx(1100, abs=0.1)
    assert result.scan["t1_native_septal_ms"] is None


def test_every_code_is_known() -> None:
    """Flags carry the severity of the table of checks."""
    result = quantify(native=None, hematocrit=None)
    assert all(CHECKS[flag.code].severity == flag.severity for flag in result.flags)
