"""The table of checks and its page."""

from dataclasses import fields
from pathlib import Path

import pytest

from cmrcore.quantify import checks_page, qc
from cmrcore.quantify.checks import CHECKS, TISSUE
from cmrcore.quantify.role_checks import READ_CODES
from cmrcore.registration.align import AlignSettings
from storage.config_summarise import SummariseConfig

SECTIONS = {
    "": qc.QcLimits,
    TISSUE: qc.TissueLimits,
    "hematocrit.": qc.HematocritLimits,
    "align.": AlignSettings,
    "summarise.": SummariseConfig,
}


def test_the_page_is_up_to_date() -> None:
    """Documentation that is made by hand, or made once, tells of checks that were."""
    page = Path(checks_page.__file__).with_name("CHECKS.md").read_text(encoding="utf-8")
    assert page == checks_page.checks_page(), "run python -m cmrcore.quantify.checks_page"
    assert page.count("\n| `") == len(CHECKS)


def test_bars_in_a_meaning_do_not_end_the_cell() -> None:
    """A separation is written |2 AUC - 1|."""
    (row,) = [line for line in checks_page.checks_page().splitlines() if line.startswith("| `wall_like")]
    assert row.replace("\\|", "").count("|") == 6


@pytest.mark.parametrize("code", CHECKS)
def test_limits_of_a_check_are_keys_of_the_configuration(code: str) -> None:
    """A key that nobody can set, or that is spelled otherwise, documents nothing."""
    for key in CHECKS[code].limits:
        section = next(one for one in (*list(SECTIONS)[1:], "") if key.startswith(one))
        assert key.removeprefix(section) in SECTIONS[section].__annotations__


def test_every_limit_belongs_to_a_check() -> None:
    """A limit that no check names would be set in vain."""
    named = {key.removeprefix(TISSUE) for check in CHECKS.values() for key in check.limits}
    tissue = {one.name for one in fields(qc.TissueLimits)}
    flat = {one.name for one in fields(qc.QcLimits)} - {"tissue_1_5t", "tissue_3t"}
    assert tissue | flat <= named


def test_codes_of_readings_are_known() -> None:
    """The bench leaves flags of these codes to be judged again."""
    assert set(CHECKS) >= READ_CODES
