"""trial.toml."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from storage.config import TrialConfig, load_config
from storage.config_segment import SegmentConfig
from storage.errors import ConfigError, NotStoredError
from tests.storage.drawn_uploads import DEMO_CONFIG, demo_config


def _changed(tmp_path: Path, old: str, new: str) -> Path:
    text = DEMO_CONFIG.read_text()
    assert text.count(old) == 1
    path = tmp_path / "trial.toml"
    path.write_text(text.replace(old, new))
    return path


def _field_names(model: type[BaseModel]) -> dict[str, Any]:
    return {
        name: _field_names(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        else None
        for name, field in model.model_fields.items()
    }


def _key_names(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _key_names(value) if isinstance(value, dict) and value else None for key, value in values.items()
    }


def test_a_section_of_a_newer_version_is_asked_for(tmp_path: Path) -> None:
    """A trial begun with an older version lacks it, and its owner cannot know what belongs there."""
    text = DEMO_CONFIG.read_text()
    start, end = text.index("[privacy]"), text.index("[intake]")
    path = tmp_path / "trial.toml"
    path.write_text(text[:start] + text[end:])
    message = r"privacy is missing; uploads is missing; copy what is missing from deploy/trials/demo\.toml"
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_wrong_pattern_is_not_said_to_be_expected(tmp_path: Path) -> None:
    """What pydantic says is expected; what a check of ours says is wrong."""
    path = _changed(tmp_path, "'(?i)molli.*post'", "'(?i)(molli.*post'")
    with pytest.raises(ConfigError, match=r"post'.*which is wrong: no regular expression"):
        load_config(path)


def test_the_demo_trial_names_every_field() -> None:
    """A user sees in one file all that can be set."""
    assert _key_names(tomllib.loads(DEMO_CONFIG.read_text())) == _field_names(TrialConfig)


def test_the_demo_trial_explains_every_key() -> None:
    """Each line with a key has a comment, or follows a line of the same group that has one."""
    lines = DEMO_CONFIG.read_text().splitlines()
    keys = [index for index, line in enumerate(lines) if "=" in line and not line.startswith("#")]
    unexplained = [lines[index] for index in keys if "#" not in lines[index] and "#" not in lines[index - 1]]
    assert not unexplained


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "slices = 3 ", "slyces = 3 ", "intake.slices is missing; intake.slyces: unknown key", id="typo"
        ),
        pytest.param(
            "alpha = 0.25", "alpha = 25.0", "segment.alpha: found 25.0, expected: .*less than", id="range"
        ),
        pytest.param(
            '"5(3)3", "3(3)3(3)5"',
            '"SASHA"',
            "intake.native.schemes: found .*no scheme such as .*SASHA. cannot be processed",
            id="scheme",
        ),
        pytest.param(
            '"3(3)3(3)5"',
            '"3(3)5"',
            r"'5.3.3' and '3.3.5' may have the same number of images",
            id="ambiguous",
        ),
        pytest.param('"molli"    ', '"shmolli"  ', r"shmolli' fits 5\(1\)1\(1\)1 alone", id="shmolli"),
        pytest.param(
            "(?i)molli.*post", "(molli", "intake.post.description: found '.molli', .*no regular", id="regex"
        ),
        pytest.param(
            "(?P<subject>[A-Za-z0-9.-]+)", ".*", r"matching: .*needs a group \(\?P<subject>", id="group"
        ),
        pytest.param(
            "'(?P<subject>.+)'", "'S.+'", r"matching: patient_id_pattern needs a group", id="patient-group"
        ),
        pytest.param(
            "keep_private = []",
            "keep_private = [{ creator = 'X', element = '(2004,xx72)' }]",
            r"privacy.keep_private.0.element: found '\(2004,xx72\)'",
            id="even-group",
        ),
        pytest.param(
            "spin_lock = []",
            "spin_lock = [{ attribute = 'PatientName', pattern = '(?P<ms>.+)' }]",
            "intake.spin_lock.0.attribute: found 'PatientName', expected: .*'SeriesDescription'",
            id="spin-lock-attribute",
        ),
        pytest.param(
            "spin_lock = []",
            "spin_lock = [{ attribute = 'EchoTime', pattern = '20' }]",
            r"intake.spin_lock.0: .*needs the time either as a group of the pattern",
            id="spin-lock-without-time",
        ),
        pytest.param(
            "spin_lock = []",
            "spin_lock = [{ attribute = 'EchoTime', pattern = '(?P<ms>.+)', ms = 20.0 }]",
            r"intake.spin_lock.0: .*or as a number, ms = 20.0",
            id="spin-lock-with-two-times",
        ),
        pytest.param(
            "blood_pool = 3", "blood_pool = 2", "nifti_labels: two labels have the same value", id="labels"
        ),
        pytest.param(
            "max_fraction = 0.60",
            "max_fraction = 0.1",
            "quantify: min_fraction = 0.2 is not below",
            id="order",
        ),
        pytest.param(
            "t1_post_max_ms = 800.0", "t1_post_max_ms = 100.0", "t1_post_min_ms = 200.0 is not", id="order-ms"
        ),
        pytest.param(
            "amplitude_ratio_min = 1.85",
            "amplitude_ratio_min = 4.0",
            "ratio_min = 4.0 is not",
            id="order-end",
        ),
        pytest.param(
            'method = "guided',
            'method = "magic-guided',
            "segment.method: found 'magic-.*', expected: .*'carry'",
            id="choice",
        ),
        pytest.param(
            'base = "', 'base = "best-', "segment.base: found 'best-.*', expected: .*sha256", id="digest"
        ),
        pytest.param(
            "minutes_since_contrast = []            # as",
            "minutes_since_contrast = [40.0, 8.0]   # as",
            "post.minutes_since_contrast: found .*no range",
            id="minutes",
        ),
        pytest.param("other = {}", "other = { cine = 1 }", r"intake\.other\.cine", id="other-role"),
        pytest.param("schema_version = 1 ", "schema_version = 2 ", "schema_version: found 2", id="version"),
        pytest.param(
            'timezone = "UTC"', 'timezone = "Europe"', "timezone: found 'Europe', .*no IANA", id="timezone"
        ),
        pytest.param('"UTC"', '"Mars/Olympus"', "timezone: found 'Mars/Olympus', .*no IANA", id="no-zone"),
        pytest.param(
            "retest_visits = []",
            'retest_visits = [["V1", "V1"]]',
            "summarise: retest_visits names the visit 'V1' as its own retest",
            id="retest",
        ),
        pytest.param(
            "    72.0, 59.0, 71.0, 88.0,",
            "    72.0, 59.0, 71.0,",
            "t1_native_segments_ms: found .*at least 16 items",
            id="segments",
        ),
        pytest.param(
            "separation_fail_min = 0.40",
            "separation_fail_min = 0.70",
            r"above separation_min = 0\.68",
            id="wall",
        ),
        pytest.param(
            "masks_apart_fail_px = 4.5",
            "masks_apart_fail_px = 1.5",
            r"above masks_apart_fail_px = 1\.5",
            id="apart",
        ),
        pytest.param(
            "fit_failed_fraction_max = 0.80",
            "fit_failed_fraction_max = 0.40",
            r"fit_poor_fraction_max = 0\.6 is above",
            id="fit",
        ),
        pytest.param("[segment]", "[segment", "is no TOML", id="syntax"),
    ],
)
def test_a_wrong_key_is_named_with_what_was_found_and_expected(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """A core lab mends the file from the message alone."""
    with pytest.raises(ConfigError, match=message):
        load_config(_changed(tmp_path, old, new))


@pytest.mark.parametrize(
    ("method", "guided", "message"),
    [("guided", "", "needs the digest of weights"), ("carry", "sha256:" + "0" * 64, "never uses")],
    ids=["missing", "idle"],
)
def test_the_method_of_segmentation_and_its_weights_fit(method: str, guided: str, message: str) -> None:
    """No guided night without a network, and no weights in the record that nothing was computed with."""
    with pytest.raises(ValidationError, match=message):
        SegmentConfig.model_validate(
            {"method": method, "alpha": 0.25, "base": "", "guided": guided, "guide_from": "visit"}
        )


def test_all_errors_are_listed_at_once(tmp_path: Path) -> None:
    """Nobody wants to mend a file error by error."""
    path = _changed(tmp_path, "alpha = 0.25", "alpha = 2")
    path.write_text(path.read_text().replace("max_days = 1", "max_days = -1"))
    with pytest.raises(ConfigError, match=r"segment\.alpha.*quantify\.hematocrit\.max_days"):
        load_config(path)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """The demo is the place to start from."""
    with pytest.raises(NotStoredError, match=r"copy deploy/trials/demo\.toml"):
        load_config(tmp_path / "trial.toml")


def test_form_and_comments_do_not_change_the_digest(tmp_path: Path) -> None:
    """Only values change results."""
    path = _changed(
        tmp_path, "alpha = 0.25       # 0 follows the image, 1 follows the guide", "alpha = 0.250"
    )
    assert load_config(path).digest() == demo_config().digest()


def test_a_changed_value_changes_the_digest(tmp_path: Path) -> None:
    """Results under another limit are other results."""
    path = _changed(tmp_path, "r_squared_mean_min = 0.9 ", "r_squared_mean_min = 0.91 ")
    assert load_config(path).digest() != demo_config().digest()


def test_a_trial_of_shmolli_names_its_model(tmp_path: Path) -> None:
    """ShMOLLI needs its own fit, chosen in the trial's configuration."""
    path = _changed(tmp_path, 't1_model = "molli" ', 't1_model = "shmolli" ')
    text = path.read_text()
    for schemes in ('["5(3)3", "3(3)3(3)5"]', '["4(1)3(1)2"]'):
        assert text.count(schemes) == 1
        text = text.replace(schemes, '["5(1)1(1)1"]')
    path.write_text(text)
    assert load_config(path).quantify.t1_model == "shmolli"


def test_a_configuration_cannot_be_changed() -> None:
    """What a digest was taken of must stay."""
    with pytest.raises(ValidationError, match="frozen"):
        setattr(demo_config().segment, "alpha", 0.5)  # noqa: B010  (mypy knows that it is frozen)


def test_the_folder_pattern_may_be_left_out_where_folders_are_not_matched(tmp_path: Path) -> None:
    """A trial that trusts PatientID alone needs no rule for folders."""
    path = _changed(tmp_path, '["folder", "patient_id"]', '["patient_id"]')
    lines = [line for line in path.read_text().splitlines() if not line.startswith("folder_pattern")]
    path.write_text("\n".join(lines))
    assert load_config(path).matching.folder_pattern is None
