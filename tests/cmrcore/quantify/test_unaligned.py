"""Series whose masks cannot align their echoes: measured and flagged all the same."""

from dataclasses import replace

import pytest
import torch

from tests.cmrcore.quantify.drawn_scans import NATIVE, quantify, raised


@pytest.mark.parametrize("why", ["empty", "at_border"])
def test_one_usable_echo_is_measured_and_flagged(why: str) -> None:
    """The reference alone can be used; nothing moves, and the flag counts the others."""
    assert NATIVE.masks is not None
    masks, reference = NATIVE.masks.clone(), int(NATIVE.reference()[0])
    others = torch.arange(masks.shape[2]) != reference
    masks[:, 0, others] = masks[:, 0, others].roll(30, -1) if why == "at_border" else False
    result, as_it_is = quantify(replace(NATIVE, masks=masks)), quantify()
    assert ("echoes_unaligned", "native", 0) in raised(result)
    (flag,) = [flag for flag in result.flags if flag.code == "echoes_unaligned"]
    assert flag.value == int(others.sum())
    assert why.replace("_", " ") in flag.message
    assert result.slices[0]["t1_native_ms"] == as_it_is.slices[0]["t1_native_ms"]


def test_a_reference_at_the_border_aligns_nothing() -> None:
    """All echoes of that slice stay, and its flag says why."""
    assert NATIVE.masks is not None
    masks, reference = NATIVE.masks.clone(), int(NATIVE.reference()[0])
    masks[:, 0, reference] = masks[:, 0, reference].roll(30, -1)
    result = quantify(replace(NATIVE, masks=masks))
    (flag,) = [flag for flag in result.flags if flag.code == "echoes_unaligned"]
    assert "reference unusable" in flag.message
    assert not bool(result.displacements["native/displacement_px"][0].any())
