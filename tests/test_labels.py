"""The order of the labels, which science and storage state each for itself."""

import storage.guide
from cmrcore import segmentation


def test_science_and_storage_order_the_labels_alike() -> None:
    """They do not know each other, and masks carry no names: another order would swap wall and cavity."""
    assert storage.guide.LABELS == segmentation.LABELS
