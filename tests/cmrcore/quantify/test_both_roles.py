"""Native and post-contrast series against each other."""

from dataclasses import replace

import pytest

from cmrcore.quantify import (
    quantify_scan,
)
from tests.cmrcore.hearts import drawn_heart
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
