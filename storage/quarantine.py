"""quarantine/: what was refused, each with its reason.

Here, and only here, the site's own names may be written down: whoever mends an upload needs them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.durable import write_durably
from storage.errors import RefusedFile
from storage.place import Place
from storage.upload import Upload, incoming_folder

QUARANTINE = "quarantine"
REASON_FILE = "reason.json"
REFUSED_FILE = "file"


def quarantine_file(root: Place, refused: RefusedFile, site_path: str) -> Place:
    """Copy a refused file to ``quarantine/<upload_id>/<file_number>/``; a second time nothing changes.

    A file that is gone or is another one by now is not copied, and reason.json says so.

    Parameters
    ----------
    root
        Folder of the trial.
    refused
        The file, which can be read where it says.
    site_path
        What the site calls it, from incoming/ on.

    Returns
    -------
        The folder with the copy and its reason.json.
    """
    folder = root / QUARANTINE / refused.upload_id / str(refused.file_number)
    copy = folder / REFUSED_FILE
    facts = {
        "upload_id": refused.upload_id,
        "file_number": refused.file_number,
        "reason": refused.reason,
        "site_path": site_path,
        "sha256": refused.sha256,
    }
    if not copy.exists():  # the upload's id is that of its bytes, so a copy never changes
        data = _refused_bytes(refused)
        if data is None:
            facts["no_copy"] = "the file was changed or removed after it was refused"
        else:
            write_durably(copy, data)
    _write_reason(folder, facts)
    return folder


def is_quarantined(root: Place, upload_id: str) -> bool:
    """Whether a whole upload has been refused before."""
    return (root / QUARANTINE / upload_id / REASON_FILE).exists()


def quarantine_upload(
    root: Place,
    upload: Upload,
    reason: str,
    *,
    judged_by: str | None = None,
    found: Mapping[str, str] | None = None,
) -> Place:
    """Write why a whole upload was refused to ``quarantine/<upload_id>/reason.json``; it stays in incoming/.

    Parameters
    ----------
    root
        Root of the trial.
    upload
        The upload.
    reason
        Why, without the site's names.
    judged_by
        Digest of what decided that no planned visit takes it; while that and the upload are the same, nobody
        needs to read it again. None where it is another refusal.
    found
        What the site wrote and did not agree; it is for the operator and stands nowhere else.

    Returns
    -------
        The folder with the reason.json.
    """
    folder = root / QUARANTINE / upload.upload_id
    facts: dict[str, Any] = {
        "upload_id": upload.upload_id,
        "reason": reason,
        "site_path": _site_path(root, upload.path),
        "n_files": len(upload.files),
        "content_digest": upload.content_digest,
        "fingerprint": upload.fingerprint,
        "judged_by": judged_by,
    }
    if found:
        facts["found"] = {name: _printable(value) for name, value in found.items()}
    _write_reason(folder, facts)
    return folder


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An upload that was refused whole."""

    upload_id: str
    """The upload."""
    content_digest: str
    """Digest of its content."""
    reason: str
    """Why it was refused."""
    judged_by: str | None
    """Digest of what decided so; None where it could not be read as an upload, or its visit was refused."""
    found: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the site wrote and did not agree."""


def upload_records(root: Place) -> dict[tuple[str, str], UploadRecord]:
    """Give uploads that were refused whole, by the site's name for them and their fingerprint."""
    records = {}
    for path in (root / QUARANTINE).glob(f"*/{REASON_FILE}"):
        facts = json.loads(path.read_bytes())
        record = UploadRecord(
            facts["upload_id"],
            facts["content_digest"],
            facts["reason"],
            facts["judged_by"],
            facts.get("found", {}),
        )
        records[facts["site_path"], facts["fingerprint"]] = record
    return records


def _refused_bytes(refused: RefusedFile) -> bytes | None:
    """Read the bytes that were refused; None where they are there no more."""
    try:
        data = refused.path.read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == refused.sha256 else None


def _site_path(root: Place, path: Path) -> str:
    return _printable(path.relative_to(incoming_folder(root)).as_posix())


def _printable(text: str) -> str:
    # Names that are no UTF-8 reach Python as surrogates, which JSON cannot hold.
    return text.encode(errors="backslashreplace").decode()


def _write_reason(folder: Place, facts: dict[str, Any]) -> None:
    path = folder / REASON_FILE
    data = (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()
    if not path.exists() or path.read_bytes() != data:
        write_durably(path, data)
