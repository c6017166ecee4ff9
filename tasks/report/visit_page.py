"""The page of a visit, made from its stored arrays and published rows alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from typing import Any

import torch

from cmrcore.threads import one_thread
from storage.arrays import open_store, stored_roles
from storage.digest import canonical_digest
from storage.durable import write_durably
from storage.errors import NotStoredError
from storage.place import Place
from storage.reviews import read_reviews, reviews_digest
from storage.schema import REVIEWS, TABLES
from storage.tables import read_table, read_tables
from storage.trial import Trial
from tasks.report.shell import render
from tasks.report.visit_arrays import VisitArrays, read_visit
from tasks.report.visit_colors import t1_scale
from tasks.report.visit_films import Film, make_film
from tasks.report.visit_history import change_lines, history_charts
from tasks.report.visit_maps import map_columns, map_rows, slice_crops
from tasks.report.visit_measured import alignment_lines, bullseyes, curve_panels, distributions
from tasks.report.visit_provenance import provenance
from tasks.report.visit_window import around_hearts
from tasks.report.visit_words import ROLE_NAMES, STATES, VERDICTS, flag_lines, quantities, review_words

Row = Mapping[str, Any]

REPORTS_FOLDER = "reports"
PAGE_VERSION = 3
"""Raised when pages shall be made anew though nothing was published."""

_MADE_FROM = "<!-- made from {} -->\n"
_TAIL_BYTES = len(_MADE_FROM.format("0" * 64))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Published rows of a subject."""

    visits: dict[str, Row]
    """Row of ``visits`` of each visit, in the order of their dates."""
    tables: dict[str, list[Row]]
    """Rows of the result tables and of the reviews of all visits."""

    def of(self, table: str, visit_id: str) -> list[Row]:
        """Rows of one visit."""
        return [row for row in self.tables[table] if row["visit_id"] == visit_id]


def page_path(root: Place, subject_id: str, visit_id: str) -> Place:
    """Place of a visit's page."""
    return root / REPORTS_FOLDER / subject_id / f"{visit_id}.html"


def outdated_pages(root: Place, published: Mapping[tuple[str, str], Row]) -> list[tuple[str, str]]:
    """Subject and visit of the pages that are missing, or were made from other rows than those published.

    Parameters
    ----------
    root
        Folder of the trial.
    published
        Rows of the table ``visits`` by subject and visit.
    """
    of_subject: dict[str, list[Row]] = {}
    for (subject_id, _), row in published.items():
        of_subject.setdefault(subject_id, []).append(row)
    reviews: dict[str, list[Row]] = {}
    for row in read_table(root, REVIEWS).to_pylist():
        reviews.setdefault(row["subject_id"], []).append(row)
    digests = {
        subject_id: page_digest(rows, reviews.get(subject_id, ())) for subject_id, rows in of_subject.items()
    }
    return sorted(
        (subject_id, visit_id)
        for subject_id, visit_id in published
        if made_from(page_path(root, subject_id, visit_id)) != digests[subject_id]
    )


def page_digest(visits: Sequence[Row], reviews: Sequence[Row]) -> str:
    """Digest of what the pages of a subject are made from: each shows the subject's history.

    Parameters
    ----------
    visits, reviews
        The subject's rows of the tables ``visits`` and ``reviews``.
    """
    published = sorted([row["visit_id"], row["published_at"].isoformat()] for row in visits)
    reviewed = sorted({(row["visit_id"], row["file_digest"]) for row in reviews})
    return canonical_digest([PAGE_VERSION, version("cmrtrials"), published, reviewed])


def made_from(page: Place) -> str | None:
    """Digest that a page was made from; None without a page, and for one that only says that it failed."""
    try:
        with page.open("rb") as file:
            file.seek(-min(_TAIL_BYTES, page.stat().st_size), 2)
            tail = file.read().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    head, _, rest = tail.partition("<!-- made from ")
    return rest.removesuffix(" -->\n") if not head and rest else None


def write_visit_page(trial: Trial, subject_id: str, visit_id: str) -> Place:
    """Write a visit's page to ``reports/<subject>/<visit>.html``, whole or not at all.

    A visit without a result has a short page with its state and the reason.

    Raises
    ------
    NotStoredError
        If nothing is published of the visit, or the arrays of its result are gone.
    """
    rows = _read_rows(trial, subject_id)
    if visit_id not in rows.visits:
        message = f"subject {subject_id}, visit {visit_id}: nothing is published; run a night first"
        raise NotStoredError(message)
    row = rows.visits[visit_id]
    if row["result_digest"] is None:
        html = render("visit_without_result.html", **_head(trial, rows, row), **_no_content(trial, row))
    else:
        with one_thread():
            html = render("visit.html", **_head(trial, rows, row), **_content(trial, rows, row))
    digest = page_digest(list(rows.visits.values()), rows.tables[REVIEWS])
    path = page_path(trial.root, subject_id, visit_id)
    write_durably(path, (html + _MADE_FROM.format(digest)).encode())
    return path


def write_failed_page(trial: Trial, subject_id: str, visit_id: str, reason: str) -> Place:
    """Replace a visit's page, which would show what no longer holds, by one that says why it failed.

    It names nothing that it was made from, so that the next night tries again.
    """
    rows = _read_rows(trial, subject_id)
    row = rows.visits[visit_id]
    values = _head(trial, rows, row) | _no_content(trial, row) | {"failure": reason}
    path = page_path(trial.root, subject_id, visit_id)
    write_durably(path, render("visit_without_result.html", **values).encode())
    return path


def _read_rows(trial: Trial, subject_id: str) -> _Rows:
    read = read_tables(trial.root, TABLES, subject_id)
    tables = {name: table.to_pylist() for name, table in read.items()}
    visits = tables.pop("visits")
    visits.sort(key=lambda row: (row["visit_date"], row["visit_id"]))
    return _Rows({row["visit_id"]: row for row in visits}, tables)


def _head(trial: Trial, rows: _Rows, row: Row) -> dict[str, Any]:
    """Give what every page of a visit says first."""
    verdict = row["qc_verdict"]
    key = (row["subject_id"], row["visit_id"])
    honored = reviews_digest(read_reviews(trial.root, key[0]).get(key, ())) == row["reviews_digest"]
    return {
        "title": f"{row['subject_id']} {row['visit_id']} · {trial.config.trial_id}",
        "version": version("cmrtrials"),
        "trial_id": trial.config.trial_id,
        "visit": row,
        "siblings": list(rows.visits.values()),
        "state_words": STATES[row["state"]],
        "verdict_words": VERDICTS.get(verdict, ""),
        "review": review_words(rows.of(REVIEWS, key[1]), is_honored=honored),
    }


def _no_content(trial: Trial, row: Row) -> dict[str, Any]:
    """Give what a page shows of a visit without a result."""
    return {"failure": None, "provenance": provenance(row, (), trial.config)}


def _content(trial: Trial, rows: _Rows, row: Row) -> dict[str, Any]:
    """Everything that a page shows of a result."""
    subject_id, visit_id = row["subject_id"], row["visit_id"]
    config = trial.config.quantify
    store = open_store(trial.root, subject_id, visit_id, row["result_digest"])
    visit = around_hearts(read_visit(store, stored_roles(store)))
    (scan,), slices = rows.of("scans", visit_id), rows.of("slices", visit_id)
    columns, field = map_columns(scan["field_strength_t"])
    crops = slice_crops(visit)
    echoes = {
        (one.role, one.index): one.aligned_echoes() for one in chain.from_iterable(visit.slices.values())
    }
    films = _films(visit, echoes, crops, rows.of("echoes", visit_id))
    t1_scales = {role: t1_scale(role, scan["field_strength_t"])[0] for role in ROLE_NAMES}
    eyes, segments = bullseyes(scan, slices, rows.of("segments", visit_id), t1_scales["native"])
    scans = {one["visit_id"]: one for one in rows.tables["scans"]}
    changes = rows.tables["longitudinal"]
    return {
        "scan": scan,
        "field": field,
        "flags": flag_lines(rows.of("flags", visit_id)),
        "quantities": quantities(scan),
        "columns": columns,
        "map_rows": map_rows(visit, columns, crops),
        "slice_verdicts": {one["slice_index"]: one["qc_verdict"] for one in slices},
        "films": films,
        "role_names": ROLE_NAMES,
        "has_ecv": scan["ecv_fraction"] is not None,
        "curves": curve_panels(visit, echoes, config),
        "bullseyes": eyes,
        "segments": segments,
        "distributions": distributions(visit, config.myocardium_erosion_mm),
        "alignment": alignment_lines(visit, films, slices, config.qc.r_squared_pixel_min),
        "history": history_charts(list(rows.visits), scans, changes, visit_id),
        "changes": change_lines(changes, visit_id),
        "provenance": provenance(row, visit.stacks.values(), trial.config),
        "erosion_mm": config.myocardium_erosion_mm,
        "decisions": {
            "format": "cmrtrials-decisions",
            "version": 1,
            "trial_id": trial.config.trial_id,
            "subject_id": subject_id,
            "visit_id": visit_id,
            "result_digest": row["result_digest"],
        },
    }


def _films(
    visit: VisitArrays,
    echoes: Mapping[tuple[str, int], torch.Tensor],
    crops: Mapping[tuple[str, int], Any],
    rows: list[Row],
) -> list[Film]:
    """Films of all slices, those of one slice beside each other."""
    films = []
    for index in range(visit.n_slices):
        for role in visit.slices:
            one = visit.find(role, index)
            if one is not None:
                key = (role, index)
                own = [dict(row) for row in rows if (row["role"], row["slice_index"]) == key]
                films.append(make_film(one, echoes[key], crops[key], own))
    return films
