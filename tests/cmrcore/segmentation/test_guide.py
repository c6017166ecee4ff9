"""Which echo the guide is made on, and what is said about it."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.segmentation import Guide, GuideLimits, find_guide, reader_guide
from tests.cmrcore.hearts import PIXELS, drawn_heart

SPACING_MM = (1.5, 1.5)
HEART = drawn_heart()
LIMITS = GuideLimits()
NOISE = torch.randn(PIXELS, PIXELS, generator=torch.Generator().manual_seed(0))

Images = Float[Tensor, "n row col"]
Probabilities = Float[Tensor, "n label row col"]


def echo(blood: float = 2.0, heart: Bool[Tensor, "label row col"] = HEART) -> Float[Tensor, "row col"]:
    """Image of a heart; blood of 1 is as bright as muscle."""
    return 5 + heart[0] + blood * heart[1] + blood * heart[2] + 0.05 * NOISE


def shifted(pixels: int) -> Bool[Tensor, "label row col"]:
    """Heart elsewhere."""
    return HEART.roll(pixels, 2)


def network(
    *pairs: tuple[Float[Tensor, "row col"], Bool[Tensor, "label row col"]], only_upright: bool = False
) -> Callable[[Images], Probabilities]:
    """Network that knows some images by heart, in whichever way they are turned."""

    def known(image: Float[Tensor, "row col"]) -> Probabilities:
        for seen, masks in pairs:
            for n_quarters in range(4):
                for axes in ((), (0,)):
                    if torch.equal(seen.flip(axes).rot90(n_quarters), image):
                        if only_upright and (n_quarters or axes):
                            return torch.zeros(masks.shape)
                        turned = masks.flip([axis + 1 for axis in axes]).rot90(n_quarters, (1, 2))
                        return 0.9 * turned.float()
        return torch.zeros(3, *image.shape)

    return lambda images: torch.stack([known(image) for image in images])


def found(
    network: Callable[[Images], Probabilities],
    echoes: list[Float[Tensor, "row col"]],
    first_acquired: int = 0,
    limits: GuideLimits = LIMITS,
) -> Guide:
    """Guide that must be there."""
    guide = find_guide(network, torch.stack(echoes), SPACING_MM, first_acquired, limits)
    assert guide is not None
    return guide


def test_the_echo_with_the_most_contrast_is_taken() -> None:
    """Whichever was acquired first."""
    dim, bright = echo(1.06), echo(3.0)
    guide = found(network((dim, HEART), (bright, HEART)), [dim, bright])
    assert (guide.echo, guide.origin, guide.findings, guide.rejected) == (1, "model", (), ())
    assert torch.equal(guide.masks[:2], HEART[:2])
    assert 0.5 < guide.score < 0.9


def test_the_first_acquired_echo_wins_a_tie() -> None:
    """As the paper takes it."""
    one, other = echo(3.0), echo(3.0)
    knows = network((one, HEART), (other, HEART))
    assert [found(knows, [one, other], first_acquired=first).echo for first in (0, 1)] == [0, 1]


def test_a_failed_check_falls_back_to_the_best_other_echo() -> None:
    """And the guide says which echo failed, and why."""
    thick = drawn_heart(outer=28.0)
    wrong, right = echo(3.0, thick), echo(1.08)
    guide = found(
        network((wrong, thick), (right, HEART)), [wrong, right], limits=GuideLimits(thickness_max_mm=15.0)
    )
    assert (guide.echo, guide.findings) == (1, ())
    (reason,) = guide.rejected
    assert reason.startswith("echo 0: wall ")


def test_an_echo_without_a_myocardium_is_no_candidate() -> None:
    """The network may see nothing near a null point."""
    empty, bright = echo(2.5), echo(3.0)
    assert found(network((bright, HEART)), [empty, bright]).echo == 1


def test_disagreement_of_turned_inputs_is_found() -> None:
    """A network that is sure of an upright image only is not sure."""
    bright = echo(3.0)
    guide = found(network((bright, HEART), only_upright=True), [bright])
    assert guide.findings == ("turned inputs agree by 0.25, expected at least 0.75",)
    assert guide.score < 0.15
    assert torch.equal(guide.masks[:2], HEART[:2])


def test_a_heart_that_is_elsewhere_on_most_echoes_is_doubted() -> None:
    """The liver may look like a heart on one echo."""
    wrong, *right = echo(3.0, shifted(20)), echo(2.9), echo(2.8), echo(2.7)
    knows = network((wrong, shifted(20)), *((one, HEART) for one in right))
    guide = found(knows, [wrong, *right])
    assert (guide.echo, guide.findings, guide.rejected) == (1, (), ())


def test_echoes_that_show_hearts_in_different_places_are_doubted() -> None:
    """One of them may be right, but nobody can tell which."""
    here, there = echo(3.0), echo(3.0, shifted(30))
    guide = found(network((here, HEART), (there, shifted(30))), [here, there])
    assert guide.findings[0].startswith("agrees with the other echoes by 0.")


def test_the_best_doubtful_guide_is_better_than_none() -> None:
    """The night decides what becomes of it; what was tried stands beside it."""
    dim, bright = echo(1.2), echo(3.0)
    limits = GuideLimits(thickness_min_mm=20.0)
    guide = found(network((dim, HEART), (bright, HEART)), [dim, bright], limits=limits)
    finding = "wall 12.1 mm thick on average, expected 20 to 25 mm"
    assert (guide.echo, guide.findings, guide.rejected) == (1, (finding,), (f"echo 0: {finding}",))


def test_no_myocardium_gives_no_guide() -> None:
    """Nothing can be said about a heart that is not there."""
    assert find_guide(network(), torch.stack([echo(), echo(3.0)]), SPACING_MM, 0) is None


def test_a_heart_without_contrast_gives_no_guide() -> None:
    """A network may see a heart in noise; what does not stand out from its blood is none."""
    noise = [
        5 + torch.randn(PIXELS, PIXELS, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)
    ]
    pairs = [(image, HEART) for image in noise]
    assert find_guide(network(*pairs), torch.stack(noise), SPACING_MM, 0) is None


def test_few_echoes_are_turned() -> None:
    """Turned inputs cost as much as the echoes themselves."""
    echoes = [echo(2.0 + 0.1 * index) for index in range(8)]
    knows = network(*((one, HEART) for one in echoes), only_upright=True)
    seen: list[int] = []

    def counted(images: Images) -> Probabilities:
        seen.append(len(images))
        return knows(images)

    guide = found(counted, echoes, limits=GuideLimits(n_tries=2))
    assert sum(seen) == 8 + 2 * 3
    assert len(guide.rejected) == 1


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5), (1.2, 1.8)], ids=["square", "oblong"])
def test_views_keep_the_shape_where_pixels_are_oblong(spacing_mm: tuple[float, float]) -> None:
    """A quarter turn of oblong pixels would be another heart."""
    bright = echo(3.0)[:80]
    knows = network((bright, HEART[:, :80]))
    shapes: set[tuple[int, ...]] = set()

    def noted(images: Images) -> Probabilities:
        shapes.update({tuple(image.shape) for image in images})
        return knows(images)

    guide = find_guide(noted, bright[None], spacing_mm, 0)
    assert guide is not None
    assert guide.findings == ()
    turned = {(96, 80)} if spacing_mm == (1.5, 1.5) else set()
    assert shapes == {(80, 96)} | turned


def test_a_readers_guide_is_kept_whatever_is_found() -> None:
    """Findings are flags; a missing pool is filled in."""
    same = echo(1.0)
    drawn = HEART.clone()
    drawn[1] = False
    guide = reader_guide(drawn, torch.stack([echo(3.0), same]), SPACING_MM, 1)
    assert torch.equal(guide.masks, HEART)
    assert (guide.echo, guide.origin, guide.rejected) == (1, "reader", ())
    assert len(guide.findings) == 1
    assert guide.score < 0.1


def test_a_clear_readers_guide_has_a_high_score() -> None:
    """Nothing is found."""
    guide = reader_guide(HEART, echo(3.0)[None], SPACING_MM, 0)
    assert guide.findings == ()
    assert guide.score > 0.95
