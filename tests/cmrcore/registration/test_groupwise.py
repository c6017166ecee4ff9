"""Model-driven refinement."""

import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.registration.groupwise import predict_each, refine
from cmrcore.registration.warp import jacobian_determinant
from tests.cmrcore.hearts import PIXELS, drawn_heart
from tests.cmrcore.registration.test_align import SPACING_MM, TI_MS, moved, still_echoes

SHIFTS = [(0.0, 0.0), (0.0, 0.0), (1.2, 0.0), (0.0, 0.0), (0.0, -1.0), (0.0, 0.0), (0.0, 0.0), (0.8, 0.8)]


def test_an_echo_is_predicted_by_the_others() -> None:
    """Without noise and motion to a percent; nothing is said outside the mask."""
    wall = drawn_heart()[0]
    predicted = predict_each(still_echoes(), TI_MS, wall, "molli")
    torch.testing.assert_close(predicted[:, wall], still_echoes()[:, wall], rtol=0.01, atol=0.5)
    assert bool(predicted[:, ~wall].isnan().all())


def test_only_wanted_echoes_are_predicted() -> None:
    """The same as with all; nothing is said of the others."""
    wall = drawn_heart()[0]
    wanted = torch.tensor([False, True, False, False, True, False, False, False])
    some, every = (predict_each(still_echoes(), TI_MS, wall, "molli", of) for of in (wanted, None))
    assert torch.equal(some[wanted][:, wall], every[wanted][:, wall])
    assert bool(some[~wanted].isnan().all())


def test_small_motion_is_taken_back_by_the_images_alone() -> None:
    """Contrast turns over between echoes; the reference stays, nothing folds, still echoes wander little."""
    echoes, _ = moved(SHIFTS)
    noise = torch.randn(echoes.shape, generator=torch.Generator().manual_seed(2))
    start = torch.zeros(8, 2, PIXELS, PIXELS)
    found = refine((echoes + noise).abs(), TI_MS, start, drawn_heart().any(0), 0, SPACING_MM)
    assert not bool(found[0].any())
    assert bool((jacobian_determinant(found) > 0).all())
    wall = drawn_heart()[0]
    truth = torch.tensor(SHIFTS)
    off = (found[:, :, wall].mean(2) - truth).norm(dim=1)
    has_moved = truth.any(1)
    assert bool((off[has_moved] < 0.5 * truth[has_moved].norm(dim=1)).all())
    assert float(off[~has_moved].max()) < 0.5


def test_a_heart_is_needed() -> None:
    """An empty mask is the caller's mistake: `align_slice` does not refine such a slice."""
    with pytest.raises(InvalidInputError, match="no heart"):
        refine(
            still_echoes(),
            TI_MS,
            torch.zeros(8, 2, PIXELS, PIXELS),
            torch.zeros(PIXELS, PIXELS, dtype=torch.bool),
            0,
            SPACING_MM,
        )
