"""What each worker process of a night's own cluster does first."""

import signal

from distributed import Worker


def dask_setup(worker: Worker) -> None:  # noqa: ARG001 (Dask names it)
    """Leave Ctrl-C to the night, which ends its workers: a terminal sends it to all processes at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
