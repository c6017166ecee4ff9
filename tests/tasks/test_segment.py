"""Segmentation of a visit: a reader's guide wins, else one is found; what is known of it is stored."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
import zarr
from jaxtyping import Bool, Float
from prefect.logging import disable_run_logger
from torch import Tensor

from cmrcore.segmentation import Guide, carry_guide, choose_guide, reader_guide
from flows.simulate import Recipe, simulate_trial
from storage import Trial, open_trial
from storage.arrays import open_store, read_array, read_notes, read_stack
from storage.config_segment import SegmentConfig
from storage.dicom_series import EchoStack
from storage.series_rules import Role
from tasks.intake import intake
from tasks.plan import Selection, VisitJob, plan_night
from tasks.quantify import quantify
from tasks.segment import finder_of, read_guides, segment, segment_series, segmenter_of
from tasks.stage import GuideSource, VisitRef
from tasks.summarise import read_findings
from tests.cmrcore.hearts import drawn_heart
from tests.tasks.weights import write_weights


@pytest.fixture(autouse=True)
def outside_of_a_run() -> Iterator[None]:
    """Let tasks log nowhere."""
    with disable_run_logger():
        yield


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Simulate a trial of one subject whose reader drew nothing."""
    root = tmp_path_factory.mktemp("segment") / "trial"
    recipe = Recipe(n_subjects=1, n_visits=1, seed=1, guides="none")
    simulate_trial(root, recipe, on_visit=lambda _: None)
    mark_a_corner(next((root / "incoming").iterdir()))
    return open_trial(root)


def mark_a_corner(upload: Path) -> None:
    """Let a reader mark the first pixel of a slice as RV insertion, far from any heart."""
    positions = [pydicom.dcmread(file).ImagePositionPatient for file in sorted(upload.glob("*.dcm"))]
    point = {"position_mm": [float(value) for value in positions[0]]}
    text = {"format": "cmrtrials-landmarks", "version": 1, "rv_insertion_anterior": [point]}
    (upload / "landmarks.json").write_text(json.dumps(text))


@pytest.fixture(scope="module")
def job(trial: Trial) -> VisitJob:
    """Take the visit in."""
    (job,) = plan_night(trial, Selection()).jobs
    with disable_run_logger():
        intake.fn(
            job.visit,
            job.planned,
            job.uploads,
            trial.config.intake,
            trial.config.privacy,
            None,
            job.digests["intake"],
            False,
        )
    return job


@pytest.fixture
def stack(trial: Trial, job: VisitJob) -> EchoStack:
    """Read the native echoes."""
    return read_stack(open_store(trial.folder, "S01", "V1", job.digests["intake"]), "native")


def found_on_echo_2(
    echoes: Float[Tensor, "ti row col"],
    spacing_mm: tuple[float, float],
    first_acquired: int,
    drawn: Bool[Tensor, "label row col"] | None,
) -> Guide | None:
    """Take a reader's guide, else find a heart on the third echo, wherever the heart is."""
    if drawn is not None:
        return reader_guide(drawn, echoes, spacing_mm, first_acquired)
    masks = torch.zeros(3, *echoes.shape[1:], dtype=torch.bool)
    masks[:, : drawn_heart().shape[1], : drawn_heart().shape[2]] = drawn_heart()
    return Guide(masks, 2, "model", 0.7, ("the wall is thin",), ("echo 0: the ring is open",))


def test_a_readers_guide_wins_and_others_are_found(stack: EchoStack) -> None:
    """One slice was drawn by a reader, on its first-acquired echo."""
    uploaded = np.zeros((3, 3, *stack.echoes.shape[2:]), dtype=bool)
    heart = drawn_heart().numpy()
    uploaded[:, 1, 5 : 5 + heart.shape[1], 5 : 5 + heart.shape[2]] = heart
    slices = segment_series(carry_guide, found_on_echo_2, stack, uploaded, 0.25)
    assert [one.guide.origin for one in slices if one is not None] == ["model", "reader", "model"]
    assert [one.guide.echo for one in slices if one is not None] == [
        2,
        int(stack.acquisition_index[1].argmin()),
        2,
    ]
    assert slices[1] is not None
    assert np.array_equal(slices[1].guide.masks.numpy(), uploaded[:, 1])


def test_a_slice_without_any_guide_stays_without_masks(stack: EchoStack) -> None:
    """No network is named and no reader drew: nothing is made up."""
    assert segment_series(carry_guide, partial(choose_guide, None), stack, None, 0.25) == [None, None, None]


def test_guides_are_stored_with_what_is_known_of_them(
    trial: Trial, job: VisitJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zarr keeps reference echo, origin, score and findings; quantify makes rows and flags of them."""
    monkeypatch.setattr("tasks.segment.finder_of", lambda *_: found_on_echo_2)
    config = SegmentConfig(method="carry", alpha=0.25, base="", guided="", guide_from="visit")
    segment.fn(job.visit, job.digests["intake"], config, "masks", False)
    store = open_store(trial.folder, "S01", "V1", "masks")
    (note, _, _) = read_notes(store, "native/guide")["guides"]
    assert note == {
        "origin": "model",
        "score": 0.7,
        "findings": ["the wall is thin"],
        "rejected": ["echo 0: the ring is open"],
        "overlap": None,
        "reader_replaced": False,
        "source": None,
        "not_carried": None,
    }
    for name in ("reference_echo", "confidence", "agreement", "masks"):
        assert f"native/{name}" in store
    assert np.unique(np.asarray(read_array(store, "post/reference_echo"))).tolist() == [2]
    quantify.fn(job.visit, job.recorded, "masks", trial.config.quantify, trial.config.align, "result", False)
    rows = open_store(trial.folder, "S01", "V1", "result").attrs["rows"]
    assert isinstance(rows, dict)
    echoes, flags = rows["echoes"], rows["flags"]
    assert {(row["guide_origin"], row["reference_echo_index"]) for row in echoes} == {("model", 2)}
    assert {"guide_doubtful", "guide_fell_back"} <= {flag["code"] for flag in flags}
    points = np.asarray(read_array(store, "native/insertions_px"))
    assert points[~np.isnan(points)] == pytest.approx(np.zeros(2), abs=1e-3)
    assert read_notes(store, "native/insertions_px")["origin"] == "reader"
    off_heart = [flag for flag in flags if flag["code"] == "landmark_off_heart" and flag["role"] == "native"]
    assert [flag["slice_index"] for flag in off_heart] == np.flatnonzero(~np.isnan(points[:, 0])).tolist()
    heart = read_findings(VisitRef(str(trial.folder), "S01", "V1", "01"), "result").heart
    assert heart is not None
    assert heart.insertions_px is not None
    assert bool(heart.insertions_px.isnan().all())


def test_a_lent_guide_is_stored_with_where_it_came_from(
    trial: Trial, job: VisitJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Visit, digest, slice, origin and score of what was carried; of what was not, the reason."""
    heart = drawn_heart()

    def drawn(group: zarr.Group, role: Role) -> EchoStack:
        stack = read_stack(group, role)
        echoes = np.zeros_like(stack.echoes)
        echoes[..., : heart.shape[1], : heart.shape[2]] = (heart[1] * 200.0 + heart[0] * 100.0).numpy()
        return replace(stack, echoes=echoes)

    def sound(*given: Any) -> Guide | None:
        guide = found_on_echo_2(*given)
        return None if guide is None else replace(guide, findings=())

    monkeypatch.setattr("tasks.segment.read_stack", drawn)
    config = SegmentConfig(method="carry", alpha=0.25, base="", guided="", guide_from="baseline")
    for digest, finder in (("sound", sound), ("doubtful", found_on_echo_2)):
        monkeypatch.setattr("tasks.segment.finder_of", lambda *_, finder=finder: finder)
        segment.fn(job.visit, job.digests["intake"], config, digest, False)
        segment.fn(job.visit, job.digests["intake"], config, f"by {digest}", False, GuideSource("V1", digest))
    for role in ("native", "post"):
        notes = read_notes(open_store(trial.folder, "S01", "V1", "by sound"), f"{role}/guide")["guides"]
        assert [note["origin"] for note in notes] == ["baseline"] * 3
        expected = {"visit_id": "V1", "segment_digest": "sound", "origin": "model", "score": 0.7}
        assert [note["source"] for note in notes] == [{**expected, "slice_index": i} for i in range(3)]
        notes = read_notes(open_store(trial.folder, "S01", "V1", "by doubtful"), f"{role}/guide")["guides"]
        assert {(note["origin"], note["source"]) for note in notes} == {("model", None)}
        assert notes[1]["not_carried"] == "its slice 1 has no guide that passed its checks"


def test_a_series_without_guides_lends_none(trial: Trial, job: VisitJob) -> None:
    """The intake's store holds echoes alone."""
    assert read_guides(open_store(trial.folder, "S01", "V1", job.digests["intake"]), "native") is None


def test_networks_that_find_nothing_leave_slices_without_masks(trial: Trial, job: VisitJob) -> None:
    """And the stage says where it computed."""
    folder = trial.folder / "weights"
    config = SegmentConfig(
        method="guided",
        alpha=0.25,
        base=write_weights(folder, guided=False),
        guided=write_weights(folder, guided=True),
        guide_from="visit",
    )
    result = segment.fn(job.visit, job.digests["intake"], config, "nothing", False)
    assert result.device == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert "native/masks" not in open_store(trial.folder, "S01", "V1", "nothing")


def test_masks_follow_a_heart_that_moved(trial: Trial, stack: EchoStack) -> None:
    """The packaged networks on an echo beside itself, 7 rows lower and 5 columns to the left.

    A guide that stays where it was drawn holds the mask back.
    """
    config, cpu = trial.config.segment, torch.device("cpu")
    way_px = (7, -5)
    echo = torch.from_numpy(stack.echoes[0, -1])
    pair = replace(
        stack,
        echoes=torch.stack([echo, echo.roll(way_px, (0, 1))])[None].numpy(),
        acquisition_index=stack.acquisition_index[:1, :2].argsort(1),
    )
    finder, missed_px = finder_of(trial.folder, config, cpu), []
    for method in (config, config.model_copy(update={"base": ""})):
        with threads(1):
            (one,) = segment_series(segmenter_of(trial.folder, method, cpu), finder, pair, None, config.alpha)
        assert one is not None
        center = [mask.nonzero().double().mean(0) for mask in one.found.masks[:2].any(0)]
        missed_px.append((center[1] - center[0] - torch.tensor(way_px)).norm().item())
    followed, held = missed_px
    assert followed < 0.7
    assert held > 2


def test_a_stage_stores_the_same_bytes_on_another_number_of_threads(
    trial: Trial, job: VisitJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packaged networks on two echoes; a rerun that computed other bytes would be refused."""

    def two_echoes(group: zarr.Group, role: Role) -> EchoStack:
        stack = read_stack(group, role)
        return replace(
            stack, echoes=stack.echoes[:1, -2:], acquisition_index=stack.acquisition_index[:1, -2:]
        )

    monkeypatch.setattr("tasks.segment.stored_roles", lambda _: ("post",))
    monkeypatch.setattr("tasks.segment.read_stack", two_echoes)
    monkeypatch.setattr("tasks.segment.compute_device", lambda: torch.device("cpu"))
    results = []
    for n_threads in (1, 2):
        with threads(n_threads):
            results.append(
                segment.fn(job.visit, job.digests["intake"], trial.config.segment, "threads", n_threads > 1)
            )
            assert torch.get_num_threads() == n_threads
    first, second = (replace(one, seconds=None, peak_memory_mib=None) for one in results)
    assert first == second
    masks = np.asarray(read_array(open_store(trial.folder, "S01", "V1", "threads"), "post/masks"))
    assert masks.any(axis=(3, 4)).all()


@contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Give torch a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
