"""Open DICOM files; a process may keep small ones between reading their headers and their pixels."""

from collections import OrderedDict
from pathlib import Path

import pydicom

MAX_KEPT_FILE_BYTES = 2 * 2**20
"""Largest file that is kept."""


class _Kept:
    """Files that were parsed whole, oldest first; none are kept until `keep_files` is called."""

    def __init__(self) -> None:
        self.max_bytes = 0
        self._n_bytes = 0
        self._files: OrderedDict[tuple[Path, int, int], pydicom.FileDataset] = OrderedDict()

    def put(self, key: tuple[Path, int, int], dataset: pydicom.FileDataset) -> None:
        self.take(key)  # a file whose header is read again is still one file
        self._files[key] = dataset
        self._n_bytes += key[1]
        while self._n_bytes > self.max_bytes:
            (_, size, _), _ = self._files.popitem(last=False)
            self._n_bytes -= size

    def take(self, key: tuple[Path, int, int]) -> pydicom.FileDataset | None:
        dataset = self._files.pop(key, None)
        if dataset is not None:
            self._n_bytes -= key[1]
        return dataset


_kept = _Kept()


def keep_files(max_bytes: int) -> None:
    """Parse small files once instead of twice, at the cost of memory: for a process that reads one by one."""
    _kept.max_bytes = max_bytes


def open_header(path: Path) -> pydicom.FileDataset:
    """Parse a file up to its pixels, or, where it is kept for `open_whole`, whole."""
    key = _key(path)
    if key[1] > min(MAX_KEPT_FILE_BYTES, _kept.max_bytes):
        return pydicom.dcmread(path, stop_before_pixels=True)
    try:
        dataset = pydicom.dcmread(path)
    except Exception:  # noqa: BLE001 (broken pixels say nothing against the header; if it is broken, this says so)
        return pydicom.dcmread(path, stop_before_pixels=True)
    _kept.put(key, dataset)
    return dataset


def open_whole(path: Path) -> pydicom.FileDataset:
    """Parse a file with its pixels."""
    return _kept.take(_key(path)) or pydicom.dcmread(path)


def _key(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns
