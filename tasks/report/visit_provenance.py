"""Where a visit's numbers come from: files, configuration, weights, versions and digests."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from storage.config import TrialConfig
from storage.dicom_series import EchoStack
from tasks.report.visit_words import ROLE_NAMES

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What stands behind a page."""

    facts: tuple[tuple[str, str], ...]
    """Digests, versions, times and devices, by name."""
    uploads: tuple[tuple[str, str], ...]
    """Id and content digest of each upload."""
    files: tuple[tuple[str, str], ...]
    """Slice and role, and the files that its echoes were read from, by inversion time."""
    configuration: str
    """What changes results, of trial.toml as it is now."""
    is_other_configuration: bool
    """Whether trial.toml has changed since the result was published."""


def provenance(row: Row, stacks: Iterable[EchoStack], config: TrialConfig) -> Provenance:
    """Collect what a visit was made from.

    Parameters
    ----------
    row
        Its row of ``visits``.
    stacks
        Its echo stacks; none for a visit without a result.
    config
        Configuration of the trial.
    """
    names = {
        "result": "result_digest",
        "stage intake": "intake_digest",
        "stage segment": "segment_digest",
        "stage quantify": "quantify_digest",
        "summary": "summary_digest",
        "trial.toml": "config_digest",
        "code version": "code_version",
        "run": "run_id",
        "device": "device",
        "published": "published_at",
    }
    facts = [(name, str(row[column])) for name, column in names.items() if row[column] is not None]
    seconds = [
        f"{stage} {row[f'seconds_{stage}']:.1f} s"
        for stage in ("intake", "segment", "quantify")
        if row[f"seconds_{stage}"] is not None
    ]
    if seconds:
        facts.append(("time taken", ", ".join(seconds)))
    weights = [f"{kind} {getattr(config.segment, kind) or 'none'}" for kind in ("base", "guided")]
    facts.append(("weights of the networks", ", ".join(weights)))
    return Provenance(
        facts=tuple(facts),
        uploads=tuple(zip(row["upload_ids"], row["upload_digests"], strict=True)),
        files=tuple(line for stack in stacks for line in _files(stack)),
        configuration=json.dumps(config.model_dump(mode="json"), indent=1),
        is_other_configuration=row["config_digest"] != config.digest(),
    )


def _files(stack: EchoStack) -> Iterable[tuple[str, str]]:
    for index, sources in enumerate(stack.sources):
        of_upload: dict[str, list[str]] = {}
        for source in sources:
            of_upload.setdefault(source.upload_id, []).append(str(source.file_number))
        files = "; ".join(f"{upload} files {', '.join(numbers)}" for upload, numbers in of_upload.items())
        yield f"{stack.levels[index]} slice {index}, {ROLE_NAMES[stack.role]}", files
