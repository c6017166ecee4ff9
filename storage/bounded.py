"""Strangers' bytes, parsed in a child process that has limits: a crash or hang there costs one file.

One child serves a process for as long as it lives; a child that dies is replaced. The child answers in JSON
and raw bytes that are checked here (see `storage.bounded_wire` for why there are no pickles).
"""

import atexit
import errno
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from storage.bounded_process import ChildProcess, DeadChildError
from storage.bounded_wire import (
    adapter,
    source_text,
    unpack_frames,
    unpack_guide,
    unpack_instances,
)
from storage.config_intake import NiftiLabels, SpinLockRule
from storage.config_uploads import PrivacyConfig, UploadsConfig
from storage.dicom_pixels import Frames, wanted_frames
from storage.dicom_read import FileSource, Instance
from storage.errors import RefusedError
from storage.guide import Guide
from storage.header_read import FileHeader, HeaderPart
from storage.zipped import MIB, ZipMember

WALL_FACTOR = 10.0
"""Wall time over processor time that a request may take: the machine may be busy."""

UNPACK_MIB_PER_S = 10.0
"""Speed at which a zip file is unpacked at least, hashing included."""

BATCH = 100
"""Files that are asked for at once, so that the child need not wait for the next question."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Question(Generic[Value]):
    """What is asked of one file."""

    path: Path
    """The file."""
    source: FileSource | None
    """Its stand-in."""
    request: dict[str, Any]
    """What to do with it."""
    take: Callable[[Any, bytearray], Value]
    """Checks the answer."""
    more_s: float = 0.0
    """Processor time beyond that of a file of an upload [s]."""

    def outcome(self, text: dict[str, Any], raw: bytearray) -> Value | RefusedError | OSError:
        """Give what the child's answer amounts to."""
        if "refused" in text:
            return RefusedError(str(text["refused"]))
        if "unreadable" in text:
            return OSError(int(text["errno"] or errno.EIO), str(text["unreadable"]))
        try:
            return self.take(text, raw)
        except (ValueError, LookupError, TypeError):
            return RefusedError(_named(self.source, "what its reader says of it does not fit its kind"))


class BoundedReader:
    """Reads files in a child process. Not for use by two threads at once without waiting for each other.

    Parameters
    ----------
    rules
        Processor time and memory of one request, and limits of zip files.
    module
        What the child runs.
    wall_factor
        Wall time over processor time that a request may take.
    """

    def __init__(
        self,
        rules: UploadsConfig,
        module: str = "storage.bounded_child",
        wall_factor: float = WALL_FACTOR,
    ) -> None:
        self._wall_factor = wall_factor
        self._zip_rules = rules
        self._read_s = rules.read_seconds
        self._lock = threading.Lock()
        self._child = ChildProcess(module, int(rules.read_memory_mib * MIB), wall_factor)

    @property
    def n_started(self) -> int:
        """Children started so far."""
        return self._child.n_started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the next request starts another."""
        self._child.close()

    def read_identity(self, path: Path, source: FileSource) -> tuple[str, date | None] | None:
        """PatientID and StudyDate of a file; None where it is not DICOM.

        Raises
        ------
        RefusedError
            If it cannot be read within the limits, as do all other methods.
        OSError
            If the machine cannot read it; its text holds no path. So do all other methods.
        """

        def take(text: Any, _: bytearray) -> tuple[str, date | None] | None:  # noqa: ANN401
            identity: tuple[str, date | None] | None = adapter(
                tuple[str, date | None] | None
            ).validate_python(text["identity"])
            return identity

        return self._ask(path, source, {"do": "identity"}, take)

    def read_file(self, path: Path, source: FileSource) -> tuple[Instance, ...] | None:
        """Images of a file, as `storage.dicom_read.read_file`."""
        return _value(self.read_files([(path, source)])[0])

    def read_files(
        self, files: Sequence[tuple[Path, FileSource]], spin_lock: Sequence[SpinLockRule] = ()
    ) -> list[tuple[Instance, ...] | RefusedError | OSError | None]:
        """Read the images of many files, as `read_file`; what that raises stands in the place of the file."""
        request = {"do": "images", "spin_lock": [rule.model_dump() for rule in spin_lock]}

        def question(path: Path, source: FileSource) -> _Question[tuple[Instance, ...] | None]:
            return _Question(
                path, source, request, lambda text, _: unpack_instances(text["images"], path, source)
            )

        return self._ask_all([question(path, source) for path, source in files])

    def read_frames(self, files: Sequence[Sequence[Instance]]) -> list[Frames | RefusedError | OSError]:
        """Read the pixels of many files, each as `storage.dicom_pixels.read_frames`, or its error."""

        def question(images: Sequence[Instance]) -> _Question[Frames]:
            expected = (len(images), *(images[0].shape or ()))

            def take(text: Any, raw: bytearray) -> Frames:  # noqa: ANN401
                frames = unpack_frames(text["shape"], raw)
                if frames.shape != expected:
                    message = f"frames of shape {frames.shape}, expected {expected}"
                    raise ValueError(message)
                return frames

            wanted = wanted_frames(images)
            request = {
                "do": "frames",
                "shape": wanted.shape,
                "n_frames": wanted.n_frames,
                "indices": wanted.indices,
                "rescales": [(one.rule, one.slope, one.intercept) for one in wanted.rescales],
            }
            return _Question(images[0].path, images[0].source, request, take)

        return self._ask_all([question(images) for images in files])

    def read_header(
        self,
        path: Path,
        source: FileSource,
        privacy: PrivacyConfig,
        key: bytes,
        subject_id: str,
        part: HeaderPart,
    ) -> FileHeader:
        """Read and clean a file's header, as `storage.header_read.read_file_header`."""
        request = {
            "do": "header",
            "privacy": privacy.model_dump(mode="json"),
            "key": key.hex(),
            "subject_id": subject_id,
            "part": part,
        }

        def take(text: Any, _: bytearray) -> FileHeader:  # noqa: ANN401
            found: FileHeader = adapter(FileHeader).validate_python(text["header"])
            return found

        return self._ask(path, source, request, take)

    def read_seg(self, path: Path, source: FileSource) -> Guide:
        """Guide of a DICOM segmentation, as `storage.guide.read_seg`."""
        return self._ask(
            path, source, {"do": "seg"}, lambda text, raw: unpack_guide(text["guide"], raw, path, source)
        )

    def read_nifti(self, path: Path, source: FileSource, labels: NiftiLabels) -> Guide:
        """Guide of a NIfTI file, as `storage.guide.read_nifti`."""
        request = {"do": "nifti", "labels": labels.model_dump()}
        return self._ask(
            path, source, request, lambda text, raw: unpack_guide(text["guide"], raw, path, source)
        )

    def list_zip(self, path: Path) -> tuple[ZipMember, ...]:
        """Files of a zip file, as `storage.zipped.list_members`."""
        kind = tuple[ZipMember, ...]
        request = {"do": "list zip", "rules": self._zip_rules.model_dump()}
        return self._ask(path, None, request, lambda text, _: adapter(kind).validate_python(text["members"]))

    def unpack_zip(self, path: Path, members: Sequence[ZipMember], folder: Path) -> frozenset[int]:
        """Unpack a zip file, as `storage.zipped.unpack_members`; gives the numbers of damaged members."""
        total_mib = sum(member.size for member in members) / MIB
        request = {
            "do": "unpack zip",
            "members": adapter(tuple[ZipMember, ...]).dump_python(tuple(members), mode="json"),
            "folder": str(folder),
            "max_file_bytes": int(self._zip_rules.max_file_mib * MIB),
        }

        def take(text: Any, _: bytearray) -> frozenset[int]:  # noqa: ANN401
            damaged: frozenset[int] = adapter(frozenset[int]).validate_python(text["damaged"])
            if not damaged <= set(range(1, len(members) + 1)):
                message = "damaged members that are not in the zip file"
                raise ValueError(message)
            return damaged

        return self._ask(path, None, request, take, more_s=total_mib / UNPACK_MIB_PER_S)

    def _ask(
        self,
        path: Path,
        source: FileSource | None,
        request: dict[str, Any],
        take: Callable[[Any, bytearray], Value],
        more_s: float = 0.0,
    ) -> Value:
        return _value(self._ask_all([_Question(path, source, request, take, more_s)])[0])

    def _ask_all(self, questions: Sequence[_Question[Value]]) -> list[Value | RefusedError | OSError]:
        """Ask the child, once more where it died of what may have been the machine's fault."""
        requests = [self._request(question) for question in questions]
        outcomes: list[Value | RefusedError | OSError] = []
        died_at = -1
        with self._lock:
            while len(outcomes) < len(questions):
                start = len(outcomes)
                try:
                    for text, raw in self._child.exchange(requests[start : start + BATCH]):
                        outcomes.append(questions[len(outcomes)].outcome(text, raw))
                except DeadChildError as death:
                    n_done = len(outcomes)
                    if not death.may_pass or died_at == n_done:
                        outcomes.append(RefusedError(_named(questions[n_done].source, death.how)))
                    else:
                        died_at = n_done
        return outcomes

    def _request(self, question: _Question[Any]) -> dict[str, Any]:
        cpu_s = math.ceil(self._read_s + question.more_s)
        return {
            **question.request,
            "path": str(question.path),
            "source": source_text(question.source) if question.source else None,
            "cpu_s": cpu_s,
            "wall_s": math.ceil(self._wall_factor * cpu_s),
        }


def _value(outcome: Value | RefusedError | OSError) -> Value:
    if isinstance(outcome, RefusedError | OSError):
        raise outcome
    return outcome


@cache
def shared_reader(rules: UploadsConfig) -> BoundedReader:
    """Give this process's reader under these rules; its child ends with the process."""
    reader = BoundedReader(rules)
    atexit.register(reader.close)
    return reader


def _named(source: FileSource | None, reason: str) -> str:
    return f"{source}: {reason}" if source else reason
