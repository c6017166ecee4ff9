"""Where nights are killed: a site, a trial that no night has seen, and the record of one left in peace."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.config import CONFIG_FILE
from tests.benchmarks.kill_check import Record, record_of
from tests.benchmarks.kill_site import Server, begin_night, cluster, end_of
from tests.benchmarks.stub_trial import FIRST_VISIT, add_upload, make_stub_trial

FAULTS = {(1, 0): "failed", (1, 1): "refused"}
"""Of two subjects with two visits each; there is also an upload that nobody takes."""


class Ground:
    """Where points are tried."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.keeper = 0
        """Process that keeps the cluster's workers."""
        self.night_s = 0.0
        """What a night in peace takes [s]."""
        self.night_steps = 0
        """Its steps on the disk."""
        self.reference: Record
        self._pristine = folder / "pristine"
        make_stub_trial(self._pristine, 2, 2, FAULTS)
        add_upload(self._pristine, "nobody", FIRST_VISIT)
        config = self._pristine / CONFIG_FILE  # its digest stands in each row, so for all points the same
        config.write_text(re.sub(r'^cron = "[^"]*"', 'cron = "0 0 1 1 *"', config.read_text(), flags=re.M))

    @contextmanager
    def cluster(self) -> Iterator[None]:
        """Keep a cluster for all points that do not kill it as a whole."""
        with cluster(self.folder) as self.keeper:
            yield

    def measure(self) -> None:
        """Run two nights in peace, and note what the second took: the first warms the workers up.

        Raises
        ------
        RuntimeError
            When one does not end as it should: an upload is refused, and a visit fails.
        """
        for number in (1, 2):
            root = self.trial(f"reference{number}")
            started = time.monotonic()
            code = end_of(begin_night(root, root.parent / "log"))
            self.night_s = time.monotonic() - started
            if code != 1:
                message = f"a night in peace ended with {code}, see {root.parent / 'log'}"
                raise RuntimeError(message)
            self.night_steps = int((root.parent / "steps").read_text())
        self.reference = record_of(root)

    def trial(self, name: str) -> Path:
        """Give a copy of the trial with the times of its files."""
        root = self.folder / name / "trial"
        shutil.rmtree(root.parent, ignore_errors=True)
        root.parent.mkdir()
        self.fill(root)
        return root

    def fill(self, root: Path) -> None:
        """Copy the trial to a place that is empty."""
        shutil.copytree(self._pristine, root, copy_function=shutil.copy2)

    def in_peace(self, root: Path) -> list[str]:
        """Run a night that nothing happens to; say what went wrong."""
        code = end_of(begin_night(root, root.parent / "log"))
        return [] if code in (0, 1) else [f"the night in peace ended with {code}"]

    def unmount(self, root: Path, *, keep: bool) -> None:
        """Take away the disk that a trial had for itself; its files stay where that is asked."""
        if os.path.ismount(root.parent):
            if keep:
                shutil.copytree(root.parent, self.folder / f"{root.parent.name}-kept", dirs_exist_ok=True)
            subprocess.run(["umount", "-l", root.parent], check=True)
