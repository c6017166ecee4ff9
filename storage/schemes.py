"""Acquisition schemes as trial.toml writes them, and how many images each may have.

Counts are in heart beats, ``"5(3)3"``, or in seconds, ``"5s(3s)3s"``: as many images as heart beats begin
before so much time has passed (Kellman and Hansen 2014, doi:10.1186/1532-429X-16-2). Numbers in parentheses
are pauses. The number of images tells the schemes of a series apart; in seconds it follows the heart rate.
"""

import math
import re
from collections.abc import Sequence

SHMOLLI = "5(1)1(1)1"
"""The one scheme that the model ``shmolli`` is made for."""

BEAT_S = (0.4, 1.75)
"""Shortest and longest time between two heart beats that a scheme in seconds is read with [s]."""

FEWEST_IMAGES = 4
"""Images that a fit of three parameters needs at least."""

_COUNT = r"[1-9]\d*[bs]?"
_SCHEME = re.compile(rf"{_COUNT}(\({_COUNT}\){_COUNT})*")


def image_counts(scheme: str) -> range:
    """Give the numbers of images that an acquisition scheme may have: ``"5(3)3"`` has 8.

    Raises
    ------
    ValueError
        If it is no scheme of an inversion recovery, or has fewer images than a fit needs.
    """
    if not _SCHEME.fullmatch(scheme):
        message = (
            f"{scheme!r} is no scheme such as '5(3)3', '4(1)3(1)2' or '5s(3s)3s'; saturation recovery "
            f"(SASHA) cannot be processed: quantify.t1_model has no model of it"
        )
        raise ValueError(message)
    fewest = most = 0
    for count, unit in re.findall(r"(\d+)([bs]?)", re.sub(r"\(.*?\)", " ", scheme)):
        shortest_s, longest_s = BEAT_S if unit == "s" else (1.0, 1.0)
        fewest += math.ceil(int(count) / longest_s)
        most += math.ceil(int(count) / shortest_s)
    if most < FEWEST_IMAGES:
        message = f"{scheme!r} has {most} images, the fit needs at least {FEWEST_IMAGES}"
        raise ValueError(message)
    return range(max(fewest, FEWEST_IMAGES), most + 1)


def check_schemes(schemes: tuple[str, ...]) -> tuple[str, ...]:
    """Make sure that the number of images tells the schemes of a series apart.

    Raises
    ------
    ValueError
        Naming two that it does not, or one that cannot be processed.
    """
    counts = {scheme: image_counts(scheme) for scheme in schemes}
    for index, one in enumerate(schemes):
        for other in schemes[index + 1 :]:
            if one == other or set(counts[one]) & set(counts[other]):
                found = f"{_text(counts[one])} and {_text(counts[other])}"
                message = f"{one!r} and {other!r} may have the same number of images ({found}): name one"
                raise ValueError(message)
    return schemes


def scheme_of(n_images: int, schemes: Sequence[str]) -> str | None:
    """Find the scheme that has so many images; None where none has."""
    return next((scheme for scheme in schemes if n_images in image_counts(scheme)), None)


def describe_schemes(schemes: Sequence[str]) -> str:
    """Say how many images each scheme has, as in ``8 (5(3)3) or 11 (3(3)3(3)5)``."""
    return " or ".join(f"{_text(image_counts(scheme))} ({scheme})" for scheme in schemes)


def _text(counts: range) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
