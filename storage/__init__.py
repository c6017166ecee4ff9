"""Bytes of a trial: DICOM in, Zarr arrays and Parquet tables out; no science.

`open_trial` is the way in for readers. The other modules are imported where they are used, so that a status
query needs neither pydicom nor zarr.
"""

from storage.trial import Trial, open_trial

__all__ = ["Trial", "open_trial"]
