"""Digests of what is computed: equal ones need no computing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from storage.config import TrialConfig
from storage.digest import canonical_digest
from storage.plan import PlannedVisit
from storage.reviews import ReviewedSlice, reviews_digest
from tasks.published import RetestPair
from tasks.stage import RESULT_VERSIONS, GuideSource, StageName


def stage_digests(
    config: TrialConfig,
    recorded: PlannedVisit,
    contents: Sequence[str],
    key_name: str | None,
    guide_source: GuideSource | None = None,
    *,
    reviewed: Sequence[ReviewedSlice] = (),
) -> dict[StageName, str]:
    """Digest of each stage of a visit: its inputs, its slice of the configuration, its result version.

    Parameters
    ----------
    config
        Rules of the trial.
    recorded
        The visit's line of the plan with the dates of the record: a digest of the real ones would give them
        away to whoever tries all days.
    contents
        Digests of the uploads' contents in the order of their arrival, which decides where they contradict
        each other.
    key_name
        Name of the key that dates and pseudonyms follow from, see `storage.deidentify.key_name`.
    guide_source
        Visit that lends its guides to this one. They follow from the digest of its segment stage, so that of
        this one is fixed before either is computed.
    reviewed
        A reader's decisions about the visit that have an effect; whether each still holds follows from them
        and the masks.
    """

    def digest(stage: StageName, **inputs: Any) -> str:
        return canonical_digest({"stage": stage, "version": RESULT_VERSIONS[stage], **inputs})

    intake = digest(
        "intake",
        uploads=contents,
        config=config.intake.model_dump(mode="json"),
        limits=config.uploads.model_dump(mode="json", include={"read_seconds", "read_memory_mib"}),
        privacy=config.privacy.model_dump(mode="json"),
        **({} if key_name is None else {"key": key_name}),
    )
    segment = digest(
        "segment",
        echoes=intake,
        config=config.segment.model_dump(mode="json"),
        **({} if guide_source is None else {"guides": asdict(guide_source)}),
    )
    hematocrit = [
        recorded.hematocrit_fraction,
        str(recorded.hematocrit_date or ""),
        str(recorded.hematocrit_time or ""),
    ]
    quantify = digest(
        "quantify",
        masks=segment,
        hematocrit=hematocrit,
        config=config.quantify.model_dump(mode="json"),
        align=config.align.model_dump(mode="json"),
        **({"reviews": reviews_digest(reviewed)} if reviewed else {}),
    )
    return {"intake": intake, "segment": segment, "quantify": quantify}


def summary_digests(
    config: TrialConfig, result_digests: Mapping[str, str], retests: str | None = None
) -> dict[str, str]:
    """Digest of what a subject's summary says of each visit.

    Parameters
    ----------
    config
        Rules of the trial.
    result_digests
        Results by visit, in order of their dates: each is compared with the first, the last with all.
    retests
        Digest of the results that the trial's repeatability is computed from, see `retests_digest`.
    """
    visits = list(result_digests)

    def earlier(index: int) -> list[str]:
        return visits[:index] if index == len(visits) - 1 else visits[: min(index, 1)]

    return {
        visit_id: canonical_digest(
            {
                "stage": "summarise",
                "version": RESULT_VERSIONS["summarise"],
                "earlier": [[other, result_digests[other]] for other in earlier(index)],
                "visit": result_digests[visit_id],
                "retests": retests if index and retests else [],
                "config": config.summarise.model_dump(mode="json"),
            }
        )
        for index, visit_id in enumerate(visits)
    }


def retests_digest(retests: Sequence[RetestPair]) -> str | None:
    """Digest of the results that a repeatability is computed from; None without any."""
    return canonical_digest([[first[2], second[2]] for first, second in retests]) if retests else None
