"""The trial's page for readers: where to look, and neither ECV nor change."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.report.trial_visits import SCAN_NUMBERS, Record
from tasks.report.visit_words import BLINDED_CODES, HIDDEN_CODES


def blinded_records(records: Sequence[Record], flags: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Give the records of visits without numbers of their scans, and without what tells ECV or change.

    Parameters
    ----------
    records
        What `visit_records` gives.
    flags
        Rows of ``flags``, whose messages the reasons quote.
    """
    telling: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for flag in flags:
        if flag["code"] in BLINDED_CODES:
            telling[flag["subject_id"], flag["visit_id"]].append((flag["code"], flag["message"]))
    return [_blinded(record, telling[record["subject"], record["visit"]]) for record in records]


def _blinded(record: Record, telling: Iterable[tuple[str, str]]) -> Record:
    reason: str = record["reason"]
    # The longest first: one message may be the beginning of another.
    for code, message in sorted(telling, key=lambda one: -len(one[1])):
        told = f"{code}: {message}"
        if code in HIDDEN_CODES:
            reason = reason.replace(f"; {told}", "").replace(f"{told}; ", "").replace(told, "")
        else:
            reason = reason.replace(told, f"{code}: what was found is among the results")
    codes = {code: severity for code, severity in record["codes"].items() if code not in HIDDEN_CODES}
    kept = {name: value for name, value in record.items() if name not in SCAN_NUMBERS}
    return kept | {"reason": reason, "codes": codes}
