"""Acquisition schemes: which heart beats are prepared, read out and waited for.

Written as on the scanner's protocol. MOLLI in beats: ``"5(3)3"`` reads five beats after an inversion, lets
three pass, inverts again and reads three. A count with ``s`` is in seconds: ``"5s(3s)3s"`` reads every beat
until at least five seconds have passed (Kellman and Hansen 2014, doi:10.1186/1532-429X-16-2).
``"5(1)1(1)1"`` is ShMOLLI (Piechnik et al. 2010, doi:10.1186/1532-429X-12-69), ``"SASHA"`` one image
without and ten with saturation (Chow et al. 2014, doi:10.1002/mrm.24878).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cmrcore.errors import InvalidInputError

_COUNT = r"[1-9]\d*[bs]?"
_SCHEME = re.compile(rf"{_COUNT}(\({_COUNT}\){_COUNT})*")

Preparation = Literal["inversion", "saturation"]
"""What comes before the read-outs. Series prepared for T2 or T1rho will be a further one."""


@dataclass(frozen=True, slots=True)
class Span:
    """Stretch of a scheme in heart beats or in seconds."""

    count: int
    """How many."""
    unit: Literal["beats", "seconds"]
    """Of what."""

    def n_beats(self, rr_ms: Sequence[float]) -> int:
        """Whole beats that it takes from the first of these on; one more than given if too few."""
        if self.unit == "beats":
            return self.count
        passed_ms = 0.0
        for beat, length_ms in enumerate(rr_ms):
            if passed_ms >= 1000 * self.count:
                return beat
            passed_ms += length_ms
        return len(rr_ms) if passed_ms >= 1000 * self.count else len(rr_ms) + 1


@dataclass(frozen=True, slots=True)
class Scheme:
    """Sets of images, each after a preparation, and the pauses between them."""

    name: str
    """As on the protocol."""
    preparation: Preparation
    """Once before each set (inversion), or before each image but the first (saturation), whose time is
    recorded as `UNSATURATED_MS`."""
    sets: tuple[Span, ...]
    """Images of each set, one a beat."""
    pauses: tuple[Span, ...]
    """Recovery between the sets, one fewer than the sets."""
    first_ms: float
    """Shortest time from preparation to k-space center [ms]."""
    increment_ms: float
    """How much longer the first inversion time of each further set is [ms]; 0 for saturation."""

    def n_beats(self, rr_ms: float) -> int:
        """Heart beats from the first preparation to the last image when all are this long [ms]."""
        return sum(span.n_beats([rr_ms] * (2 + int(1000 * span.count / rr_ms))) for span in self._spans())

    def n_images(self, rr_ms: float) -> int:
        """Images in all when every beat is this long [ms]; schemes in beats do not depend on it."""
        return sum(span.n_beats([rr_ms] * (2 + int(1000 * span.count / rr_ms))) for span in self.sets)

    def _spans(self) -> tuple[Span, ...]:
        return (*self.sets, *self.pauses)


SASHA, SHMOLLI = "SASHA", "5(1)1(1)1"
"""Schemes with a read-out and a fit of their own."""

UNSATURATED_MS = 10_000.0
"""What the scanner writes for an image without saturation [ms]."""


def parse_scheme(scheme: str) -> Scheme:
    """Read a scheme such as ``"5(3)3"``, ``"4(1)3(1)2"``, ``"5s(3s)3s"``, ``"5(1)1(1)1"`` or ``"SASHA"``.

    MOLLI inverts 120, 200, 280 ms before the first image of its sets, ShMOLLI 100, 180, 260 ms.
    """
    if scheme == SASHA:
        return Scheme(SASHA, "saturation", (Span(11, "beats"),), (), first_ms=83.0, increment_ms=0.0)
    if not _SCHEME.fullmatch(scheme):
        raise InvalidInputError(
            f"scheme {scheme!r}: expected images(pause)images, as in '5(3)3' or '5s(3s)3s', or 'SASHA'"
        )
    spans = [
        Span(int(count), "seconds" if unit == "s" else "beats")
        for count, unit in re.findall(r"(\d+)([bs]?)", scheme)
    ]
    return Scheme(
        name=scheme,
        preparation="inversion",
        sets=tuple(spans[::2]),
        pauses=tuple(spans[1::2]),
        first_ms=100.0 if scheme == SHMOLLI else 120.0,
        increment_ms=80.0,
    )
