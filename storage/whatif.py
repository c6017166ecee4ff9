"""whatif/<digest>/: one visit under other settings, as a small trial of its own beside the record.

It has the trial.toml and the line of subjects.csv that it was computed with, and no incoming/: no night runs
there, but `status`, `query` and `compare` read it like any trial.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import ParseError

from storage.config import CONFIG_FILE, TrialConfig, load_config, parse_config
from storage.digest import canonical_digest
from storage.durable import write_durably
from storage.errors import ConfigError
from storage.plan import PLAN_FILE, PlannedVisit, plan_csv

WHATIF = "whatif"
CHANGES_FILE = "whatif.json"

SETTABLE = ("intake", "segment", "align", "quantify", "summarise")
"""Sections that say how a visit is computed; the others say which upload it is, and whose."""

_SHARED_FOLDER = "weights"
"""What a trial has besides, and its what-ifs use."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A trial's configuration with some settings changed."""

    config: TrialConfig
    """The changed configuration."""
    text: str
    """The same as trial.toml, with the trial's comments."""
    changes: Mapping[str, tuple[Any, Any]]
    """Former and present value of each changed key."""


def read_variant(root: Path, settings: Sequence[str]) -> Variant:
    """Change settings of a trial's configuration.

    Parameters
    ----------
    root
        Root of the trial.
    settings
        Each as ``segment.alpha = 0.5``, the value as trial.toml has it; text needs no quotes.

    Raises
    ------
    ConfigError
        Naming the setting that has another form, is not there, may not be changed or has a wrong value, or
        when all are as they were.
    """
    load_config(root / CONFIG_FILE)  # what is wrong already is not the settings' fault
    document = tomlkit.parse((root / CONFIG_FILE).read_text(encoding="utf-8"))
    changes: dict[str, tuple[Any, Any]] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        *path, key = name.split(".")
        if not (equals and path and text):
            raise ConfigError(
                f"setting {setting!r}: expected the form section.key=value, as segment.alpha=0.5"
            )
        if path[0] not in SETTABLE:
            raise ConfigError(f"setting {name}: only these sections can be changed: {', '.join(SETTABLE)}")
        table: Any = document
        for part in path:
            table = table.get(part) if isinstance(table, dict) else None
        if not isinstance(table, dict) or key not in table:
            raise ConfigError(f"setting {name}: {CONFIG_FILE} has no such key; check its spelling")
        former = table[key]
        table[key] = _value(text)
        changes[name] = (_plain(former), _plain(table[key]))
    changes = {name: values for name, values in changes.items() if values[0] != values[1]}
    if not changes:
        raise ConfigError(f"nothing is changed: {CONFIG_FILE} has these settings already")
    # The visit stands alone, so that nothing can be measured twice.
    document["summarise"]["retest_visits"] = []
    text = tomlkit.dumps(document)
    return Variant(parse_config(text), text, changes)


def whatif_root(root: Path, subject_id: str, visit_id: str, config: TrialConfig) -> Path:
    """Give the place of a visit under a configuration; the same question has the same place."""
    about = {"subject_id": subject_id, "visit_id": visit_id, "config": config.digest()}
    return root / WHATIF / canonical_digest(about)[:16]


def write_whatif(root: Path, folder: Path, variant: Variant, line: PlannedVisit) -> None:
    """Write what makes the place a trial's root; writing it again changes nothing."""
    about = {
        "subject_id": line.subject_id,
        "visit_id": line.visit_id,
        "changes": {name: {"from": old, "to": new} for name, (old, new) in variant.changes.items()},
    }
    write_durably(folder / CHANGES_FILE, (json.dumps(about, indent=2) + "\n").encode())
    write_durably(folder / PLAN_FILE, plan_csv([line]).encode())
    shared = folder / _SHARED_FOLDER
    if (root / _SHARED_FOLDER).is_dir() and not shared.is_symlink():
        shared.symlink_to(Path("..", "..", _SHARED_FOLDER), target_is_directory=True)
    # Last: with it the folder is a trial.
    write_durably(folder / CONFIG_FILE, variant.text.encode())


def _value(text: str) -> Any:  # noqa: ANN401 (any TOML value)
    """Read a value as TOML writes it; what is none is text."""
    try:
        return tomlkit.value(text)
    except (ParseError, ValueError):
        return text


def _plain(value: Any) -> Any:  # noqa: ANN401 (any TOML value)
    return value.unwrap() if hasattr(value, "unwrap") else value
