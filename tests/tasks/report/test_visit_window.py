"""A page of a cut visit is that of the whole one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from storage import Trial
from storage.arrays import open_store, stored_roles
from tasks.report.visit_arrays import VisitArrays, read_visit
from tasks.report.visit_maps import slice_crops
from tasks.report.visit_window import around_hearts

EDGE = 40
"""Pixels around the drawn images that show no heart."""


@pytest.fixture
def wide(whole_trial: Trial) -> VisitArrays:
    """Drawn visit in the middle of wide images, with an echo that moved."""
    row = whole_trial.table("visits", "S01").set_index("visit_id").loc["V1"]
    store = open_store(whole_trial.root, "S01", "V1", str(row["result_digest"]))
    visit = read_visit(store, stored_roles(store))

    def widen(values: Any) -> Any:  # noqa: ANN401 (an array of any type)
        return np.pad(values, [(0, 0)] * (values.ndim - 2) + [(EDGE, EDGE)] * 2, mode="edge")

    names = ("echoes", "displacement_px", "guide", "masks", "t1_ms", "r_squared")
    slices = {
        role: tuple(replace(one, **{name: widen(getattr(one, name)) for name in names}) for one in of_role)
        for role, of_role in visit.slices.items()
    }
    for one in (one for of_role in slices.values() for one in of_role):
        for name in ("guide", "masks"):
            getattr(one, name)[..., :EDGE, :] = False
    assert visit.ecv_fraction is not None
    assert visit.onto_native_px is not None
    maps = ("segments", "ecv_fraction", "onto_native_px")
    return replace(visit, slices=slices, **{name: widen(getattr(visit, name)) for name in maps})


def test_what_is_shown_of_a_cut_visit_is_what_is_shown_of_the_whole(wide: VisitArrays) -> None:
    """Maps, masks and aligned echoes within the crops are the same; the images are smaller."""
    cut = around_hearts(wide)
    crops, whole_crops = slice_crops(cut), slice_crops(wide)
    assert cut.slices["native"][0].echoes[0].size < 0.7 * wide.slices["native"][0].echoes[0].size
    assert any(one.is_moved for one in wide.slices["native"])
    for (role, index), crop in crops.items():
        small, large, other = cut.slices[role][index], wide.slices[role][index], whole_crops[role, index]
        assert (crop.height, crop.width, crop.aspect) == (other.height, other.width, other.aspect)
        for name in ("t1_ms", "r_squared", "masks", "guide"):
            np.testing.assert_array_equal(crop.of(getattr(small, name)), other.of(getattr(large, name)))
        np.testing.assert_array_equal(crop.of(small.aligned_masks()), other.of(large.aligned_masks()))
        aligned, whole = crop.of(small.aligned_echoes().numpy()), other.of(large.aligned_echoes().numpy())
        np.testing.assert_allclose(aligned, whole, atol=1e-4 * whole.max())
        assert small.masks.sum() == large.masks.sum()
        if role == "native":
            for name in ("segments", "ecv_fraction", "onto_native_px"):
                small_map, large_map = (getattr(visit, name)[index] for visit in (cut, wide))
                np.testing.assert_array_equal(crop.of(small_map), other.of(large_map))


def test_a_visit_without_a_heart_stays_whole(partial_trial: Trial) -> None:
    """Nobody knows what to cut away."""
    row = partial_trial.table("visits", "S01").set_index("visit_id").loc["bare"]
    store = open_store(partial_trial.root, "S01", "bare", str(row["result_digest"]))
    visit = read_visit(store, stored_roles(store))
    assert around_hearts(visit) is visit
