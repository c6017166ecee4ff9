"""Which result each visit has while a night runs."""

from typing import Any

import pytest

from flows.results import Results
from tasks.stage import StageResult
from tests.flows.drawn_night import RESULT, ROOT, job_of, line_of, of_subjects

V1, V2 = line_of("V1", 1), line_of("V2", 2)


def results_of(**published: dict[str, Any]) -> Results:
    """Give the results of a subject whose second visit is computed tonight."""
    rows = {("S01", visit_id): row for visit_id, row in published.items()}
    return Results(ROOT, {"S01/V2": job_of(V2)}, of_subjects(V2, V1), rows)


def test_a_visit_has_its_result_when_it_is_quantified() -> None:
    """Masks alone are none."""
    results = results_of()
    for stage in ("intake", "segment"):
        results.add("S01/V2", stage, RESULT)
        assert results.of_subject("S01") == {}
        assert not results.is_computed("S01/V2")
    results.add("S01/V2", "quantify", RESULT)
    assert results.of_subject("S01") == {"V2": "quantify V2"}
    assert results.is_computed("S01/V2")
    assert list(results.stages("S01/V2")) == ["intake", "segment", "quantify"]


def test_published_results_stand_and_come_in_order_of_dates() -> None:
    """The first is what the others are compared with."""
    results = results_of(V1={"state": "flagged", "result_digest": "old"})
    results.add("S01/V2", "quantify", RESULT)
    assert list(results.of_subject("S01").items()) == [("V1", "old"), ("V2", "quantify V2")]
    assert results.of_all() == {"S01": results.of_subject("S01")}
    assert not results.is_computed("S01/V1")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param({"state": "done", "result_digest": "quantify V2"}, {"V2": "quantify V2"}, id="same"),
        pytest.param({"state": "done", "result_digest": "of older inputs"}, {}, id="outdated"),
        pytest.param({"state": "failed", "result_digest": None}, {}, id="failed"),
    ],
)
def test_a_visit_run_in_vain_keeps_the_result_of_the_same_inputs(
    row: dict[str, Any], expected: dict[str, str]
) -> None:
    """What was published of other inputs is no result of these."""
    assert results_of(V2=row).of_subject("S01") == expected


def test_what_stood_already_took_no_time() -> None:
    """A visit's limit is for what was computed tonight."""
    results = results_of()
    results.add("S01/V2", "intake", StageResult("digest", None, None))
    results.add("S01/V2", "segment", StageResult("digest", 2.5, "cpu"))
    assert results.seconds("S01/V2") == 2.5


def test_a_visit_that_is_not_computed_can_be_named_too() -> None:
    """Its stored result is what another is compared with."""
    visit = results_of().visit("S01", "V1")
    assert (visit.path, visit.label, visit.site_id) == (ROOT, "S01/V1", "01")
