"""A reader's decisions from the command to the next nights."""

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.pixels.utils import pack_bits
from rich.console import Console

from flows import terminal
from flows.review import review_files
from storage import open_trial
from storage.arrays import read_stack, store_path
from storage.audit import read_events
from storage.errors import NotStoredError
from tasks.plan import Selection, plan_night
from tests.flows.trials import Cmrtrials, published_row, snapshot, states
from tests.storage.drawn_reviews import decisions, publish_visit, write_decisions
from tests.storage.drawn_uploads import DEMO_CONFIG

NEW = Selection()
LATER = "2026-03-07T08:00:00Z"
PLAN = """subject_id,visit_id,visit_date,window_days,hematocrit_fraction,hematocrit_date,site_id
S01,V1,2026-03-04,7,,,01
S01,V2,2026-09-04,7,,,01
"""
GHOSTS = {"decision": "exclude", "comment": "ghosts over the septum"}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Trial with one published visit, drawn and not computed."""
    root = tmp_path / "trial"
    root.mkdir()
    shutil.copy(DEMO_CONFIG, root / "trial.toml")
    (root / "subjects.csv").write_text(PLAN)
    publish_visit(root)
    return root


def test_each_file_is_judged_by_itself(published: Path, tmp_path: Path) -> None:
    """In the order of the decisions, whatever that of the files; outcomes in the order they were named in."""
    later = write_decisions(tmp_path / "b.json", decisions(reader_id="R2", decided_at=LATER))
    stale = write_decisions(tmp_path / "c.json", decisions(result_digest="cd" * 32))
    broken = write_decisions(tmp_path / "d.json", decisions(version=9))
    first = write_decisions(tmp_path / "a.json", decisions({("post", 1): GHOSTS}))
    files = [later, stale, broken, first]
    trial = open_trial(published)
    before = snapshot(published)
    checked = review_files(trial, files, dry_run=True)
    assert snapshot(published) == before
    outcomes = review_files(trial, files)
    assert [one.verdict for one in outcomes] == ["recorded", "refused", "refused", "recorded"]
    assert [one.verdict for one in checked] == [
        "would be recorded",
        "refused",
        "refused",
        "would be recorded",
    ]
    assert [one.visit for one in outcomes] == ["S01/V1", "S01/V1", "-", "S01/V1"]
    assert outcomes[3].reason == "reader R1: 3 accept, 1 exclude"
    assert "never had the result cdcdcdcdcdcd" in outcomes[1].reason
    assert set(trial.table("reviews")["reader_id"]) == {"R2"}
    before = snapshot(published)
    again = review_files(trial, [later, first])
    assert [one.verdict for one in again] == ["recorded before"] * 2
    assert snapshot(published) == before


def test_a_result_without_arrays_refuses_its_own_file_alone(published: Path, tmp_path: Path) -> None:
    """What is handed in besides has its own outcome."""
    shutil.rmtree(store_path(published, "S01", "V1", decisions()["result_digest"]))
    lost = write_decisions(tmp_path / "a.json", decisions())
    other = write_decisions(tmp_path / "b.json", decisions(trial_id="other", decided_at=LATER))
    outcomes = review_files(open_trial(published), [lost, other])
    assert [one.verdict for one in outcomes] == ["refused", "refused"]
    assert "no arrays of result" in outcomes[0].reason
    assert "is of trial 'other'" in outcomes[1].reason


def test_a_file_that_is_gone_ends_the_command(published: Path) -> None:
    """Nobody knows what it said."""
    with pytest.raises(NotStoredError, match="there is no such file"):
        review_files(open_trial(published), [published / "gone.json"])


def test_a_terminal_shows_what_became_of_files_and_who_reviewed_what(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reviews without an effect need no night; one that holds back numbers waits for it."""
    out = io.StringIO()
    console = Console(file=out, width=300, force_terminal=True, no_color=True)
    monkeypatch.setattr(terminal, "console", console)
    trial = open_trial(published)
    accepted = write_decisions(tmp_path / "a.json", decisions())
    repeat = {("post", 1): {"decision": "repeat", "comment": "arrhythmia"}}
    later = write_decisions(tmp_path / "b.json", decisions(repeat, reader_id="R2", decided_at=LATER))
    terminal.print_reviews(review_files(trial, [later], dry_run=True), dry_run=True)
    for file in (accepted, later):
        terminal.print_reviews(review_files(trial, [file]), dry_run=False)
        terminal.print_visits(trial)
    lines = out.getvalue().splitlines()
    shown = [line for line in lines if "R1, 2026-03-06" in line or "R2, 2026-03-07" in line]
    assert "R1, 2026-03-06: all accepted  " in shown[0]
    assert "R2, 2026-03-07: 1 to scan again; from the next night on" in shown[1]
    assert sum("reader R2: 3 accept, 1 repeat" in line for line in lines) == 2
    assert sum(line.strip() == "nothing was recorded: --dry-run" for line in lines) == 1


@pytest.mark.slow
def test_the_command_says_what_became_of_each_file(
    published: Path, tmp_path: Path, cmrtrials: Cmrtrials
) -> None:
    """Into a pipe as lines; exit code 1 where one is refused; status shows who reviewed what."""
    good = write_decisions(
        tmp_path / "good.json", decisions({("native", 0): GHOSTS, ("post", 0): {"guide": "redraw"}})
    )
    bad = write_decisions(tmp_path / "bad.json", decisions(trial_id="other"))
    assert "reviewed" not in cmrtrials("status", published).stdout
    tried = cmrtrials("review", published, good, "--dry-run")
    assert (tried.returncode, len(pd.read_parquet(published / "tables/visits"))) == (0, 1)
    assert "would be recorded" in tried.stdout
    assert not (published / "tables/reviews/S01").exists()
    done = cmrtrials("review", published, good, bad)
    assert done.returncode == 1
    header, first, second = (line.split("\t") for line in done.stdout.splitlines())
    assert header == ["file", "visit", "verdict", "reason"]
    assert first == [str(good), "S01/V1", "recorded", "reader R1: 3 accept, 1 exclude; 1 guide to redraw"]
    assert second[2:] == ["refused", "is of trial 'other', this one is 'demo'"]
    shown = cmrtrials("status", published).stdout
    assert "R1, 2026-03-06: 1 to exclude, guide to redraw on 1; from the next" in " ".join(shown.split())
    verified = cmrtrials("audit", "verify", published)
    assert (verified.returncode, "as recorded: 1 reviews by readers" in verified.stdout) == (0, True)
    assert cmrtrials("review", published, tmp_path / "none.json").returncode == 2


def read_visit(root: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Read scan and slices of the first subject."""
    slices = pd.read_parquet(root / "tables/slices/S01/V1.parquet").set_index("slice_index")
    return published_row(root, "scans", "S01", "V1"), slices


def reader_codes(root: Path) -> set[tuple[str, str, int]]:
    """Code, role and slice of the flags that follow from a review of the first subject."""
    flags = pd.read_parquet(root / "tables/flags/S01/V1.parquet")
    own = flags[flags["code"].str.startswith("reader_")]
    return set(zip(own["code"], own["role"], own["slice_index"], strict=True))


def decisions_of(
    root: Path, of_slices: dict[tuple[str, int], dict[str, Any]], **values: Any
) -> dict[str, Any]:
    """Decide about the published result of the first subject."""
    echoes = pd.read_parquet(root / "tables/echoes/S01/V1.parquet")
    places = sorted(set(zip(echoes["role"].astype(str), echoes["slice_index"].tolist(), strict=True)))
    accepted = {"guide": "accepted", "decision": "accept", "comment": ""}
    slices = [
        {"role": role, "slice_index": index} | accepted | of_slices.get((role, index), {})
        for role, index in places
    ]
    digest = published_row(root, "visits", "S01", "V1")["result_digest"]
    trial_id = open_trial(root).config.trial_id
    return decisions(trial_id=trial_id, result_digest=digest, slices=slices, **values)


def weighted(slices: pd.DataFrame, value: str, pixels: "pd.Series[float]") -> float:
    """Mean over slices, by the pixels each is the mean of."""
    return float((slices[value] * pixels).sum() / pixels.sum())


def correct_guide(path: Path, position_mm: tuple[float, float, float]) -> None:
    """Move a reader's masks of one slice by a pixel, as a reader does that draws them anew."""
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array.astype(bool)
    n_moved = 0
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if np.allclose(groups.PlanePositionSequence[0].ImagePositionPatient, position_mm, atol=0.01):
            frame[:] = np.roll(frame, 1, axis=1)
            n_moved += 1
    assert n_moved == 3
    dataset.PixelData = pack_bits(frames)
    dataset.save_as(path)


@pytest.mark.slow
def test_decisions_are_honored_by_the_next_night(
    small_night_copy: Path, tmp_path: Path, on_site: Cmrtrials
) -> None:
    """That visit alone runs, without what was excluded; a corrected guide settles what was to be redrawn."""
    root = small_night_copy
    scan, slices = read_visit(root)
    asked = {("native", 1): GHOSTS, ("native", 0): {"guide": "redraw", "comment": "too wide"}}
    file = write_decisions(tmp_path / "decisions.json", decisions_of(root, asked))
    untouched = {name: found for name, found in snapshot(root).items() if "/S02/" in name}
    assert on_site("review", root, file).returncode == 0
    (job,) = plan_night(open_trial(root), NEW).jobs
    assert job.visit.label == "S01/V1"
    night = on_site("run", root)
    assert night.returncode == 0, night.stdout + night.stderr

    visit = published_row(root, "visits", "S01", "V1")
    assert (visit["state"], visit["result_digest"]) == ("flagged", job.digests["quantify"])
    assert "reader_excluded: reader R1 excluded it: ghosts over the septum" in visit["reason"]
    assert pd.isna([visit["seconds_intake"], visit["seconds_segment"]]).all()
    assert not pd.isna(visit["seconds_quantify"])
    assert {name: found for name, found in snapshot(root).items() if "/S02/" in name} == untouched
    assert reader_codes(root) == {("reader_excluded", "native", 1), ("reader_asks_redraw", "native", 0)}
    now, slices_now = read_visit(root)
    kept = slices.drop(index=1)
    t1_pixels = kept["n_pixels_read_native"] - kept["n_pixels_failed_native"]
    assert now["t1_native_ms"] == pytest.approx(weighted(kept, "t1_native_ms", t1_pixels), rel=1e-6)
    ecv = weighted(kept, "ecv_fraction", kept["n_pixels_ecv"])
    assert now["ecv_fraction"] == pytest.approx(ecv, rel=1e-6)
    assert now["t1_native_ms"] != scan["t1_native_ms"]
    assert (now["t1_post_ms"], now["n_slices_used_post"]) == (scan["t1_post_ms"], 3)
    assert now["n_slices_used_native"] == now["n_slices_used_ecv"] == 2
    verdicts = [*(f"used_{name}" for name in ("native", "post", "ecv")), "qc_verdict", "qc_reasons"]
    verdicts += ["result_digest"]
    pd.testing.assert_frame_equal(
        slices_now.drop(columns=verdicts).filter(regex="^(?!.*synthetic)"),
        slices.drop(columns=verdicts).filter(regex="^(?!.*synthetic)"),
    )
    assert plan_night(open_trial(root), NEW).jobs == ()
    assert on_site("review", root, file).stdout.count("recorded before") == 1

    # The site sends a corrected guide of the one slice.
    position = read_stack(open_trial(root).arrays("S01", "V1"), "native").positions_mm[0]
    (guide,) = (root / "incoming").glob("S01_*/guide_native.dcm")
    correct_guide(guide, position)
    (job,) = plan_night(open_trial(root), NEW).jobs
    assert job.visit.label == "S01/V1"
    night = on_site("run", root)
    assert night.returncode == 0, night.stdout + night.stderr
    assert reader_codes(root) == {("reader_excluded", "native", 1)}
    _, redrawn = read_visit(root)
    assert redrawn["t1_native_ms"][0] != slices["t1_native_ms"][0]
    assert redrawn["t1_native_ms"].tolist()[1:] == slices["t1_native_ms"].tolist()[1:]
    assert {name: found for name, found in snapshot(root).items() if "/S02/" in name} == untouched

    # Another reader takes all as it is: the visit runs without decisions, and is done.
    accepted = decisions_of(root, {}, reader_id="R2", decided_at=LATER)
    write_decisions(tmp_path / "accepted.json", accepted)
    assert on_site("review", root, tmp_path / "accepted.json").returncode == 0
    (job,) = plan_night(open_trial(root), NEW).jobs
    assert job.reviewed == ()
    assert states(root) == {"S01/V1": "flagged", "S02/V1": "done"}
    log = Counter(event["event"] for event in read_events(root))
    assert (log["reviewed"], log["published"]) == (2, 4)
    verified = on_site("audit", "verify", root)
    assert verified.returncode == 0, verified.stderr
    assert (
        json.loads((root / "history/S01/V1/3/superseded.json").read_text())["superseded_by"]["reader_id"]
        == "R2"
    )
