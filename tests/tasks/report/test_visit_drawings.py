"""Outlines, images, bull's-eyes and charts."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.report.visit_arrays import SliceArrays
from tasks.report.visit_bullseye import bullseye, wedge
from tasks.report.visit_charts import histogram_chart, history_chart, ticks
from tasks.report.visit_colors import ECV
from tasks.report.visit_films import make_film
from tasks.report.visit_images import Crop, color_bar, film_strip, heart_crop, map_image
from tasks.report.visit_outlines import outline


def opened(uri: str) -> Image.Image:
    """Open the picture of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def whole(n_rows: int, n_cols: int) -> Crop:
    """Show everything."""
    return Crop(slice(0, n_rows), slice(0, n_cols), n_rows, n_cols, n_cols / n_rows)


def corners(path: str) -> list[tuple[int, int]]:
    """Places of a path's corners."""
    start, _, steps = path.removeprefix("M").removesuffix("z").partition("l")
    points = [tuple(map(int, start.split()))]
    numbers = list(map(int, steps.split()))
    for right, down in zip(numbers[::2], numbers[1::2], strict=True):
        points.append((points[-1][0] + right, points[-1][1] + down))
    return points  # type: ignore[return-value]


def test_the_outline_of_a_pixel_runs_halfway_to_its_neighbors() -> None:
    """In half pixels: the center of pixel (2, 3) lies at x 7, y 5."""
    mask = np.zeros((6, 8), dtype=bool)
    mask[2, 3] = True
    path = outline(mask, whole(6, 8))
    assert path.endswith("z")
    assert set(corners(path)) == {(6, 5), (7, 4), (8, 5), (7, 6)}


def test_straight_borders_are_one_step() -> None:
    """A rectangle has eight corners, its four cut off, however large it is."""
    mask = np.zeros((40, 40), dtype=bool)
    mask[5:30, 10:20] = True
    assert len(set(corners(outline(mask, whole(40, 40))))) == 8


def test_no_line_is_drawn_where_the_crop_cuts_a_mask() -> None:
    """Or it would look like a border of the heart."""
    path = outline(np.repeat([[True, True, False]], 4, axis=0), whole(4, 3))
    assert not path.endswith("z")
    assert {x for x, _ in corners(path)} == {4}
    assert outline(np.ones((4, 3), dtype=bool), whole(4, 3)) == ""


def test_a_crop_is_centered_on_the_heart_and_stays_in_the_image() -> None:
    """Whatever the pixel spacing, the same millimeters are shown."""
    heart = np.zeros((200, 100), dtype=bool)
    heart[100:120, 40:60] = True
    crop = heart_crop((200, 100), (1.0, 2.0), heart)
    assert (crop.rows.start, crop.rows.stop) == (50, 170)
    assert (crop.cols.start, crop.cols.stop) == (20, 80)
    assert crop.aspect == pytest.approx(1.0)
    heart = np.roll(heart, (-100, -40), (0, 1))
    crop = heart_crop((200, 100), (1.0, 2.0), heart)
    assert (crop.rows.start, crop.cols.start) == (0, 0)


def test_maps_keep_their_pixels() -> None:
    """A map's picture holds the entries of its table, without loss."""
    values = np.array([[np.nan, 0.0], [0.5, 2.0]])
    image = opened(map_image(values, ECV))
    assert np.asarray(image).tolist() == ECV.indices(values).tolist()
    assert image.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
    (bar,) = np.asarray(opened(color_bar(ECV))).astype(int)
    assert (bar[0], bar[-1]) == (1, 255)
    assert set(np.diff(bar).tolist()) <= {0, 1, 2}


def test_each_echo_has_its_own_window() -> None:
    """A dim echo is as bright as another; both lie side by side."""
    ramp = np.tile(np.linspace(0, 1, 32), (32, 1))
    strip = np.asarray(opened(film_strip(np.stack([ramp, 1000 * ramp])))).astype(int)
    assert strip.shape == (32, 64)
    assert np.abs(strip[:, :32] - strip[:, 32:]).max() <= 3


@pytest.mark.parametrize(
    ("number", "direction"),
    [(1, 90), (2, 150), (4, 270), (7, 90), (11, 330), (13, 90), (14, 180), (15, 270), (16, 0)],
)
def test_anterior_is_up_and_the_septum_left(number: int, direction: int) -> None:
    """Segments lie where the consensus has them."""
    assert wedge(number)[0] % 360 == direction


def test_the_bullseye_names_every_segment_and_its_value() -> None:
    """In colors of the map; a segment without a value is gray."""
    picture = str(bullseye({1: 0.25, 14: 0.31}, ECV, "ECV [%]"))
    assert "<title>1 basal anterior: 25.0 %</title>" in picture
    assert picture.count("<title>") == 16
    assert picture.count("#e3e6ea") == 14
    assert 'aria-label="ECV [%]: basal anterior 25.0, apical septal 31.0"' in picture


def test_histograms_count_every_pixel() -> None:
    """What lies far off counts at the end of the chart."""
    values = np.concatenate([np.linspace(900, 1100, 500), [9e3]])
    chart = str(histogram_chart([("basal 0", values)], "T1 [ms]", "T1"))
    assert "basal 0: median 1000" in chart
    constant = str(histogram_chart([("mid 1", np.full(10, 5.0))], "T1 [ms]", "T1"))
    assert "nan" not in constant


def test_the_band_lies_about_the_first_value() -> None:
    """A visit without a value has a place and no point; a name is text."""
    chart = str(history_chart([("V0", None), ("<V1>", 100.0), ("V2", 130.0)], "V2", 10.0, "T1", "history"))
    assert "&lt;V1&gt;" in chart
    assert chart.count("<circle") == 2
    assert len(re.findall('fill-opacity=".14"', chart)) == 1
    assert 'fill-opacity=".14"' not in str(history_chart([("V1", 100.0)], "V1", None, "T1", "history"))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 100.0, [0, 20, 40, 60, 80, 100]), (-1.2, 1.2, [-1, -0.5, 0, 0.5, 1]), (950.0, 1050.0, None)],
)
def test_ticks_are_round(low: float, high: float, expected: list[float] | None) -> None:
    """And lie within the range."""
    found = ticks(low, high)
    assert expected is None or found == expected
    assert all(low <= one <= high for one in found)
    assert 3 <= len(found) <= 6


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("reader", "guide drawn by a reader, score 0.90"),
        ("model", "guide found by the network, score 0.90"),
        ("baseline", "guide lent by the first visit, score 0.90"),
    ],
)
def test_a_film_says_whose_guide_it_is(origin: str, words: str) -> None:
    """One that another visit lends was not found on these images."""
    echoes, masks = np.ones((1, 4, 4), dtype=np.float32), np.ones((3, 1, 4, 4), dtype=bool)
    one = SliceArrays(
        role="native",
        index=0,
        level="mid",
        ti_ms=np.array([100.0]),
        acquisition_index=np.array([0]),
        reference=0,
        echoes=echoes,
        displacement_px=np.zeros((1, 2, 4, 4)),
        guide=masks[:, 0],
        masks=masks,
        t1_ms=echoes[0],
        r_squared=echoes[0],
        guide_note={"origin": origin, "score": 0.9, "findings": []},
        spacing_mm=(1.0, 1.0),
    )
    assert make_film(one, torch.from_numpy(echoes), whole(4, 4), []).about_guide == words
