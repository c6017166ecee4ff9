"""Native and post-contrast series against each other."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cmrcore.quantify import Series, both_roles, erode_wall, quantify_scan
from cmrcore.quantify.both_roles import blood_slices
from cmrcore.quantify.ecv import partition_coefficient
from cmrcore.registration.post import fit_post
from cmrcore.relaxation import T1Fit
from tests.cmrcore.hearts import drawn_heart
from tests.cmrcore.quantify.drawn_scans import (
    HEMATOCRIT,
    NATIVE,
    POST,
    SCAN_TIME,
    SETTINGS,
    SPACING_MM,
    masks_of,
    number,
    quantify,
    raised,
    series,
    stack,
)


def test_ecv_is_read_where_both_roles_agree() -> None:
    """The intersection of native and post-contrast myocardium."""
    # The images did not move, so they contradict the masks, and nothing is moved onto the native heart.
    post = replace(POST, masks=masks_of(POST).roll(2, -1), guide=stack().roll(2, -1))
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
        masks=masks_of(POST).roll(3, -1),
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


def test_a_second_fit_that_ran_away_is_no_t1(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the first fit: no tissue has 6000 ms, so its pixel has no post-contrast T1 for ECV."""
    given: list[Tensor] = []

    def run_away(*arguments: Any) -> T1Fit:
        fit = fit_post(*arguments)
        return replace(fit, t1_ms=fit.t1_ms.index_fill(0, torch.tensor([40]), 6000.0))

    def noted(*arguments: Any) -> Tensor:
        given.append(arguments[1])
        return partition_coefficient(*arguments)

    monkeypatch.setattr(both_roles, "fit_post", run_away)
    monkeypatch.setattr(both_roles, "partition_coefficient", noted)
    quantify(
        post=replace(
            POST, echoes=POST.echoes.roll(3, -1), masks=masks_of(POST).roll(3, -1), guide=stack().roll(3, -1)
        )
    )
    assert len(given) == 3
    assert all(bool(t1_ms[40].isnan().all()) for t1_ms in given)
    assert all(bool(t1_ms[drawn_heart()[0]].isfinite().any()) for t1_ms in given)


def test_an_echo_that_may_lie_elsewhere_is_not_asked_about_post_contrast() -> None:
    """The last echo did not move with the others, and has no masks that would say so."""
    echoes, masks = POST.echoes.roll(3, -1), masks_of(POST).roll(3, -1)
    echoes[:, -1], masks[:, :, -1] = POST.echoes[:, -1], False
    result = quantify(post=replace(POST, echoes=echoes, masks=masks, guide=stack().roll(3, -1)))
    assert {row["post_alignment"] for row in result.slices} == {"aligned"}


def test_post_contrast_masks_beyond_what_is_plausible_are_flagged() -> None:
    """They overlap enough for an ECV, which is then read where both agree."""
    post = replace(POST, masks=masks_of(POST).roll(2, -1), guide=stack().roll(2, -1))
    settings = replace(SETTINGS, align=replace(SETTINGS.align, shift_max_mm=1.0))
    result = quantify_scan(NATIVE, post, HEMATOCRIT, SCAN_TIME, None, settings)
    assert result.slices[0]["post_alignment"] == "implausible"
    assert {("post_unaligned", None, index) for index in range(3)} <= raised(result)
    assert result.slices[0]["ecv_fraction"] is not None


def test_post_contrast_slice_that_lies_elsewhere_has_no_ecv() -> None:
    """Masks that do not overlap, and images that say that nothing moved."""
    post = replace(POST, masks=masks_of(POST).roll(8, -1), guide=stack().roll(8, -1))
    result = quantify(post=post)
    assert {("post_misaligned", None, index) for index in range(3)} <= raised(result)
    assert result.scan["ecv_fraction"] is None
    assert result.slices[0]["t1_post_ms"] is not None


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


def middle(of: Series) -> Series:
    """Mid-ventricular slice alone, which is quicker to quantify."""
    assert of.confidence is not None
    assert of.guide is not None
    return replace(
        of,
        echoes=of.echoes[1:2],
        ti_ms=of.ti_ms[1:2],
        acquisition_index=of.acquisition_index[1:2],
        masks=masks_of(of)[:, 1:2],
        guide=of.guide[:, 1:2],
        confidence=of.confidence[1:2],
        positions_mm=of.positions_mm[1:2],
        levels=of.levels[1:2],
    )


@pytest.mark.parametrize(
    ("levels", "source"),
    [(("basal", "mid", "apical"), 1), (("mid",), 0), (("basal", "basal", "mid", "mid", "apical"), 2)],
    ids=["three", "one", "five"],
)
def test_the_mid_ventricular_blood_can_serve_all_slices(levels: tuple[str, ...], source: int) -> None:
    """The mid slice nearest to the middle of the stack; by the other rule each slice has its own."""
    assert blood_slices(levels, "mid") == (source,) * len(levels)
    assert blood_slices(levels, "same") == tuple(range(len(levels)))
    assert blood_slices(("basal", "apical"), "mid") == (0, 0)


def test_ecv_follows_the_blood_that_serves_it() -> None:
    """Under the rule `mid`, base and apex use the blood of mid-ventricle, and so does the scan's row."""
    result = quantify_scan(NATIVE, POST, HEMATOCRIT, SCAN_TIME, None, replace(SETTINGS, blood_slice="mid"))
    coefficient = (1 / 450 - 1 / 1100) / (1 / 380 - 1 / 1650)
    assert [row["ecv_fraction"] for row in result.slices] == pytest.approx([0.6 * coefficient] * 3, abs=1e-4)
    assert result.scan["blood_t1_native_ms"] == pytest.approx(1650, abs=0.1)
    assert result.slices[0]["blood_t1_native_ms"] == pytest.approx(1600, abs=0.1)


def test_without_blood_at_mid_ventricle_there_is_no_ecv_by_that_rule() -> None:
    """No other slice's blood is taken silently."""
    masks = masks_of(NATIVE).clone()
    masks[1, 1] = False
    settings = replace(SETTINGS, blood_slice="mid", align=replace(SETTINGS.align, method="none"))
    native = replace(NATIVE, masks=masks)
    assert quantify_scan(native, POST, HEMATOCRIT, SCAN_TIME, None, settings).scan["ecv_fraction"] is None


def test_synthetic_hematocrit_stands_apart() -> None:
    """From the scan's native blood T1 of 1650 ms, and in columns of its own only."""
    native, post = replace(middle(NATIVE), field_strength_t=1.494), middle(POST)
    result, without = quantify(native, post), quantify(middle(NATIVE), post)
    fraction = 866.0 / 1650 - 0.1232
    assert result.scan["hematocrit_synthetic_fraction"] == pytest.approx(fraction, abs=1e-4)
    assert result.scan["hematocrit_synthetic_source"] == "a study"
    assert without.scan["hematocrit_synthetic_source"] is None
    for row in (result.scan, *result.slices):
        expected = (1 - fraction) * number(row["partition_coefficient"])
        assert row["ecv_synthetic_fraction"] == pytest.approx(expected, abs=1e-4)
    assert number(result.segments[0]["ecv_synthetic_fraction"]) > 0
    assert result.scan["ecv_fraction"] == without.scan["ecv_fraction"]
    assert without.scan["ecv_synthetic_fraction"] is None
    bare = quantify(native, post, None)
    assert bare.scan["ecv_fraction"] is bare.scan["ecv_uncertainty_fraction"] is None
    assert bare.scan["ecv_synthetic_fraction"] == result.scan["ecv_synthetic_fraction"]


@pytest.mark.parametrize(
    "native",
    [
        replace(middle(NATIVE), field_strength_t=3.0),
        replace(middle(NATIVE), field_strength_t=1.5, scheme="3(3)3(3)5"),
    ],
    ids=["field strength", "scheme"],
)
def test_a_regression_holds_where_it_was_found(native: Series) -> None:
    """Elsewhere there is no synthetic hematocrit, and not one of another kind."""
    result = quantify(native, middle(POST))
    assert result.scan["hematocrit_synthetic_fraction"] is None
    assert result.scan["ecv_synthetic_fraction"] is None


def test_a_regression_that_gives_no_fraction_gives_nothing() -> None:
    """A hematocrit below zero is none."""
    settings = replace(SETTINGS, synthetic=replace(SETTINGS.synthetic, slope_ms=100.0))
    native = replace(middle(NATIVE), field_strength_t=1.5)
    result = quantify_scan(native, None, None, SCAN_TIME, None, settings)
    assert result.scan["hematocrit_synthetic_fraction"] is None


def test_uncertainty_of_ecv_holds_blood_and_hematocrit() -> None:
    """Without noise only the hematocrit errs: 0.01 of 0.60."""
    result = quantify(middle(NATIVE), middle(POST))
    for row in (result.scan, *result.slices, *result.segments):
        told = number(row["ecv_uncertainty_fraction"]) / number(row["ecv_fraction"])
        assert told == pytest.approx(0.01 / 0.6, rel=0.01)
    assert number(result.scan["t1_native_uncertainty_ms"]) < 0.01


def test_ecv_is_read_away_from_the_borders() -> None:
    """A rim of fat at the outer edge moves nothing, and the counts say of what."""
    heart = drawn_heart()
    axis = torch.arange(96) - 47.5
    radius = torch.hypot(axis[:, None], axis[None, :])
    echoes = NATIVE.echoes.clone()
    outer = heart[0] & ~erode_wall(heart[0], heart[1], 1.0, SPACING_MM) & (radius > 18)
    echoes[..., outer] = echoes[..., outer] * 0.2 + 100
    result = quantify(middle(replace(NATIVE, echoes=echoes)), middle(POST))
    assert result.scan["t1_native_ms"] == pytest.approx(1100, abs=0.1)
    row = result.slices[0]
    assert row["n_pixels_ecv"] == row["n_pixels_read_native"] == row["n_pixels_read_post"]
    assert row["n_pixels_ecv"] == int(
        erode_wall(heart[0], heart[1], SETTINGS.myocardium_erosion_mm, SPACING_MM).sum()
    )


def test_the_same_images_in_both_roles_have_no_ecv() -> None:
    """A site that sent the native series twice: no contrast, no ECV, but T1 of both in the slice's row."""
    result = quantify(middle(NATIVE), middle(NATIVE))
    assert result.scan["ecv_fraction"] is result.scan["ecv_uncertainty_fraction"] is None
    assert result.slices[0]["t1_post_ms"] == pytest.approx(1100, abs=0.1)
    assert result.slices[0]["n_pixels_ecv"] == 0
