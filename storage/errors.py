"""Errors of `storage`: one base, and one class for each thing a caller treats differently."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Remedy = Literal["send", "mend", "choose"]


def os_reason(error: OSError) -> str:
    """Give what the operating system said, without the path that the error's own text holds."""
    return error.strerror or type(error).__name__


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """One file of an upload that cannot be used."""

    upload_id: str
    """Upload the file came in."""
    file_number: int
    """Number of the file in the upload, from 1."""
    reason: str
    """Why it cannot be used, without the site's names."""
    path: Path = field(repr=False)
    """Where it lies in incoming/; for quarantine only."""
    sha256: str
    """Digest of the bytes that are refused."""
    remedy: Remedy = "send"
    """What the site can do: send it again, mend it as the reason says, or choose one of two."""

    def __str__(self) -> str:
        return f"upload {self.upload_id}, file {self.file_number}: {self.reason}"


class StorageError(Exception):
    """Base of every error raised by `storage`."""


class RefusedError(StorageError, ValueError):
    """An upload, or one file of it, cannot be used.

    Parameters
    ----------
    reason
        What was found and what was expected, without the site's names.
    files
        The files that are refused one by one, for quarantine.
    """

    def __init__(self, reason: str, files: tuple[RefusedFile, ...] = ()) -> None:
        super().__init__(reason, files)
        self.reason = reason
        self.files = files

    def __str__(self) -> str:
        return self.reason


class UploadChangedError(StorageError):
    """An upload is not, or no longer, what was listed: it is still arriving, and is read again later."""


class UnreadableError(StorageError, OSError):
    """The machine could not read a file now; whether the file is good is not known."""


class ReaderTableError(StorageError, ValueError):
    """A reader's numbers that cannot be trusted."""


class DecisionsError(StorageError, ValueError):
    """A reader's decisions that cannot be recorded."""


class PlanError(StorageError, ValueError):
    """subjects.csv has errors; the message lists all of them with their row numbers."""


class ConfigError(StorageError, ValueError):
    """trial.toml or the environment has errors; the message names each key and what was expected."""


class TamperedError(StorageError, ValueError):
    """The audit log, or what it speaks of, is not as it was written."""


class AlreadyWrittenError(StorageError, FileExistsError):
    """A write-once place already holds something else."""


class NotStoredError(StorageError, FileNotFoundError):
    """What was asked for is not in the trial's root."""


class BusyError(StorageError, BlockingIOError):
    """Somebody else writes a trial that has one writer at a time."""


class BrokenOffError(StorageError):
    """A publication broke off, and so did its second try: the next writer sees what became of it."""


class LeaseLostError(StorageError, OSError):
    """Somebody else has taken a trial over from this process, which was silent for too long."""
