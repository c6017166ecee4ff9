"""Schemes as protocols write them."""

import pytest

from cmrcore.errors import InvalidInputError
from cmrcore.phantom.scheme import SASHA, parse_scheme


@pytest.mark.parametrize(
    ("scheme", "n_images", "n_beats"),
    [("5(3)3", 8, 11), ("4(1)3(1)2", 9, 11), ("3(3)3(3)5", 11, 17), ("5(1)1(1)1", 7, 9), ("SASHA", 11, 11)],
)
def test_scheme_counts_images_and_beats(scheme: str, n_images: int, n_beats: int) -> None:
    """The scheme string is the protocol: images, with pauses in brackets."""
    parsed = parse_scheme(scheme)
    assert (parsed.n_images(900.0), parsed.n_beats(900.0)) == (n_images, n_beats)


@pytest.mark.parametrize(
    ("rr_ms", "n_images", "n_beats"), [(1000.0, 8, 11), (600.0, 14, 19), (1300.0, 7, 10), (1250.0, 7, 10)]
)
def test_seconds_become_whole_beats(rr_ms: float, n_images: int, n_beats: int) -> None:
    """At 60 beats a minute 5s(3s)3s is 5(3)3; a faster heart gives more images in the same time."""
    parsed = parse_scheme("5s(3s)3s")
    assert (parsed.n_images(rr_ms), parsed.n_beats(rr_ms)) == (n_images, n_beats)


def test_beats_and_seconds_mix() -> None:
    """Some scanners count images in beats and pauses in seconds."""
    parsed = parse_scheme("5b(3s)3b")
    assert (parsed.n_images(600.0), parsed.n_beats(600.0)) == (8, 13)


@pytest.mark.parametrize("scheme", ["", "5(3)", "(3)5", "5(0)3", "5 (3) 3", "5m(3)3", "sasha"])
def test_unreadable_scheme_is_refused(scheme: str) -> None:
    """Half a scheme would be another sequence."""
    with pytest.raises(InvalidInputError, match="expected images"):
        parse_scheme(scheme)


def test_sasha_is_a_saturation() -> None:
    """It has a name, not counts: pulses come before every image but the first."""
    assert parse_scheme(SASHA).preparation == "saturation"
    assert parse_scheme("5(3)3").preparation == "inversion"
