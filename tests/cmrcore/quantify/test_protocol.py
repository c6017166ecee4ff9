"""Protocol of a visit against its baseline's."""

from dataclasses import replace

import pytest

from cmrcore.quantify import Row
from cmrcore.quantify.protocol import Protocol, check_protocol, protocol_of

BASELINE = Protocol("5(3)3", "4(1)3(1)2", (1.4, 1.4), (0.0, 20.0, 40.0))

DEVIATIONS = {
    "same": (BASELINE, []),
    "rounded": (replace(BASELINE, pixel_spacing_mm=(1.4, 1.45)), []),
    "native scheme": (replace(BASELINE, scheme_native="3(3)3(3)5"), ["scheme_differs"]),
    "post scheme": (replace(BASELINE, scheme_post="5(3)3"), ["scheme_differs"]),
    "no post": (replace(BASELINE, scheme_post=None), []),
    "unknown pixels": (replace(BASELINE, pixel_spacing_mm=None), []),
    "pixels": (replace(BASELINE, pixel_spacing_mm=(1.4, 1.8)), ["pixels_differ"]),
    "fewer slices": (replace(BASELINE, slice_distances_mm=(0.0, 20.0)), ["slices_differ"]),
    "wider apart": (replace(BASELINE, slice_distances_mm=(0.0, 22.0, 44.0)), ["slice_distances_differ"]),
    "a longer heart": (replace(BASELINE, slice_distances_mm=(0.0, 21.0, 42.0)), []),
}


@pytest.mark.parametrize(("now", "expected"), DEVIATIONS.values(), ids=DEVIATIONS.keys())
def test_deviations_are_flagged(now: Protocol, expected: list[str]) -> None:
    """What differs is named, and nothing else; what is unknown differs from nothing."""
    assert [flag.code for flag in check_protocol(now, BASELINE, "V1", 0.1, 3.0)] == expected


def test_a_deviation_says_by_how_much() -> None:
    """The largest distance counts, and the message names the baseline."""
    now = replace(BASELINE, slice_distances_mm=(0.0, 22.0, 44.5))
    (flag,) = check_protocol(now, BASELINE, "V1", 0.1, 3.0)
    assert (flag.value, flag.threshold) == (4.5, 3.0)
    assert "baseline V1" in flag.message


def test_a_protocol_is_read_from_the_rows_of_a_scan() -> None:
    """What the tables hold is all that later visits know of the baseline."""
    scan: Row = {
        "scheme_native": "5(3)3",
        "scheme_post": "4(1)3(1)2",
        "row_spacing_mm": 1.4,
        "col_spacing_mm": 1.4,
    }
    slices: list[Row] = [{"slice_distance_mm": distance} for distance in (0.0, 20.0, 40.0)]
    assert protocol_of(scan, slices) == BASELINE


def test_what_a_scan_does_not_say_differs_from_nothing() -> None:
    """Neither unknown pixels nor a slice that only the post-contrast series has make another protocol."""
    scan: Row = dict.fromkeys(("scheme_native", "scheme_post", "row_spacing_mm", "col_spacing_mm"))
    slices: list[Row] = [{"slice_distance_mm": distance} for distance in (0.0, 20.0, 40.0, None)]
    found = protocol_of(scan, slices)
    assert found == Protocol(None, None, None, (0.0, 20.0, 40.0))
    assert check_protocol(found, BASELINE, "V1", 0.1, 3.0) == []
