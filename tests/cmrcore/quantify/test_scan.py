"""A whole scan: rows and maps from echoes and masks."""

from dataclasses import replace

import pytest
import torch
from jaxtyping import Bool
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.phantom import simulate_scan
from cmrcore.quantify import GuideNote, Hematocrit, ScanResult, erode_wall, quantify_scan
from cmrcore.relaxation import FitStatus
from tests.cmrcore.hearts import drawn_heart
from tests.cmrcore.quantify.drawn_scans import (
    HEMATOCRIT,
    LEVELS,
    NATIVE,
    POST,
    SCAN_TIME,
    SETTINGS,
    SPACING_MM,
    images_of,
    masks_of,
    number,
    of_simulated,
    quantify,
    raised,
    series,
    stack,
)

MEASURED = {
    *(
        f"{column}_{role}{end}"
        for role in ("native", "post")
        for column, end in (("t1", "_ms"), ("t1", "_sd_ms"))
    ),
    *(f"t1_{role}_septal_ms" for role in ("native", "post")),
    *(f"blood_t1_{role}_ms" for role in ("native", "post")),
    *(f"r_squared_{role}_{what}" for role in ("native", "post") for what in ("mean", "low_fraction")),
    *(f"blood_r_squared_{role}" for role in ("native", "post")),
    *(f"n_pixels_{what}_{role}" for role in ("native", "post") for what in ("failed", "read")),
    *(f"t1_{role}_uncertainty_ms" for role in ("native", "post")),
    "ecv_uncertainty_fraction",
    "ecv_synthetic_fraction",
    "n_pixels_ecv",
    "partition_coefficient",
    "ecv_fraction",
    "ecv_sd_fraction",
    "ecv_septal_fraction",
    "n_pixels_myocardium",
    "n_pixels_ecv_invalid",
    "qc_verdict",
}


def inner_wall(heart: Bool[Tensor, "label row col"]) -> Bool[Tensor, "row col"]:
    """Pixels of a drawn heart's wall that are read."""
    return erode_wall(heart[0], heart[1], SETTINGS.myocardium_erosion_mm, SPACING_MM)


@pytest.fixture(scope="module")
def clean() -> ScanResult:
    """Scan with nothing wrong."""
    return quantify()


def test_a_clean_scan_passes(clean: ScanResult) -> None:
    """No doubt is raised where there is none."""
    assert clean.flags == []
    assert clean.verdict == clean.scan["qc_verdict"] == "pass"


def test_scan_row_has_the_columns_of_the_table(clean: ScanResult) -> None:
    """Storage refuses rows with other columns."""
    own = {"n_slices", "scheme_native", "scheme_post", "minutes_since_contrast"}
    own |= {f"n_slices_used_{what}" for what in ("native", "post", "ecv")}
    hematocrit = {
        f"hematocrit_{what}"
        for what in ("fraction", "source", "hours", "synthetic_fraction", "synthetic_source")
    }
    assert set(clean.scan) == MEASURED | own | hematocrit


def test_slice_rows_have_the_columns_of_the_table(clean: ScanResult) -> None:
    """Measured columns, and more about blood and alignment."""
    own = {"slice_index", "level", "used_native", "used_post", "used_ecv"}
    blood = {
        f"{column.format(role)}"
        for role in ("native", "post")
        for column in ("blood_t1_{}_sd_ms", "n_pixels_blood_{}", "n_echoes_left_out_blood_{}")
    }
    alignment = {
        column.format(role)
        for role in ("native", "post")
        for column in (
            "alignment_{}",
            "r_squared_{}_unaligned_mean",
            "r_squared_{}_unaligned_low_fraction",
        )
    }
    alignment |= {"post_aligned_mm", "post_alignment", "post_dice"}
    assert all(set(row) == MEASURED | own | blood | alignment for row in clean.slices)
    assert [(row["slice_index"], row["level"]) for row in clean.slices] == list(enumerate(LEVELS))


def test_t1_is_read_per_role(clean: ScanResult) -> None:
    """Noise-free T1 comes back in scan, slices and segments."""
    for row in (clean.scan, *clean.slices):
        assert row["t1_native_ms"] == pytest.approx(1100, abs=0.1)
        assert row["t1_native_septal_ms"] == pytest.approx(1100, abs=0.1)
        assert row["t1_post_ms"] == pytest.approx(450, abs=0.1)
        assert row["t1_native_sd_ms"] == pytest.approx(0, abs=0.1)
    assert [row["t1_native_ms"] for row in clean.segments] == pytest.approx([1100] * 16, abs=0.1)


def test_each_slice_uses_its_own_blood(clean: ScanResult) -> None:
    """ECV follows the blood T1 of the same slice; the scan's blood is the mean over slices."""
    for row, native_ms, post_ms in zip(clean.slices, (1600, 1650, 1700), (400, 380, 360), strict=True):
        coefficient = (1 / 450 - 1 / 1100) / (1 / post_ms - 1 / native_ms)
        assert row["blood_t1_native_ms"] == pytest.approx(native_ms, abs=0.1)
        assert row["partition_coefficient"] == pytest.approx(coefficient, abs=1e-4)
        assert row["ecv_fraction"] == pytest.approx(0.6 * coefficient, abs=1e-4)
    assert clean.scan["blood_t1_native_ms"] == pytest.approx(1650, abs=0.1)
    mean_ecv = sum(number(row["ecv_fraction"]) for row in clean.slices) / 3
    assert clean.scan["ecv_fraction"] == pytest.approx(mean_ecv, abs=1e-6)


def test_hematocrit_is_reported_with_its_source(clean: ScanResult) -> None:
    """An hour before the scan, from the plan."""
    columns = ("hematocrit_fraction", "hematocrit_source", "hematocrit_hours")
    assert [clean.scan[column] for column in columns] == [0.40, "plan", 1.0]


def test_maps_cover_the_image(clean: ScanResult) -> None:
    """Every role's maps, ECV and segments, in the types that are stored."""
    kinds = {name: image.dtype for name, image in clean.maps.items()}
    per_role = {"t1_ms", "t1_star_ms", "t1_sd_ms", "r_squared"}
    expected = {f"{role}/{name}": torch.float32 for role in ("native", "post") for name in per_role}
    expected |= {"native/status": torch.int8, "post/status": torch.int8}
    assert kinds == expected | {"ecv_fraction": torch.float32, "aha_segment": torch.uint8}
    assert all(image.shape == (3, 96, 96) for image in clean.maps.values())
    air = ~drawn_heart().any(0)
    assert (clean.maps["native/status"][:, air] == FitStatus.NO_SIGNAL).all()


def test_all_sixteen_segments_have_rows(clean: ScanResult) -> None:
    """Six basal, six mid, four apical, whose pixels make up the myocardium."""
    assert [row["aha_segment"] for row in clean.segments] == [*range(1, 17)]
    assert clean.segments[0]["aha_name"] == "basal anterior"
    n_pixels = [row["n_pixels"] for row in clean.segments if row["slice_index"] == 0]
    assert sum(n for n in n_pixels if isinstance(n, int)) == clean.slices[0]["n_pixels_myocardium"]


def test_scan_means_weigh_pixels_not_slices() -> None:
    """A small apex must not count as much as the base."""
    small = drawn_heart(inner=8.0, outer=12.0)
    guide = stack()
    guide[:, 2] = small
    native = series(1100.0, [1600.0] * 3, guide)
    native.echoes[2] = images_of(native.ti_ms[0], small, 1300.0, 1600.0)
    result = quantify(native)
    n_large, n_small = int(inner_wall(drawn_heart()).sum()), int(inner_wall(small).sum())
    weighted = (2 * n_large * 1100 + n_small * 1300) / (2 * n_large + n_small)
    assert result.scan["t1_native_ms"] == pytest.approx(weighted, abs=0.2)


def test_without_guide_the_maps_remain() -> None:
    """A visit without masks is flagged, not lost: maps yes, statistics None."""
    bare = series(1100.0, [1600.0] * 3, stack(), masked=False)
    result = quantify(bare, None)
    expected = {("guide_missing", "native", index) for index in range(3)}
    assert raised(result) == expected | {("nothing_measured", None, None), ("post_missing", None, None)}
    assert result.verdict == "fail"
    assert result.maps["native/t1_ms"][0, 48, 28].item() == pytest.approx(1100, abs=0.1)
    unmeasured = MEASURED - {"qc_verdict"}
    assert all(row[column] is None for row in (result.scan, *result.slices) for column in unmeasured)
    assert result.segments == []
    assert len(result.echoes) == 24
    assert {row["dice_guide"] for row in result.echoes} == {None}


def test_masks_need_no_guide() -> None:
    """A model that finds the heart by itself is measured like any other, only not compared."""
    result = quantify(replace(NATIVE, guide=None, confidence=None))
    assert result.flags == []
    assert result.scan["t1_native_ms"] == pytest.approx(1100, abs=0.1)
    assert result.echoes[0]["dice_guide"] is result.echoes[0]["confidence"] is None
    assert result.echoes[0]["n_pixels_myocardium"] == int(drawn_heart()[0].sum())


def test_echo_without_blood_pool_has_no_contrast() -> None:
    """Contrast and alignment need both tissues; blood T1 needs the pool of the reference echo alone."""
    masks = masks_of(NATIVE).clone()
    masks[1, 0, 4] = False
    result = quantify(replace(NATIVE, masks=masks))
    assert result.echoes[4]["contrast"] is None
    assert result.echoes[3]["contrast"] is not None
    assert raised(result) == {("echoes_unaligned", "native", 0)}
    assert result.echoes[4]["alignment"] == "empty"
    assert result.slices[0]["blood_t1_native_ms"] == pytest.approx(1600, abs=0.1)


def test_masks_that_the_images_contradict_have_no_part_in_blood() -> None:
    """Two wrong masks over still images leave the blood's T1 as it is."""
    masks = masks_of(NATIVE).clone()
    masks[:, 0, 3] = masks[:, 0, 3].roll(8, -1)
    masks[:, 0, 7] = masks[:, 0, 7].roll(-8, -2)
    result = quantify(replace(NATIVE, masks=masks))
    assert [result.echoes[echo]["alignment"] for echo in (3, 7)] == ["contradicted"] * 2
    assert result.slices[0]["blood_t1_native_ms"] == pytest.approx(1600, abs=0.1)
    assert result.flags == []


def test_a_trial_that_aligns_nothing_reads_blood_in_each_echo() -> None:
    """Masks that follow the heart are all it has against motion."""
    masks = masks_of(NATIVE).clone()
    masks[1, 0, 4] = False
    settings = replace(SETTINGS, align=replace(SETTINGS.align, method="none"))
    result = quantify_scan(
        replace(NATIVE, masks=masks), POST, HEMATOCRIT, SCAN_TIME, SCAN_TIME.date(), settings
    )
    assert raised(result) == {("blood_missing", "native", 0)}
    assert {row["alignment"] for row in result.echoes} == {"reference", "not_aligned"}


@pytest.mark.parametrize("reference", [None, 4], ids=["first-acquired", "named"])
def test_statistics_use_the_reference_echo(reference: int | None) -> None:
    """Masks that differ on other echoes do not change the myocardium that is read."""
    masks = masks_of(NATIVE).clone()
    echo = int(NATIVE.acquisition_index[0].argmin()) if reference is None else reference
    others = torch.arange(masks.shape[2]) != echo
    masks[0, :, others] = masks[0, :, others] & masks[0, :, others].roll(5, -1)
    reference_echo = None if reference is None else torch.full((3,), reference)
    result = quantify(replace(NATIVE, masks=masks, reference_echo=reference_echo))
    assert result.scan["n_pixels_myocardium"] == 3 * int(drawn_heart()[0].sum())
    assert result.scan["t1_native_sd_ms"] == pytest.approx(0, abs=0.1)
    assert {row["reference_echo_index"] for row in result.echoes if row["role"] == "native"} == {echo}


def test_failed_pixels_are_counted_and_left_out() -> None:
    """A dead pixel has no T1; it counts as a bad fit and moves no mean."""
    echoes = NATIVE.echoes.clone()
    dead = torch.nonzero(inner_wall(drawn_heart()))[::5]
    echoes[0][:, dead[:, 0], dead[:, 1]] = 0
    result = quantify(replace(NATIVE, echoes=echoes))
    row = result.slices[0]
    assert row["n_pixels_failed_native"] == row["n_pixels_ecv_invalid"] == len(dead)
    assert row["r_squared_native_low_fraction"] == pytest.approx(0.2, abs=0.01)
    assert row["t1_native_ms"] == pytest.approx(1100, abs=0.1)
    assert raised(result) == {("r_squared_pixels", "native", 0)}


def test_a_fit_that_ran_away_moves_no_mean() -> None:
    """Its curve is good and its T1 that of no tissue; it is counted like a failed one."""
    echoes = NATIVE.echoes.clone()
    row, col = torch.nonzero(inner_wall(drawn_heart()))[0].tolist()
    echoes[0][:, row, col] = 100 - 190 * torch.exp(-NATIVE.ti_ms[0] / 9000)
    result = quantify(replace(NATIVE, echoes=echoes.abs()))
    slice_row = result.slices[0]
    assert result.maps["native/t1_ms"][0, row, col] > 5000
    assert slice_row["n_pixels_failed_native"] == slice_row["n_pixels_ecv_invalid"] == 1
    assert slice_row["t1_native_ms"] == pytest.approx(1100, abs=0.1)


def test_the_trial_says_what_a_low_r_squared_is() -> None:
    """Before and after alignment alike; no pixel reaches more than 1."""
    settings = replace(SETTINGS, qc=replace(SETTINGS.qc, r_squared_pixel_min=1.1))
    row = quantify_scan(NATIVE, None, HEMATOCRIT, SCAN_TIME, None, settings).slices[0]
    assert row["r_squared_native_low_fraction"] == row["r_squared_native_unaligned_low_fraction"] == 1


def test_echo_rows_compare_masks_with_the_guide() -> None:
    """One row per role, slice and echo: agreement, displacement in mm, contrast."""
    masks = masks_of(NATIVE).clone()
    masks[:, 0, 3] = masks[:, 0, 3].roll(2, -1)
    result = quantify(replace(NATIVE, masks=masks))
    assert len(result.echoes) == 2 * 3 * 8
    still, moved = result.echoes[2], result.echoes[3]
    assert (still["role"], still["slice_index"], still["echo_index"]) == ("native", 0, 2)
    assert (still["ti_ms"], still["acquisition_index"]) == (1020, 1)
    assert (still["dice_guide"], still["displacement_mm"]) == (1, 0)
    assert moved["displacement_mm"] == pytest.approx(3)
    assert number(moved["dice_guide"]) < 0.9
    image, heart = NATIVE.echoes[0, 2].double(), drawn_heart()
    muscle, pool = image[heart[0]].mean().item(), image[heart[1]].mean().item()
    assert still["contrast"] == pytest.approx((pool - muscle) / (pool + muscle))
    assert still["confidence"] == pytest.approx(1)


def test_a_scan_of_nothing_is_refused() -> None:
    """Intake never sends one."""
    with pytest.raises(InvalidInputError, match="found neither"):
        quantify_scan(None, None, HEMATOCRIT, SCAN_TIME, None, SETTINGS)


def test_post_contrast_alone_is_reported() -> None:
    """What was measured is shown, and that the main result is missing."""
    result = quantify(native=None)
    assert raised(result) == {("nothing_measured", None, None)}
    assert result.scan["t1_post_ms"] == pytest.approx(450, abs=0.1)
    assert result.scan["scheme_native"] is None
    assert len(result.segments) == 16
    assert {row["n_pixels"] for row in result.segments} == {None}


def test_a_slice_without_native_mask_has_segments_of_unknown_size() -> None:
    """Not of no size; the post-contrast mask gives them their numbers."""
    masks, guide = masks_of(NATIVE).clone(), stack()
    masks[:, 2], guide[:, 2] = False, False
    result = quantify(replace(NATIVE, masks=masks, guide=guide))
    by_slice = {
        index: [row["n_pixels"] for row in result.segments if row["slice_index"] == index] for index in (0, 2)
    }
    assert by_slice[2] == [None] * 4
    assert sum(int(n or 0) for n in by_slice[0]) == int(stack(1)[0].sum())


@pytest.mark.parametrize(("subject_index", "scheme_native"), [(0, "3(3)3(3)5"), (1, "5(3)3"), (2, "5(3)3")])
def test_simulated_scan_is_measured_as_accurately_as_promised(subject_index: int, scheme_native: str) -> None:
    """Against the noise-free fit of the same sequence: T1 within 5 ms, ECV within half a percentage point."""
    scan = simulate_scan(
        1, subject_index, 0, scheme_native=scheme_native, scheme_post="4(1)3(1)2", difficulty="clean"
    )
    hematocrit = Hematocrit(scan.hematocrit_fraction, SCAN_TIME.date(), None, "plan")
    result = quantify(of_simulated(scan.native, scan), of_simulated(scan.post, scan), hematocrit)
    ideal = scan.truth.scan
    assert abs(number(result.scan["t1_native_ms"]) - ideal["t1_native_ms_ideal"]) < 5
    assert abs(number(result.scan["ecv_fraction"]) - ideal["ecv_fraction_ideal"]) < 0.005
    assert result.verdict == "pass"
    assert [row["aha_segment"] for row in result.segments] == [*range(1, 17)]


@pytest.mark.parametrize(("origin", "follows"), [("reader", True), ("model", False)])
def test_segments_follow_the_insertion_that_a_reader_drew(origin: str, follows: bool) -> None:
    """The RV of a reader's guide stands above the one on the echo; a model's guide knows no better."""
    turned = drawn_heart(septum_deg=150.0)
    guide = torch.stack([turned] * 3, dim=1)
    note = GuideNote(origin, 1.0, findings=(), rejected=())
    as_found, as_drawn = quantify(post=None), quantify(series(1100.0, [1600.0] * 3, guide), None)
    result = quantify(replace(NATIVE, guide=guide, guide_notes=(note,) * 3), None)
    same = as_drawn if follows else as_found
    assert torch.equal(result.maps["aha_segment"], same.maps["aha_segment"])
    assert not torch.equal(as_drawn.maps["aha_segment"], as_found.maps["aha_segment"])
