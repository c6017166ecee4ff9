"""Physics limits of the recovery model."""

import math

import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.relaxation import look_locker_t1, molli_signal

A = torch.tensor([100.0, 250.0], dtype=torch.float64)
B = torch.tensor([190.0, 480.0], dtype=torch.float64)
T1_STAR_MS = torch.tensor([1200.0, 300.0], dtype=torch.float64)


def test_signal_starts_at_a_minus_b() -> None:
    """At TI = 0 nothing has recovered yet."""
    start = molli_signal(torch.zeros(1, dtype=torch.float64), A, B, T1_STAR_MS)
    torch.testing.assert_close(start[0], A - B)


def test_signal_ends_at_a() -> None:
    """After many T1* the recovery is complete."""
    end = molli_signal(torch.tensor([1e6], dtype=torch.float64), A, B, T1_STAR_MS)
    torch.testing.assert_close(end[0], A)


def test_signal_is_zero_at_the_null() -> None:
    """The null lies at T1* ln(B/A), where polarity changes."""
    for a, b, t1_star_ms in zip(A, B, T1_STAR_MS, strict=True):
        null_ms = t1_star_ms * torch.log(b / a)
        assert abs(molli_signal(null_ms[None], a, b, t1_star_ms).item()) < 1e-12 * a.item()


def test_inversion_times_lead() -> None:
    """The encoded axis comes first, whatever the space behind it."""
    grid = torch.ones(2, 3, 4)
    assert molli_signal(torch.tensor([100.0, 900.0]), grid, 2 * grid, 1000 * grid).shape == (2, 2, 3, 4)


def test_signal_without_times_is_refused() -> None:
    """An empty series is an error of the caller, not an empty image."""
    with pytest.raises(InvalidInputError, match="no inversion times"):
        molli_signal(torch.zeros(0), A.float(), B.float(), T1_STAR_MS.float())


def test_perfect_inversion_needs_no_correction() -> None:
    """With B = 2 A the read-outs have not driven the recovery, so T1 = T1*."""
    t1_ms = look_locker_t1(A, 2 * A, T1_STAR_MS)
    torch.testing.assert_close(t1_ms, T1_STAR_MS)


def test_look_locker_correction_undoes_continuous_driving() -> None:
    """A spoiled train of small flip angles shortens T1 to T1* and A in the same ratio (Deichmann 1992)."""
    t1_ms, tr_ms, flip = 1000.0, 3.0, math.radians(5)
    t1_star_ms = 1 / (1 / t1_ms - math.log(math.cos(flip)) / tr_ms)
    a = t1_star_ms / t1_ms
    corrected = look_locker_t1(torch.tensor(a), torch.tensor(a + 1), torch.tensor(t1_star_ms))
    assert corrected.item() == pytest.approx(t1_ms, rel=1e-5)
