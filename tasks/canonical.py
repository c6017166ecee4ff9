"""One line of ``key=value`` for each visit and stage, so that logs can be searched and summed by machine."""

import re
from pathlib import Path

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def canonical_line(
    *,
    trial: str,
    subject: str,
    visit: str | None,
    stage: str,
    state: str,
    run: str,
    seconds: float | None = None,
    peak_memory_mib: float | None = None,
    verdict: str | None = None,
    device: str | None = None,
) -> str:
    """Write the line; what is not known or does not apply is ``-``.

    Parameters
    ----------
    trial, subject, visit
        Pseudonymous ids; no visit where a stage is a subject's.
    stage, state
        Which stage, and how it ended.
    run
        Prefect's id of the flow run.
    seconds
        Wall time of the work [s].
    peak_memory_mib
        Most memory that the process held meanwhile [MiB].
    verdict
        Verdict of the checks, where a result was published.
    device
        What computed.
    """
    values = {
        "trial": trial,
        "subject": subject,
        "visit": visit,
        "stage": stage,
        "state": state,
        "seconds": None if seconds is None else f"{seconds:.2f}",
        "peak_memory_mib": None if peak_memory_mib is None else f"{peak_memory_mib:.0f}",
        "verdict": verdict,
        "device": device,
        "run": run,
    }
    return " ".join(f"{name}={'-' if value is None else value}" for name, value in values.items())


def forget_peak_memory() -> None:
    """Count this process's peak memory from here; nothing where the system cannot (see `peak_memory_mib`)."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return


def peak_memory_mib() -> float | None:
    """Most memory that this process held since `forget_peak_memory` [MiB]; None where /proc does not say."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None
