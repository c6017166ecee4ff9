"""Nights of a trial and what their visits took, from the rows they published and the audit log."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from storage.audit import read_events
from storage.history import former_rows
from storage.place import Place

Key = tuple[str, str]
"""Subject and visit."""

Deed = Literal["computed", "renewed", "failed", "refused", "waiting"]
"""What a night did about a visit; renewed: another summary or line of the plan, of a result that stood."""

DEEDS: tuple[Deed, ...] = ("computed", "renewed", "failed", "refused", "waiting")

_SECONDS = ("seconds_intake", "seconds_segment", "seconds_quantify")


def run_history(root: Place, visit_rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give every night that published something, the latest first.

    A night that found nothing to do published nothing and left no trace here.

    Parameters
    ----------
    root
        Root of the trial.
    visit_rows
        Rows of ``visits`` as they stand now; the former ones are read here.
    """
    former = former_rows(root, "visits")
    reasons = _reasons(root)
    runs: dict[str, dict[str, Any]] = {}
    for row in visit_rows:
        key = (row["subject_id"], row["visit_id"])
        versions = [version[0] for version in former.get(key, []) if version] + [dict(row)]
        for number, (before, version) in enumerate(zip([None, *versions], versions, strict=False), 1):
            run_id = version["run_id"]
            if run_id is None or version["published_at"] is None:
                continue
            if before is not None and before["run_id"] == run_id:
                continue  # a corrected line of the plan keeps the run that it corrects
            run = runs.setdefault(run_id, _new_run(version["published_at"]))
            run["first"] = min(run["first"], version["published_at"])
            run["last"] = max(run["last"], version["published_at"])
            run["why"].update(reasons.get((*key, number), ()))
            deed = _deed(before, version)
            run[deed] += 1
            if deed == "computed":
                run["seconds"] += sum(version[name] or 0.0 for name in _SECONDS)
    told = sorted(runs.values(), key=lambda run: run["first"], reverse=True)
    return [{**run, "why": ", ".join(sorted(run["why"]))} for run in told]


def stray_uploads(root: Place) -> list[dict[str, str]]:
    """Give the uploads that no planned visit has taken, with day and reason of refusal, the latest first."""
    strays: dict[str, dict[str, str]] = {}
    for event in read_events(root):
        if event["event"] == "refused" and "subject_id" not in event:
            told = {
                "upload_id": event["upload_id"],
                "reason": event.get("reason") or "",
                "at": event["at"][:10],
            }
            strays[event["upload_digest"]] = told
        elif event["event"] in ("accepted", "refused"):
            strays.pop(event.get("upload_digest", ""), None)  # the plan was mended, and a visit took it
    return list(reversed(strays.values()))


def slowest_visits(records: Sequence[Mapping[str, Any]], n: int) -> list[int]:
    """Give the indices of the visits that took longest, the slowest first."""
    timed = [index for index, record in enumerate(records) if any(record["seconds"])]
    timed.sort(key=lambda index: -sum(seconds or 0.0 for seconds in records[index]["seconds"]))
    return timed[:n]


def _new_run(when: Any) -> dict[str, Any]:  # noqa: ANN401 (a time of pandas or of Python)
    return {"first": when, "last": when, "why": set(), "seconds": 0.0, **dict.fromkeys(DEEDS, 0)}


def _deed(before: Mapping[str, Any] | None, version: Mapping[str, Any]) -> Deed:
    state: str = version["state"]
    if state in ("failed", "refused", "waiting"):
        return state  # type: ignore[return-value]  # mypy does not narrow a str by `in`
    same = before is not None and before["result_digest"] == version["result_digest"]
    return "renewed" if same else "computed"


def _reasons(root: Place) -> dict[tuple[str, str, int], set[str]]:
    """Why each version of a visit was published, by subject, visit and number of the version, from 1."""
    reasons: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for event in read_events(root):
        if event["event"] == "published" and event.get("why"):
            number = (event.get("history_number") or 0) + 1
            reasons[event["subject_id"], event["visit_id"], number].add(event["why"])
    return reasons
