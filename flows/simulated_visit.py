"""One visit of a digital trial: when, on which scanner, and what goes wrong."""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Literal

from storage.upload import INCOMING
from storage.vendor_write import Flavor, Syntax

Fault = Literal[
    "broken_file",
    "no_guide",
    "no_hematocrit",
    "duplicate_upload",
    "missing_echo",
    "repeated_time",
    "repeated_slice",
    "same_uid",
    "post_elsewhere",
    "zip",
    "compressed",
    "scanner_change",
]
"""What sites do to their uploads: an image cut off, masks or hematocrit not sent, the same upload twice, an
image not sent, two images with one inversion time, a slice acquired again after an attempt that was broken
off, an image under the identifier of another, post-contrast slices 5 mm off, a zip file, compressed pixels,
another scanner than before."""

GuideFormat = Literal["seg", "nifti"]


@dataclass(frozen=True, slots=True)
class SimulatedVisit:
    """What is particular about one visit."""

    subject_index: int
    """Which subject, from 0."""
    visit_index: int
    """Which visit, from 0."""
    site_index: int
    """Which site, from 0."""
    planned_on: date
    """Date in subjects.csv."""
    scanned_at: datetime
    """Start of the native series, scanner's local time."""
    scheme_native: str
    """MOLLI scheme before contrast."""
    scheme_post: str
    """MOLLI scheme after contrast."""
    guide_format: GuideFormat | None
    """How the guiding masks are sent: ``seg`` (DICOM) or ``nifti``; None: there are none."""
    flavor: Flavor
    """How the scanner writes."""
    syntax: Syntax
    """How the files are encoded."""
    faults: frozenset[Fault]
    """What goes wrong."""

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
        return f"{self.site_index + 1:02d}"

    @property
    def folder(self) -> Path:
        """Folder of the upload, below the trial's root."""
        return Path(INCOMING) / f"{self.subject_id}_{self.scanned_at:%Y%m%d}"
