"""Speed of intake, next to plain pydicom over the same files in the same run.

``python -m tests.benchmarks.intake`` measures 10,000 images and 50,000 files, ``--quick`` a tenth of both.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from storage.arrays import write_stack, write_store
from storage.config import TrialConfig, load_config
from storage.dicom_write import MrHeader, deterministic_uid, write_mr
from storage.intake import intake_visit
from storage.plan import PlannedVisit
from storage.upload import INCOMING, hash_upload, list_upload, list_uploads
from tasks.matching import VisitKey, match_uploads, matching_digests
from tests.benchmarks.figure import Figure, print_figures

CONFIG = Path(__file__).parents[2] / "deploy" / "trials" / "demo.toml"
N_SLICES, N_NATIVE, N_POST = 3, 11, 9
N_IMAGES_A_VISIT = N_SLICES * (N_NATIVE + N_POST)
SIZE = 160
N_WORKERS = 2
STARTED_AT = datetime(2026, 3, 4, 10)


def intake_figures(*, quick: bool = False) -> list[Figure]:
    """All figures; temporary files are removed."""
    n_images, n_files = (1_000, 5_000) if quick else (10_000, 50_000)
    root = Path(tempfile.mkdtemp(prefix="cmrtrials-bench-"))
    try:
        return [*_reading(root, n_images), *_unchanged(root / "idle", n_files)]
    finally:
        shutil.rmtree(root)


def _reading(root: Path, n_images: int) -> list[Figure]:
    n_visits = -(-n_images // N_IMAGES_A_VISIT)
    folders = [root / INCOMING / f"S{number:04d}" for number in range(n_visits)]
    context = get_context("spawn")
    with ProcessPoolExecutor(N_WORKERS, mp_context=context) as pool:
        list(pool.map(_write_visit, folders, chunksize=8))
        paths = [path for folder in folders for path in sorted(folder.iterdir())]
        plain_s = min(_seconds(partial(_read_plainly, paths)) for _ in range(2))
        list(pool.map(_take_in, folders[: 4 * N_WORKERS]))  # starts the workers' children
        ours_s = _seconds(lambda: list(pool.map(_take_in, folders, chunksize=2)))
    fresh_s = _seconds(partial(_take_in_once, context, folders[0]))
    per_image = 1000 / len(paths)
    how = f"{len(paths)} images of {SIZE} x {SIZE} in {n_visits} visits, {os.cpu_count()} cores"
    return [
        Figure("plain dcmread + pixel_array", plain_s * per_image, "ms/image", "", f"one process; {how}"),
        Figure(
            "listed, hashed, read, checked, written",
            ours_s * per_image,
            "ms/image",
            "",
            f"{N_WORKERS} workers, each with its bounded child",
        ),
        Figure("intake / plain", ours_s / plain_s, "ratio", "<= 2", "same files, same run"),
        Figure(
            "one visit in a new worker",
            fresh_s,
            "s",
            "1",
            f"{N_IMAGES_A_VISIT} images; libraries of worker and child loaded, listing to store",
        ),
    ]


def _unchanged(root: Path, n_files: int) -> list[Figure]:
    """Recognise published uploads of a hundred files each."""
    config = load_config(CONFIG)
    plan: list[PlannedVisit] = []
    for number in range(n_files // 100):
        folder = root / INCOMING / f"S{number:04d}_a"
        folder.mkdir(parents=True)
        for index in range(100):
            (folder / f"IM{index:04d}.dcm").write_bytes(b"x")
        plan.append(PlannedVisit(f"S{number:04d}", "V1", "01", date(2026, 3, 4), 7, None, None, None))
    digests = matching_digests(config.matching, plan)
    published = _published(root, config, plan, digests)
    taken: list[int] = []

    def look() -> None:
        found = match_uploads(root, config.matching, config.uploads, tuple(plan), published, digests)
        taken.append(sum(upload.upload is None for uploads in found.taken.values() for upload in uploads))

    seconds = _seconds(look)
    if taken != [len(plan)]:
        message = f"{taken} uploads were recognised, expected {len(plan)}"
        raise RuntimeError(message)
    note = f"{len(plan)} published uploads"
    return [Figure(f"{n_files} unchanged files recognised", seconds, "s", "< 10 for 50000", note)]


def _published(
    root: Path, config: TrialConfig, plan: Sequence[PlannedVisit], digests: Mapping[str, str]
) -> Mapping[VisitKey, Mapping[str, Any]]:
    return {
        (line.subject_id, line.visit_id): {
            "matching_digest": digests[line.subject_id],
            "upload_fingerprints": [listing.fingerprint],
            "upload_digests": [f"{line.subject_id} digest"],
        }
        for line, listing in zip(plan, list_uploads(root, config.uploads), strict=True)
    }


def _write_visit(folder: Path) -> None:
    row, col = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    body = 800.0 * (row**2 + col**2 < 0.16) + 300.0 * np.sin(9.0 * row) * np.cos(7.0 * col)
    noise = np.random.default_rng(0).normal(0.0, 15.0, (SIZE, SIZE))
    pixels = np.abs(body + noise).astype(np.uint16)
    number = 0
    for series, (name, count, step) in enumerate((("native", N_NATIVE, 400.0), ("post", N_POST, 200.0))):
        for slice_index in range(N_SLICES):
            for echo in range(count):
                number += 1
                header = MrHeader(
                    patient_id=folder.name,
                    study_uid=deterministic_uid(folder.name),
                    series_uid=deterministic_uid(f"{folder.name}/{name}"),
                    instance_uid=deterministic_uid(f"{folder.name}/{number}"),
                    series_number=series,
                    instance_number=number,
                    series_description=f"MOLLI {name}",
                    acquired_at=STARTED_AT + timedelta(minutes=20 * series, seconds=number),
                    study_at=STARTED_AT,
                    inversion_time_ms=100.0 + step * echo,
                    position_mm=(0.0, 0.0, -10.0 * slice_index),
                    orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
                    pixel_spacing_mm=(1.5, 1.5),
                    slice_thickness_mm=8.0,
                    field_strength_t=3.0,
                )
                write_mr(folder / f"IM{number:04d}.dcm", np.roll(pixels, number), header)


def _take_in(folder: Path) -> None:
    """Do what the intake task does with a visit's upload."""
    config = load_config(CONFIG)
    upload = hash_upload(list_upload(folder, config.uploads))
    taken = intake_visit([upload], config.intake)
    digest = deterministic_uid(f"{folder.name}{time.time_ns()}")[-12:]
    with write_store(folder.parents[1], folder.name, "V1", digest) as store:
        for stack in (taken.native, taken.post):
            if stack is not None:
                write_stack(store, stack)


def _take_in_once(context: Any, folder: Path) -> None:  # noqa: ANN401  (multiprocessing has no name for it)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(_take_in, folder).result()


def _read_plainly(paths: Sequence[Path]) -> None:
    for path in paths:
        _ = pydicom.dcmread(path).pixel_array


def _seconds(work: Any) -> float:  # noqa: ANN401
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    print_figures("intake", intake_figures(quick=parser.parse_args().quick))


if __name__ == "__main__":
    main()
