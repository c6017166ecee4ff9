"""From probabilities to the masks of one heart."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.quantify.overlap import dice
from cmrcore.segmentation import ContourSettings, check_guide, masks_from
from tests.cmrcore.hearts import PIXELS, drawn_heart

SPACING_MM = (1.5, 1.5)
MIDDLE = PIXELS // 2
ROW, COL = torch.meshgrid(torch.arange(float(PIXELS)), torch.arange(float(PIXELS)), indexing="ij")

Probability = Float[Tensor, "label row col"]


def disc(radius: float, row: float = 47.5, col: float = 47.5) -> Float[Tensor, "row col"]:
    """Disc with a linear edge two pixels wide."""
    return (0.5 + (radius - torch.hypot(ROW - row, COL - col)) / 2).clamp(0, 1)


def ring(
    inner: float = 12.0, outer: float = 18.0, row: float = 47.5, col: float = 47.5, height: float = 1.0
) -> Probability:
    """Probabilities of a round ventricle without an RV."""
    pool = disc(inner, row, col)
    wall = disc(outer, row, col) - pool
    return height * torch.stack([wall, pool, torch.zeros_like(wall)])


def overlap(one: Bool[Tensor, "row col"], other: Bool[Tensor, "row col"]) -> float:
    """Dice coefficient of masks of which at least one is not empty."""
    value = dice(one, other)
    assert value is not None
    return value


def assert_closed_or_empty(masks: Bool[Tensor, "label row col"]) -> None:
    """Wall and pool are a ring that can guide, or not there; nothing overlaps."""
    assert int(masks.sum(0).max()) <= 1
    if bool(masks[0].any()) or bool(masks[1].any()):
        assert check_guide(masks) == []


def test_a_clear_heart_comes_out_as_it_is() -> None:
    """Nothing is done to what needs nothing."""
    heart = drawn_heart()
    found = masks_from(heart.float(), SPACING_MM)
    for label in range(3):
        assert overlap(found[label], heart[label]) > 0.99


@pytest.mark.parametrize("radius", [3.4, 9.3, 18.2])
def test_areas_are_true(radius: float) -> None:
    """Pixels that are covered by more than half make up for those that are not."""
    found = masks_from(ring(inner=radius, outer=radius + 6.0, row=47.3, col=47.9), SPACING_MM)
    pool, both = found[1].sum().item(), (found[0] | found[1]).sum().item()
    assert pool == pytest.approx(math.pi * radius**2, rel=0.01, abs=1.5)
    assert both == pytest.approx(math.pi * (radius + 6) ** 2, rel=0.01)


def test_a_c_shaped_cavity_is_closed() -> None:
    """Papillary muscles belong to the cavity, as a reader draws it."""
    clear = ring(inner=14.0, outer=20.0)
    notch = (COL > 47) & (ROW - 47.5).abs().lt(3.5) & (clear[1] > 0.5)
    cut = clear.clone()
    cut[0] += cut[1] * notch
    cut[1] *= ~notch
    without = masks_from(cut, SPACING_MM, ContourSettings(steps=frozenset(("region", "spline"))))
    assert not bool(without[1][notch].all())
    found = masks_from(cut, SPACING_MM)
    assert overlap(found[1], masks_from(clear, SPACING_MM)[1]) > 0.98
    assert_closed_or_empty(found)


def test_an_open_ring_is_closed() -> None:
    """Towards the outflow tract, or where the wall is thin, a network may see no wall."""
    clear = ring()
    gap = (COL > 47) & (ROW - 47.5).abs().lt(7.0) & (clear[0] > 0)
    opened = clear.clone()
    opened[0] *= ~gap
    found = masks_from(opened, SPACING_MM)
    assert_closed_or_empty(found)
    assert overlap(found[1], masks_from(clear, SPACING_MM)[1]) > 0.95


def test_an_open_ring_without_blood_is_closed() -> None:
    """Where the network sees only a C of muscle, its hull says where the cavity is."""
    clear = ring()
    opened = clear.clone()
    opened[1] = 0
    opened[0] *= ~((COL > 47) & (ROW - 47.5).abs().lt(6.0))
    found = masks_from(opened, SPACING_MM)
    assert_closed_or_empty(found)
    assert overlap(found[1], masks_from(clear, SPACING_MM)[1]) > 0.85


def test_what_the_wall_encloses_is_blood() -> None:
    """Also where the network saw none."""
    clear = ring()
    hollow = clear.clone()
    hollow[1] = 0
    assert overlap(masks_from(hollow, SPACING_MM)[1], masks_from(clear, SPACING_MM)[1]) > 0.97


def test_a_hole_in_the_blood_is_filled() -> None:
    """A papillary muscle amid the pool."""
    clear = ring()
    hole = disc(3.0, 47.5, 50.0)
    pierced = clear.clone()
    pierced[0] += hole
    pierced[1] = (pierced[1] - hole).clamp_min(0)
    assert torch.equal(masks_from(pierced, SPACING_MM), masks_from(clear, SPACING_MM))


def test_a_spur_is_cut_off() -> None:
    """The wall may run out along the diaphragm."""
    clear = ring()
    spurred = clear.clone()
    spurred[0] = torch.maximum(spurred[0], ((ROW - 47.5).abs().lt(1.0) & COL.gt(47) & COL.lt(90)).float())
    spurred[0] -= (spurred[0] + spurred[1] - 1).clamp_min(0)
    assert overlap(masks_from(spurred, SPACING_MM)[0], masks_from(clear, SPACING_MM)[0]) > 0.98


@pytest.mark.parametrize("height", [0.6, 1.0])
def test_a_smaller_second_ring_is_dropped(height: float) -> None:
    """Stomach and spleen look like hearts, too."""
    clear = ring(row=30.0, col=40.0)
    both = torch.maximum(clear, ring(inner=4.0, outer=9.0, row=78.0, col=76.0, height=height))
    assert torch.equal(masks_from(both, SPACING_MM), masks_from(clear, SPACING_MM))


def test_a_faint_larger_ring_is_dropped() -> None:
    """What counts is how sure the network is, not size alone."""
    clear = ring(inner=8.0, outer=13.0, row=26.0, col=26.0)
    both = torch.maximum(clear, ring(inner=9.0, outer=16.0, row=72.0, col=72.0, height=0.55))
    assert torch.equal(masks_from(both, SPACING_MM), masks_from(clear, SPACING_MM))


def test_an_elongated_region_is_dropped() -> None:
    """A left ventricle across its axis is round."""
    probability = torch.zeros(3, PIXELS, PIXELS)
    probability[0, 40:56, 8:88] = 1
    probability[1, 44:52, 12:84] = 1
    probability[0] -= probability[1]
    assert not bool(masks_from(probability, SPACING_MM)[:2].any())
    anyhow = ContourSettings(elongation_max=10.0)
    assert bool(masks_from(probability, SPACING_MM, anyhow)[:2].any())


def test_the_rv_lies_beside_the_ventricle() -> None:
    """Blood elsewhere is a vessel."""
    heart = drawn_heart()
    probability = heart.float()
    probability[2] = torch.maximum(probability[2], disc(9.0, 12.0, 84.0))
    assert torch.equal(masks_from(probability, SPACING_MM)[2], masks_from(heart.float(), SPACING_MM)[2])
    probability[2] *= ~heart[2]
    assert not bool(masks_from(probability, SPACING_MM)[2].any())


@pytest.mark.parametrize("inner", [0.8, 1.5, 2.5])
def test_a_tiny_cavity_survives(inner: float) -> None:
    """Towards the apex there is hardly any left."""
    found = masks_from(ring(inner=inner, outer=8.0), SPACING_MM)
    assert_closed_or_empty(found)
    assert bool(found[1].any())


def test_a_heart_at_the_edge_is_closed() -> None:
    """Where the image cuts it off, too."""
    found = masks_from(ring(row=6.0, col=50.0), SPACING_MM)
    assert bool(found[0].any())
    assert_closed_or_empty(found)


@pytest.mark.parametrize(
    "probability",
    [
        pytest.param(torch.zeros(3, 20, 30), id="zeros"),
        pytest.param(torch.full((3, 20, 30), torch.nan), id="nan"),
        pytest.param(torch.full((3, 20, 30), 0.5), id="undecided"),
        pytest.param(torch.stack([torch.ones(20, 30), torch.zeros(20, 30), torch.zeros(20, 30)]), id="wall"),
        pytest.param(torch.stack([torch.zeros(20, 30), torch.zeros(20, 30), torch.ones(20, 30)]), id="rv"),
        pytest.param(torch.ones(3, 1, 1), id="pixel"),
    ],
)
def test_no_ring_gives_empty_masks(probability: Probability) -> None:
    """A hopeless echo is data, not an error."""
    assert not bool(masks_from(probability, SPACING_MM).any())


def test_steps_can_be_left_out() -> None:
    """Without any, pixels above the threshold are the masks; each label where it is the most probable."""
    probability = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    found = masks_from(probability, SPACING_MM, ContourSettings(steps=frozenset()))
    most = probability.argmax(0)
    expected = torch.stack([(most == label) & (probability[label] >= 0.5) for label in range(3)])
    assert torch.equal(found, expected)


def noise(seed: int) -> Probability:
    """Blurred noise, 0-1."""
    coarse = torch.rand(3, 1, PIXELS // 6, PIXELS // 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(PIXELS, PIXELS), mode="bilinear")[:, 0]


@st.composite
def hearts(draw: st.DrawFn) -> Probability:
    """Ring that noise has made uneven."""
    inner, wall = draw(st.floats(4.0, 20.0)), draw(st.floats(4.0, 10.0))
    row, col, height = draw(st.floats(35.0, 60.0)), draw(st.floats(35.0, 60.0)), draw(st.floats(0.7, 1.0))
    return height * ring(inner, inner + wall, row, col) + (1 - height) * noise(draw(st.integers(0, 999)))


@given(
    seed=st.integers(0, 999),
    share=st.floats(0.0, 1.0),
    inner=st.floats(1.0, 20.0),
    wall=st.floats(1.0, 10.0),
    row=st.floats(0.0, PIXELS),
    left_out=st.sampled_from([(), ("hull",), ("spline",), ("hull", "spline")]),
)
@settings(max_examples=60, deadline=None)
def test_a_ring_is_closed_or_there_is_none(
    seed: int, share: float, inner: float, wall: float, row: float, left_out: tuple[str, ...]
) -> None:
    """Whatever a network says."""
    probability = share * ring(inner, inner + wall, row, 30.0) + (1 - share) * noise(seed)
    steps = ContourSettings().steps - set(left_out)
    assert_closed_or_empty(masks_from(probability, SPACING_MM, ContourSettings(steps=steps)))


@given(probability=hearts())
@settings(max_examples=20, deadline=None)
def test_clean_masks_stay(probability: Probability) -> None:
    """A second pass changes pixels at the edges only."""
    once = masks_from(probability, SPACING_MM)
    twice = masks_from(once.float(), SPACING_MM)
    outside = torch.nn.functional.max_pool2d((~once).float(), 3, stride=1, padding=1) > 0
    inside = torch.nn.functional.max_pool2d(once.float(), 3, stride=1, padding=1) > 0
    assert bool((outside & inside)[once != twice].all())
    assert int((once != twice).sum()) <= 0.05 * int(once.sum())


@given(probability=hearts(), spacing_mm=st.sampled_from([(1.5, 1.5), (1.2, 1.8)]))
@settings(max_examples=20, deadline=None)
def test_turned_input_gives_turned_masks(probability: Probability, spacing_mm: tuple[float, float]) -> None:
    """No direction is special."""
    found = masks_from(probability, spacing_mm)
    turned = masks_from(probability.rot90(1, (1, 2)), spacing_mm[::-1]).rot90(-1, (1, 2))
    # Half-covered pixels may fall either way.
    assert int((found != turned).sum()) <= 0.01 * int(found.sum()) + 2
