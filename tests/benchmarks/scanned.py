"""Simulated visits, segmented as a night does it, kept in a folder so that several benches can read them.

``python -m tests.benchmarks.scanned FOLDER SEED FIRST LAST [DIFFICULTY]`` makes visits; what stands stays.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from cmrcore.phantom import Difficulty, SimulatedScan, simulate_scan
from cmrcore.phantom.trial import RoleEchoes
from cmrcore.quantify import GuideNote, Hematocrit, Series
from cmrcore.quantify.records import Role
from cmrcore.threads import one_thread
from flows.simulate import SCHEME_NATIVE, SCHEME_NATIVE_11, SCHEME_POST
from storage.config import load_config
from storage.dicom_series import EchoStack
from storage.geometry import anterior_direction
from storage.geometry import levels as levels_of
from tasks.segment import SliceMasks, compute_device, finder_of, note_of, segment_series, segmenter_of

DEMO_CONFIG = Path(__file__).parents[2] / "deploy" / "trials" / "demo.toml"
SCANNED_AT = datetime(2026, 3, 10, 9)
LARGEST_VALUE = 4095
"""Images are stored as whole numbers up to this one, as a scanner writes them."""


@dataclass(frozen=True, slots=True)
class ScannedVisit:
    """A simulated visit with the masks that a night would find, and its truth."""

    seed: int
    """Seed of the trial."""
    subject_index: int
    """Subject of that trial."""
    difficulty: str
    """Preset of the imperfections."""
    native: Series
    """Series before contrast."""
    post: Series
    """Series after contrast."""
    hematocrit: Hematocrit
    """True hematocrit of the day."""
    labels: dict[Role, Tensor]
    """True myocardium, blood pool and RV on every echo, ``label slice ti row col``."""
    maps: dict[str, Tensor]
    """True and ideal maps, as `cmrcore.phantom.truth.Truth` names them."""
    truth: dict[str, Any]
    """``scan`` and ``slices`` of the truth, ``landmarks_px``, ``field_strength_t`` and ``imperfections``."""


def scanned_visit(folder: Path, seed: int, subject_index: int, difficulty: Difficulty) -> ScannedVisit:
    """Read a visit from the folder, or simulate and segment it first."""
    file = folder / f"{difficulty}-{seed}-{subject_index:03d}.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with one_thread():
            _make(file, seed, subject_index, difficulty)
    return _read(file)


def scanned_visits(folder: Path, seed: int, n_visits: int, difficulty: Difficulty) -> Iterator[ScannedVisit]:
    """Yield the first visits of a trial, one a subject."""
    for subject_index in range(n_visits):
        yield scanned_visit(folder, seed, subject_index, difficulty)


def schemes_of(subject_index: int) -> dict[str, str]:
    """Give the scheme of each role; every third subject has a native one of eleven images."""
    return {
        "native": SCHEME_NATIVE_11 if subject_index % 3 == 2 else SCHEME_NATIVE,
        "post": SCHEME_POST,
    }


def _make(file: Path, seed: int, subject_index: int, difficulty: Difficulty) -> None:
    """Simulate and segment a visit without reader's guides, and store it whole or not at all."""
    scan = simulate_scan(
        seed,
        subject_index,
        0,
        scheme_native=schemes_of(subject_index)["native"],
        scheme_post=SCHEME_POST,
        difficulty=difficulty,
    )
    scale = echo_scale(scan)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    notes: dict[str, Any] = {}
    roles: tuple[tuple[Role, RoleEchoes], ...] = (("native", scan.native), ("post", scan.post))
    for role, taken in roles:
        of_role, notes[role] = _series_arrays(scan, role, taken, scale)
        arrays |= {f"{role}/{name}": values for name, values in of_role.items()}
    arrays |= {f"maps/{name}": values.float().numpy() for name, values in scan.truth.maps.items()}
    facts = {
        "seed": seed,
        "subject_index": subject_index,
        "difficulty": difficulty,
        "hematocrit_fraction": scan.hematocrit_fraction,
        "spacing_mm": scan.geometry.pixel_spacing_mm,
        "orientation": scan.geometry.orientation,
        "positions_mm": scan.geometry.positions_mm.tolist(),
        "notes": notes,
        "truth": {
            "scan": scan.truth.scan,
            "slices": scan.truth.slices,
            "landmarks_px": scan.landmarks_px.tolist(),
            "field_strength_t": scan.field_strength_t,
            "imperfections": scan.imperfections,
            "kind": scan.kind,
        },
    }
    aside = file.with_suffix(".part.npz")
    np.savez_compressed(aside, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
    aside.replace(file)


def echo_scale(scan: SimulatedScan) -> float:
    """Give what a scan's images are multiplied by so that they fit what a scanner writes."""
    largest = max(float(role.echoes.max()) for role in (scan.native, scan.post))
    return min(1.0, LARGEST_VALUE / largest)


def echo_stack(scan: SimulatedScan, role: Role, taken: RoleEchoes, scale: float) -> EchoStack:
    """Echoes of one role as intake would store them: whole numbers, by inversion time."""
    ti_ms, order = taken.ti_ms.sort(1)
    rows = torch.arange(len(order))[:, None]
    values = np.rint(taken.echoes[rows, order].numpy() * scale)
    orientation = scan.geometry.orientation
    return EchoStack(
        role=role,
        echoes=values.astype(np.float32),
        ti_ms=ti_ms.double().numpy(),
        acquisition_index=order.numpy(),
        ti_source=(),
        sources=(),
        positions_mm=tuple((x, y, z) for x, y, z in scan.geometry.positions_mm.tolist()),
        orientation=orientation,
        pixel_spacing_mm=scan.geometry.pixel_spacing_mm,
        slice_thickness_mm=None,
        levels=levels_of(len(values)),
        anterior=anterior_direction(orientation),
        scheme=taken.scheme,
        acquired_at=SCANNED_AT,
        study_date=SCANNED_AT.date(),
        field_strength_t=scan.field_strength_t,
        manufacturer="",
        scanner_model="",
        repeats=(),
    )


def _series_arrays(
    scan: SimulatedScan, role: Role, taken: RoleEchoes, scale: float
) -> tuple[dict[str, np.ndarray[Any, Any]], list[Any]]:
    """Echoes by inversion time, with the masks that trial.toml's networks find and what is noted of them."""
    stack = echo_stack(scan, role, taken, scale)
    values, order = stack.echoes.astype(np.uint16), torch.from_numpy(stack.acquisition_index)
    rows = torch.arange(len(order))[:, None]
    found = _segmented(stack)
    none = np.zeros((3, *values.shape[1:]), dtype=bool)
    return {
        "echoes": values,
        "ti_ms": stack.ti_ms,
        "acquisition_index": stack.acquisition_index,
        "reference_echo": np.array(
            [
                stack.acquisition_index[i].argmin() if one is None else one.guide.echo
                for i, one in enumerate(found)
            ]
        ),
        "masks": np.stack([none if one is None else one.found.masks.numpy() for one in found], 1),
        "guide": np.stack([none[:, 0] if one is None else one.guide.masks.numpy() for one in found], 1),
        "confidence": np.stack(
            [
                np.full(values.shape[1], np.nan) if one is None else one.found.confidence.numpy()
                for one in found
            ]
        ).astype(np.float32),
        "labels": taken.labels[:, rows, order].numpy(),
    }, [None if one is None else note_of(one.guide) for one in found]


def _segmented(stack: EchoStack) -> list[SliceMasks | None]:
    """Segment as the task does, with the demo's configuration and no reader's guide."""
    config = load_config(DEMO_CONFIG).segment
    device, here = compute_device(), Path()
    segmenter, finder = segmenter_of(here, config, device), finder_of(here, config, device)
    return segment_series(segmenter, finder, stack, None, config.alpha)


def _read(file: Path) -> ScannedVisit:
    """Read a stored visit."""
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    facts = json.loads(str(arrays.pop("facts")))
    series: dict[str, Series] = {}
    for role in get_args(Role):
        of_role = {name: torch.from_numpy(_plain(arrays[f"{role}/{name}"])) for name in _STORED}
        orientation = tuple(facts["orientation"])
        series[role] = Series(
            echoes=of_role["echoes"],
            ti_ms=of_role["ti_ms"],
            acquisition_index=of_role["acquisition_index"],
            masks=of_role["masks"],
            guide=of_role["guide"],
            confidence=of_role["confidence"],
            positions_mm=torch.tensor(facts["positions_mm"], dtype=torch.float64),
            pixel_spacing_mm=tuple(facts["spacing_mm"]),
            orientation=orientation,
            anterior=anterior_direction(orientation),
            levels=levels_of(len(of_role["echoes"])),
            scheme=schemes_of(facts["subject_index"])[role],
            field_strength_t=facts["truth"]["field_strength_t"],
            reference_echo=of_role["reference_echo"],
            guide_notes=tuple(
                None
                if note is None
                else GuideNote(
                    note["origin"], note["score"], tuple(note["findings"]), tuple(note["rejected"])
                )
                for note in facts["notes"][role]
            ),
        )
    return ScannedVisit(
        seed=facts["seed"],
        subject_index=facts["subject_index"],
        difficulty=facts["difficulty"],
        native=series["native"],
        post=series["post"],
        hematocrit=Hematocrit(facts["hematocrit_fraction"], SCANNED_AT.date(), None, "truth"),
        labels={role: torch.from_numpy(arrays[f"{role}/labels"]) for role in get_args(Role)},
        maps={
            name.removeprefix("maps/"): torch.from_numpy(values)
            for name, values in arrays.items()
            if name.startswith("maps/")
        },
        truth=facts["truth"],
    )


_STORED = ("echoes", "ti_ms", "acquisition_index", "masks", "guide", "confidence", "reference_echo")


def _plain(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images as numbers that torch computes with."""
    return values.astype(np.float32) if values.dtype == np.uint16 else values


def main() -> None:
    """Make the visits that the command line names."""
    folder, seed, first, last, *rest = sys.argv[1:]
    difficulty: Any = rest[0] if rest else "typical"
    for subject_index in range(int(first), int(last)):
        scanned_visit(Path(folder), int(seed), subject_index, difficulty)
        sys.stdout.write(f"{difficulty} {seed} {subject_index}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
