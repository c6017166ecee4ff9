"""What is published and told of a night's visits, without their task runs."""

import errno
import logging
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from flows import outcomes as module
from flows.outcomes import Outcomes
from flows.results import Results
from storage.errors import BrokenOffError, RefusedError
from storage.trial import Trial
from tasks.fanout import Failure, OverdueError
from tasks.matching import StrayUpload, VisitKey
from tasks.plan import VisitJob, Waiting
from tasks.publish import Publisher
from tasks.stage import StageResult, VisitRef
from tests.flows.drawn_night import RESULT, ROOT, job_of, line_of, of_subjects, plan_of, stray_of
from tests.storage.drawn_uploads import demo_config

V1, V2 = line_of("V1", 1), line_of("V2", 2)
DISK = Failure("error", OSError(errno.ENOSPC, "No space left on device"))
DEFECT = Failure("error", ValueError("a defect"))
STANDS = {"state": "done", "result_digest": "quantify V1"}
DIGESTS = {"V1": "summary of V1", "V2": "summary of V2"}


@dataclass
class DrawnPublisher:
    """Writes nothing, and remembers what it was given."""

    calls: list[tuple[object, ...]] = field(default_factory=list)
    """What was asked for, and of which visit or upload."""
    broken: frozenset[str] = frozenset()
    error: Exception = field(default_factory=lambda: ValueError("rows that fit no table"))
    """Visits whose rows cannot be written."""
    run_id: str = "run"
    """Of the night."""

    def result(
        self,
        job: VisitJob,
        stages: object,
        rows: object,
        digest: str | None,
        summary_failure: str | None = None,
    ) -> None:
        """Remember a computed visit."""
        self._break(job.visit)
        assert stages == {"quantify": RESULT}
        self.calls.append(("result", job.visit.label, rows, digest, summary_failure))

    def summary(self, visit: VisitRef, recorded: object, row: object, rows: object, digest: str) -> None:
        """Remember a renewed visit."""
        self._break(visit)
        assert (recorded, row) == (V1, STANDS)
        self.calls.append(("summary", visit.label, rows, digest))

    def failure(self, job: VisitJob, *what: object) -> None:
        """Remember a visit without a result."""
        self.calls.append(("failure", job.visit.label, *what))

    def waiting(self, waiting: Waiting) -> None:
        """Remember a visit without an upload."""
        self.calls.append(("waiting", waiting.visit.label))

    def correction(self, visit: VisitRef, *_: object) -> None:
        """Remember a visit whose line changed."""
        self.calls.append(("correction", visit.label))

    def stray(self, stray: StrayUpload) -> None:
        """Remember an upload that nobody takes."""
        self.calls.append(("stray", stray.upload.upload_id))

    def _break(self, visit: VisitRef) -> None:
        if visit.label in self.broken:
            raise self.error


@pytest.fixture(autouse=True)
def _outside_of_a_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Log to where tests can read it."""
    monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
    caplog.set_level(logging.INFO)


def night_of(
    *jobs: VisitJob,
    published: dict[VisitKey, dict[str, Any]] | None = None,
    broken: frozenset[str] = frozenset(),
    **others: Any,
) -> tuple[DrawnPublisher, Outcomes]:
    """Give what publishes a night in which jobs have got their results."""
    rows = published or {}
    plan = plan_of((V1, V2), jobs, published=rows, **others)
    by_label = {job.visit.label: job for job in jobs}
    results = Results(ROOT, by_label, of_subjects(V1, V2), rows)
    for label in by_label:
        results.add(label, "quantify", RESULT)
    publisher = DrawnPublisher(broken=broken)
    trial = Trial(ROOT, demo_config())
    return publisher, Outcomes(trial, plan, by_label, results, cast("Publisher", publisher))


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        pytest.param(
            Failure("error", RefusedError("no images")), ("refused", "error", "no images"), id="refused"
        ),
        pytest.param(
            DISK,
            ("failed", "passing", "OSError: No space left on device; the next night tries again"),
            id="disk",
        ),
        pytest.param(DEFECT, ("failed", "error", "ValueError: a defect"), id="defect"),
    ],
)
def test_a_failure_is_published_and_is_news(failure: Failure, told: tuple[str, str, str]) -> None:
    """With its stage, and whether the next night tries again."""
    job = job_of(V1)
    publisher, outcomes = night_of(job)
    outcomes.fail(job, "segment", failure)
    state, kind, reason = told
    assert publisher.calls == [("failure", "S01/V1", state, "segment", kind, reason)]
    assert outcomes.news == {"S01/V1": f"{state}: {reason}"}


def test_a_result_of_the_same_inputs_outlives_a_failed_rerun() -> None:
    """It is news, and no row changes; a result of other inputs gives way."""
    job = job_of(V1)
    publisher, outcomes = night_of(job, published={("S01", "V1"): STANDS})
    outcomes.fail(job, "quantify", DEFECT)
    assert publisher.calls == []
    assert outcomes.news == {"S01/V1": "keeps its result, quantify failed: ValueError: a defect"}
    older = STANDS | {"result_digest": "of older inputs"}
    publisher, outcomes = night_of(job, published={("S01", "V1"): older})
    outcomes.fail(job, "quantify", DEFECT)
    assert [call[0] for call in publisher.calls] == ["failure"]


def test_a_summary_is_published_with_new_results_and_with_those_that_stand() -> None:
    """Each visit gets its own rows and digest."""
    publisher, outcomes = night_of(job_of(V2), published={("S01", "V1"): STANDS})
    rows = [{"level": "global"}]
    outcomes.publish_subject("S01", {"V1": [], "V2": rows}, DIGESTS)
    assert publisher.calls == [
        ("summary", "S01/V1", [], "summary of V1"),
        ("result", "S01/V2", rows, "summary of V2", None),
    ]
    assert outcomes.news == outcomes.stale_summaries == {}


@pytest.mark.parametrize(
    ("failure", "kept"),
    [pytest.param(DISK, None, id="tried-again"), pytest.param(DEFECT, "summary of V2", id="as-it-is")],
)
def test_a_failed_summary_costs_no_result(failure: Failure, kept: str | None) -> None:
    """New results are published without it, and the digest says whether the next night tries again."""
    publisher, outcomes = night_of(job_of(V2), published={("S01", "V1"): STANDS})
    outcomes.publish_subject("S01", failure, DIGESTS)
    ((*call, reason),) = publisher.calls
    assert call == ["result", "S01/V2", [], kept]
    assert outcomes.news == {"S01/V2": f"summary failed: {reason}"}
    assert outcomes.stale_summaries == {"S01/V1": reason}


def test_rows_that_cannot_be_written_stop_no_other_visit() -> None:
    """A new visit has failed, one that stands keeps its former summary."""
    summary: dict[str, list[dict[str, Any]]] = {"V1": [], "V2": []}
    publisher, outcomes = night_of(
        job_of(V2), published={("S01", "V1"): STANDS}, broken=frozenset({"S01/V1"})
    )
    outcomes.publish_subject("S01", summary, DIGESTS)
    assert [call[:2] for call in publisher.calls] == [("result", "S01/V2")]
    assert outcomes.stale_summaries == {"S01/V1": "ValueError: rows that fit no table"}
    publisher, outcomes = night_of(job_of(V1), job_of(V2), broken=frozenset({"S01/V1"}))
    outcomes.publish_subject("S01", summary, DIGESTS)
    assert [call[:2] for call in publisher.calls] == [("failure", "S01/V1"), ("result", "S01/V2")]
    assert publisher.calls[0][2:4] == ("failed", "publish")
    assert outcomes.news == {"S01/V1": "failed: ValueError: rows that fit no table"}


def test_a_publication_of_which_nobody_knows_is_no_failure() -> None:
    """Its row would take the place of the result, if that is there after all."""
    publisher, outcomes = night_of(job_of(V1), broken=frozenset({"S01/V1"}))
    publisher.error = BrokenOffError("publication broke off twice")
    outcomes.publish_subject("S01", {"V1": []}, {"V1": "summary of V1"})
    assert publisher.calls == []
    assert outcomes.news == {"S01/V1": "publication broke off twice"}


def test_what_needs_no_computing_is_published_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An upload that nobody takes is news once; a corrected line of a visit that runs comes with its row."""
    quarantined: list[str] = []
    monkeypatch.setattr(module, "is_quarantined", lambda _, upload_id: upload_id == "U2")
    monkeypatch.setattr(
        module, "quarantine_upload", lambda _, upload, *_a, **_k: quarantined.append(upload.upload_id)
    )
    strays = tuple(stray_of(upload_id, is_old=upload_id == "U3") for upload_id in ("U1", "U2", "U3"))
    row = {"state": "failed", "result_digest": None}
    publisher, outcomes = night_of(
        job_of(V2),
        published={("S01", "V1"): row, ("S01", "V2"): row},
        stray=strays,
        waiting=(Waiting(job_of(V1).visit, V1, "nothing uploaded yet"),),
        corrected=((job_of(V1).visit, V1), (job_of(V2).visit, V2)),
    )
    outcomes.publish_settled()
    assert publisher.calls == [("stray", "U1"), ("waiting", "S01/V1"), ("correction", "S01/V1")]
    assert quarantined == ["U1", "U2"]
    assert outcomes.news == {"upload U1": "refused: fits no planned visit"}
    assert caplog.text.count("no planned visit takes") == 3


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        pytest.param(RESULT, "executed", id="executed"),
        pytest.param(StageResult("digest", None, None), "stored", id="stored"),
        pytest.param({"V1": []}, "executed", id="summary"),
        pytest.param(Failure("error", RefusedError("no images")), "refused", id="refused"),
        pytest.param(DEFECT, "failed", id="failed"),
        pytest.param(Failure("crashed", RuntimeError()), "crashed", id="crashed"),
        pytest.param(Failure("overdue", OverdueError()), "overdue", id="overdue"),
    ],
)
def test_every_stage_has_its_line_in_the_log(
    outcome: object, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one whose worker is gone."""
    _, outcomes = night_of()
    outcomes.log_stage("S01/V1", "segment", outcome)
    (line,) = caplog.messages
    assert line.startswith(f"trial=demo subject=S01 visit=V1 stage=segment state={state} ")
    assert line.endswith("run=run")


def test_old_news_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """What failed tonight stands in the message of the night already."""
    job = job_of(V2)
    _, outcomes = night_of(job)
    outcomes.fail(job, "intake", DEFECT)
    failed = {"state": "failed", "reason": "why"}
    outcomes.log_old_news({("S01", "V1"): failed, ("S01", "V2"): failed, ("S01", "V3"): {"state": "done"}})
    assert caplog.messages == ["still failed: S01/V1: why"]
