"""ECV by its formula."""

import pytest
import torch

from cmrcore.errors import InvalidInputError
from cmrcore.quantify import ecv_map, partition_coefficient

NATIVE_MS = torch.tensor([1000.0, 1200.0])


def test_ecv_is_zero_when_myocardial_r1_does_not_change() -> None:
    """No gadolinium has reached the tissue."""
    assert ecv_map(NATIVE_MS, NATIVE_MS, 1600.0, 400.0, 0.42).tolist() == [0, 0]


def test_myocardium_that_behaves_like_blood_has_its_plasma_volume() -> None:
    """With the R1 change of blood, the partition coefficient is 1 and ECV is 1 - hematocrit."""
    blood = torch.tensor([1600.0])
    post = torch.tensor([400.0])
    assert partition_coefficient(blood, post, 1600.0, 400.0).item() == pytest.approx(1)
    assert ecv_map(blood, post, 1600.0, 400.0, 0.42).item() == pytest.approx(0.58)


def test_a_worked_example() -> None:
    """1000 -> 500 ms in myocardium, 1600 -> 400 ms in blood, hematocrit 0.40: 0.6 * 1.0 / 1.875."""
    ecv = ecv_map(torch.tensor([1000.0]), torch.tensor([500.0]), 1600.0, 400.0, 0.40)
    assert ecv.item() == pytest.approx(0.32)


def test_ecv_is_nan_where_t1_is_missing() -> None:
    """A failed fit is no value, and neither is a T1 of zero."""
    native = torch.tensor([float("nan"), 1000.0, 0.0, 1000.0])
    post = torch.tensor([500.0, float("nan"), 500.0, 500.0])
    assert torch.isnan(ecv_map(native, post, 1600.0, 400.0, 0.4)).tolist() == [True, True, True, False]


def test_what_no_tissue_has_is_left_out() -> None:
    """A post-contrast T1 of 10 ms would be an ECV of 32 and outweigh a hundred pixels."""
    native = torch.tensor([1000.0, 1000.0, 1000.0])
    post = torch.tensor([10.0, 1500.0, 500.0])
    ecv = ecv_map(native, post, 1600.0, 400.0, 0.4)
    assert torch.isnan(ecv).tolist() == [True, True, False]
    coefficient = partition_coefficient(native, post, 1600.0, 400.0)
    assert torch.isnan(coefficient).tolist() == [True, True, False]


@pytest.mark.parametrize("blood_post_ms", [1600.0, 2000.0, float("nan")])
def test_ecv_is_nan_when_blood_did_not_enhance(blood_post_ms: float) -> None:
    """Without contrast in the blood the ratio means nothing."""
    assert torch.isnan(ecv_map(NATIVE_MS, NATIVE_MS / 2, 1600.0, blood_post_ms, 0.4)).all()


@pytest.mark.parametrize("hematocrit", [42.0, -0.1, float("nan")])
def test_hematocrit_must_be_a_fraction(hematocrit: float) -> None:
    """A percentage would give an ECV of minus forty."""
    with pytest.raises(InvalidInputError, match="expected a fraction"):
        ecv_map(NATIVE_MS, NATIVE_MS / 2, 1600.0, 400.0, hematocrit)
