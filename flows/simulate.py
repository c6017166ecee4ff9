"""A digital trial on disk: uploads as sites send them, the plan, the configuration, and the truth."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, time, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cmrcore.phantom import Difficulty, SimulatedScan, simulate_scan, site_scanner
from cmrcore.threads import one_thread
from flows.errors import FlowError
from flows.simulated_upload import write_upload
from flows.simulated_visit import Fault, GuideFormat, SimulatedVisit
from storage.config import CONFIG_FILE
from storage.plan import OPTIONAL_COLUMNS, PLAN_FILE, REQUIRED_COLUMNS
from storage.truth import TRUTH, write_truth_arrays, write_truth_tables
from storage.vendor_write import Flavor, Syntax

Vendor = Literal["phantom", "siemens", "philips", "ge", "mixed"]

Guides = Literal["all", "some", "none"]

FIRST_VISIT = date(2026, 1, 12)
VISIT_INTERVAL = timedelta(days=182)
WINDOW_DAYS = 14
SCHEME_NATIVE, SCHEME_NATIVE_11, SCHEME_POST = "5(3)3", "3(3)3(3)5", "4(1)3(1)2"

DEMO_FAULTS: tuple[Fault, ...] = ("broken_file", "no_guide", "no_hematocrit")
"""What goes wrong where nothing else is asked for."""

FLAVORS: dict[Vendor, tuple[Flavor, ...]] = {
    "phantom": ("phantom", "phantom"),
    "siemens": ("siemens-ve", "siemens-xa"),
    "philips": ("philips", "philips-enhanced"),
    "ge": ("ge", "ge"),
    "mixed": ("siemens-ve", "philips", "ge", "siemens-xa", "philips-enhanced"),
}
"""Scanners of a trial, one a site."""

COMPRESSIONS: tuple[Syntax, ...] = ("jpeg-lossless", "jpeg-ls", "jpeg-2000", "rle", "deflated")
"""Encodings that the fault ``compressed`` goes through, visit by visit."""

RECIPE_FILE = "simulation.json"


class NotEmptyError(FlowError, FileExistsError):
    """A trial would be written over something else."""


class UnknownFaultError(FlowError, ValueError):
    """A fault was asked for that the simulator does not know."""


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read a list of faults, separated by commas; ``demo`` stands for `DEMO_FAULTS`.

    Raises
    ------
    UnknownFaultError
        Naming what is unknown and what there is.
    """
    known: dict[str, tuple[Fault, ...]] = {fault: (fault,) for fault in get_args(Fault)}
    known["demo"] = DEMO_FAULTS
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        message = f"no fault {', '.join(unknown)}; there are {', '.join(known)}"
        raise UnknownFaultError(message)
    return tuple(dict.fromkeys(fault for name in names for fault in known[name]))


@dataclass(frozen=True, slots=True)
class Recipe:
    """What makes a digital trial; the same recipe gives the same bytes."""

    n_subjects: int
    """Number of subjects."""
    n_visits: int
    """Visits a subject, half a year apart."""
    seed: int
    """Seed of all that is drawn."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong; each fault strikes one visit, ``compressed`` and ``scanner_change`` several."""
    difficulty: Difficulty = "clean"
    """How far the images are from ideal."""
    vendor: Vendor = "phantom"
    """Whose scanners the sites have."""
    guides: Guides = "all"
    """Which visits come with a reader's guiding masks; ``some``: every third."""

    def visits(self) -> Iterator[SimulatedVisit]:
        """Yield every visit with what is particular about it."""
        flavors = FLAVORS[self.vendor]
        for subject in range(self.n_subjects):
            for visit in range(self.n_visits):
                rng = np.random.default_rng([self.seed, subject, visit])
                planned = FIRST_VISIT + subject * timedelta(days=7) + visit * VISIT_INTERVAL
                faults = frozenset(fault for fault in self.faults if self._strikes(fault, subject, visit))
                site = subject % len(flavors)
                number = subject * self.n_visits + visit
                yield SimulatedVisit(
                    subject_index=subject,
                    visit_index=visit,
                    site_index=site,
                    planned_on=planned,
                    scanned_at=datetime.combine(planned, time(10)) + timedelta(days=int(rng.integers(-5, 6))),
                    scheme_native=SCHEME_NATIVE_11 if subject == 2 else SCHEME_NATIVE,
                    scheme_post=SCHEME_POST,
                    guide_format=self._guide_format(subject, number),
                    flavor=flavors[(site + ("scanner_change" in faults)) % len(flavors)],
                    syntax=COMPRESSIONS[number % len(COMPRESSIONS)] if "compressed" in faults else "explicit",
                    faults=faults,
                )

    def _guide_format(self, subject: int, number: int) -> GuideFormat | None:
        """How a visit's guides are sent."""
        if self.guides == "none" or (self.guides == "some" and number % 3 != 0):
            return None
        return "nifti" if subject == 1 else "seg"

    def _strikes(self, fault: Fault, subject: int, visit: int) -> bool:
        """Whether a fault strikes a visit."""
        is_last = visit == self.n_visits - 1
        struck: dict[Fault, bool] = {
            "broken_file": subject == self.n_subjects - 1 and is_last,
            "no_guide": subject == 3 and is_last,
            "no_hematocrit": subject == 4 and visit == 0,
            "duplicate_upload": subject == 0 and visit == 0,
            "missing_echo": subject == 1 % self.n_subjects and visit == 0,
            "repeated_time": subject == 2 % self.n_subjects and is_last,
            "repeated_slice": subject == 0 and is_last,
            "same_uid": subject == 3 % self.n_subjects and visit == 0,
            "post_elsewhere": subject == 4 % self.n_subjects and is_last,
            "zip": subject == 5 % self.n_subjects and visit == 0,
            "compressed": True,
            "scanner_change": visit > 0 and subject % len(FLAVORS[self.vendor]) == 0,
        }
        return struck[fault]


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
    if done.is_file() and json.loads(done.read_text()) == _as_json(recipe):
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
        with one_thread():
            scan = _simulate(recipe, visit)
        write_upload(root, visit, scan, recipe.seed)
        plan.append(_plan_line(visit, scan))
        ids = {"subject_id": visit.subject_id, "visit_id": visit.visit_id}
        scans.append({**ids, "level": "global", **scan.truth.scan, **scan.longitudinal})
        slices += [{**ids, **row} for row in scan.truth.slices]
        write_truth_arrays(root, visit.subject_id, visit.visit_id, scan.truth_arrays())
        on_visit(f"{visit.subject_id}/{visit.visit_id}")
    write_truth_tables(root, scans, slices)
    _write_plan(root, plan)
    done.write_text(json.dumps(_as_json(recipe)))


def _simulate(recipe: Recipe, visit: SimulatedVisit) -> SimulatedScan:
    """Simulate a visit's scan on the scanner that its site has by then."""
    changes_at_visit = 1 if "scanner_change" in visit.faults else None
    return simulate_scan(
        recipe.seed,
        visit.subject_index,
        visit.visit_index,
        scheme_native=visit.scheme_native,
        scheme_post=visit.scheme_post,
        difficulty=recipe.difficulty,
        scanner=site_scanner(recipe.seed, visit.site_index, visit.visit_index, changes_at_visit),
    )


def _as_json(recipe: Recipe) -> dict[str, Any]:
    return {**asdict(recipe), "faults": list(recipe.faults)}


def _write_plan(root: Path, plan: Sequence[dict[str, Any]]) -> None:
    with (root / PLAN_FILE).open("w", newline="") as file:
        writer = csv.DictWriter(file, (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS))
        writer.writeheader()
        writer.writerows(plan)


def _plan_line(visit: SimulatedVisit, scan: SimulatedScan) -> dict[str, Any]:
    line: dict[str, Any] = {
        "subject_id": visit.subject_id,
        "visit_id": visit.visit_id,
        "visit_date": visit.planned_on,
        "window_days": WINDOW_DAYS,
        "site_id": visit.site_id,
    }
    if "no_hematocrit" not in visit.faults:
        drawn_at = visit.scanned_at - timedelta(minutes=90)
        line |= {
            "hematocrit_fraction": scan.hematocrit_fraction,
            "hematocrit_date": drawn_at.date(),
            # Every third subject's laboratory gives no time of day.
            "hematocrit_time": "" if visit.subject_index % 3 == 1 else f"{drawn_at:%H:%M}",
        }
    return line
