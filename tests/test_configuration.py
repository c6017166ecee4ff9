"""trial.toml and the code agree: nothing is declared that nobody reads."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import BaseModel

from cmrcore.phantom.truth import BLOOD_EROSION_MM, MYOCARDIUM_EROSION_MM
from cmrcore.quantify import HematocritLimits, QcLimits, SyntheticHematocrit
from cmrcore.quantify.qc import TissueLimits
from cmrcore.quantify.repeatability import StatedRepeatability
from cmrcore.registration.align import AlignSettings
from storage.config import TrialConfig, load_config
from storage.config_intake import NiftiLabels
from storage.config_quantify import (
    AlignConfig,
    HematocritConfig,
    QcConfig,
    SyntheticHematocritConfig,
    TissueConfig,
)
from storage.config_summarise import RepeatabilityConfig
from storage.guide import LABELS

ROOT = Path(__file__).parents[1]

HANDED_OVER_WHOLE = {
    "align",
    "quantify.qc",
    "quantify.qc.tissue_1_5t",
    "quantify.qc.tissue_3t",
    "quantify.hematocrit",
    "quantify.synthetic_hematocrit",
    "intake.guide.nifti_labels",
    "summarise.repeatability",
}
"""Sections whose values are read by name at run time; the last test holds them to their readers."""


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give section and name of every value of a configuration."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix.rstrip("."), name


def test_the_demo_configuration_loads() -> None:
    """The file that users copy is valid."""
    assert load_config(ROOT / "deploy" / "trials" / "demo.toml").trial_id == "demo"


def test_the_demo_reads_where_its_truth_is_told() -> None:
    """Ideal values are those of a perfect pipeline under the demo's rules."""
    rules = load_config(ROOT / "deploy" / "trials" / "demo.toml").quantify
    assert rules.blood_erosion_mm == BLOOD_EROSION_MM
    assert rules.myocardium_erosion_mm == MYOCARDIUM_EROSION_MM


@pytest.mark.parametrize(("section", "name"), list(leaves(TrialConfig)))
def test_every_value_stands_in_the_demo_configuration(section: str, name: str) -> None:
    """A user sees each value with its explanation."""
    text = (ROOT / "deploy" / "trials" / "demo.toml").read_text()
    assert f"{name} = " in text, section


@pytest.fixture(scope="module")
def names_read() -> set[str]:
    """Names that sources read from the configuration."""
    sources = [
        path.read_text()
        for package in ("flows", "tasks", "storage")
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith("config")
    ]
    reader = re.compile(r"\b(?:config|intake|rules?|matching|schedule|privacy)\.([\w.]+)")
    return {name for source in sources for read in reader.findall(source) for name in read.split(".")}


@pytest.mark.parametrize(
    ("section", "name"),
    [leaf for leaf in leaves(TrialConfig) if leaf[0] not in HANDED_OVER_WHOLE],
)
def test_every_value_is_read_somewhere(section: str, name: str, names_read: set[str]) -> None:
    """A value that changes nothing would lie to who sets it."""
    assert name in names_read or (section, name) == ("", "schema_version"), f"{section}.{name}"


def test_sections_that_are_handed_over_whole_fit_their_readers() -> None:
    """Checks and guides look their values up by name."""
    assert set(NiftiLabels.model_fields) == set(LABELS)
    assert set(QcConfig.model_fields) == {field.name for field in fields(QcLimits)}
    assert set(TissueConfig.model_fields) == {field.name for field in fields(TissueLimits)}
    assert set(AlignConfig.model_fields) == {field.name for field in fields(AlignSettings)}
    assert set(HematocritConfig.model_fields) == {field.name for field in fields(HematocritLimits)}
    synthetic = {field.name for field in fields(SyntheticHematocrit)}
    assert set(SyntheticHematocritConfig.model_fields) == synthetic
    assert set(RepeatabilityConfig.model_fields) == {field.name for field in fields(StatedRepeatability)}
