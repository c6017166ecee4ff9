"""Which echo the guide is made on, and what is said about it."""

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.segmentation import Guide, GuideLimits, choose_guide, find_guide, reader_guide
from cmrcore.segmentation.frame import FIRST_LOOK_MM, SIZE, Frame
from cmrcore.segmentation.heart import Look
from cmrcore.segmentation.infer import View
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


class Network:
    """Network that knows some images by heart, and keeps through which frame and how it was shown them."""

    def __init__(
        self,
        *pairs: tuple[Float[Tensor, "row col"], Bool[Tensor, "label row col"]],
        only_upright: bool = False,
    ) -> None:
        self._pairs = pairs
        self._only_upright = only_upright
        self.seen: list[tuple[int, Frame, View]] = []

    def __call__(
        self, images: Images, spacing_mm: tuple[float, float], frame: Frame, view: View
    ) -> Probabilities:
        """Be sure of the known images, and see nothing on others."""
        assert spacing_mm == SPACING_MM
        self.seen.append((len(images), frame, view))
        return torch.stack([self._known(image, view) for image in images])

    def _known(self, image: Float[Tensor, "row col"], view: View) -> Float[Tensor, "label row col"]:
        for seen, masks in self._pairs:
            if torch.equal(seen, image) and not (self._only_upright and view != "upright"):
                return 0.9 * masks.float()
        return torch.zeros(3, *image.shape)


def found(
    look: Look,
    echoes: list[Float[Tensor, "row col"]],
    first_acquired: int = 0,
    limits: GuideLimits = LIMITS,
) -> Guide:
    """Guide that must be there."""
    guide = find_guide(look, torch.stack(echoes), SPACING_MM, first_acquired, limits)
    assert guide is not None
    return guide


def test_the_echo_with_the_most_contrast_is_taken() -> None:
    """Whichever was acquired first."""
    dim, bright = echo(1.06), echo(3.0)
    guide = found(Network((dim, HEART), (bright, HEART)), [dim, bright])
    assert (guide.echo, guide.origin, guide.findings, guide.rejected) == (1, "model", (), ())
    assert torch.equal(guide.masks[:2], HEART[:2])
    assert 0.5 < guide.score < 0.9


def test_the_first_acquired_echo_wins_a_tie() -> None:
    """As the paper takes it."""
    one, other = echo(3.0), echo(3.0)
    knows = Network((one, HEART), (other, HEART))
    assert [found(knows, [one, other], first_acquired=first).echo for first in (0, 1)] == [0, 1]


def test_a_failed_check_falls_back_to_the_best_other_echo() -> None:
    """And the guide says which echo failed, and why."""
    thick = drawn_heart(outer=28.0)
    wrong, right = echo(3.0, thick), echo(1.08)
    guide = found(
        Network((wrong, thick), (right, HEART)), [wrong, right], limits=GuideLimits(thickness_max_mm=15.0)
    )
    assert (guide.echo, guide.findings) == (1, ())
    (reason,) = guide.rejected
    assert reason.startswith("echo 0: wall ")


def test_an_echo_without_a_myocardium_is_no_candidate() -> None:
    """The network may see nothing near a null point."""
    empty, bright = echo(2.5), echo(3.0)
    assert found(Network((bright, HEART)), [empty, bright]).echo == 1


def test_disagreement_of_turned_inputs_is_found() -> None:
    """A network that is sure of an upright image only is not sure."""
    bright = echo(3.0)
    guide = found(Network((bright, HEART), only_upright=True), [bright])
    assert guide.findings == ("turned inputs agree by 0.25, expected at least 0.75",)
    assert guide.score < 0.15
    assert torch.equal(guide.masks[:2], HEART[:2])


def test_a_heart_that_is_elsewhere_on_most_echoes_is_doubted() -> None:
    """The liver may look like a heart on one echo."""
    wrong, *right = echo(3.0, shifted(20)), echo(2.9), echo(2.8), echo(2.7)
    knows = Network((wrong, shifted(20)), *((one, HEART) for one in right))
    guide = found(knows, [wrong, *right])
    assert (guide.echo, guide.findings, guide.rejected) == (1, (), ())


def test_echoes_that_show_hearts_in_different_places_are_doubted() -> None:
    """One of them may be right, but nobody can tell which."""
    here, there = echo(3.0), echo(3.0, shifted(30))
    guide = found(Network((here, HEART), (there, shifted(30))), [here, there])
    assert guide.findings[0].startswith("agrees with the other echoes by 0.")


def test_the_best_doubtful_guide_is_better_than_none() -> None:
    """The night decides what becomes of it; what was tried stands beside it."""
    dim, bright = echo(1.2), echo(3.0)
    limits = GuideLimits(thickness_min_mm=20.0)
    guide = found(Network((dim, HEART), (bright, HEART)), [dim, bright], limits=limits)
    finding = "wall 12.1 mm thick on average, expected 20 to 25 mm"
    assert (guide.echo, guide.findings, guide.rejected) == (1, (finding,), (f"echo 0: {finding}",))


def test_no_myocardium_gives_no_guide() -> None:
    """Nothing can be said about a heart that is not there."""
    assert find_guide(Network(), torch.stack([echo(), echo(3.0)]), SPACING_MM, 0) is None


def test_a_heart_without_contrast_gives_no_guide() -> None:
    """A network may see a heart in noise; what does not stand out from its blood is none."""
    noise = [
        5 + torch.randn(PIXELS, PIXELS, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)
    ]
    pairs = [(image, HEART) for image in noise]
    assert find_guide(Network(*pairs), torch.stack(noise), SPACING_MM, 0) is None


def test_few_echoes_are_looked_at_closely_and_turned() -> None:
    """What is spared is most of the time: three to find the heart, the clearest two, one of them turned."""
    echoes = [echo(1.02 + 0.01 * index) for index in range(8)]
    network = Network(*((one, HEART) for one in echoes))
    guide = found(network, echoes, limits=GuideLimits(n_first=3, n_candidates=2))
    assert guide.echo == 7
    first, *closer = network.seen
    whole = PIXELS * SPACING_MM[0] / SIZE
    assert first == (3, Frame((47.5, 47.5), min(FIRST_LOOK_MM, whole)), "upright")
    assert [(n, view) for n, _, view in closer] == [
        (2, "upright"),
        (1, "left_right"),
        (1, "up_down"),
        (1, "quarter"),
    ]
    (frame,) = {frame for _, frame, _ in closer}
    rows, cols = torch.nonzero(HEART[0] | HEART[1], as_tuple=True)
    assert frame.center == pytest.approx((rows.float().mean().item(), cols.float().mean().item()))


def test_turned_inputs_are_tried_on_few_echoes() -> None:
    """A network that is sure of nothing would cost as much as all of the slice."""
    echoes = [echo(2.0 + 0.1 * index) for index in range(4)]
    network = Network(*((one, HEART) for one in echoes), only_upright=True)
    guide = found(network, echoes, limits=GuideLimits(n_tries=2))
    assert sum(view != "upright" for _, _, view in network.seen) == 2 * 3
    assert len(guide.rejected) == 1


def test_a_heart_on_one_echo_is_found_by_looking_at_all() -> None:
    """The few that are looked at first may all show nothing."""
    echoes = [echo(1.0 + 0.1 * index) for index in range(6)]
    network = Network((echoes[4], HEART))
    assert found(network, echoes).echo == 4
    assert [n for n, _, view in network.seen if view == "upright"][:2] == [3, 3]


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


def test_a_readers_guide_off_the_heart_is_doubted() -> None:
    """Drawn 30 pixels beside what the network sees; the measured overlap stands beside it."""
    seen = echo(3.0)
    network = Network((seen, HEART))
    here, away = (reader_guide(HEART.roll(by, 2), seen[None], SPACING_MM, 0, network) for by in (0, -30))
    assert here.overlap == pytest.approx(1, abs=0.02)
    assert here.findings == ()
    ventricle = HEART[0] | HEART[1]
    n_shared = int((ventricle & ventricle.roll(-30, 1)).sum())
    assert away.overlap == pytest.approx(n_shared / int(ventricle.sum()), abs=0.02)
    assert any("expected at least 0.5" in finding for finding in away.findings)
    assert away.score < here.score / 2


def test_without_a_heart_to_compare_with_nothing_is_said() -> None:
    """No network, or one that sees nothing."""
    seen = echo(3.0)
    for look in (None, Network()):
        guide = reader_guide(HEART, seen[None], SPACING_MM, 0, look)
        assert guide.overlap is None
        assert guide.findings == ()


def open_ring() -> Bool[Tensor, "label row col"]:
    """Heart whose wall a reader forgot to close."""
    drawn = HEART.clone()
    drawn[0, :, :48] = False
    return drawn


def test_a_readers_guide_wins() -> None:
    """Even over one with a higher score."""
    dim, bright = echo(1.2), echo(3.0)
    network = Network((dim, HEART), (bright, HEART))
    guide = choose_guide(network, torch.stack([dim, bright]), SPACING_MM, 0, HEART.roll(2, 2))
    assert guide is not None
    assert (guide.origin, guide.echo, guide.reader_replaced) == ("reader", 0, False)
    assert torch.equal(guide.masks, HEART.roll(2, 2))


def test_a_readers_open_ring_gives_way_to_a_guide_that_is_found() -> None:
    """And the guide says so, before all else that was tried."""
    dim, bright = echo(1.2), echo(3.0)
    network = Network((dim, HEART), (bright, HEART))
    guide = choose_guide(network, torch.stack([dim, bright]), SPACING_MM, 0, open_ring())
    assert guide is not None
    assert (guide.origin, guide.echo, guide.findings, guide.overlap) == ("model", 1, (), None)
    (reason,) = guide.rejected
    assert reason.startswith("reader: the myocardium does not enclose a cavity")
    assert guide.reader_replaced


@pytest.mark.parametrize("look", [None, Network()], ids=["no network", "nothing found"])
def test_a_readers_open_ring_stays_where_nothing_else_is_found(look: Look | None) -> None:
    """So that the night says what is wrong with it."""
    guide = choose_guide(look, echo()[None], SPACING_MM, 0, open_ring())
    assert guide is not None
    assert guide.origin == "reader"
    assert guide.findings == ("the myocardium does not enclose a cavity",)


def test_nobody_and_nothing_gives_no_guide() -> None:
    """No reader and no network."""
    assert choose_guide(None, echo()[None], SPACING_MM, 0, None) is None
