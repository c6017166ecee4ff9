"""Tests of the window through which a network looks at a slice."""

import math

import pytest
import torch

from cmrcore.segmentation.frame import SIZE, Frame, heart_frame, look, look_mask, normalize, show, whole_frame


def disk(
    shape: tuple[int, int], center: tuple[float, float], radius_mm: float, spacing_mm: tuple[float, float]
) -> torch.Tensor:
    """Draw a disk that is round in mm."""
    row, col = torch.meshgrid(*(torch.arange(count).float() for count in shape), indexing="ij")
    away = torch.hypot((row - center[0]) * spacing_mm[0], (col - center[1]) * spacing_mm[1])
    return away <= radius_mm


def test_whole_frame_shows_the_middle_of_the_image() -> None:
    """Its center is the image's, and a small image is not shown with a rim of black."""
    frame = whole_frame((192, 160), (1.8, 1.8))
    assert frame.center == (95.5, 79.5)
    assert frame.pixel_mm == pytest.approx(2.1)
    small = whole_frame((100, 100), (1.5, 1.5))
    assert small.pixel_mm * SIZE == pytest.approx(150.0)


@pytest.mark.parametrize("spacing_mm", [(1.4, 1.4), (2.0, 1.2)], ids=["square", "oblong"])
def test_heart_frame_brings_every_lv_to_one_size(spacing_mm: tuple[float, float]) -> None:
    """A disk of 70 mm spans 46 pixels in the middle of the frame, whatever the image's pixels."""
    lv = disk((200, 220), (90.0, 130.0), 35.0, spacing_mm)
    masks = torch.stack([lv, torch.zeros_like(lv), torch.zeros_like(lv)])
    frame = heart_frame(masks, spacing_mm)
    assert frame is not None
    seen = look_mask(lv[None], frame, spacing_mm)[0]
    across = 2 * math.sqrt(seen.sum().item() / math.pi)
    assert across == pytest.approx(46.0, abs=0.2)
    rows = torch.arange(SIZE).float()
    assert ((seen.sum(1) * rows).sum() / seen.sum()).item() == pytest.approx((SIZE - 1) / 2, abs=0.05)
    assert ((seen.sum(0) * rows).sum() / seen.sum()).item() == pytest.approx((SIZE - 1) / 2, abs=0.05)


def test_heart_frame_needs_a_heart() -> None:
    """Nothing found on the first look leaves nothing to look at closer."""
    assert heart_frame(torch.zeros(3, 50, 50), (1.0, 1.0)) is None
    assert heart_frame(torch.full((3, 50, 50), 0.2), (1.0, 1.0)) is None


def test_heart_frame_does_not_zoom_without_bounds() -> None:
    """A spot of a few pixels, such as at the apex, is not magnified into a blur."""
    spot = torch.zeros(3, 100, 100)
    spot[0, 50, 50] = 1.0
    frame = heart_frame(spot, (1.5, 1.5))
    assert frame == Frame((50.0, 50.0), 1.0)


@pytest.mark.parametrize("pixel_mm", [1.0, 1.6], ids=["finer", "as fine"])
def test_show_undoes_look(pixel_mm: float) -> None:
    """A smooth pattern that goes into a frame and back stands at its old place."""
    spacing_mm, shape = (1.6, 1.6), (96, 110)
    row, col = torch.meshgrid(*(torch.arange(count).float() for count in shape), indexing="ij")
    hill = torch.exp(-((row - 41.3) ** 2 + (col - 57.8) ** 2) / 60.0)
    frame = Frame((44.0, 55.5), pixel_mm)
    back = show(look_mask(hill[None], frame, spacing_mm)[:, None], frame, spacing_mm, shape)[0, 0]
    assert (back - hill).abs().max().item() < 0.03


def test_what_lies_outside_the_frame_is_empty() -> None:
    """A network cannot speak of what it did not see."""
    frame = Frame((20.0, 20.0), 0.25)
    shown = show(torch.ones(1, 1, SIZE, SIZE), frame, (1.0, 1.0), (100, 100))[0, 0]
    assert shown[20, 20].item() == pytest.approx(1.0)
    assert shown[60:].max().item() == 0.0
    assert shown[:, 60:].max().item() == 0.0


def test_look_takes_brightness_out() -> None:
    """An image and the same image in another scanner's units look alike."""
    image = torch.rand(1, 150, 150, generator=torch.Generator().manual_seed(1))
    frame = whole_frame((150, 150), (1.5, 1.5))
    torch.testing.assert_close(
        look(image, frame, (1.5, 1.5)), look(4000.0 * image, frame, (1.5, 1.5)), rtol=1e-4, atol=1e-4
    )


def test_normalize_survives_an_even_image() -> None:
    """An image without any contrast is finite."""
    assert bool(torch.isfinite(normalize(torch.full((2, 8, 8), 3.0))).all())
