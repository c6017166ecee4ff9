"""What the stages of a visit share: which visit, what they hand on, and the rule that nothing runs twice."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from prefect.logging import get_run_logger

from storage.arrays import store_exists
from storage.place import Place, to_place
from tasks.canonical import forget_peak_memory, peak_memory_mib

StageName = Literal["intake", "segment", "quantify", "summarise"]

RESULT_VERSIONS: dict[StageName, int] = {"intake": 4, "segment": 5, "quantify": 9, "summarise": 4}
"""Raised by hand when a stage's numbers change; part of the stage's digest."""


@dataclass(frozen=True, slots=True)
class VisitRef:
    """A planned visit in a trial's root."""

    root: str = field(repr=False)
    """Folder or URL of the trial."""
    subject_id: str
    """Pseudonym of the subject."""
    visit_id: str
    """Planned visit of that subject."""
    site_id: str
    """Site that uploads for the subject."""

    @property
    def label(self) -> str:
        """Name of the visit in logs and task runs."""
        return f"{self.subject_id}/{self.visit_id}"

    @property
    def path(self) -> Place:
        """Root of the trial."""
        return to_place(self.root)


@dataclass(frozen=True, slots=True)
class GuideSource:
    """Another visit of the subject, whose guides are carried to this one."""

    visit_id: str
    """The visit."""
    segment_digest: str
    """Digest of its segment stage, which names the store that holds them."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage hands on: a reference to what it stored, never the arrays."""

    digest: str
    """Digest of the stage, which names its store."""
    seconds: float | None
    """Wall time of the work [s]; None where the store stood already."""
    device: str | None
    """Device that computed, such as ``cpu`` or ``cuda:0``; None where the store stood already."""
    peak_memory_mib: float | None = None
    """Most memory that the worker's process held meanwhile [MiB]; None where nobody can tell."""


def run_stage(
    visit: VisitRef,
    stage: StageName,
    digest: str,
    work: Callable[[], str],
    *,
    force: bool,
    device: str = "cpu",
) -> StageResult:
    """Do a stage's work unless its store stands, and log what was found; the night adds its canonical line.

    Parameters
    ----------
    visit, stage, digest
        Whose work it is and what names its store.
    work
        Computes and stores; returns what the log shall say, without site file names.
    force
        Compute again although the store stands; the store then proves that the result is the same.
    device
        Where ``work`` computes.
    """
    log = get_run_logger()
    if not force and store_exists(visit.path, visit.subject_id, visit.visit_id, digest):
        log.info("%s %s stored already, digest=%.12s", stage, visit.label, digest)
        return StageResult(digest, None, None)
    forget_peak_memory()
    started = time.perf_counter()
    summary = work()
    seconds = time.perf_counter() - started
    log.info("%s %s executed, %s seconds=%.2f digest=%.12s", stage, visit.label, summary, seconds, digest)
    return StageResult(digest, round(seconds, 3), device, peak_memory_mib())
