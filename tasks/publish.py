"""Publication: the rows of a visit move from its store, or from its refusal, into the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from prefect.logging import get_run_logger

from cmrcore.quantify import Flag, visit_flags
from cmrcore.quantify.qc import reasons, scan_verdict
from storage import audit
from storage.arrays import content_digest, open_store, store_path
from storage.config import TrialConfig
from storage.place import Place
from storage.plan import PlannedVisit
from storage.reviews import reviews_digest
from storage.rows import complete_rows
from storage.tables import publish
from tasks.canonical import canonical_line
from tasks.matching import StrayUpload
from tasks.plan import VisitJob, Waiting
from tasks.reasons import state_of
from tasks.stage import StageName, StageResult, VisitRef


@dataclass(frozen=True, slots=True)
class Publisher:
    """Writes the visits of one night, each with who, why and by which run."""

    root: Place
    """Root of the trial."""
    config: TrialConfig
    """Configuration of the trial."""
    matching: Mapping[str, str]
    """Digest of the rules and dates that matched each subject's uploads."""
    run_id: str
    """Prefect's id of the flow run."""
    who: str
    """Who asked for the run."""
    why: str
    """Why it ran."""

    def result(
        self,
        job: VisitJob,
        stages: Mapping[StageName, StageResult],
        longitudinal: list[dict[str, Any]],
        summary_digest: str | None,
        summary_failure: str | None = None,
    ) -> None:
        """Publish a computed visit; a failed summary flags it and leaves it without longitudinal rows."""
        rows, state, reason = self._stored_rows(job.visit, job.digests["quantify"], longitudinal)
        if summary_failure is not None:
            state, reason = "flagged", "; ".join(filter(None, [reason, f"summary_failed: {summary_failure}"]))
        seconds = {f"seconds_{stage}": result.seconds for stage, result in stages.items()}
        devices = sorted({result.device for result in stages.values() if result.device is not None})
        row = self._job_row(job, state, reason) | seconds
        row |= _verdict_of(rows)
        row |= {
            "result_digest": job.digests["quantify"],
            "reviews_digest": reviews_digest(job.reviewed),
            "summary_digest": summary_digest,
            "device": "+".join(devices) or None,
        }
        if self._write(row, rows, job.visit) == "unchanged" and job.force:
            audit.append(
                self.root,
                {
                    "event": "confirmed",
                    "who": self.who,
                    "why": self.why,
                    "subject_id": job.visit.subject_id,
                    "visit_id": job.visit.visit_id,
                    "result_digest": job.digests["quantify"],
                },
            )

    def summary(
        self,
        visit: VisitRef,
        recorded: PlannedVisit,
        row: Mapping[str, Any],
        longitudinal: list[dict[str, Any]],
        summary_digest: str,
    ) -> None:
        """Publish a visit again whose result stands, but whose summary or line in the plan changed."""
        rows, state, reason = self._stored_rows(visit, row["result_digest"], longitudinal)
        now = {
            "site_id": visit.site_id,
            "visit_date": recorded.visit_date,
            "state": state,
            "reason": reason,
            "matching_digest": self.matching[visit.subject_id],
            "summary_digest": summary_digest,
            "config_digest": self.config.digest(),
            "code_version": version("cmrtrials"),
            "run_id": self.run_id,
            **_verdict_of(rows),
        }
        self._write({**row, **now}, rows, visit)

    def correction(self, visit: VisitRef, recorded: PlannedVisit, row: Mapping[str, Any]) -> None:
        """Publish a visit without a result again whose line in the plan changed."""
        self._write({**row, "site_id": visit.site_id, "visit_date": recorded.visit_date}, {})

    def failure(self, job: VisitJob, state: str, stage: str, kind: str, reason: str) -> None:
        """Publish a visit that was refused or failed in a stage: a row that says so, and no result."""
        row = self._job_row(job, state, reason) | {"failed_stage": stage, "failure_kind": kind}
        self._write(row, {})

    def waiting(self, waiting: Waiting) -> None:
        """Publish that a visit has no upload."""
        self._write(self._visit_row(waiting.visit, waiting.recorded, "waiting", waiting.reason), {})

    def stray(self, stray: StrayUpload) -> None:
        """Log that no planned visit takes an upload, unless a run that died right after that did so."""
        facts = {
            "event": "refused",
            "upload_id": stray.upload.upload_id,
            "upload_digest": stray.upload.content_digest,
            "reason": stray.reason,
        }
        if not any(facts.items() <= event.items() for event in audit.read_events(self.root)):
            audit.append(self.root, {"event": "refused", "who": self.who, "why": self.why, **facts})

    def _stored_rows(
        self, visit: VisitRef, digest: str, longitudinal: list[dict[str, Any]]
    ) -> tuple[dict[str, list[dict[str, Any]]], str, str]:
        store = open_store(visit.path, visit.subject_id, visit.visit_id, digest)
        ids = {
            "subject_id": visit.subject_id,
            "visit_id": visit.visit_id,
            "site_id": visit.site_id,
            "result_digest": digest,
        }
        stored: Any = store.attrs["rows"]
        changes = [
            row | {"protocol_deviations": _as_texts(row["protocol_deviations"])} for row in longitudinal
        ]
        rows: dict[str, list[dict[str, Any]]] = {
            table: complete_rows(table, [row | ids for row in table_rows])
            for table, table_rows in stored.items()
        }
        rows["longitudinal"] = [ids | row for row in changes]
        flags = [*visit_flags(longitudinal), *_protocol_flags(longitudinal)]
        if flags:
            rows["flags"] += [ids | asdict(flag) for flag in flags]
            every = [*(Flag(**flag) for flag in stored["flags"]), *flags]
            judged = {"qc_verdict": scan_verdict(every), "qc_reasons": reasons(every)}
            rows["scans"] = [scan | judged for scan in rows["scans"]]
        for scan in rows["scans"]:
            # JSON, in which a store keeps its rows, has no type for times.
            moment = scan["scan_datetime"]
            scan["scan_datetime"] = None if moment is None else datetime.fromisoformat(moment)
        return rows, *state_of(rows["flags"])

    def _visit_row(self, visit: VisitRef, recorded: PlannedVisit, state: str, reason: str) -> dict[str, Any]:
        return {
            "subject_id": visit.subject_id,
            "visit_id": visit.visit_id,
            "site_id": visit.site_id,
            "result_digest": None,
            "visit_date": recorded.visit_date,
            "state": state,
            "reason": reason,
            "qc_verdict": None,
            "qc_reasons": [],
            "failed_stage": None,
            "failure_kind": None,
            "upload_ids": [],
            "upload_digests": [],
            "upload_fingerprints": [],
            "matching_digest": None,
            "n_files": None,
            "intake_digest": None,
            "segment_digest": None,
            "quantify_digest": None,
            "reviews_digest": None,
            "summary_digest": None,
            "config_digest": self.config.digest(),
            "code_version": version("cmrtrials"),
            "device": None,
            "seconds_intake": None,
            "seconds_segment": None,
            "seconds_quantify": None,
            "run_id": self.run_id,
        }

    def _job_row(self, job: VisitJob, state: str, reason: str) -> dict[str, Any]:
        return self._visit_row(job.visit, job.recorded, state, reason) | {
            "upload_ids": [upload.upload_id for upload in job.uploads],
            "upload_digests": [upload.content_digest for upload in job.uploads],
            "upload_fingerprints": [upload.fingerprint for upload in job.uploads],
            "matching_digest": self.matching[job.visit.subject_id],
            "n_files": sum(len(upload.files) for upload in job.uploads),
            "intake_digest": job.digests["intake"],
            "segment_digest": job.digests["segment"],
            "quantify_digest": job.digests["quantify"],
        }

    def _write(
        self, row: dict[str, Any], rows: dict[str, list[dict[str, Any]]], visit: VisitRef | None = None
    ) -> str:
        """Publish a row; ``visit`` where arrays belong to it."""
        stamped = row | {"published_at": datetime.now(UTC)}
        arrays_digest = None
        if visit is not None:
            store = store_path(self.root, visit.subject_id, visit.visit_id, row["result_digest"])
            arrays_digest = content_digest(store)
        outcome = publish(self.root, stamped, rows, self.who, self.why, arrays_digest)
        seconds = [value for name, value in row.items() if name.startswith("seconds_") and value is not None]
        line = canonical_line(
            trial=self.config.trial_id,
            subject=row["subject_id"],
            visit=row["visit_id"],
            stage="publish",
            state=row["state"],
            run=self.run_id,
            seconds=sum(seconds) if seconds else None,
            verdict=row["qc_verdict"],
            device=row["device"],
        )
        get_run_logger().info("%s outcome=%s reason=%s", line, outcome, row["reason"] or "-")
        return outcome


def _protocol_flags(longitudinal: Sequence[Mapping[str, Any]]) -> list[Flag]:
    """Collect the flags of a summary: how a visit's protocol differs from that of its first one."""
    return list(dict.fromkeys(flag for row in longitudinal for flag in row["protocol_deviations"]))


def _as_texts(flags: Sequence[Flag]) -> list[str]:
    """Code and message of flags, as the table ``longitudinal`` holds them."""
    return [f"{flag.code}: {flag.message}" for flag in flags]


def _verdict_of(rows: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Columns of the verdict that a visit has from its scan."""
    (scan,) = rows["scans"]
    return {name: scan[name] for name in ("qc_verdict", "qc_reasons")}
