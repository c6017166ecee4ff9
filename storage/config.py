"""trial.toml: everything that changes results, checked when it is read.

Every key must be written: a trial's record hides no default. Only `matching.folder_pattern` and
`matching.patient_id_pattern` may be left out, where folder or PatientID are not matched.

The sections but `[schedule]` stand in the modules `storage.config_*`, by what they are read for.
"""

import tomllib
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, ValidationError, model_validator

from storage.config_intake import IntakeConfig
from storage.config_quantify import AlignConfig, QuantifyConfig
from storage.config_segment import SegmentConfig
from storage.config_summarise import SummariseConfig
from storage.config_uploads import MatchingConfig, PrivacyConfig, UploadsConfig
from storage.config_values import Section
from storage.digest import canonical_digest
from storage.errors import ConfigError, NotStoredError
from storage.place import Place
from storage.schemes import SHMOLLI

CONFIG_FILE = "trial.toml"


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no name, or a folder of names
        message = "no IANA time zone, expected a name such as 'Europe/Berlin'"
        raise ValueError(message) from None
    return name


class ScheduleConfig(Section):
    """When a served trial runs its nights; changes no result, so it enters no digest."""

    cron: Annotated[str, Field(pattern=r"^\S+( \S+){4}$")]
    """Minute, hour, day of month, month, day of week."""
    timezone: Annotated[str, AfterValidator(_check_timezone)]
    """IANA name of the time zone, such as ``Europe/Berlin``."""


class TrialConfig(Section):
    """All of trial.toml."""

    schema_version: Literal[1]
    trial_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    matching: MatchingConfig
    privacy: PrivacyConfig
    uploads: UploadsConfig
    intake: IntakeConfig
    segment: SegmentConfig
    align: AlignConfig
    quantify: QuantifyConfig
    summarise: SummariseConfig
    schedule: ScheduleConfig

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        schemes = {*self.intake.native.schemes, *self.intake.post.schemes}
        if self.quantify.t1_model == "shmolli" and schemes != {SHMOLLI}:
            message = (
                f"quantify.t1_model = 'shmolli' fits {SHMOLLI} alone, but the schemes of intake.native and "
                f"intake.post are {', '.join(sorted(schemes))}"
            )
            raise ValueError(message)
        return self

    def digest(self) -> str:
        """SHA-256 of all that changes results."""
        arrival = {"stable_minutes", "marker_file"}
        return canonical_digest(self.model_dump(mode="json", exclude={"schedule": True, "uploads": arrival}))


def load_config(path: Place) -> TrialConfig:
    """Read and check a trial.toml.

    Raises
    ------
    NotStoredError
        If there is no such file.
    ConfigError
        Naming every wrong key with what was found and what was expected.
    """
    try:
        return parse_config(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"{CONFIG_FILE} is missing: copy deploy/trials/demo.toml into the trial's root and adapt it"
        raise NotStoredError(message) from None
    except UnicodeDecodeError as error:
        message = f"{CONFIG_FILE} is no TOML: {error}"
        raise ConfigError(message) from None


def parse_config(text: str) -> TrialConfig:
    """Check the text of a trial.toml.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{CONFIG_FILE} is no TOML: {error}"
        raise ConfigError(message) from None
    try:
        return TrialConfig.model_validate(values)
    except ValidationError as error:
        lines = [
            _describe(detail["loc"], detail["type"], detail["input"], detail["msg"])
            for detail in error.errors()
        ]
        if any(detail["type"] == "missing" for detail in error.errors()):
            lines.append(
                "copy what is missing from deploy/trials/demo.toml of this version, and choose its values"
            )
        raise ConfigError(f"{CONFIG_FILE}: " + "; ".join(lines)) from None


def _describe(location: tuple[int | str, ...], kind: str, found: Any, expected: str) -> str:  # noqa: ANN401
    key = ".".join(str(part) for part in location)
    if kind == "missing":
        return f"{key} is missing"
    if kind == "extra_forbidden":
        return f"{key}: unknown key, remove it or check its spelling"
    if isinstance(found, dict):
        return f"{key}: {expected.removeprefix('Value error, ')}"
    if kind == "value_error":  # a check of our own, which says what is wrong, not what is expected
        return f"{key}: found {found!r}, which is wrong: {expected.removeprefix('Value error, ')}"
    return f"{key}: found {found!r}, expected: {expected}"
