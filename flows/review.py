"""Decisions files, checked and recorded one by one."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from flows.user import current_user
from storage.decisions import Decisions, read_decisions
from storage.errors import DecisionsError, NotStoredError
from storage.lock import night_underway
from storage.reviews import check_newest, record_review, was_recorded
from storage.trial import Trial
from tasks.review import review_rows


@dataclass(frozen=True, slots=True)
class ReviewOutcome:
    """What became of a decisions file."""

    file: Path
    """As it was named."""
    visit: str
    """Subject and visit; ``-`` where the file does not say."""
    verdict: Literal["recorded", "recorded before", "would be recorded", "refused"]
    """What became of it."""
    reason: str
    """Why it was refused, or what it says."""


def review_files(trial: Trial, files: Sequence[Path], *, dry_run: bool = False) -> tuple[ReviewOutcome, ...]:
    """Check decisions files, and record those that can be: the earlier decided first, others besides.

    No lock is made meanwhile, and one under way is waited for.

    Parameters
    ----------
    trial
        The trial.
    files
        Decisions files.
    dry_run
        Check alone; whether one of the files would supersede another is not looked at.

    Returns
    -------
        An outcome of each file, in the order they were named in.
    """
    outcomes: dict[int, ReviewOutcome] = {}
    readable: list[tuple[int, Decisions, str]] = []
    for number, path in enumerate(files):
        try:
            readable.append((number, *read_decisions(path)))
        except DecisionsError as error:
            outcomes[number] = ReviewOutcome(path, "-", "refused", str(error))
    with nullcontext() if dry_run else night_underway(trial.root):
        for number, decisions, digest in sorted(readable, key=lambda one: one[1].decided_at_utc):
            outcomes[number] = _review(trial, files[number], decisions, digest, dry_run=dry_run)
    return tuple(outcomes[number] for number in range(len(files)))


def _review(trial: Trial, path: Path, decisions: Decisions, digest: str, *, dry_run: bool) -> ReviewOutcome:
    key = (decisions.subject_id, decisions.visit_id)
    label, said = "/".join(key), _said(decisions)
    try:
        # Before all else: what was recorded and honored is about a result that is replaced by now.
        if was_recorded(trial.root, key, digest):
            return ReviewOutcome(path, label, "recorded before", "nothing was changed")
        rows = review_rows(trial, decisions, digest, current_user(), datetime.now(UTC))
        if dry_run:
            check_newest(trial.root, key, decisions.decided_at_utc)
            return ReviewOutcome(path, label, "would be recorded", said)
        if record_review(trial.root, rows) == "unchanged":  # by somebody else, meanwhile
            return ReviewOutcome(path, label, "recorded before", "nothing was changed")
    except (DecisionsError, NotStoredError) as error:  # the latter: the arrays of the result are gone
        return ReviewOutcome(path, label, "refused", str(error))
    return ReviewOutcome(path, label, "recorded", said)


def _said(decisions: Decisions) -> str:
    """Count what a reader decided."""
    words = [one.decision for one in decisions.slices]
    counts = ", ".join(
        f"{words.count(word)} {word}" for word in ("accept", "repeat", "exclude") if word in words
    )
    n_redraw = sum(one.guide == "redraw" for one in decisions.slices)
    redraw = f"; {n_redraw} guide{'s' if n_redraw > 1 else ''} to redraw" if n_redraw else ""
    return f"reader {decisions.reader_id}: {counts}{redraw}"
