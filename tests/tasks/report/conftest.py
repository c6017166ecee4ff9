"""Trials with drawn visits, for the tests of pages."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from storage import Trial
from tests.tasks.report.drawn_visits import DrawnVisit, drawn_trial, publish_without_result


@pytest.fixture(scope="session")
def _outside_of_a_run() -> Iterator[None]:
    with disable_run_logger():
        yield


@pytest.fixture(scope="session")
def whole_trial(tmp_path_factory: pytest.TempPathFactory, _outside_of_a_run: None) -> Trial:
    """Trial of one subject: two visits with everything, one waiting and one refused."""
    trial = drawn_trial(
        tmp_path_factory.mktemp("drawn") / "trial",
        DrawnVisit(),
        DrawnVisit(visit_id="V2", visit_date=date(2026, 9, 4)),
    )
    publish_without_result(trial, "V3", "waiting", "no upload", visit_date=date(2027, 3, 4))
    publish_without_result(
        trial,
        "V4",
        "refused",
        "native: <7> inversion times",
        visit_date=date(2027, 9, 4),
        failed_stage="intake",
        failure_kind="error",
    )
    return trial


@pytest.fixture(scope="session")
def partial_trial(tmp_path_factory: pytest.TempPathFactory, _outside_of_a_run: None) -> Trial:
    """Trial of visits that each lack something."""
    return drawn_trial(
        tmp_path_factory.mktemp("partial") / "trial",
        DrawnVisit(visit_id="bare", roles=("native",), without_masks=(0, 1), visit_date=date(2026, 1, 1)),
        DrawnVisit(visit_id="native", roles=("native",), visit_date=date(2026, 3, 1)),
        DrawnVisit(visit_id="no-hct", hematocrit_fraction=None, visit_date=date(2026, 5, 1)),
        DrawnVisit(visit_id="half", without_masks=(1,), n_post=1, visit_date=date(2026, 7, 1)),
        DrawnVisit(visit_id="unknown-field", field_strength_t=None, visit_date=date(2026, 9, 1)),
    )


@pytest.fixture
def root(whole_trial: Trial) -> Path:
    """Folder of the whole trial."""
    return whole_trial.folder
