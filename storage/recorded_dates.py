"""Dates as the record gives them: those of the headers and the plan, or all of a subject moved alike.

With ``[privacy] dates = "shift"`` arrays/, tables/, history/ and locks/ hold no date of an examination, a
blood sample or the plan as it was: each is moved by the subject's secret number of days, so that intervals
within a subject stay what they are. The plan itself, incoming/, quarantine/ and audit/ keep the real ones,
and when a result was published is always real: a night soon after an examination tells its date to within
these days.
"""

from dataclasses import replace
from datetime import timedelta

from storage.config_uploads import PrivacyConfig
from storage.deidentify import date_shift
from storage.dicom_series import EchoStack
from storage.plan import PlannedVisit


def recorded_shift(privacy: PrivacyConfig, key: bytes | None, subject_id: str) -> timedelta:
    """Give the time by which the dates of a subject move in the record; none where they are kept.

    Parameters
    ----------
    privacy
        Rules of the trial.
    key
        What `storage.deidentify.needed_key` gives for them.
    subject_id
        Pseudonym of the subject.
    """
    return timedelta() if privacy.dates == "keep" or key is None else date_shift(subject_id, key)


def recorded_stack(stack: EchoStack, shift: timedelta) -> EchoStack:
    """Give a stack whose dates are those of the record."""
    return replace(
        stack,
        acquired_at=None if stack.acquired_at is None else stack.acquired_at + shift,
        study_date=None if stack.study_date is None else stack.study_date + shift,
    )


def recorded_plan(planned: PlannedVisit, shift: timedelta) -> PlannedVisit:
    """Give a line of the plan whose dates are those of the record."""
    sampled = planned.hematocrit_date
    return replace(
        planned,
        visit_date=planned.visit_date + shift,
        hematocrit_date=None if sampled is None else sampled + shift,
    )
