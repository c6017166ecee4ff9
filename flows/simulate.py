"""A digital trial on disk: uploads as sites send them, the plan, the configuration, and the truth."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, time, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt16
from torch import Tensor

from cmrcore.phantom import RoleEchoes, SimulatedScan, simulate_scan
from flows.errors import FlowError
from storage.config import CONFIG_FILE, load_config
from storage.dicom_write import MrHeader, deterministic_uid, write_guide_nifti, write_guide_seg, write_mr
from storage.geometry import StackGeometry, Vector
from storage.plan import OPTIONAL_COLUMNS, PLAN_FILE, REQUIRED_COLUMNS
from storage.truth import TRUTH, write_truth_arrays, write_truth_tables
from storage.upload import INCOMING

FIRST_VISIT = date(2026, 1, 12)
VISIT_INTERVAL = timedelta(days=182)
WINDOW_DAYS = 14
SCHEME_NATIVE, SCHEME_NATIVE_11, SCHEME_POST = "5(3)3", "3(3)3(3)5", "4(1)3(1)2"
POST_DELAY = timedelta(minutes=15)
CUT_OFF_BYTES = 5000

RECIPE_FILE = "simulation.json"


class NotEmptyError(FlowError, FileExistsError):
    """A trial would be written over something else."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What makes a digital trial; the same recipe gives the same bytes."""

    n_subjects: int
    """Number of subjects."""
    n_visits: int
    """Visits a subject, half a year apart."""
    seed: int
    """Seed of all that is drawn."""
    faults: bool
    """Whether one upload is broken, one has no guide, and one hematocrit is missing."""

    def visits(self) -> Iterator["SimulatedVisit"]:
        """Yield every visit with what is particular about it."""
        for subject in range(self.n_subjects):
            for visit in range(self.n_visits):
                is_last = visit == self.n_visits - 1
                rng = np.random.default_rng([self.seed, subject, visit])
                planned = FIRST_VISIT + subject * timedelta(days=7) + visit * VISIT_INTERVAL
                yield SimulatedVisit(
                    subject_index=subject,
                    visit_index=visit,
                    planned_on=planned,
                    scanned_at=datetime.combine(planned, time(10)) + timedelta(days=int(rng.integers(-5, 6))),
                    scheme_native=SCHEME_NATIVE_11 if subject == 2 else SCHEME_NATIVE,
                    guide_format="nifti" if subject == 1 else "seg",
                    has_guide=not (self.faults and subject == 3 and is_last),
                    has_hematocrit=not (self.faults and subject == 4 and visit == 0),
                    is_broken=self.faults and subject == self.n_subjects - 1 and is_last,
                )


@dataclass(frozen=True, slots=True)
class SimulatedVisit:
    """One visit of a digital trial."""

    subject_index: int
    """Which subject, from 0."""
    visit_index: int
    """Which visit, from 0."""
    planned_on: date
    """Date in subjects.csv."""
    scanned_at: datetime
    """Start of the native series, scanner's local time."""
    scheme_native: str
    """MOLLI scheme before contrast."""
    guide_format: str
    """How the guiding masks are sent: ``seg`` (DICOM) or ``nifti``."""
    has_guide: bool
    """Whether guiding masks are sent at all."""
    has_hematocrit: bool
    """Whether subjects.csv knows the hematocrit."""
    is_broken: bool
    """Whether one native image arrives cut off."""

    @property
    def subject_id(self) -> str:
        """Pseudonym of the subject."""
        return f"S{self.subject_index + 1:02d}"

    @property
    def visit_id(self) -> str:
        """Name of the visit."""
        return f"V{self.visit_index + 1}"

    @property
    def site_id(self) -> str:
        """Site of the subject; text, so that the zero stays."""
        return f"{self.subject_index % 2 + 1:02d}"

    @property
    def folder(self) -> Path:
        """Folder of the upload, below the trial's root."""
        return Path(INCOMING) / f"{self.subject_id}_{self.scanned_at:%Y%m%d}"


def simulate_trial(root: Path, recipe: Recipe, on_visit: Callable[[str], None]) -> None:
    """Write a digital trial; where the same one stands already, nothing is done.

    Parameters
    ----------
    root
        New or empty folder.
    recipe
        What to simulate.
    on_visit
        Told the name of each visit when it is written.

    Raises
    ------
    NotEmptyError
        When the folder holds something else.
    """
    done = root / TRUTH / RECIPE_FILE
    if done.is_file() and json.loads(done.read_text()) == asdict(recipe):
        return
    if root.exists() and any(root.iterdir()):
        message = (
            f"{root} is not empty and holds another trial or half of one; remove it or name another folder"
        )
        raise NotEmptyError(message)
    root.mkdir(parents=True, exist_ok=True)
    (root / CONFIG_FILE).write_bytes(files("deploy.trials").joinpath("demo.toml").read_bytes())
    scans: list[dict[str, Any]] = []
    slices: list[dict[str, Any]] = []
    plan: list[dict[str, Any]] = []
    for visit in recipe.visits():
        scan = simulate_scan(
            recipe.seed,
            visit.subject_index,
            visit.visit_index,
            scheme_native=visit.scheme_native,
            scheme_post=SCHEME_POST,
            difficulty="clean",
        )
        _write_upload(root, visit, scan, recipe.seed)
        plan.append(_plan_line(visit, scan))
        ids = {"subject_id": visit.subject_id, "visit_id": visit.visit_id}
        scans.append({**ids, "level": "global", **scan.truth.scan, **scan.longitudinal})
        slices += [{**ids, **row} for row in scan.truth.slices]
        write_truth_arrays(root, visit.subject_id, visit.visit_id, scan.truth_arrays())
        on_visit(f"{visit.subject_id}/{visit.visit_id}")
    write_truth_tables(root, scans, slices)
    with (root / PLAN_FILE).open("w", newline="") as file:
        writer = csv.DictWriter(file, (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS))
        writer.writeheader()
        writer.writerows(plan)
    done.write_text(json.dumps(asdict(recipe)))


def _plan_line(visit: SimulatedVisit, scan: SimulatedScan) -> dict[str, Any]:
    line: dict[str, Any] = {
        "subject_id": visit.subject_id,
        "visit_id": visit.visit_id,
        "visit_date": visit.planned_on,
        "window_days": WINDOW_DAYS,
        "site_id": visit.site_id,
    }
    if visit.has_hematocrit:
        drawn_at = visit.scanned_at - timedelta(minutes=90)
        line |= {
            "hematocrit_fraction": scan.hematocrit_fraction,
            "hematocrit_date": drawn_at.date(),
            # Every third subject's laboratory gives no time of day.
            "hematocrit_time": "" if visit.subject_index % 3 == 1 else f"{drawn_at:%H:%M}",
        }
    return line


def _write_upload(root: Path, visit: SimulatedVisit, scan: SimulatedScan, seed: int) -> None:
    """Write the images in scrambled order under names that mean nothing, as transfers leave them."""
    folder = root / visit.folder
    study = f"{seed}/{visit.subject_id}/{visit.visit_id}"
    n_images = 1 + sum(echoes.ti_ms.numel() for echoes in (scan.native, scan.post))
    names = np.random.default_rng([seed, visit.subject_index, visit.visit_index, 1]).permutation(n_images)
    paths = iter([folder / f"IM{number:04d}.dcm" for number in names])
    geometry = StackGeometry(
        positions_mm=tuple((x, y, z) for x, y, z in scan.geometry.positions_mm.tolist()),
        orientation=scan.geometry.orientation,
        pixel_spacing_mm=scan.geometry.pixel_spacing_mm,
        shape=(scan.labels.shape[-2], scan.labels.shape[-1]),
    )
    study_header = MrHeader(
        patient_id=visit.subject_id,
        study_uid=deterministic_uid(study),
        series_uid=deterministic_uid(f"{study}/1"),
        instance_uid=deterministic_uid(f"{study}/1/0"),
        series_number=1,
        instance_number=1,
        series_description="localizer",
        acquired_at=visit.scanned_at - timedelta(minutes=5),
        study_at=visit.scanned_at - timedelta(minutes=10),
        inversion_time_ms=None,
        position_mm=geometry.positions_mm[0],
        orientation=geometry.orientation,
        pixel_spacing_mm=geometry.pixel_spacing_mm,
        slice_thickness_mm=scan.geometry.slice_thickness_mm,
        field_strength_t=scan.field_strength_t,
    )
    write_mr(next(paths), _stored_pixels(scan.native.echoes[0, -1]), study_header)
    written: dict[str, list[list[Path]]] = {}
    for role, echoes, number, delay in (
        ("native", scan.native, 2, timedelta(0)),
        ("post", scan.post, 3, POST_DELAY),
    ):
        series_header = replace(
            study_header,
            series_uid=deterministic_uid(f"{study}/{number}"),
            series_number=number,
            series_description=f"MOLLI {echoes.scheme} SAX {role}",
            acquired_at=visit.scanned_at + delay,
        )
        written[role] = _write_series(paths, echoes, geometry.positions_mm, series_header)
    if visit.has_guide:
        _write_guides(
            root, visit, scan, geometry, {role: [row[0] for row in rows] for role, rows in written.items()}
        )
    if visit.is_broken:
        cut = written["native"][1][2]
        cut.write_bytes(cut.read_bytes()[:-CUT_OFF_BYTES])


def _write_series(
    paths: Iterator[Path], echoes: RoleEchoes, positions_mm: Sequence[Vector], header: MrHeader
) -> list[list[Path]]:
    """Write the images of one role; give their files by slice, in acquisition order."""
    written: list[list[Path]] = []
    for slice_index, (images, times, position) in enumerate(
        zip(echoes.echoes, echoes.ti_ms, positions_mm, strict=True)
    ):
        written.append([])
        for index, (image, ti_ms) in enumerate(zip(images, times.tolist(), strict=True)):
            number = slice_index * len(images) + index + 1
            path = next(paths)
            frame = replace(
                header,
                instance_uid=deterministic_uid(f"{header.series_uid}/{number}"),
                instance_number=number,
                acquired_at=header.acquired_at + timedelta(seconds=20 * slice_index + index),
                inversion_time_ms=ti_ms,
                position_mm=position,
            )
            write_mr(path, _stored_pixels(image), frame)
            written[-1].append(path)
    return written


def _write_guides(
    root: Path,
    visit: SimulatedVisit,
    scan: SimulatedScan,
    geometry: StackGeometry,
    first_images: Mapping[str, list[Path]],
) -> None:
    """Write a reader's masks of the first echo: a DICOM SEG for each role, or one NIfTI file for both."""
    folder = root / visit.folder
    masks = scan.labels.numpy()
    if visit.guide_format == "nifti":
        values = load_config(root / CONFIG_FILE).intake.guide.nifti_labels.model_dump()
        write_guide_nifti(folder / "guide.nii.gz", masks, geometry, values)
        return
    for role, images in first_images.items():
        masks = {"native": scan.native, "post": scan.post}[role].labels[:, :, 0].numpy()
        write_guide_seg(folder / f"guide_{role}.dcm", masks, images, f"{visit.folder}/guide/{role}")


def _stored_pixels(image: Tensor) -> UInt16[np.ndarray, "row col"]:
    """Round to the integers that DICOM stores."""
    stored: UInt16[np.ndarray, "row col"] = np.clip(np.rint(image.numpy()), 0, 65535).astype(np.uint16)
    return stored
