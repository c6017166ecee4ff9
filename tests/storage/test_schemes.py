"""Acquisition schemes as trial.toml writes them."""

import pytest

from storage.schemes import check_schemes, describe_schemes, image_counts, scheme_of


@pytest.mark.parametrize(
    ("scheme", "fewest", "most"),
    [
        ("5(3)3", 8, 8),
        ("4(1)3(1)2", 9, 9),
        ("3(3)3(3)5", 11, 11),
        ("5(1)1(1)1", 7, 7),
        ("10(3)12", 22, 22),
        ("5b(3s)3", 8, 8),
        ("5s(3s)3s", 5, 21),
        ("4s(1s)3s(1s)2s", 7, 23),
        ("3s", 4, 8),
    ],
)
def test_a_scheme_tells_its_numbers_of_images(scheme: str, fewest: int, most: int) -> None:
    """Pauses in parentheses are no images; in seconds there is one a heart beat, at 34 to 150 a minute."""
    counts = image_counts(scheme)
    assert (counts[0], counts[-1]) == (fewest, most)


@pytest.mark.parametrize("scheme", ["SASHA", "", "5(3)", "5(3)3)", "0(3)8", "5m(3)3", "2(1)1"])
def test_what_cannot_be_processed_is_no_scheme(scheme: str) -> None:
    """Saturation has no model here, and three images leave nothing over for a residual."""
    with pytest.raises(ValueError, match=r".SASHA. cannot be processed|needs at least 4"):
        image_counts(scheme)


def test_schemes_are_told_apart_by_their_images() -> None:
    """A count that two schemes may have names neither."""
    assert check_schemes(("5(3)3", "3(3)3(3)5")) == ("5(3)3", "3(3)3(3)5")
    for schemes in (("5(3)3", "3(3)5"), ("5s(3s)3s", "5(3)3"), ("5(3)3", "5(3)3")):
        with pytest.raises(ValueError, match="may have the same number of images"):
            check_schemes(schemes)
    assert scheme_of(11, ("5(3)3", "3(3)3(3)5")) == "3(3)3(3)5"
    assert scheme_of(9, ("5(3)3", "3(3)3(3)5")) is None
    assert describe_schemes(("2(1)2", "5s(3s)3s")) == "4 (2(1)2) or 5 to 21 (5s(3s)3s)"
