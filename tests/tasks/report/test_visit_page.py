"""The page of a visit: what it says of whole, partial and missing visits."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import Trial, open_trial
from storage.errors import NotStoredError
from storage.reviews import record_review
from storage.staging import read_parquet, table_file
from tasks.published import published_visits
from tasks.report.visit_failed import FAILED_FILE, failed_pages, record_pages
from tasks.report.visit_images import film_strip, heart_crop
from tasks.report.visit_page import made_from, outdated_pages, page_path, write_visit_page
from tests.storage.drawn_rows import row
from tests.tasks.report.drawn_trial import write_row
from tests.tasks.report.drawn_visits import DrawnVisit, drawn_trial

SIZE_MAX = 5_000_000


@pytest.fixture(scope="module")
def pages(whole_trial: Trial, partial_trial: Trial) -> dict[str, str]:
    """Pages of all drawn visits by visit."""
    return {
        visit_id: write_visit_page(trial, "S01", visit_id).read_text()
        for trial in (whole_trial, partial_trial)
        for _, visit_id in published_visits(trial.root)
    }


def section(page: str, name: str) -> str:
    """Cut a section out of a page, by the id of its heading."""
    return page.split(f'<h2 id="{name}">')[1].split("<h2")[0]


def test_no_page_loads_anything(pages: dict[str, str]) -> None:
    """A page with a subject's images tells nobody that it was read: pictures and scripts are its own."""
    for page in pages.values():
        addresses = re.findall(r'(?:src|href|xlink:href|action)="([^"]*)"|url\(([^)]*)\)', page)
        for address in (one or other for one, other in addresses):
            own = ("data:image/", "#", "../index.html", "../results.html", "")
            assert address.startswith(own[:4]) or re.fullmatch(r"[A-Za-z0-9-]+\.html", address), address
        assert "http://" not in page
        assert "https://" not in page


def test_pages_are_small(pages: dict[str, str]) -> None:
    """Also where each picture is as large as any, and noise, which compresses worst."""
    assert max(map(len, pages.values())) < SIZE_MAX
    noise = np.random.default_rng(0).rayleigh(1.0, (11, 128, 128))
    crop = heart_crop((256, 256), (0.4, 0.4), None)
    assert (crop.height, crop.width) == (128, 128)
    assert 3 * 2 * 2 * len(film_strip(noise)) < 0.8 * SIZE_MAX


def test_the_verdict_comes_first_in_the_words_of_the_checks(pages: dict[str, str]) -> None:
    """What is wrong stands above all pictures, with where it was found."""
    page = pages["no-hct"]
    assert page.index('class="mark review"') < page.index("<img")
    assert "no hematocrit, so no ECV" in page
    assert "hematocrit_missing" in page[: page.index("<img")]


def test_what_is_measured_is_what_was_drawn(pages: dict[str, str]) -> None:
    """T1 of the bull's-eye and of the curves is the T1 that the signals were made with."""
    segments = section(pages["V1"], "segments")
    rows = re.findall(r"<td>(\d+)</td><td>([a-z ]+)</td><td class=\"number\">([\d.-]+)</td>", segments)
    assert [(int(number), name) for number, name, _ in rows][:2] == [
        (1, "basal anterior"),
        (2, "basal anteroseptal"),
    ]
    known = [float(value) for _, _, value in rows if value != "-"]
    assert len(known) == 12  # a basal and a mid slice
    assert known == pytest.approx([1000.0] * 12, rel=0.02)
    curves = re.findall(r"</svg>(\w+) (\d+) ms</li>", section(pages["V1"], "curves"))
    blood = [float(value) for name, value in curves if name == "blood"]
    assert blood == pytest.approx([1600.0, 330.0, 1600.0, 330.0], rel=0.02)
    assert len(curves) == 4 * 7


def test_alignment_shows_how_far_the_heart_moved_and_what_remained(pages: dict[str, str]) -> None:
    """One echo was drawn 6 mm off."""
    section_ = section(pages["V1"], "alignment")
    before, after = re.search(r"mean R² ([\d.]+) → ([\d.]+)", section_).groups()  # type: ignore[union-attr]
    assert float(after) > float(before)
    assert "aligned (6.0 mm)" in pages["V1"]


def test_history_shows_every_visit_and_the_band_of_repeatability(pages: dict[str, str]) -> None:
    """The second visit is held against the first; both pages show both."""
    for visit_id in ("V1", "V2"):
        values = re.search(
            r'aria-label="History of native T1 \[ms\]: V1 ([\d.]+), V2 ([\d.]+), V3 -, V4 -"', pages[visit_id]
        )
        assert values is not None
        assert [float(one) for one in values.groups()] == pytest.approx([1000.0] * 2, rel=0.02)
        assert 'fill-opacity=".14"' in section(pages[visit_id], "history")
    assert "repeatability 37" in section(pages["V2"], "history")
    assert "first with a result" in section(pages["V1"], "history")


def test_ecv_change_and_history_are_hidden_until_the_decision(pages: dict[str, str]) -> None:
    """Whatever shows an ECV or a change stands in what the page hides."""
    page = pages["V2"]
    assert '<tr class="after-decision"><th scope="row">ECV' in page
    assert re.search(r'<figure class="after-decision"><div class="frame"[^>]*><img[^>]*alt="ECV', page)
    assert re.search(r'<figure class="after-decision"><figcaption><strong>ECV', page)
    assert re.search(r'<figure class="after-decision"><svg[^>]*aria-label="Distribution of ECV', page)
    history = section(page, "history")
    assert history.index('<div class="after-decision">') < history.index("<svg")


def test_a_summary_that_failed_is_told_with_its_reason(whole_trial: Trial, tmp_path: Path) -> None:
    """No flag of a table says so: the summary would hold it."""
    root = tmp_path / "trial"
    shutil.copytree(whole_trial.folder, root)
    (published,) = read_parquet(table_file(root, "visits", "S01", "V1")).to_pylist()
    reason = "fit_poor: of one slice; summary_failed: the worker died <again>"
    write_row(root, "visits", published | {"state": "flagged", "reason": reason})
    page = write_visit_page(open_trial(root), "S01", "V1").read_text()
    assert "<p>summary_failed: the worker died &lt;again&gt;</p>" in page[: page.index("<img")]
    write_row(root, "visits", published | {"state": "flagged", "reason": "fit_poor: of one slice"})
    assert "summary_failed" not in write_visit_page(open_trial(root), "S01", "V1").read_text()


def test_a_scan_without_ecv_has_no_slices_of_it(pages: dict[str, str]) -> None:
    """What would have served is no part of a mean that there is not."""
    ecv = re.search(
        r'ECV ± uncertainty</th><td class="number">-</td><td class="soft">([^<]*)<', pages["no-hct"]
    )
    assert ecv is not None
    assert ecv[1] == ""


def test_the_form_asks_for_every_slice_of_every_role_once(pages: dict[str, str]) -> None:
    """And knows the result that the decisions are about."""
    asked = re.findall(r'<fieldset data-role="(\w+)" data-slice="(\d)">', pages["V1"])
    assert sorted(asked) == [("native", "0"), ("native", "1"), ("post", "0"), ("post", "1")]
    head = json.loads(re.search(r"const decisionsHead = (.*);", pages["V1"])[1])  # type: ignore[index]
    assert head == {
        "format": "cmrtrials-decisions",
        "version": 1,
        "trial_id": "demo",
        "subject_id": "S01",
        "visit_id": "V1",
        "result_digest": "V1-quantify",
    }


@pytest.mark.parametrize(
    ("visit_id", "there", "absent"),
    [
        (
            "bare",
            ["No curves: no slice has a mask", "No AHA segments", "no guide", "no ECV"],
            ['<fieldset data-role="post"'],
        ),
        (
            "native",
            ["no T1 post-contrast", "no ECV", "basal slice 0, native"],
            ['data-role="post"', "Distribution of ECV"],
        ),
        ("no-hct", ["no ECV", "post-contrast T1"], ["Distribution of ECV", "ECV is hidden"]),
        ("half", ["no T1 post-contrast", "no guide"], ['id="film-post-1"']),
        ("unknown-field", ["field strength unknown", "T1 of 3 T"], []),
    ],
)
def test_a_page_says_what_is_missing(
    pages: dict[str, str], visit_id: str, there: list[str], absent: list[str]
) -> None:
    """A visit without masks, post-contrast series, hematocrit, a slice or a field strength."""
    for text in there:
        assert text in pages[visit_id]
    for text in absent:
        assert text not in pages[visit_id]


def test_a_visit_without_a_result_says_why(pages: dict[str, str]) -> None:
    """State and reason, nothing to decide, and whatever a reason holds is text."""
    assert "Nothing was uploaded yet" in pages["V3"]
    assert "native: &lt;7&gt; inversion times" in pages["V4"]
    assert "waits for a change or a rerun" in pages["V4"]
    for visit_id in ("V3", "V4"):
        assert "<form" not in pages[visit_id]
        assert '<a href="V1.html">' in pages[visit_id]


def test_a_page_of_a_visit_that_is_not_published_is_refused(whole_trial: Trial) -> None:
    """Rather than made of nothing."""
    with pytest.raises(NotStoredError, match="run a night first"):
        write_visit_page(whole_trial, "S01", "V9")


def test_pages_are_made_again_when_what_they_show_changed(
    whole_trial: Trial, pages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page shows the subject's history: whatever is published of one visit outdates the pages of all."""
    published: Any = published_visits(whole_trial.root)
    assert len(pages) >= len(published) == 4
    assert outdated_pages(whole_trial.root, published) == []
    page_path(whole_trial.root, "S01", "V3").unlink()
    assert outdated_pages(whole_trial.root, published) == [("S01", "V3")]
    later = published["S01", "V4"]["published_at"].replace(year=2030)
    changed = published | {("S01", "V4"): published["S01", "V4"] | {"published_at": later}}
    assert len(outdated_pages(whole_trial.root, changed)) == 4
    write_visit_page(whole_trial, "S01", "V3")
    monkeypatch.setattr("tasks.report.visit_page.PAGE_VERSION", 0)
    assert len(outdated_pages(whole_trial.root, published)) == 4


def test_a_review_is_told_and_outdates_the_page(tmp_path: Path, pages: dict[str, str]) -> None:
    """Also one that changes no number, after which no result is published."""
    assert "Reviewed by" not in pages["V1"]
    trial = drawn_trial(tmp_path / "trial", DrawnVisit(roles=("native",)))
    published: Any = published_visits(trial.root)
    write_visit_page(trial, "S01", "V1")
    assert outdated_pages(trial.root, published) == []
    seen = {"result_digest": "V1-quantify", "reader_id": "R1"}
    rows = [row("reviews", **seen, slice_index=index, decision="exclude") for index in (0, 1)]
    record_review(trial.root, rows)
    assert outdated_pages(trial.root, published) == [("S01", "V1")]
    page = write_visit_page(trial, "S01", "V1").read_text()
    assert re.search(r"Reviewed by R1 on 2026-03-05 UTC[^<]*: 2 excluded[^<]*; the numbers follow it", page)
    assert outdated_pages(trial.root, published) == []


def test_a_page_that_failed_says_so_and_is_tried_again(whole_trial: Trial) -> None:
    """It replaces one that would show what no longer holds, and is taken off the record when it is made."""
    key = ("S01", "V2")
    published: Any = published_visits(whole_trial.root)
    record_pages(whole_trial, [], {key: "a <defect>"})
    page = page_path(whole_trial.root, *key)
    assert "a &lt;defect&gt;" in page.read_text()
    assert made_from(page) is None
    assert outdated_pages(whole_trial.root, published) == [key]
    (entry,) = failed_pages(whole_trial.root)
    assert (entry["subject_id"], entry["visit_id"], entry["reason"]) == (*key, "a <defect>")
    record_pages(whole_trial, [("S01", "V1")], {})
    assert len(failed_pages(whole_trial.root)) == 1
    write_visit_page(whole_trial, *key)
    record_pages(whole_trial, [key], {})
    assert not (whole_trial.root / "reports" / FAILED_FILE).exists()


def test_a_page_is_written_whole_or_not_at_all(
    whole_trial: Trial, pages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect while drawing leaves the page of before, and nothing half done beside it."""

    def defect(*_: object) -> None:
        message = "a defect"
        raise ValueError(message)

    monkeypatch.setattr("tasks.report.visit_page.map_rows", defect)
    with pytest.raises(ValueError, match="a defect"):
        write_visit_page(whole_trial, "S01", "V1")
    folder = whole_trial.root / "reports" / "S01"
    assert (folder / "V1.html").read_text() == pages["V1"]
    assert sorted(file.name for file in folder.iterdir()) == ["V1.html", "V2.html", "V3.html", "V4.html"]


def test_another_configuration_is_told(whole_trial: Trial) -> None:
    """Provenance shows trial.toml as it is now; a page says where it was another when it was published."""
    page = write_visit_page(whole_trial, "S01", "V1")
    assert "trial.toml has changed" not in page.read_text()
    other = whole_trial.config.model_copy(update={"trial_id": "other"})
    page = write_visit_page(Trial(whole_trial.root, other), "S01", "V1")
    assert "trial.toml has changed" in page.read_text()
    write_visit_page(whole_trial, "S01", "V1")
