"""Who lends guides to whom while a night runs, without its task runs."""

from flows.lending import Lending
from storage.plan import PlannedVisit
from tasks.plan import VisitJob
from tasks.stage import GuideSource
from tests.flows.drawn_night import job_of, line_of, of_subjects

V1, V2, V3, V4 = (line_of(f"V{month}", month) for month in (1, 2, 3, 4))


def guides_of(line: PlannedVisit) -> GuideSource:
    """Give a visit that finds its own guides as the source of others."""
    return GuideSource(line.visit_id, f"segment {line.visit_id}")


def lending_of(
    *lines: PlannedVisit, lender: PlannedVisit = V1, standing: tuple[PlannedVisit, ...] = ()
) -> Lending:
    """Let one visit lend its guides to all others that are computed."""
    jobs = [
        job_of(line, None if line == lender else guides_of(lender)) for line in lines if line not in standing
    ]
    stands = {(line.subject_id, line.visit_id): GuideSource(line.visit_id, "standing") for line in standing}
    return Lending(jobs, of_subjects(*lines), stands)


def sources(lending: Lending) -> dict[str, GuideSource | None]:
    """Give whose guides each visit takes."""
    return {label: job.guide_source for label, job in lending.jobs.items()}


def labels(jobs: list[VisitJob]) -> list[str]:
    """Give the names of visits."""
    return [job.visit.label for job in jobs]


def test_who_borrows_waits_until_the_guides_are_made() -> None:
    """Those who asked before are given in their order; who asks later goes at once."""
    lending = lending_of(V1, V2, V3, V4)
    assert lending.ask("S01/V1") == lending.jobs["S01/V1"]
    assert lending.ask("S01/V3") is None
    assert lending.ask("S01/V2") is None
    assert labels(lending.settle("S01/V1", has_guides=True)) == ["S01/V3", "S01/V2"]
    assert lending.ask("S01/V4") == lending.jobs["S01/V4"]
    assert lending.jobs["S01/V4"].guide_source == guides_of(V1)


def test_who_waited_is_given_once() -> None:
    """A second submission of a visit would end twice."""
    lending = lending_of(V1, V2)
    lending.ask("S01/V2")
    assert len(lending.settle("S01/V1", has_guides=True)) == 1
    assert lending.settle("S01/V1", has_guides=True) == []


def test_guides_that_stand_are_not_waited_for() -> None:
    """Their visit is not computed tonight, so nothing would ever give the others."""
    lending = Lending([job_of(V2, GuideSource("V1", "standing"))], of_subjects(V1, V2), {})
    assert lending.ask("S01/V2") == lending.jobs["S01/V2"]


def test_the_next_visit_by_date_lends_in_the_place_of_one_without_guides() -> None:
    """It finds its own and goes; the others now wait for it, and digests say whose guides they take."""
    lending = lending_of(V4, V3, V1, V2)
    for visit_id in ("V4", "V3", "V2"):
        assert lending.ask(f"S01/{visit_id}") is None
    assert labels(lending.settle("S01/V1", has_guides=False)) == ["S01/V2"]
    second = guides_of(V2)
    assert sources(lending) == {"S01/V1": None, "S01/V2": None, "S01/V3": second, "S01/V4": second}
    assert lending.jobs["S01/V2"].digests["segment"] == "segment V2"
    assert lending.jobs["S01/V3"].digests["segment"] == "segment V3 with segment V2"
    assert labels(lending.settle("S01/V2", has_guides=True)) == ["S01/V4", "S01/V3"]


def test_a_visit_that_came_to_nothing_before_is_passed_over() -> None:
    """It would be waited for in vain."""
    lending = lending_of(V1, V2, V3)
    assert lending.ask("S01/V3") is None
    assert lending.settle("S01/V2", has_guides=False) == []
    assert labels(lending.settle("S01/V1", has_guides=False)) == ["S01/V3"]
    assert lending.jobs["S01/V3"].guide_source is None


def test_lenders_may_come_to_nothing_one_after_the_other() -> None:
    """The last visit finds its own guides."""
    lending = lending_of(V1, V2, V3)
    lending.ask("S01/V2")
    lending.ask("S01/V3")
    assert labels(lending.settle("S01/V1", has_guides=False)) == ["S01/V2"]
    assert labels(lending.settle("S01/V2", has_guides=False)) == ["S01/V3"]
    assert lending.jobs["S01/V3"].guide_source is None


def test_guides_that_stand_are_lent_in_the_place_of_missing_ones() -> None:
    """Of the visits that have guides or will have, the first by date lends, computed tonight or not."""
    lending = lending_of(V1, V2, V3, standing=(V2,))
    lending.ask("S01/V3")
    assert labels(lending.settle("S01/V1", has_guides=False)) == ["S01/V3"]
    assert lending.jobs["S01/V3"].guide_source == GuideSource("V2", "standing")
    lending = lending_of(V1, V2, V3, V4, standing=(V3,))
    lending.settle("S01/V1", has_guides=False)
    assert lending.jobs["S01/V4"].guide_source == guides_of(V2)


def test_a_visit_that_has_nothing_is_no_lender() -> None:
    """The second visit was never uploaded."""
    lending = Lending([job_of(V1), job_of(V3, guides_of(V1))], of_subjects(V1, V2, V3), {})
    lending.ask("S01/V3")
    assert labels(lending.settle("S01/V1", has_guides=False)) == ["S01/V3"]
    assert lending.jobs["S01/V3"].guide_source is None


def test_other_visits_and_subjects_keep_their_lenders() -> None:
    """Only who borrowed from the visit that has none looks for another."""
    other = line_of("V1", 1, "S02"), line_of("V2", 2, "S02")
    jobs = [job_of(V1), job_of(V2, guides_of(V1)), job_of(V3), job_of(V4, guides_of(V3))]
    jobs += [job_of(other[0]), job_of(other[1], guides_of(V1))]
    lending = Lending(jobs, of_subjects(V1, V2, V3, V4, *other), {})
    assert lending.ask("S02/V2") is None
    lending.settle("S01/V1", has_guides=False)
    assert lending.jobs["S01/V4"].guide_source == guides_of(V3)
    assert lending.jobs["S02/V2"].guide_source == guides_of(V1)
    assert labels(lending.settle("S02/V1", has_guides=True)) == ["S02/V2"]
