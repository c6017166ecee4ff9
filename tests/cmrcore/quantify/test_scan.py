"""A whole scan: rows, maps and flags from echoes and masks."""

import datetime
from dataclasses import replace

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.phantom import RoleEchoes, SimulatedScan, simulate_scan
from cmrcore.quantify import (
    CHECKS,
    GuideNote,
    Hematocrit,
    HematocritLimits,
    QcLimits,
    QuantifySettings,
    ScanResult,
    Series,
    quantify_scan,
)
from cmrcore.registration.align import AlignSettings
from cmrcore.relaxation import FitStatus, molli_signal
from cmrcore.segmentation import carry_guide
from tests.cmrcore.hearts import drawn_heart, guide_of

SETTINGS = QuantifySettings(
    t1_model="molli",
    blood_erosion_mm=3.0,
    hematocrit=HematocritLimits(min_fraction=0.2, max_fraction=0.6, max_hours=24.0, max_days=1),
    qc=QcLimits(
        r_squared_mean_min=0.9,
        r_squared_pixel_min=0.95,
        r_squared_low_fraction_max=0.10,
        t1_native_min_ms=800.0,
        t1_native_max_ms=1500.0,
        t1_post_min_ms=200.0,
        t1_post_max_ms=900.0,
        blood_t1_native_min_ms=1200.0,
        blood_t1_native_max_ms=2100.0,
        blood_t1_post_min_ms=150.0,
        blood_t1_post_max_ms=900.0,
        ecv_min_fraction=0.15,
        ecv_max_fraction=0.75,
        position_tolerance_mm=1.0,
    ),
    align=AlignSettings(
        method="affine",
        shift_max_mm=30.0,
        turn_max_deg=20.0,
        scale_max_fraction=0.25,
        still_px=0.25,
        r_squared_fall_max=0.0,
        post_dice_min=0.6,
    ),
)
SCAN_TIME = datetime.datetime(2026, 3, 10, 9, 0)
HEMATOCRIT = Hematocrit(0.40, datetime.date(2026, 3, 10), datetime.time(8, 0), "plan")
LEVELS = ("basal", "mid", "apical")
SPACING_MM = (1.5, 1.5)
ACQUIRED_MS = [120.0, 1020.0, 1920.0, 2820.0, 3720.0, 200.0, 1100.0, 2000.0]

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
    *(f"n_pixels_failed_{role}" for role in ("native", "post")),
    "partition_coefficient",
    "ecv_fraction",
    "ecv_sd_fraction",
    "ecv_septal_fraction",
    "n_pixels_myocardium",
    "n_pixels_ecv_invalid",
    "qc_verdict",
}


def series(
    muscle_ms: float,
    blood_ms: list[float],
    guide: Bool[Tensor, "label slice row col"],
    *,
    masked: bool = True,
) -> Series:
    """Noise-free series of a drawn heart; echoes are sorted, the first-acquired one is the shortest."""
    ti_ms, order = torch.tensor(ACQUIRED_MS, dtype=torch.float64).sort()
    heart = drawn_heart()
    echoes = torch.stack([_images(ti_ms, heart, muscle_ms, pool_ms) for pool_ms in blood_ms])
    n_slices = len(blood_ms)
    found = [
        carry_guide(images, SPACING_MM, guide_of(guide[:, index]), 0.25)
        for index, images in enumerate(echoes)
    ]
    return Series(
        echoes=echoes,
        ti_ms=ti_ms.repeat(n_slices, 1),
        acquisition_index=order.repeat(n_slices, 1),
        masks=torch.stack([one.masks for one in found], dim=1) if masked else None,
        guide=guide if masked else None,
        confidence=torch.stack([one.confidence for one in found]) if masked else None,
        positions_mm=torch.tensor(
            [[0.0, 0.0, 20.0 - 20 * index] for index in range(n_slices)], dtype=torch.float64
        ),
        pixel_spacing_mm=SPACING_MM,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        anterior=(-1.0, 0.0),
        levels=LEVELS[:n_slices],
        scheme="5(3)3",
    )


def _images(
    ti_ms: Float[Tensor, " ti"], heart: Bool[Tensor, "label row col"], muscle_ms: float, pool_ms: float
) -> Float[Tensor, "ti row col"]:
    """Magnitudes of one slice; air outside the heart."""
    t1_ms = torch.full(heart.shape[1:], pool_ms, dtype=torch.float64)
    t1_ms[heart[0]] = muscle_ms
    amplitude = 300 * heart.any(0).double()
    return molli_signal(ti_ms, amplitude, 1.95 * amplitude, t1_ms / 0.95).abs().float()


def stack(n_slices: int = 3) -> Bool[Tensor, "label slice row col"]:
    """Guide of the drawn heart on every slice."""
    return drawn_heart()[:, None].repeat(1, n_slices, 1, 1)


NATIVE = series(1100.0, [1600.0, 1650.0, 1700.0], stack())
POST = series(450.0, [400.0, 380.0, 360.0], stack())


def quantify(
    native: Series | None = NATIVE,
    post: Series | None = POST,
    hematocrit: Hematocrit | None = HEMATOCRIT,
) -> ScanResult:
    """Quantify under the usual settings."""
    return quantify_scan(native, post, hematocrit, SCAN_TIME, SCAN_TIME.date(), SETTINGS)


def raised(result: ScanResult) -> set[tuple[str, str | None, int | None]]:
    """Code, role and slice of every flag."""
    return {(flag.code, flag.role, flag.slice_index) for flag in result.flags}


def number(value: object) -> float:
    """Value that must be there."""
    assert isinstance(value, float)
    return value


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
    own = {"n_slices", "scheme_native", "scheme_post"}
    hematocrit = {"hematocrit_fraction", "hematocrit_source", "hematocrit_hours"}
    assert set(clean.scan) == MEASURED | own | hematocrit


def test_slice_rows_have_the_columns_of_the_table(clean: ScanResult) -> None:
    """Measured columns, and more about blood and alignment."""
    own = {"slice_index", "level"}
    blood = {
        f"{column.format(role)}"
        for role in ("native", "post")
        for column in ("blood_t1_{}_sd_ms", "n_pixels_blood_{}")
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
    native.echoes[2] = _images(native.ti_ms[0], small, 1300.0, 1600.0)
    result = quantify(native)
    n_large, n_small = int(drawn_heart()[0].sum()), int(small[0].sum())
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
    result = quantify(replace(NATIVE, masks=torch.zeros_like(_masks(NATIVE))))
    assert {("mask_missing", "native", index) for index in range(3)} <= raised(result)


def _masks(of: Series) -> Bool[Tensor, "label slice ti row col"]:
    """Masks that must be there."""
    assert of.masks is not None
    return of.masks


def test_masks_need_no_guide() -> None:
    """A model that finds the heart by itself is measured like any other, only not compared."""
    result = quantify(replace(NATIVE, guide=None, confidence=None))
    assert result.flags == []
    assert result.scan["t1_native_ms"] == pytest.approx(1100, abs=0.1)
    assert result.echoes[0]["dice_guide"] is result.echoes[0]["confidence"] is None
    assert result.echoes[0]["n_pixels_myocardium"] == int(drawn_heart()[0].sum())


def test_echo_without_blood_pool_has_no_contrast() -> None:
    """Contrast and alignment need both tissues; blood T1 needs the pool of the reference echo alone."""
    masks = _masks(NATIVE).clone()
    masks[1, 0, 4] = False
    result = quantify(replace(NATIVE, masks=masks))
    assert result.echoes[4]["contrast"] is None
    assert result.echoes[3]["contrast"] is not None
    assert raised(result) == {("echoes_unaligned", "native", 0)}
    assert result.echoes[4]["alignment"] == "empty"
    assert result.slices[0]["blood_t1_native_ms"] == pytest.approx(1600, abs=0.1)


def test_masks_that_the_images_contradict_have_no_part_in_blood() -> None:
    """Two wrong masks over still images leave the blood's T1 as it is."""
    masks = _masks(NATIVE).clone()
    masks[:, 0, 3] = masks[:, 0, 3].roll(8, -1)
    masks[:, 0, 7] = masks[:, 0, 7].roll(-8, -2)
    result = quantify(replace(NATIVE, masks=masks))
    assert [result.echoes[echo]["alignment"] for echo in (3, 7)] == ["contradicted"] * 2
    assert result.slices[0]["blood_t1_native_ms"] == pytest.approx(1600, abs=0.1)
    assert result.flags == []


def test_a_trial_that_aligns_nothing_reads_blood_in_each_echo() -> None:
    """Masks that follow the heart are all it has against motion."""
    masks = _masks(NATIVE).clone()
    masks[1, 0, 4] = False
    settings = replace(SETTINGS, align=replace(SETTINGS.align, method="none"))
    result = quantify_scan(
        replace(NATIVE, masks=masks), POST, HEMATOCRIT, SCAN_TIME, SCAN_TIME.date(), settings
    )
    assert raised(result) == {("blood_missing", "native", 0)}
    assert {row["alignment"] for row in result.echoes} == {"reference", "not_aligned"}


def test_a_wrong_mask_on_the_reference_echo_is_flagged() -> None:
    """All statistics are read in it, and the other masks are the only ones that know."""
    masks, reference = _masks(NATIVE).clone(), int(NATIVE.reference()[0])
    masks[:, 0, reference] = masks[:, 0, reference].roll(6, -1)
    result = quantify(replace(NATIVE, masks=masks))
    (flag,) = [flag for flag in result.flags if flag.code == "masks_disagree"]
    assert (flag.role, flag.slice_index, flag.threshold) == ("native", 0, 1)
    assert flag.value == pytest.approx(6, abs=0.2)


@pytest.mark.parametrize("reference", [None, 4], ids=["first-acquired", "named"])
def test_statistics_use_the_reference_echo(reference: int | None) -> None:
    """Masks that differ on other echoes do not change the myocardium that is read."""
    masks = _masks(NATIVE).clone()
    echo = int(NATIVE.acquisition_index[0].argmin()) if reference is None else reference
    others = torch.arange(masks.shape[2]) != echo
    masks[0, :, others] = masks[0, :, others] & masks[0, :, others].roll(5, -1)
    reference_echo = None if reference is None else torch.full((3,), reference)
    result = quantify(replace(NATIVE, masks=masks, reference_echo=reference_echo))
    assert result.scan["n_pixels_myocardium"] == 3 * int(drawn_heart()[0].sum())
    assert result.scan["t1_native_sd_ms"] == pytest.approx(0, abs=0.1)
    assert {row["reference_echo_index"] for row in result.echoes if row["role"] == "native"} == {echo}


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


def test_ecv_is_read_where_both_roles_agree() -> None:
    """The intersection of native and post-contrast myocardium."""
    # The images did not move, so they contradict the masks, and nothing is moved onto the native heart.
    post = replace(POST, masks=_masks(POST).roll(2, -1), guide=stack().roll(2, -1))
    result = quantify(post=post)
    ring = drawn_heart()[0]
    shared = ring & ring.roll(2, -1)
    inside = result.maps["ecv_fraction"][0][shared]
    assert result.slices[0]["ecv_fraction"] == pytest.approx(inside.nanmean().item(), abs=1e-6)
    assert result.slices[0]["post_alignment"] == "contradicted"
    assert {("post_unaligned", None, index) for index in range(3)} <= raised(result)
    assert next(flag.value for flag in result.flags if flag.code == "post_unaligned") == pytest.approx(
        2, abs=0.1
    )


def test_a_post_contrast_slice_that_moved_keeps_the_whole_map() -> None:
    """ECV lies on native pixels, in and around the heart, and the displacement is there to prove it."""
    post = replace(
        POST,
        echoes=POST.echoes.roll(3, -1),
        masks=_masks(POST).roll(3, -1),
        guide=stack().roll(3, -1),
    )
    result, still = quantify(post=post), quantify()
    assert {row["post_alignment"] for row in result.slices} == {"aligned"}
    assert result.slices[0]["post_aligned_mm"] == pytest.approx(4.5, abs=0.1)
    onto = result.displacements["post/onto_native_px"]
    assert onto.shape == (3, 2, 96, 96)
    assert onto[:, 1][:, drawn_heart()[0]].mean().item() == pytest.approx(3, abs=0.05)
    beyond = drawn_heart()[2]  # the RV, no part of the myocardium
    assert bool(result.maps["ecv_fraction"][:, beyond].isfinite().float().mean() > 0.99)
    assert result.scan["ecv_fraction"] == pytest.approx(number(still.scan["ecv_fraction"]), abs=0.005)
    assert still.slices[0]["post_alignment"] == "still"
    assert not bool(still.displacements["post/onto_native_px"].any())


def test_an_echo_that_may_lie_elsewhere_is_not_asked_about_post_contrast() -> None:
    """The last echo did not move with the others, and has no masks that would say so."""
    echoes, masks = POST.echoes.roll(3, -1), _masks(POST).roll(3, -1)
    echoes[:, -1], masks[:, :, -1] = POST.echoes[:, -1], False
    result = quantify(post=replace(POST, echoes=echoes, masks=masks, guide=stack().roll(3, -1)))
    assert {row["post_alignment"] for row in result.slices} == {"aligned"}


def test_post_contrast_masks_beyond_what_is_plausible_are_flagged() -> None:
    """They overlap enough for an ECV, which is then read where both agree."""
    post = replace(POST, masks=_masks(POST).roll(2, -1), guide=stack().roll(2, -1))
    settings = replace(SETTINGS, align=replace(SETTINGS.align, shift_max_mm=1.0))
    result = quantify_scan(NATIVE, post, HEMATOCRIT, SCAN_TIME, None, settings)
    assert result.slices[0]["post_alignment"] == "implausible"
    assert {("post_unaligned", None, index) for index in range(3)} <= raised(result)
    assert result.slices[0]["ecv_fraction"] is not None


def test_post_contrast_slice_that_lies_elsewhere_has_no_ecv() -> None:
    """Masks that do not overlap, and images that say that nothing moved."""
    post = replace(POST, masks=_masks(POST).roll(8, -1), guide=stack().roll(8, -1))
    result = quantify(post=post)
    assert {("post_misaligned", None, index) for index in range(3)} <= raised(result)
    assert result.scan["ecv_fraction"] is None
    assert result.slices[0]["t1_post_ms"] is not None


def test_missing_hematocrit_leaves_the_partition_coefficient() -> None:
    """Everything but ECV can be measured without blood sample."""
    result = quantify(hematocrit=None)
    assert raised(result) == {("hematocrit_missing", None, None)}
    assert result.scan["partition_coefficient"] is not None
    assert result.scan["ecv_fraction"] is result.scan["n_pixels_ecv_invalid"] is None
    assert "ecv_fraction" not in result.maps
    assert result.verdict == "review"


def test_slice_that_moved_has_no_ecv() -> None:
    """Native and post-contrast pixels 3 mm apart are not the same tissue."""
    positions_mm = POST.positions_mm.clone()
    positions_mm[1, 2] += 3
    result = quantify(post=replace(POST, positions_mm=positions_mm))
    assert raised(result) == {("native_post_mismatch", None, 1)}
    assert result.flags[0].value == pytest.approx(3)
    assert result.slices[1]["ecv_fraction"] is None
    assert result.slices[1]["t1_post_ms"] is not None
    assert result.slices[0]["ecv_fraction"] is not None
    assert result.slices[1]["qc_verdict"] == "review"


def test_missing_post_slice_is_named() -> None:
    """Two post-contrast slices of three leave the apex without ECV."""
    result = quantify(post=series(450.0, [400.0, 380.0], stack(2)))
    assert raised(result) == {("native_post_mismatch", None, 2)}
    assert len(result.slices) == 3
    assert result.slices[2]["t1_post_ms"] is None
    assert result.slices[2]["t1_native_ms"] is not None


def test_other_pixel_grid_has_no_ecv() -> None:
    """Maps of another spacing cannot be divided pixel by pixel."""
    result = quantify(post=replace(POST, pixel_spacing_mm=(1.4, 1.4)))
    assert raised(result) == {("native_post_mismatch", None, index) for index in range(3)}
    assert result.scan["ecv_fraction"] is None


def test_other_orientation_has_no_ecv() -> None:
    """Planes tilted about the patient's anterior direction look alike in its projection, but are not."""
    tilted = (0.98, 0.0, 0.199, 0.0, 1.0, 0.0)
    result = quantify(post=replace(POST, orientation=tilted))
    assert raised(result) == {("native_post_mismatch", None, index) for index in range(3)}
    assert result.scan["ecv_fraction"] is None


def test_rounded_orientation_is_the_same() -> None:
    """Exports round direction cosines differently."""
    assert quantify(post=replace(POST, orientation=(1.0, 0.0, 0.0005, 0.0, 1.0, 0.0))).flags == []


def test_a_scan_with_a_date_only_has_a_hematocrit_of_the_day() -> None:
    """Its age in hours is unknown, in days it is none."""
    result = quantify_scan(NATIVE, POST, HEMATOCRIT, None, SCAN_TIME.date(), SETTINGS)
    assert result.flags == []
    assert result.scan["hematocrit_hours"] is None


def test_failed_pixels_are_counted_and_left_out() -> None:
    """A dead pixel has no T1; it counts as a bad fit and moves no mean."""
    echoes = NATIVE.echoes.clone()
    dead = torch.nonzero(drawn_heart()[0])[::5]
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
    row, col = torch.nonzero(drawn_heart()[0])[0].tolist()
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
    result = quantify(series(1100.0, [1600.0], guide), series(450.0, [400.0], guide))
    assert {("blood_missing", "native", 0), ("blood_missing", "post", 0)} <= raised(result)
    assert result.scan["ecv_fraction"] is result.scan["blood_t1_native_ms"] is None
    assert result.scan["t1_native_ms"] is not None


def test_no_rv_means_no_segments() -> None:
    """T1 is measured, but no segment is guessed."""
    guide = drawn_heart(with_rv=False)[:, None]
    result = quantify(series(1100.0, [1600.0], guide), series(450.0, [400.0], guide))
    assert raised(result) == {("no_orientation", "native", None), ("no_orientation", "post", None)}
    assert result.segments == []
    assert result.scan["t1_native_ms"] == pytest.approx(1100, abs=0.1)
    assert result.scan["t1_native_septal_ms"] is None


def test_echo_rows_compare_masks_with_the_guide() -> None:
    """One row per role, slice and echo: agreement, displacement in mm, contrast."""
    masks = _masks(NATIVE).clone()
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


def of_simulated(role: RoleEchoes, scan: SimulatedScan) -> Series:
    """Series of a simulated role with its true labels as the guide."""
    ti_ms, order = role.ti_ms.sort(1)
    echoes = torch.stack([images[index] for images, index in zip(role.echoes, order, strict=True)])
    found = [
        carry_guide(images, scan.geometry.pixel_spacing_mm, guide_of(scan.labels[:, index]), 0.25)
        for index, images in enumerate(echoes)
    ]
    row_axis, col_axis = torch.tensor(scan.geometry.orientation, dtype=torch.float64).reshape(2, 3)
    front = torch.tensor([0.0, -1.0, 1.0], dtype=torch.float64)
    return Series(
        echoes=echoes,
        ti_ms=ti_ms,
        acquisition_index=order,
        masks=torch.stack([one.masks for one in found], dim=1),
        guide=scan.labels,
        confidence=torch.stack([one.confidence for one in found]),
        positions_mm=scan.geometry.positions_mm,
        pixel_spacing_mm=scan.geometry.pixel_spacing_mm,
        orientation=scan.geometry.orientation,
        anterior=((front @ col_axis).item(), (front @ row_axis).item()),
        levels=scan.levels,
        scheme=role.scheme,
    )


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


def test_every_code_is_known() -> None:
    """Flags carry the severity of the table of checks."""
    result = quantify(native=None, hematocrit=None)
    assert all(CHECKS[flag.code].severity == flag.severity for flag in result.flags)
