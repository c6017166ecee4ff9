"""What a failed slice leaves of a scan."""

from dataclasses import replace

import pytest

from cmrcore.quantify import ScanResult, Series, quantify_scan
from cmrcore.quantify.qc import Flag
from cmrcore.quantify.records import BloodSlice
from cmrcore.quantify.regions import regional_values
from tests.cmrcore.quantify.drawn_scans import (
    HEMATOCRIT,
    NATIVE,
    POST,
    SCAN_TIME,
    SETTINGS,
    number,
    quantify,
    series,
    stack,
)

FAT = series(300.0, [1600.0, 1650.0, 1700.0], stack())


def with_fat(*slices: int) -> Series:
    """Native series with a wall of fat in some slices."""
    echoes = NATIVE.echoes.clone()
    for index in slices:
        echoes[index] = FAT.echoes[index]
    return replace(NATIVE, echoes=echoes)


def of(result: ScanResult, code: str) -> list[Flag]:
    """Take the flags of one check."""
    return [flag for flag in result.flags if flag.code == code]


@pytest.fixture(scope="module")
def one_failed() -> ScanResult:
    """Scan whose apical native slice is of fat."""
    return quantify(native=with_fat(2))


def test_a_failed_slice_keeps_its_row(one_failed: ScanResult) -> None:
    """Who looks for what went wrong finds its numbers."""
    assert [row["qc_verdict"] for row in one_failed.slices] == ["review", "review", "fail"]
    assert one_failed.slices[2]["t1_native_ms"] == pytest.approx(300, abs=0.1)
    assert {flag.slice_index for flag in of(one_failed, "t1_native_implausible")} == {2}


def test_a_failed_slice_leaves_the_means_of_its_role(one_failed: ScanResult) -> None:
    """The mean over three slices would be 833 ms; after contrast nothing failed."""
    scan = one_failed.scan
    assert (scan["n_slices"], scan["n_slices_used_native"], scan["n_slices_used_post"]) == (3, 2, 3)
    assert scan["t1_native_ms"] == pytest.approx(1100, abs=0.1)
    assert scan["t1_native_septal_ms"] == pytest.approx(1100, abs=0.1)
    assert scan["blood_t1_native_ms"] == pytest.approx(1625, abs=0.1)
    assert scan["t1_post_ms"] == pytest.approx(450, abs=0.1)
    assert scan["n_pixels_myocardium"] == 2 * int(stack(1)[0].sum())


def test_a_failed_slice_leaves_the_mean_ecv(one_failed: ScanResult) -> None:
    """ECV of the scan is that of the two others."""
    kept = [number(row["ecv_fraction"]) for row in one_failed.slices[:2]]
    assert one_failed.scan["n_slices_used_ecv"] == 2
    assert one_failed.scan["ecv_fraction"] == pytest.approx(sum(kept) / 2, abs=1e-6)


@pytest.mark.parametrize("rule", ["same", "mid"])
def test_the_blood_of_a_failed_slice_serves_no_other(rule: BloodSlice) -> None:
    """Where the mid-ventricular blood serves all, its failure takes every ECV; else its own alone."""
    settings = replace(SETTINGS, blood_slice=rule)
    result = quantify_scan(with_fat(1), POST, HEMATOCRIT, SCAN_TIME, None, settings)
    assert [row["used_native"] for row in result.slices] == [True, False, True]
    assert [row["used_ecv"] for row in result.slices] == [rule == "same", False, rule == "same"]
    assert (result.scan["ecv_fraction"] is None) is (rule == "mid")


def test_the_blood_of_a_failed_slice_gives_no_hematocrit() -> None:
    """The regression reads the very blood T1 that stands beside it, 1625 ms, and ECV follows it."""
    result = quantify(native=replace(with_fat(2), field_strength_t=1.5))
    fraction = 866.0 / number(result.scan["blood_t1_native_ms"]) - 0.1232
    assert fraction == pytest.approx(866.0 / 1625 - 0.1232, abs=1e-4)
    assert result.scan["hematocrit_synthetic_fraction"] == pytest.approx(fraction)
    for row in (result.scan, result.slices[0]):
        expected = (1 - fraction) * number(row["partition_coefficient"])
        assert row["ecv_synthetic_fraction"] == pytest.approx(expected)


def test_each_slice_says_which_means_it_has_part_in(one_failed: ScanResult) -> None:
    """The apical slice failed before contrast, not after; its segments leave the visit's values."""
    used = [[row[f"used_{name}"] for name in ("native", "post", "ecv")] for row in one_failed.slices]
    assert used == [[True] * 3, [True] * 3, [False, True, False]]
    values = regional_values(one_failed.scan, one_failed.slices, one_failed.segments)
    assert values["apical", None]["t1_native_ms"] is values["apical", 13]["ecv_fraction"] is None
    assert values["apical", 13]["t1_post_ms"] == pytest.approx(450, abs=0.1)


def test_a_scan_with_a_failed_slice_asks_for_review(one_failed: ScanResult) -> None:
    """Its means are sound, but not of the whole heart."""
    assert one_failed.verdict == one_failed.scan["qc_verdict"] == "review"


def test_a_scan_of_failed_slices_fails() -> None:
    """Nothing is left to average, and nothing is published as if there were."""
    result = quantify(native=with_fat(0, 1, 2))
    assert result.verdict == "fail"
    assert len(of(result, "nothing_left")) == 1
    assert result.scan["t1_native_ms"] is result.scan["ecv_fraction"] is None
    assert result.scan["n_slices_used_native"] == result.scan["n_slices_used_ecv"] == 0
    assert result.scan["t1_post_ms"] == pytest.approx(450, abs=0.1)


def test_without_contrast_the_native_means_stay() -> None:
    """A failed injection costs what hangs on it: post-contrast T1 and ECV."""
    result = quantify(post=series(1090.0, [1590.0, 1640.0, 1690.0], stack()))
    assert {(flag.role, flag.slice_index) for flag in of(result, "contrast_missing")} == {
        ("post", index) for index in range(3)
    }
    assert result.scan["t1_native_ms"] == pytest.approx(1100, abs=0.1)
    assert result.scan["t1_post_ms"] is result.scan["ecv_fraction"] is None
    assert result.scan["n_slices_used_native"] == 3
    assert result.scan["n_slices_used_post"] == result.scan["n_slices_used_ecv"] == 0
    assert result.verdict == "review"


def test_a_field_strength_without_limits_is_said_and_fails_nothing() -> None:
    """A T1 of 300 ms would fail at 1.5 T; at 0.55 T nobody knows from these limits, and a reader is told."""
    result = quantify(native=replace(FAT, field_strength_t=0.55))
    (flag,) = of(result, "field_strength_without_limits")
    assert (flag.severity, flag.role, flag.value) == ("review", "native", 0.55)
    assert of(result, "t1_native_implausible") == of(result, "blood_t1_implausible") == []
    assert of(quantify(native=replace(FAT, field_strength_t=1.5)), "field_strength_without_limits") == []


def test_times_of_another_heart_are_flagged() -> None:
    """The beat by the post-contrast times is half again as long as by the native ones."""
    ti_ms = POST.ti_ms[:, :1] + 1.5 * (POST.ti_ms - POST.ti_ms[:, :1])
    (flag,) = of(quantify(post=replace(POST, ti_ms=ti_ms)), "beats_differ")
    assert flag.role == "post"
    assert flag.value == pytest.approx(0.5)
    assert "beat of 1350 ms after contrast, 900 ms before" in flag.message


@pytest.mark.parametrize(("minutes", "expected"), [(3.0, 8.0), (50.0, 40.0), (15.0, None), (None, None)])
def test_contrast_has_its_time(minutes: float | None, expected: float | None) -> None:
    """ECV needs contrast that has spread and not yet left; nothing is said where the headers say nothing."""
    flags = of(quantify(post=replace(POST, minutes_since_contrast=minutes)), "contrast_timing")
    assert [flag.threshold for flag in flags] == ([] if expected is None else [expected])
